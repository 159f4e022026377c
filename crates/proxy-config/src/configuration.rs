//! Builds the configuration from all layers, or reports everything that is wrong with it.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use pgentra_connect::{
    ConnectError, Connector, SessionAttrs, connection_keywords, is_connection_keyword, quote,
    split_connection_string,
};
use pgentra_identity::{ConfigError, Credential, IdentityOptions, Resource};
use pgentra_proxy::{ClientAuth, DemotedSessions};
use pgentra_settings::{
    EffectiveSettings, Form, InheritedSockets, LogFormat, ProblemKind, Problems, SettingLayer, SettingOrigin,
    SettingsError, UNNAMED, Written, WrittenTable, chain, nearest, nearest_name, read,
};
use pgentra_system::System;

use crate::client_auth::{ClientAuthFault, WatchedFiles};
use crate::key::{Key, Set};
use crate::keys::{KEYS, store};
use crate::listener_kind::ListenerKind;
use crate::places::{check_kinds, check_places, others, share_out};
use crate::settings::{ProcessSettings, TargetSettings};
use crate::sources::{Commands, Sources};
use crate::word;

/// The variable with the file's path, if no flag has one.
const CONFIG: &str = "PGENTRA_CONFIG";

/// The configuration of a proxy: valid, with all files read that it names.
#[derive(Debug)]
pub struct Configuration {
    /// The settings of the whole process.
    pub process: ProcessSettings,
    /// The settings of the process as they were written.
    pub(crate) said: EffectiveSettings,
    /// The targets, at least one.
    pub targets: Vec<TargetConfig>,
}

/// A target with its connector.
#[derive(Debug)]
#[non_exhaustive]
pub struct TargetConfig {
    /// Its servers, role and database.
    pub name: String,
    /// Its label in metrics, audit lines and the status page.
    pub label: String,
    /// Opens its sessions.
    pub connector: Connector,
    /// The target's settings; `listen` has all of its listeners.
    pub settings: TargetSettings,
    /// The settings of the target as they were written.
    pub(crate) said: EffectiveSettings,
    /// Where its own listeners of each kind are written; `None`: it shares those of the process.
    pub(crate) listen_origins: [Option<SettingOrigin>; 3],
    pub(crate) client_auth: ClientAuth,
    /// The files of the client authentication.
    pub(crate) watched: WatchedFiles,
}

/// State that successive configurations share: sockets of the service manager, and credentials with their tokens.
#[derive(Debug, Default)]
pub struct ReloadState {
    pub(crate) inherited: InheritedSockets,
    credentials: Credentials,
}

/// A credential for each identity, so that targets of one identity share its tokens.
#[derive(Debug, Default)]
struct Credentials(HashMap<IdentityOptions, Credential>);

/// The layers of the whole process, the weakest first.
struct ProcessLayers {
    layers: [SettingLayer<Set>; 3],
    /// The targets of the file.
    targets: Vec<WrittenTable<Set>>,
    lost_target: bool,
}

impl ProcessLayers {
    fn read(system: &System, sources: &Sources, problems: &mut Problems) -> Self {
        let config = sources.file.clone().or_else(|| system.env().get(CONFIG).map(PathBuf::from));
        let Written { layer, tables: targets, lost_table: lost_target } =
            config.map(|path| read(system.files(), &path, problems)).unwrap_or_default();
        let layers = [
            layer,
            SettingLayer::of_variables(system.env(), problems),
            SettingLayer::of_flags(&sources.flags),
        ];
        Self { layers, targets, lost_target }
    }
}

/// A target from the file, a flag or a variable.
struct Named {
    /// Its name in a problem.
    label: String,
    conninfo: Option<String>,
    /// The settings in its table.
    table: SettingLayer<Set>,
    /// Whether it is a word that names no server, which was reported.
    is_no_server: bool,
}

impl Configuration {
    /// The format of the log, for a program that sets up its log before anything else. Problems are reported by
    /// [`Self::gather`].
    pub fn log_format(system: &System, sources: &Sources) -> LogFormat {
        let mut problems = Problems::default();
        let (mut process, mut target) = (ProcessSettings::default(), TargetSettings::default());
        for layer in ProcessLayers::read(system, sources, &mut problems).layers {
            layer.apply(|set, given| store(set, Some(&mut process), &mut target, given), &mut problems);
        }
        process.telemetry.log_format
    }

    /// Merges the layers, the weakest first: defaults, the file, `PGENTRA_*` variables, flags; then
    /// a target's own settings, in its `[[target]]` table and in its parameters. Reads files; contacts no server and no
    /// token source, and opens no listener.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the configuration, and files that cannot be read.
    pub fn gather(
        system: &System,
        sources: &Sources,
        state: &mut ReloadState,
    ) -> Result<Self, SettingsError> {
        let mut problems = Problems::default();
        let ProcessLayers { layers, targets, lost_target } =
            ProcessLayers::read(system, sources, &mut problems);
        let (mut process, mut defaults) = (ProcessSettings::default(), TargetSettings::default());
        let mut effective = EffectiveSettings::default();
        for layer in layers {
            layer.apply(|set, given| store(set, Some(&mut process), &mut defaults, given), &mut problems);
            effective.take(&layer);
        }
        let given = sources.targets.iter().enumerate().map(|(at, conninfo)| Named {
            label: format!("target {}", at + 1),
            conninfo: Some(conninfo.clone()),
            table: SettingLayer::default(),
            is_no_server: false,
        });
        let written = targets.into_iter().map(|target| Named {
            label: target.place,
            conninfo: Some(target.server),
            table: target.layer,
            is_no_server: false,
        });
        let mut named: Vec<_> = given.chain(written).collect();
        let of_arguments = sources.targets.len();
        for (at, named) in named.iter_mut().enumerate() {
            named.name_server((at < of_arguments).then_some(sources), &mut problems);
        }
        if named.is_empty() && !lost_target {
            // Flags and variables name it, as in every other command.
            named.push(Named {
                label: UNNAMED.to_owned(),
                conninfo: None,
                table: SettingLayer::default(),
                is_no_server: false,
            });
        }
        let (mut settings, mut said, mut listen_origins) = (Vec::new(), Vec::new(), Vec::new());
        for named in &mut named {
            let mut target = TargetSettings { listen: Vec::new(), ..defaults.clone() };
            let mut of_target = effective.of::<Set>(true);
            let mut origins = [None, None, None];
            for layer in [std::mem::take(&mut named.table), named.take_parameters(&mut problems)] {
                layer.apply(|set, given| store(set, None, &mut target, given), &mut problems);
                of_target.take(&layer);
                for (origin, kind) in origins.iter_mut().zip(ListenerKind::ALL) {
                    let listen = layer.iter().find(|said| said.key.name == kind.key());
                    *origin = listen.map(|said| said.origin.clone()).or_else(|| origin.take());
                }
            }
            listen_origins.push(origins);
            settings.push(target);
            // Changes of listeners are reported when they open and close.
            said.push(ListenerKind::ALL.into_iter().fold(of_target, |said, kind| said.without(kind.key())));
        }
        for (named, target) in named.iter().zip(&mut settings) {
            for listen in [&mut target.listen, &mut target.listen_read, &mut target.listen_direct] {
                *listen = state.inherited.find(listen, &named.label, &mut problems);
            }
        }
        let listen = state.inherited.find(&defaults.listen, "listen", &mut problems);
        let listen = if listen.is_empty() { others(&state.inherited, &settings) } else { listen };
        share_out(&listen, &mut settings, &mut problems);
        let labels: Vec<_> = named.iter().map(|named| named.label.as_str()).collect();
        check_places((&process, &state.inherited), &labels, &settings, &mut problems);
        check_kinds(&settings, &mut problems);
        check_names(&named, &settings, &mut problems);

        let mut targets = Vec::new();
        for (((named, mut settings), said), listen_origins) in
            named.into_iter().zip(settings).zip(said).zip(listen_origins)
        {
            let admits_unauthenticated = process.danger_listen_beyond_loopback;
            let watched = WatchedFiles::new(system, &settings.client_auth, admits_unauthenticated);
            let client_auth = named.expect(watched.open(), &mut problems);
            if named.is_no_server {
                continue;
            }
            let connector = connector(system, sources, &named, &mut settings, &mut state.credentials);
            match (connector, client_auth) {
                (Ok(connector), Some(client_auth)) => {
                    named.check_servers(&settings, connector.target(), &mut problems);
                    let name = name(connector.target());
                    let label = settings.name.clone().unwrap_or_else(|| label(connector.target()));
                    targets.push(TargetConfig {
                        name,
                        label,
                        connector,
                        settings,
                        said,
                        listen_origins,
                        client_auth,
                        watched,
                    });
                }
                (Ok(_), None) => {}
                (Err(error), _) => error.add_to(&mut problems, &named.label),
            }
        }
        let configuration = problems.none_or(Self { process, said: effective.of::<Set>(false), targets })?;
        let settings = configuration.targets.iter().map(|target| &target.settings.identity);
        state.credentials.keep(settings);
        Ok(configuration)
    }
}

/// Why a target has no connector.
enum TargetError {
    Connection(ConnectError),
    Identity(ConfigError),
}

impl TargetError {
    fn add_to(&self, problems: &mut Problems, label: &str) {
        let (kind, message, hint) = match self {
            Self::Connection(error) => (ProblemKind::Connection, chain(error), error.hint()),
            Self::Identity(error) => (ProblemKind::Identity, chain(error), error.hint().map(str::to_owned)),
        };
        problems.push(label, (kind, message), hint);
    }
}

impl From<ConnectError> for TargetError {
    fn from(error: ConnectError) -> Self {
        Self::Connection(error)
    }
}

impl From<ConfigError> for TargetError {
    fn from(error: ConfigError) -> Self {
        Self::Identity(error)
    }
}

impl TargetConfig {
    /// Whether clients of `other` are served in the same way, perhaps other ones on other listeners.
    pub(crate) fn is_served_as(&self, other: &Self) -> bool {
        self.connector.target() == other.connector.target()
            && self.settings.placed_as(&other.settings) == other.settings
    }
}

impl Named {
    /// The value made of this target's settings; errors are added to `problems`.
    fn expect<T>(&self, made: Result<T, Vec<ClientAuthFault>>, problems: &mut Problems) -> Option<T> {
        let fault = |ClientAuthFault { key, message, hint }: ClientAuthFault| {
            let origin = SettingOrigin::Target { target: self.label.clone(), key: key.to_owned() };
            problems.add_with_hint(origin, message, hint);
        };
        made.map_err(|faults| faults.into_iter().for_each(fault)).ok()
    }

    /// Reports settings for several servers that do nothing for this target.
    fn check_servers(
        &self,
        settings: &TargetSettings,
        target: &pgentra_connect::Target,
        problems: &mut Problems,
    ) {
        if !settings.listen_read.is_empty() && target.endpoints().len() == 1 {
            let origin = SettingOrigin::Target { target: self.label.clone(), key: "listen_read".to_owned() };
            let hint = "name the standbys too: host=primary.example,standby.example";
            problems.add_with_hint(&origin, "needs several hosts: the target names one", hint);
        }
        if settings.demoted_sessions == DemotedSessions::Close {
            let is_any = target.session_attrs() == SessionAttrs::Any && settings.listen_read.is_empty();
            let (message, hint) = match () {
                () if settings.server_role_interval.is_zero() => (
                    "needs server_role_interval",
                    "the servers are not asked what they are: leave server_role_interval out",
                ),
                () if is_any => (
                    "does nothing for a target that takes every server",
                    "say which it wants: target_session_attrs=read-write in its connection string",
                ),
                () => return,
            };
            let origin =
                SettingOrigin::Target { target: self.label.clone(), key: "demoted_sessions".to_owned() };
            problems.add_with_hint(&origin, message, hint);
        }
    }

    /// Replaces a word by the server that it names. A word that names none is reported; `sources`
    /// are those that contain it, unless the file does.
    fn name_server(&mut self, sources: Option<&Sources>, problems: &mut Problems) {
        let Some(text) = &self.conninfo else { return };
        if let Some(string) = word::connection_string(text) {
            self.conninfo = Some(string);
            return;
        }
        self.is_no_server = true;
        let shown = quote::name(&text.chars().take(60).collect::<String>());
        let forms = "a server is HOST.DOMAIN, HOST:PORT, -h HOST or postgresql://HOST/DATABASE";
        let of_program = sources.and_then(|sources| Some((sources, sources.commands?)));
        let Some((sources, Commands { program, names })) = of_program else {
            let hint = "write a connection URI, a conninfo string such as host=… dbname=…, or the server's full name";
            return problems.add_with_hint(&self.label, format!("{shown} is no server"), hint);
        };
        let message = format!(
            "{shown} is neither a command of {} ({}) nor a server; {forms}",
            quote::name(program),
            names.join(", ")
        );
        let is_switch = |(key, _): &(&Key, Vec<String>)| key.form == Form::Switch;
        let hint = match nearest_name(text, names.iter().copied()) {
            Some(command) => format!("did you mean: {program} {command}"),
            None if sources.flags.iter().any(is_switch) => {
                "a switch takes its value behind =, such as --reuse=false; a database is -d NAME".to_owned()
            }
            None => "name the server in full; a database is -d NAME".to_owned(),
        };
        problems.add_with_hint(&self.label, message, &hint);
    }

    /// Removes the proxy's own parameters from the connection string. A string that cannot be read
    /// is reported when the connector is built.
    fn take_parameters(&mut self, problems: &mut Problems) -> SettingLayer<Set> {
        let Some(conninfo) = &mut self.conninfo else { return SettingLayer::default() };
        let is_ours = |name: &str| Key::find(name).is_some();
        let Ok((rest, ours)) = split_connection_string(conninfo, is_ours) else {
            return SettingLayer::default();
        };
        let Ok((rest, unknown)) = split_connection_string(&rest, |name| !is_connection_keyword(name)) else {
            return SettingLayer::default();
        };
        *conninfo = rest;
        let at = |key: &str| SettingOrigin::Target { target: self.label.clone(), key: key.to_owned() };
        for (name, _) in unknown {
            let known = KEYS.iter().map(|key| key.name).chain(connection_keywords());
            // A text without a parameter's form may be part of a password.
            let is_word =
                name.len() <= 40 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            let shown = if is_word { name.as_str() } else { "a parameter" };
            problems.add(at(shown), format!("is no key{}", nearest(&name, known)));
        }
        let (ours, others): (Vec<_>, Vec<_>) =
            ours.into_iter().partition(|(name, _)| Key::find(name).is_some_and(Key::is_of_table));
        for (name, _) in others {
            problems.add(at(&name), "holds for the whole process: give it as a flag");
        }
        SettingLayer::of_parameters(&self.label, ours)
    }
}

impl ReloadState {
    /// With the sockets that systemd hands over.
    pub fn new(inherited: InheritedSockets) -> Self {
        Self { inherited, ..Self::default() }
    }
}

impl Credentials {
    /// Drops all other credentials: no target uses their tokens.
    fn keep<'a>(&mut self, identities: impl Iterator<Item = &'a IdentityOptions>) {
        let needed: HashSet<_> = identities.map(who).collect();
        self.0.retain(|identity, _| needed.contains(identity));
    }

    /// The credential of this identity, and the resource of its tokens.
    fn of(
        &mut self,
        system: &System,
        identity: &IdentityOptions,
    ) -> Result<(Credential, Resource), ConfigError> {
        let resource = identity.resource();
        let who = who(identity);
        if let Some(credential) = self.0.get(&who) {
            return Ok((credential.clone(), resource));
        }
        let credential = who.credential(system)?;
        tracing::info!(decision = %credential.decision(), "token source");
        self.0.insert(who, credential.clone());
        Ok((credential, resource))
    }
}

/// The part of an identity that determines the credential, which keeps tokens for several
/// resources.
fn who(identity: &IdentityOptions) -> IdentityOptions {
    IdentityOptions { resource: None, ..identity.clone() }
}

fn connector(
    system: &System,
    sources: &Sources,
    named: &Named,
    settings: &mut TargetSettings,
    credentials: &mut Credentials,
) -> Result<Connector, TargetError> {
    let conninfo = named.conninfo.as_deref();
    let layers =
        pgentra_connect::Layers::gather(conninfo, &sources.connection, system.env(), system.files())?;
    let target = pgentra_connect::Target::resolve_server(&layers)?;
    if settings.identity.token_command.is_some() {
        settings.identity.command_server = target.command_server();
    }
    let (credential, resource) = credentials.of(system, &settings.identity)?;
    Ok(Connector::new(target, credential, resource)?)
}

/// Reports targets with equal names, which could not be told apart.
fn check_names(named: &[Named], targets: &[TargetSettings], problems: &mut Problems) {
    let mut taken = HashSet::new();
    for (named, target) in named.iter().zip(targets) {
        if let Some(name) = target.name.as_ref().filter(|name| !taken.insert(*name)) {
            let origin = SettingOrigin::Target { target: named.label.clone(), key: "name".to_owned() };
            let hint = "give each target a name of its own, in its table or as a parameter of its URI";
            problems.add_with_hint(&origin, format!("cannot be {name}: another target has it"), hint);
        }
    }
}

/// Host and database in the shortest form, without PostgreSQL's default port.
fn label(target: &pgentra_connect::Target) -> String {
    const PORT: u16 = 5432;
    let server = |endpoint: &pgentra_connect::HostSpec| match endpoint.port {
        PORT => endpoint.host.clone(),
        _ => endpoint.to_string(),
    };
    let servers: Vec<_> = target.endpoints().iter().map(server).collect();
    let database = target.named_database().map(|database| format!("/{database}")).unwrap_or_default();
    servers.join(",") + &database
}

fn name(target: &pgentra_connect::Target) -> String {
    let servers: Vec<_> = target.endpoints().iter().map(ToString::to_string).collect();
    let mut name = servers.join(", ");
    for (what, named) in [("role", target.named_user()), ("database", target.named_database())] {
        if let Some(named) = named {
            name.push_str(&format!(", {what} {named}", named = quote::name(named)));
        }
    }
    name
}

#[cfg(test)]
#[path = "tests/configuration.rs"]
mod tests;

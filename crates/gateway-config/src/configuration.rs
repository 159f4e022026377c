//! Builds the configuration from all layers, or reports everything that is wrong with it.

use std::collections::HashSet;
use std::path::PathBuf;

use pgentra_gateway::{Config, Route};
use pgentra_session::Limits;
use pgentra_settings::{
    EffectiveSettings, FileWatch, InheritedSockets, ListenAddr, LogFormat, Problems, SettingLayer,
    SettingsError, UNNAMED, Written, WrittenTable, read,
};
use pgentra_system::System;
use rustls::sign::CertifiedKey;

use crate::certificate::{CertificateFault, ListenerCertificate};
use crate::directory::DirectorySource;
use crate::keys::{GatewayKey, GatewaySet, store};
use crate::server::{self, Building};
use crate::settings::{GatewayProcessSettings, ServerSettings};

/// The variable with the file's path, if no flag has one.
const CONFIG: &str = "PGENTRA_GATEWAY_CONFIG";

/// What a program was given to configure the gateway with, besides the environment and the files of
/// a [`System`]. The default is nothing: then variables configure it alone.
#[derive(Clone, Debug, Default)]
pub struct GatewaySources {
    /// The TOML file. Default: the one that `PGENTRA_GATEWAY_CONFIG` names, if any.
    pub file: Option<PathBuf>,
    /// Settings that are stronger than variables and the file, each with its values as text.
    pub flags: Vec<(&'static GatewayKey, Vec<String>)>,
}

/// The configuration of a gateway: valid, with all files read that it names.
#[derive(Debug)]
pub struct GatewayConfiguration {
    /// The settings of the whole process.
    pub process: GatewayProcessSettings,
    /// The settings of the process as they were written.
    pub(crate) said: EffectiveSettings,
    /// The servers, at least one, in the order in which their routes are compared.
    pub servers: Vec<ConfiguredServer>,
    pub(crate) certificate: Option<ReadCertificate>,
}

/// The certificate for clients, and what was read.
#[derive(Debug)]
pub(crate) struct ReadCertificate {
    pub(crate) certified: CertifiedKey,
    pub(crate) watch: FileWatch,
    pub(crate) files: (PathBuf, PathBuf),
}

/// A server with its files read.
#[derive(Debug)]
#[non_exhaustive]
pub struct ConfiguredServer {
    /// Its name in metrics and audit lines.
    pub name: String,
    /// Its settings.
    pub settings: ServerSettings,
    /// Its settings as they were written.
    pub(crate) said: EffectiveSettings,
    /// What makes its gateway.
    pub config: Config,
    pub(crate) files: FileWatch,
    pub(crate) mapping: FileWatch,
}

/// What successive configurations share: the sockets of the service manager, and the identity that
/// asks the directory.
#[derive(Debug, Default)]
pub struct GatewayReloadState {
    pub(crate) inherited: InheritedSockets,
    pub(crate) directories: Option<DirectorySource>,
}

impl GatewayReloadState {
    /// With the sockets that systemd hands over.
    pub fn new(inherited: InheritedSockets) -> Self {
        Self { inherited, directories: None }
    }

    /// For configurations that ask Microsoft Graph about principals.
    #[must_use]
    pub fn with_directories(self, directories: DirectorySource) -> Self {
        Self { directories: Some(directories), ..self }
    }
}

type GatewayLayers = ([SettingLayer<GatewaySet>; 3], Vec<WrittenTable<GatewaySet>>, bool);

fn layers(system: &System, sources: &GatewaySources, problems: &mut Problems) -> GatewayLayers {
    let config = sources.file.clone().or_else(|| system.env().get(CONFIG).map(PathBuf::from));
    let Written { layer, tables, lost_table } =
        config.map(|path| read(system.files(), &path, problems)).unwrap_or_default();
    let layers =
        [layer, SettingLayer::of_variables(system.env(), problems), SettingLayer::of_flags(&sources.flags)];
    (layers, tables, lost_table)
}

impl GatewayConfiguration {
    /// The format of the log, for a program that sets up its log before anything else. Problems are
    /// reported by [`Self::gather`].
    pub fn log_format(system: &System, sources: &GatewaySources) -> LogFormat {
        let mut problems = Problems::default();
        let (mut process, mut server) = (GatewayProcessSettings::default(), ServerSettings::default());
        for layer in layers(system, sources, &mut problems).0 {
            layer.apply(|set, given| store(set, Some(&mut process), &mut server, given), &mut problems);
        }
        process.telemetry.log_format
    }

    /// Merges the layers, the weakest first: defaults, the file, `PGENTRA_GATEWAY_*` variables,
    /// flags; then a server's own settings, in its `[[server]]` table. Reads files; contacts no
    /// server and no issuer, and opens no listener.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the configuration, and files that cannot be read.
    pub fn gather(
        system: &System,
        sources: &GatewaySources,
        state: &GatewayReloadState,
    ) -> Result<Self, SettingsError> {
        let mut problems = Problems::default();
        let (layers, tables, lost_table) = layers(system, sources, &mut problems);
        let (mut process, mut defaults) = (GatewayProcessSettings::default(), ServerSettings::default());
        let mut effective = EffectiveSettings::default();
        for layer in layers {
            layer.apply(|set, given| store(set, Some(&mut process), &mut defaults, given), &mut problems);
            effective.take(&layer);
        }
        process.listen = listeners(&process, state, &mut problems);
        check_listeners(&process, &state.inherited, &mut problems);
        let certificate = certificate(system, &process, &mut problems);
        let limits = process.limits();
        let mut servers = Vec::new();
        let of_servers = effective.of::<GatewaySet>(true);
        if tables.is_empty() && !lost_table {
            servers.extend(configured(
                (system, state),
                UNNAMED,
                (defaults.clone(), of_servers.clone()),
                &limits,
                &mut problems,
            ));
        }
        if let (Some(table), true) = (tables.first(), defaults.upstream.is_some()) {
            let hint = "leave it out: each [[server]] names its own";
            problems.add_with_hint("upstream", format!("is given beside {}", table.place), hint);
        }
        for WrittenTable { server: upstream, place, layer } in tables {
            let mut settings = ServerSettings { upstream: Some(upstream), ..defaults.clone() };
            let mut said = of_servers.clone();
            layer.apply(|set, given| store(set, None, &mut settings, given), &mut problems);
            said.take(&layer);
            servers.extend(configured((system, state), &place, (settings, said), &limits, &mut problems));
        }
        let mut names = HashSet::new();
        for server in &servers {
            if !names.insert(server.name.clone()) {
                let hint = "give each server a name of its own";
                problems.add_with_hint(
                    "name",
                    format!("cannot be {}: another server has it", server.name),
                    hint,
                );
            }
        }
        problems.none_or(Self { process, said: effective.of::<GatewaySet>(false), servers, certificate })
    }
}

impl GatewayProcessSettings {
    /// The limits of each listener.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            start_up: self.start_up_timeout,
            first_packet: self.first_packet_timeout,
            drain: self.drain_timeout,
            ..Limits::default()
        }
    }
}

impl ConfiguredServer {
    /// The clients that are led here.
    pub(crate) fn route(&self) -> Route {
        Route {
            databases: self.settings.databases.clone(),
            host_names: self.settings.host_names.clone(),
            ..Route::default()
        }
    }
}

fn configured(
    (system, state): (&System, &GatewayReloadState),
    label: &str,
    (settings, said): (ServerSettings, EffectiveSettings),
    limits: &Limits,
    problems: &mut Problems,
) -> Option<ConfiguredServer> {
    // What is seen is never newer than what is read.
    let files = FileWatch::new(system.files(), server::files(&settings));
    let mapping = FileWatch::new(system.files(), settings.mapping.clone());
    let config = Building { system, label, problems, directories: state.directories.as_ref() }
        .config(&settings, limits)?;
    Some(ConfiguredServer { name: config.name.clone(), settings, said, config, files, mapping })
}

/// The listeners, with all sockets of a name in the place of the name.
fn listeners(
    process: &GatewayProcessSettings,
    state: &GatewayReloadState,
    problems: &mut Problems,
) -> Vec<ListenAddr> {
    let found = state.inherited.find(&process.listen, "listen", problems);
    if !found.is_empty() || !process.listen.is_empty() {
        return found;
    }
    let inherited: Vec<_> = state.inherited.places().collect();
    if inherited.is_empty() { vec![ListenAddr::default()] } else { inherited }
}

fn check_listeners(process: &GatewayProcessSettings, inherited: &InheritedSockets, problems: &mut Problems) {
    let mut taken = HashSet::new();
    for place in &process.listen {
        let is_local = place.is_local() && inherited.is_local(place);
        if matches!(place, ListenAddr::Unix { .. }) {
            let hint = "PostgreSQL's own Unix socket is there for this machine: write IP:PORT";
            problems.add_with_hint("listen", format!("cannot be {place}: the gateway listens on TCP"), hint);
        } else if !is_local && process.tls_cert.is_none() {
            let hint = "give listen_tls_cert and listen_tls_key, or listen on 127.0.0.1";
            problems.add_with_hint(
                "listen",
                format!("cannot be {place} without TLS: tokens would cross the network in clear text"),
                hint,
            );
        }
        if !place.is_any() && !taken.insert(place) {
            problems.add("listen", format!("cannot be {place}: it is given twice"));
        }
    }
}

fn certificate(
    system: &System,
    process: &GatewayProcessSettings,
    problems: &mut Problems,
) -> Option<ReadCertificate> {
    let (cert, key) = match (&process.tls_cert, &process.tls_key) {
        (Some(cert), Some(key)) => (cert.clone(), key.clone()),
        (Some(_), None) => {
            problems.add_with_hint(
                "listen_tls_key",
                "is missing: listen_tls_cert needs it",
                "give the file with its private key",
            );
            return None;
        }
        (None, Some(_)) => {
            let hint = "give the file with its certificate chain";
            problems.add_with_hint("listen_tls_cert", "is missing: listen_tls_key needs it", hint);
            return None;
        }
        (None, None) => {
            if !process.danger_accept_plaintext {
                let hint =
                    "give the certificate that clients verify the gateway by, and its key as listen_tls_key";
                problems.add_with_hint(
                    "listen_tls_cert",
                    "is missing: clients send tokens inside TLS alone",
                    hint,
                );
            }
            return None;
        }
    };
    let watch = FileWatch::new(system.files(), [cert.clone(), key.clone()]);
    match ListenerCertificate::read(system.files(), (&cert, &key)) {
        Ok(certified) => Some(ReadCertificate { certified, watch, files: (cert, key) }),
        Err(CertificateFault { key, message, hint }) => {
            problems.add_with_hint(key, message, hint);
            None
        }
    }
}

#[cfg(test)]
#[path = "tests/configuration.rs"]
mod tests;

//! The running listeners and servers, and their changes from one configuration to the next.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use pgentra_gateway::{
    ClientTls, Config, Front, Gateway, GatewayShutdown, GatewayTelemetry, RoleSource, Servers, SharedRules,
};
use pgentra_session::bind_tcp;
use pgentra_settings::{
    EffectiveSettings, FileWatch, InheritedSocket, InheritedSockets, LOOK, ListenAddr, ProblemKind,
    SettingsError, chain,
};
use pgentra_system::{Files, System};
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::certificate::{self, ListenerCertificate};
use crate::configuration::{ConfiguredServer, GatewayConfiguration, GatewayReloadState, ReadCertificate};
use crate::keys::GatewaySet;
use crate::server::read_rules;
use crate::settings::GatewayProcessSettings;

/// How often the keys and the mapping of a server are looked at while both can be had. Keys that are
/// a day old are fetched again then, so that no client waits for it.
const FRESH: Duration = Duration::from_secs(60);
/// The same while something is missing.
const AGAIN: Duration = Duration::from_secs(5);

/// The listeners of a gateway and its servers. Dropping it ends neither: see [`LiveGateway::stop`].
#[derive(Debug)]
pub struct LiveGateway {
    system: System,
    telemetry: GatewayTelemetry,
    stop: CancellationToken,
    skip_drain: CancellationToken,
    serving: TaskTracker,
    process: GatewayProcessSettings,
    said: EffectiveSettings,
    front: Option<Arc<Front>>,
    servers: Vec<LiveServer>,
    listeners: Vec<ServedListener>,
}

/// A server that is served.
struct LiveServer {
    name: String,
    said: EffectiveSettings,
    configured: ConfiguredServer,
    gateway: Arc<Gateway>,
}

struct ServedListener {
    place: ListenAddr,
    /// The number among several free ports.
    number: usize,
    address: String,
    closing: CancellationToken,
}

/// A listen address with its number among several free ports, and the listener with its address, if
/// it is new.
type BoundPlace = (ListenAddr, usize, Option<(TcpListener, String)>);

impl LiveGateway {
    /// Serves nothing before [`LiveGateway::apply`]. `stop` begins the shutdown.
    pub fn new(system: &System, telemetry: GatewayTelemetry, stop: CancellationToken) -> Self {
        Self {
            system: system.clone(),
            telemetry,
            stop,
            skip_drain: CancellationToken::new(),
            serving: TaskTracker::new(),
            process: GatewayProcessSettings::default(),
            said: EffectiveSettings::default(),
            front: None,
            servers: Vec::new(),
            listeners: Vec::new(),
        }
    }

    /// Applies `configuration`, and returns the changes, a line each. Listeners that stay are not
    /// closed, and all sessions go on.
    ///
    /// # Errors
    ///
    /// A listener that cannot be opened. Nothing is changed then.
    pub async fn apply(
        &mut self,
        configuration: GatewayConfiguration,
        state: &GatewayReloadState,
    ) -> Result<Vec<String>, SettingsError> {
        let GatewayConfiguration { process, said, servers, certificate } = configuration;
        let is_first = self.front.is_none();
        let (tls, resolver) = tls(&process, certificate.as_ref())?;
        let bound = self.bind(&process.listen, &state.inherited)?;
        let mut lines = if is_first { Vec::new() } else { self.said.changes::<GatewaySet>(&said) };
        let same_process = self.process == process;
        let servers: Vec<_> = servers.into_iter().map(|server| self.server(server, same_process)).collect();
        if !is_first {
            lines.extend(changes(&self.servers, &servers));
        }
        if let (Some(resolver), Some(ReadCertificate { watch, files, .. })) = (resolver, certificate) {
            let at = (self.system.files().clone(), watch);
            tokio::spawn(certificate::keep(Arc::downgrade(&resolver), at, files));
        }
        self.telemetry
            .serve(servers.iter().map(|server| (server.name.clone(), Arc::downgrade(&server.gateway))));
        let routed =
            servers.iter().map(|live| (live.configured.route(), Arc::clone(&live.gateway))).collect();
        let routed = Servers::new(tls, routed);
        let front = match &self.front {
            Some(front) => {
                front.replace(routed);
                Arc::clone(front)
            }
            None => Arc::new(Front::new(routed, process.limits(), self.telemetry.clone())),
        };
        lines.extend(self.open(bound, &front));
        (self.process, self.said, self.servers, self.front) = (process, said, servers, Some(front));
        Ok(lines)
    }

    /// The token that stops the gateway.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Ends the drain time during a shutdown. Returns whether it was still running.
    pub fn skip_drain(&self) -> bool {
        let had_time = !self.skip_drain.is_cancelled();
        self.skip_drain.cancel();
        had_time
    }

    /// Waits for the last session during a shutdown.
    pub async fn ended(&self) {
        self.serving.close();
        self.serving.wait().await;
    }

    /// The number of clients that have a session.
    pub fn sessions(&self) -> usize {
        self.telemetry.sessions()
    }

    /// The status line, with the reason if clients cannot be served.
    pub fn status(&self) -> String {
        let (servers, listeners) = (self.servers.len(), self.listeners.len());
        let status =
            format!("{servers} server(s) on {listeners} listener(s), {} session(s)", self.sessions());
        match self.telemetry.ready() {
            Ok(_) => status,
            Err(reason) => format!("{status}; {}", reason.replace('\n', "; ")),
        }
    }

    /// The addresses that clients can connect to.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        self.listeners.iter().map(|open| open.address.as_str())
    }

    /// The server with its state, if nothing of it has changed but its mapping; otherwise a new one.
    fn server(&self, configured: ConfiguredServer, same_process: bool) -> LiveServer {
        let before = self.servers.iter().find(|live| live.name == configured.name).filter(|live| {
            same_process
                && live.configured.settings == configured.settings
                && live.configured.files.is_same(&configured.files)
        });
        let (name, said) = (configured.name.clone(), configured.said.clone());
        if let Some(live) = before {
            let gateway = Arc::clone(&live.gateway);
            let Config { roles, .. } = &configured.config;
            if let (Some(current), RoleSource::Rules(next)) = (gateway.rules(), roles) {
                current.replace((*next.current()).clone());
            }
            let config = live.configured.config.clone();
            return LiveServer { name, said, configured: ConfiguredServer { config, ..configured }, gateway };
        }
        let config = Config { telemetry: self.telemetry.clone(), ..configured.config.clone() };
        let gateway = Arc::new(Gateway::new(config));
        tokio::spawn(look(name.clone(), Arc::downgrade(&gateway), self.telemetry.clone()));
        if let (Some(rules), Some(path)) = (gateway.rules(), configured.settings.mapping.clone()) {
            let at = (self.system.files().clone(), configured.mapping.clone(), path);
            let served = (Arc::downgrade(&gateway), rules.clone());
            tokio::spawn(keep_mapping(name.clone(), served, at, self.telemetry.clone()));
        }
        LiveServer { name, said, configured, gateway }
    }

    /// Opens the listeners that are new.
    fn bind(
        &self,
        places: &[ListenAddr],
        inherited: &InheritedSockets,
    ) -> Result<Vec<BoundPlace>, SettingsError> {
        let mut free = 0;
        let mut bound = Vec::new();
        for place in places {
            let number = if place.is_any() { free } else { 0 };
            free += usize::from(place.is_any());
            let is_open = self.listeners.iter().any(|open| (&open.place, open.number) == (place, number));
            let opened = if is_open { None } else { Some(open(place, inherited)?) };
            bound.push((place.clone(), number, opened));
        }
        Ok(bound)
    }

    /// Serves the new listeners and closes those that are gone.
    fn open(&mut self, bound: Vec<BoundPlace>, front: &Arc<Front>) -> Vec<String> {
        let mut lines = Vec::new();
        let mut before = std::mem::take(&mut self.listeners);
        for (place, number, opened) in bound {
            let Some((listener, address)) = opened else {
                if let Some(at) =
                    before.iter().position(|open| (&open.place, open.number) == (&place, number))
                {
                    self.listeners.push(before.swap_remove(at));
                }
                continue;
            };
            lines.push(format!("listening on {address}"));
            let closing = CancellationToken::new();
            let shutdown = GatewayShutdown {
                listening: closing.clone(),
                serving: self.stop.clone(),
                waiting: self.skip_drain.clone(),
            };
            self.serving.spawn(Arc::clone(front).serve(listener, shutdown));
            self.listeners.push(ServedListener { place, number, address, closing });
        }
        for gone in before {
            lines.push(format!("no longer listening on {}", gone.address));
            gone.closing.cancel();
        }
        lines
    }
}

/// TLS for clients, and what shows the certificate.
fn tls(
    process: &GatewayProcessSettings,
    certificate: Option<&ReadCertificate>,
) -> Result<(ClientTls, Option<Arc<ListenerCertificate>>), SettingsError> {
    let resolver = certificate.map(|read| ListenerCertificate::new(read.certified.clone()));
    let config = resolver.as_ref().map(ListenerCertificate::server_config).transpose().map_err(|error| {
        let message = format!("TLS cannot be set up: {error}");
        SettingsError::one(ProblemKind::Machine, message, "take a build of pgentra for this machine")
    })?;
    let tls = match config.map(Arc::new) {
        Some(config) if !process.danger_accept_plaintext => ClientTls::Required(config),
        config => ClientTls::DangerOptional(config),
    };
    Ok((tls, resolver))
}

fn open(place: &ListenAddr, inherited: &InheritedSockets) -> Result<(TcpListener, String), SettingsError> {
    let opened: io::Result<_> = match place {
        ListenAddr::Tcp(address) => bind_tcp(*address).and_then(|listener| {
            let address = listener.local_addr()?.to_string();
            Ok((listener, address))
        }),
        ListenAddr::Systemd { name, number } => match inherited.open(name, *number) {
            Ok((InheritedSocket::Tcp(listener), address)) => Ok((listener, address)),
            Ok((InheritedSocket::Unix(_), _)) => Err(io::Error::other("it is a Unix socket")),
            Err(error) => Err(error),
        },
        ListenAddr::Unix { .. } => Err(io::Error::other("the gateway listens on TCP")),
    };
    opened.map_err(|error| {
        let message = format!("cannot listen on {place}: {error}");
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "another program listens there, perhaps PostgreSQL itself: give another port with --listen"
            }
            io::ErrorKind::PermissionDenied => {
                "ports below 1024 are for privileged programs: give a higher one with --listen"
            }
            _ => "give another address with --listen; port 0 takes any free one",
        };
        SettingsError::one(ProblemKind::Machine, message, hint)
    })
}

/// Fetches the keys ahead and reads the mapping now and then, so that probes know what clients will
/// meet.
async fn look(name: String, gateway: Weak<Gateway>, telemetry: GatewayTelemetry) {
    loop {
        let Some(gateway) = gateway.upgrade() else { return };
        let keys = gateway.keys().await.err().map(|error| {
            let error = chain(&error);
            tracing::warn!(server = name, error, "the signing keys cannot be fetched");
            format!("the signing keys cannot be fetched: {error}")
        });
        let checked = gateway.check().await.map_err(|error| {
            let error = chain(&error);
            tracing::warn!(server = name, error, "the server cannot be used");
            error
        });
        drop(gateway);
        let pause = if keys.is_none() && checked.is_ok() { FRESH } else { AGAIN };
        telemetry.keys(&name, keys);
        telemetry.checked(&name, checked);
        sleep(pause).await;
    }
}

/// Applies changes of a mapping file for as long as its server is served. A file with faults changes
/// nothing.
async fn keep_mapping(
    name: String,
    (gateway, rules): (Weak<Gateway>, SharedRules),
    (files, mut watch, path): (Files, FileWatch, PathBuf),
    telemetry: GatewayTelemetry,
) {
    let mut times = interval(LOOK);
    times.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        times.tick().await;
        if gateway.strong_count() == 0 {
            return;
        }
        if !watch.has_changed() {
            continue;
        }
        let text = files.read(&path, FileWatch::LENGTH).map_err(|error| vec![error.to_string()]);
        match text.and_then(|text| read_rules(&text, &path)) {
            Ok(next) => {
                rules.replace(next);
                tracing::info!(file = %path.display(), "the mapping was read again");
            }
            Err(faults) => {
                for fault in &faults {
                    tracing::error!(server = name, "{fault}; the mapping before stays");
                }
                telemetry.mapping_refused(&name);
            }
        }
    }
}

/// A line for each server that is added, removed or changed.
fn changes(before: &[LiveServer], next: &[LiveServer]) -> Vec<String> {
    let mut before: BTreeMap<_, _> = before.iter().map(|live| (live.name.as_str(), live)).collect();
    let mut lines = Vec::new();
    for live in next {
        match before.remove(live.name.as_str()) {
            None => lines.push(format!("server added: {}", live.name)),
            Some(old) => {
                let mut changed = old.said.changes::<GatewaySet>(&live.said);
                if !old.configured.files.is_same(&live.configured.files) {
                    changed.push("files changed".to_owned());
                }
                if !old.configured.mapping.is_same(&live.configured.mapping) {
                    changed.push("mapping read again".to_owned());
                }
                if !changed.is_empty() {
                    lines.push(format!("server changed: {}: {}", live.name, changed.join(", ")));
                }
            }
        }
    }
    lines.extend(before.keys().map(|name| format!("server removed: {name}")));
    lines
}

impl std::fmt::Debug for LiveServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveServer").field("name", &self.name).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ServedListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServedListener").field("address", &self.address).finish_non_exhaustive()
    }
}

//! The running listeners and auth proxies, and their changes from one configuration to the next.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use pgentra_connect::quote;
use pgentra_proxy::telemetry::{TargetTelemetry, Telemetry};
use pgentra_proxy::{
    AuthProxy, ClientAuth, Listener, Naming, Options, ProxyHandle, SharedState, ShutdownTokens,
};
#[cfg(unix)]
use pgentra_session::UnixSocket;
use pgentra_session::{Limits, bind_tcp};
use pgentra_settings::{
    EffectiveSettings, InheritedSocket, InheritedSockets, ListenAddr, ProblemKind, SettingOrigin,
    SettingsError, chain,
};
use pgentra_system::open_files;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::configuration::{Configuration, ReloadState, TargetConfig};
use crate::diff;
use crate::key::Set;
use crate::settings::ProcessSettings;

/// Failing targets in the status line; the status page shows all of them.
const FAILURES_SHOWN: usize = 3;
/// How often a token is asked for while there is none. A token source retries within each request.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// The listeners of a proxy and their auth proxies. Dropping it ends neither: see [`RunningProxy::stop`].
#[derive(Debug, Default)]
pub struct RunningProxy {
    process: ProcessSettings,
    said: EffectiveSettings,
    targets: Vec<ServedTarget>,
    listeners: Vec<Open>,
    /// Removed targets that still have sessions.
    gone: Vec<SharedState>,
    serving: TaskTracker,
    stop: CancellationToken,
    skip_drain: CancellationToken,
    telemetry: Option<Telemetry>,
}

/// A target that is served.
#[derive(Debug)]
struct ServedTarget {
    configured: TargetConfig,
    proxy: Arc<AuthProxy>,
    shared: SharedState,
}

#[derive(Debug)]
struct Open {
    /// The target, with its index among those of the same name.
    target: (String, usize),
    place: ListenAddr,
    /// The number among several free ports.
    number: usize,
    address: String,
    /// Whether other users may use it, if it is a Unix socket.
    is_shared: bool,
    current: ProxyHandle,
    closing: CancellationToken,
}

/// An open listener.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct RunningListener<'a> {
    /// The listen address, as configured.
    pub place: &'a ListenAddr,
    /// The address in use: IP address and port, or the path of a Unix socket.
    pub address: &'a str,
    /// The target whose clients connect here.
    pub target: &'a TargetConfig,
}

/// An open listener that does not serve yet.
struct BoundListener {
    listener: Listener,
    open: Open,
}

impl RunningProxy {
    /// Applies `configuration`, and returns the changes, a line each. Listeners that stay are not
    /// closed, and all sessions go on.
    ///
    /// # Errors
    ///
    /// A listener that cannot be opened. Nothing is changed then.
    pub async fn apply(
        &mut self,
        configuration: Configuration,
        state: &ReloadState,
    ) -> Result<Vec<String>, SettingsError> {
        let Configuration { process, said, targets } = configuration;
        let number_of_targets = targets.len();
        let mut next: Vec<ServedTarget> = Vec::new();
        let mut kept = Vec::new();
        let mut bound = Vec::new();
        for configured in targets {
            let key = (configured.name.clone(), of_name(&next, &configured.name).count());
            let before = of_name(&self.targets, &key.0).nth(key.1);
            let labelled = next.iter().filter(|live| live.configured.label == configured.label).count();
            let telemetry = self.telemetry_of(&configured.label, labelled);
            let before = before.map(|live| (live, &self.process));
            let live = ServedTarget::of(configured, (&process, telemetry), before);
            let is_shared = !live.configured.client_auth.uids.is_empty();
            let mut free = 0;
            for place in &live.configured.settings.listen {
                let number = if place.is_any() { free } else { 0 };
                free += usize::from(place.is_any());
                // A free port that no setting fixes belongs to its target.
                let is_it = |open: &&Open| {
                    open.place == *place && open.number == number && (!place.is_any() || open.target == key)
                };
                match self.listeners.iter().find(is_it) {
                    Some(open) if matches!(place, ListenAddr::Unix { .. }) && open.is_shared != is_shared => {
                        let message = format!("listen_uids begins or ceases to open {place} to other users");
                        let hint = "restart the proxy, or listen in another folder";
                        return Err(SettingsError::one(ProblemKind::Setting, message, hint));
                    }
                    Some(open) => kept.push((open.again(&key), Arc::clone(&live.proxy))),
                    None => {
                        let client_auth = &live.configured.client_auth;
                        let change = ListenChange::of(live.configured.listen_origin.as_ref());
                        let opened = bind(place, &state.inherited, client_auth).await;
                        let (listener, address) = opened.map_err(|error| {
                            let message = format!("cannot listen on {place}: {error}");
                            let hint = not_bound(place, &error, is_shared, (number_of_targets, change));
                            SettingsError::one(ProblemKind::Machine, message, hint)
                        })?;
                        let current = ProxyHandle::new(Arc::clone(&live.proxy));
                        let closing = CancellationToken::new();
                        let open = Open {
                            target: key.clone(),
                            place: place.clone(),
                            number,
                            address,
                            is_shared,
                            current,
                            closing,
                        };
                        bound.push(BoundListener { listener, open });
                    }
                }
            }
            next.push(live);
        }
        let is_first = self.targets.is_empty();
        let mut lines = if is_first { Vec::new() } else { self.said.changes::<Set>(&said) };
        if !is_first {
            let (before, next) = (&self.targets, &next);
            lines.extend(diff::of_targets(
                before.iter().map(|it| &it.configured),
                next.iter().map(|it| &it.configured),
            ));
        }
        (self.process, self.said) = (process, said);
        lines.extend(self.change_to(next, kept, bound));
        Ok(lines)
    }

    /// Sets the telemetry for targets that are set up from now on.
    pub fn set_telemetry(&mut self, telemetry: Telemetry) {
        self.telemetry = Some(telemetry);
    }

    /// The token that stops the proxy.
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
        let live = self.targets.iter().map(|live| &live.shared);
        live.chain(&self.gone).map(SharedState::sessions).sum()
    }

    /// The status line, with the reason if clients cannot be served.
    pub fn status(&self) -> String {
        let (targets, listeners) = (self.targets.len(), self.listeners.len());
        let mut status =
            format!("{targets} target(s) on {listeners} listener(s), {} session(s)", self.sessions());
        let Some(telemetry) = &self.telemetry else { return status };
        let summary = telemetry.summary();
        let (serving, idle, failing) = (summary.serving(), summary.idle(), summary.failing());
        status.push_str(&format!("; {serving} serving, {idle} idle, {failing} failing"));
        for (name, cause) in summary.failures().take(FAILURES_SHOWN) {
            status.push_str(&format!("; {name}: {cause}"));
        }
        // A reason that applies to all targets, such as a missing first token.
        match telemetry.readiness() {
            Err(lacks) if failing == 0 => status + "; " + &lacks,
            _ => status,
        }
    }

    /// The targets that are served, in the order of the configuration.
    pub fn targets(&self) -> impl Iterator<Item = &TargetConfig> {
        self.targets.iter().map(|live| &live.configured)
    }

    /// The open listeners.
    pub fn listeners(&self) -> impl Iterator<Item = RunningListener<'_>> {
        self.listeners.iter().filter_map(|open| {
            let (name, number) = &open.target;
            let live = of_name(&self.targets, name).nth(*number)?;
            Some(RunningListener { place: &open.place, address: &open.address, target: &live.configured })
        })
    }

    /// Targets with one label are told apart by their numbers.
    fn telemetry_of(&self, label: &str, number: usize) -> Arc<TargetTelemetry> {
        let Some(telemetry) = &self.telemetry else { return Arc::default() };
        match number {
            0 => telemetry.target(label),
            further => telemetry.target(&format!("{label} ({})", further + 1)),
        }
    }

    /// Switches to the new state. It cannot fail and does not wait, so clients never see a
    /// half-applied configuration.
    fn change_to(
        &mut self,
        next: Vec<ServedTarget>,
        kept: Vec<(Open, Arc<AuthProxy>)>,
        bound: Vec<BoundListener>,
    ) -> Vec<String> {
        let mut lines = Vec::new();
        for open in &self.listeners {
            if !kept.iter().any(|(again, _)| again.is(open)) {
                lines.push(format!("no longer listening on {}", open.address));
                open.closing.cancel();
            }
        }
        let is_first = self.targets.is_empty();
        for live in &next {
            // At the start, the program says what is missing.
            tokio::spawn(live.ask_for_token(!is_first, self.stop.clone()));
        }
        self.gone.extend(self.targets.drain(..).map(|live| live.shared));
        self.targets = next;
        for live in &self.targets {
            // The files of an unchanged target may have changed.
            live.proxy.set_client_auth(live.configured.client_auth.clone());
        }
        let mut listeners = Vec::new();
        for (open, proxy) in kept {
            open.current.replace(proxy);
            listeners.push(open);
        }
        for BoundListener { listener, open } in bound {
            lines.push(format!("listening on {} -> {}", open.address, open.target.0));
            let stop = ShutdownTokens {
                listening: open.closing.clone(),
                serving: self.stop.clone(),
                waiting: self.skip_drain.clone(),
            };
            // A separate task for each, so that they run on different threads.
            self.serving.spawn(open.current.clone().serve(listener, stop));
            listeners.push(open);
        }
        self.listeners = listeners;
        let is_live = |shared: &SharedState| self.targets.iter().any(|live| live.shared.is(shared));
        self.gone.retain(|shared| shared.sessions() > 0 && !is_live(shared));
        lines
    }
}

impl ServedTarget {
    /// The previous target with all its state, if its configuration is unchanged.
    fn of(
        configured: TargetConfig,
        (process, telemetry): (&ProcessSettings, Arc<TargetTelemetry>),
        before: Option<(&ServedTarget, &ProcessSettings)>,
    ) -> Self {
        let shared = before.map(|(live, _)| live.shared.clone()).unwrap_or_default();
        let same =
            before.filter(|(live, before)| *before == process && live.configured.is_served_as(&configured));
        let proxy = match same {
            Some((live, _)) => Arc::clone(&live.proxy),
            None => {
                let proxy = Arc::new(proxy(process, &configured, shared.clone(), telemetry));
                tokio::spawn(configured.watched.clone().keep(Arc::downgrade(&proxy)));
                proxy
            }
        };
        Self { configured, proxy, shared }
    }

    /// Asks for a token now, so that the first client does not wait, and again until there is one: a
    /// proxy that a probe calls not ready gets no client that would ask. One request serves all
    /// targets of an identity.
    fn ask_for_token(&self, is_logged: bool, stop: CancellationToken) -> impl Future<Output = ()> + 'static {
        let connector = self.configured.connector.clone();
        let proxy = Arc::downgrade(&self.proxy);
        async move {
            let mut times = interval(ASK_AGAIN);
            times.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut is_logged = is_logged;
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    _ = times.tick() => {}
                }
                let Err(error) = connector.token_ready().await else { return };
                if std::mem::take(&mut is_logged) {
                    tracing::warn!(error = chain(&error), "there is no token yet");
                }
                // The target was removed.
                if proxy.strong_count() == 0 {
                    return;
                }
            }
        }
    }
}

impl Open {
    /// The same listener for another target.
    fn again(&self, target: &(String, usize)) -> Self {
        Self {
            target: target.clone(),
            place: self.place.clone(),
            number: self.number,
            address: self.address.clone(),
            is_shared: self.is_shared,
            current: self.current.clone(),
            closing: self.closing.clone(),
        }
    }

    fn is(&self, other: &Self) -> bool {
        self.place == other.place && self.address == other.address
    }
}

fn of_name<'a>(targets: &'a [ServedTarget], name: &str) -> impl Iterator<Item = &'a ServedTarget> {
    targets.iter().filter(move |live| live.configured.name == name)
}

fn proxy(
    process: &ProcessSettings,
    configured: &TargetConfig,
    shared: SharedState,
    telemetry: Arc<TargetTelemetry>,
) -> AuthProxy {
    let TargetConfig { connector, settings, client_auth, .. } = configured;
    let limits = Limits {
        connections: settings.max_connections,
        start_up: settings.start_up_timeout,
        first_packet: settings.first_packet_timeout,
        drain: process.drain_timeout,
        waiting: waiting(),
        ..Limits::default()
    };
    let naming = if settings.pin { Naming::Pinned } else { Naming::Same };
    let options = Options {
        naming,
        limits,
        drain: process.drain,
        shared,
        telemetry,
        client_auth: client_auth.clone(),
        warm: settings.warm,
        warm_max_age: settings.warm_max_age,
        reuse: settings.reuse,
        server_lifetime: settings.server_lifetime,
        server_check_delay: settings.server_check_delay,
        server_role_interval: settings.server_role_interval,
        demoted_sessions: settings.demoted_sessions,
        connect_rate: settings.connect_rate,
    };
    AuthProxy::new(connector.clone(), options)
}

/// The limit of waiting connections: half of this process's file handles; the other half is for
/// sessions.
fn waiting() -> usize {
    let half = open_files().and_then(|files| usize::try_from(files / 2).ok()).unwrap_or(usize::MAX);
    Limits::default().waiting.min(half)
}

/// Opens a listener and returns its address.
async fn bind(
    place: &ListenAddr,
    inherited: &InheritedSockets,
    client_auth: &ClientAuth,
) -> io::Result<(Listener, String)> {
    match place {
        ListenAddr::Tcp(address) => bind_tcp(*address).and_then(|listener| {
            let address = listener.local_addr()?.to_string();
            Ok((Listener::tcp(listener, client_auth).map_err(io::Error::other)?, address))
        }),
        // Refused when it is read.
        #[cfg(not(unix))]
        ListenAddr::Unix { .. } => Err(io::ErrorKind::Unsupported.into()),
        #[cfg(unix)]
        ListenAddr::Unix { folder, port } => {
            // A Unix socket that other users may use.
            let is_shared = !client_auth.uids.is_empty();
            let socket = if is_shared {
                UnixSocket::bind_shared(folder, *port)
            } else {
                UnixSocket::bind(folder, *port)
            };
            socket.map(|socket| {
                let path = socket.path().display().to_string();
                (Listener::Unix(socket), path)
            })
        }
        ListenAddr::Systemd { name, number } => {
            let (socket, address) = inherited.open(name, *number)?;
            let listener = match socket {
                InheritedSocket::Tcp(listener) => {
                    Listener::tcp(listener, client_auth).map_err(io::Error::other)?
                }
                #[cfg(unix)]
                InheritedSocket::Unix(socket) => Listener::Unix(socket),
            };
            Ok((listener, address))
        }
    }
}

/// How the user changes a listen address.
#[derive(Clone, Copy)]
enum ListenChange<'a> {
    /// A flag, which is stronger than the variable and the file.
    Flag,
    /// The target's own setting, which is stronger than the flag.
    Target(&'a SettingOrigin),
}

impl<'a> ListenChange<'a> {
    fn of(own: Option<&'a SettingOrigin>) -> Self {
        own.map_or(Self::Flag, Self::Target)
    }

    /// What to write for this address.
    fn to(self, place: &str) -> String {
        match self {
            Self::Flag => format!("--listen {place}"),
            Self::Target(origin) => format!("{place}, at {origin}"),
        }
    }
}

impl std::fmt::Display for ListenChange<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flag => f.write_str("with --listen"),
            Self::Target(origin) => write!(f, "at {origin}"),
        }
    }
}

/// The hint for a listener that cannot be opened.
fn not_bound(
    place: &ListenAddr,
    error: &io::Error,
    is_shared: bool,
    (number_of_targets, change): (usize, ListenChange<'_>),
) -> String {
    match (place, error.kind()) {
        (ListenAddr::Unix { folder, .. }, io::ErrorKind::PermissionDenied) => {
            let folder = quote::shell_word(&folder.to_string_lossy());
            let (mode, more) = match is_shared {
                true => ("go-w", ""),
                false => ("700", "; or name the users who may enter, with --listen-uids"),
            };
            format!("chmod {mode} {folder}, if it is yours alone to change{more}")
        }
        (ListenAddr::Unix { .. }, io::ErrorKind::InvalidInput) => {
            "give a folder with a shorter path: with the name of the socket it may have 107 bytes".to_owned()
        }
        (ListenAddr::Tcp(address), io::ErrorKind::AddrInUse) => in_use(*address, number_of_targets, change),
        (ListenAddr::Tcp(_), io::ErrorKind::PermissionDenied) => {
            format!("ports below 1024 are for privileged programs: give a higher one {change}")
        }
        _ => format!("give another address {change}; port 0 takes any free one"),
    }
}

/// PgBouncer's port, which few other programs use, and those after it.
const OTHERS: std::ops::RangeInclusive<u16> = 6432..=6451;

/// The hint for a port on which another program listens, such as a local PostgreSQL: a free port that
/// is followed by as many free ones as there are further targets that share the listen address.
fn in_use(address: SocketAddr, number_of_targets: usize, change: ListenChange<'_>) -> String {
    let number_of_targets = if let ListenChange::Target(_) = change { 1 } else { number_of_targets };
    let is_free = |port: u16| std::net::TcpListener::bind((address.ip(), port)).is_ok();
    let place = |port: u16| match address.ip() {
        IpAddr::V4(Ipv4Addr::LOCALHOST) => port.to_string(),
        ip => SocketAddr::from((ip, port)).to_string(),
    };
    let is_free = |first: &u16| {
        (0..number_of_targets).all(|further| {
            let port = u16::try_from(further).ok().and_then(|further| first.checked_add(further));
            port.is_some_and(|port| port != address.port() && is_free(port))
        })
    };
    match OTHERS.into_iter().find(is_free) {
        Some(free) => {
            format!("another program listens there; this one is free: {}", change.to(&place(free)))
        }
        None => format!("another program listens there; port 0 takes any free one: {}", change.to("0")),
    }
}

#[cfg(test)]
#[path = "tests/running.rs"]
mod tests;

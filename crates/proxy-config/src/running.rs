//! The running listeners and auth proxies, and their changes from one configuration to the next.

use std::sync::Arc;
use std::time::Duration;

use pgentra_proxy::telemetry::{TargetTelemetry, Telemetry};
use pgentra_proxy::{
    AuthProxy, Listener, Naming, Options, ProxyHandle, RoutedProxies, SharedState, ShutdownTokens,
};
use pgentra_session::Limits;
use pgentra_settings::{EffectiveSettings, ListenAddr, ProblemKind, SettingsError, chain};
use pgentra_system::open_files;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bind::{ListenChange, bind, not_bound};
use crate::configuration::{Configuration, ReloadState, TargetConfig};
use crate::diff;
use crate::key::Set;
use crate::listener_kind::ListenerKind;
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
    /// For the listeners of clients that prefer a standby.
    reading: Arc<AuthProxy>,
    /// For the listeners of clients whose sessions are not pooled.
    direct: Arc<AuthProxy>,
    shared: SharedState,
}

/// A target, with its index among those of the same name, and for which of its clients a listener is.
type Led = ((String, usize), ListenerKind);

/// A listen address of the next configuration.
struct WantedPlace<'a> {
    place: &'a ListenAddr,
    /// The number among several free ports of the same target.
    number: usize,
    /// The targets, in the order in which clients are compared with their routes.
    led: Vec<(usize, ListenerKind)>,
}

#[derive(Debug)]
struct Open {
    /// The targets that clients are led to.
    led: Vec<Led>,
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
    /// A target whose clients connect here. Where there are several, the listener comes once for each.
    pub target: &'a TargetConfig,
    /// For which of its clients.
    pub kind: ListenerKind,
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
        let mut next: Vec<ServedTarget> = Vec::new();
        for configured in targets {
            let number = of_name(&next, &configured.name).count();
            let before = of_name(&self.targets, &configured.name).nth(number);
            let labelled = next.iter().filter(|live| live.configured.label == configured.label).count();
            let telemetry = self.telemetry_of(&configured.label, labelled);
            let before = before.map(|live| (live, &self.process));
            next.push(ServedTarget::of(configured, (&process, telemetry), before));
        }
        let (mut kept, mut bound) = (Vec::new(), Vec::new());
        for wanted in wanted_places(&next) {
            let proxies = wanted.proxies(&next);
            match self.opened(&wanted, &next)? {
                Some(open) => kept.push((open, proxies)),
                None => bound.push(wanted.bind(&next, proxies, state).await?),
            }
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

    /// The listener that is open at this address, for its next targets. `None`: there is none.
    fn opened(&self, wanted: &WantedPlace<'_>, next: &[ServedTarget]) -> Result<Option<Open>, SettingsError> {
        let WantedPlace { place, number, .. } = wanted;
        let led = wanted.led(next);
        // A free port that no setting fixes belongs to its target.
        let is_it = |open: &&Open| {
            open.place == **place && open.number == *number && (!place.is_any() || open.led == led)
        };
        let Some(open) = self.listeners.iter().find(is_it) else { return Ok(None) };
        if matches!(place, ListenAddr::Unix { .. }) && open.is_shared != wanted.is_shared(next) {
            let message = format!("listen_uids begins or ceases to open {place} to other users");
            let hint = "restart the proxy, or listen in another folder";
            return Err(SettingsError::one(ProblemKind::Setting, message, hint));
        }
        Ok(Some(open.again(led)))
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
        self.listeners.iter().flat_map(|open| {
            open.led.iter().filter_map(|((name, number), kind)| {
                let target = &of_name(&self.targets, name).nth(*number)?.configured;
                Some(RunningListener { place: &open.place, address: &open.address, target, kind: *kind })
            })
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
        kept: Vec<(Open, RoutedProxies)>,
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
        for (open, proxies) in kept {
            let before = self.listeners.iter().find(|before| before.is(&open));
            let is_led_elsewhere = before.is_some_and(|before| before.led != open.led);
            if is_led_elsewhere && before.map_or(0, |before| before.led.len()).max(open.led.len()) > 1 {
                lines.push(open.to_string());
            }
            open.current.replace(proxies);
            listeners.push(open);
        }
        for BoundListener { listener, open } in bound {
            lines.push(open.to_string());
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
        if let Some((live, _)) = same {
            let [proxy, reading, direct] = [&live.proxy, &live.reading, &live.direct].map(Arc::clone);
            return Self { configured, proxy, reading, direct, shared };
        }
        let proxy = Arc::new(proxy(process, &configured, shared.clone(), telemetry));
        tokio::spawn(configured.watched.clone().keep(Arc::downgrade(&proxy)));
        let (reading, direct) = (Arc::new(proxy.reading()), Arc::new(proxy.direct()));
        Self { configured, proxy, reading, direct, shared }
    }

    /// The auth proxy for these clients.
    fn of_kind(&self, kind: ListenerKind) -> &Arc<AuthProxy> {
        match kind {
            ListenerKind::Main => &self.proxy,
            ListenerKind::Read => &self.reading,
            ListenerKind::Direct => &self.direct,
        }
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

/// The listen addresses of all targets, each once.
fn wanted_places(targets: &[ServedTarget]) -> Vec<WantedPlace<'_>> {
    let mut wanted: Vec<WantedPlace<'_>> = Vec::new();
    for (target, live) in targets.iter().enumerate() {
        for kind in ListenerKind::ALL {
            let mut free = 0;
            for place in live.configured.settings.places(kind) {
                let shared = wanted.iter_mut().find(|wanted| wanted.place == place && !place.is_any());
                if let Some(shared) = shared {
                    shared.led.push((target, kind));
                    continue;
                }
                let number = if place.is_any() { free } else { 0 };
                free += usize::from(place.is_any());
                wanted.push(WantedPlace { place, number, led: vec![(target, kind)] });
            }
        }
    }
    for wanted in &mut wanted {
        // A target for all clients gets those that no other one does.
        wanted.led.sort_by_key(|(target, _)| targets[*target].configured.settings.route.is_for_all());
    }
    wanted
}

impl WantedPlace<'_> {
    fn led(&self, targets: &[ServedTarget]) -> Vec<Led> {
        let name = |target: usize| {
            let name = &targets[target].configured.name;
            (name.clone(), of_name(&targets[..target], name).count())
        };
        self.led.iter().map(|(target, kind)| (name(*target), *kind)).collect()
    }

    fn proxies(&self, targets: &[ServedTarget]) -> RoutedProxies {
        let mut each = self.led.iter().map(|(target, kind)| {
            let live = &targets[*target];
            (live.configured.settings.route.clone(), Arc::clone(live.of_kind(*kind)))
        });
        let first = each.next().map(|(route, proxy)| RoutedProxies::new(route, proxy));
        let first = first.unwrap_or_else(|| Arc::clone(&targets[0].proxy).into());
        each.fold(first, |proxies, (route, proxy)| proxies.and(route, proxy))
    }

    /// Whether other users may use it, if it is a Unix socket.
    fn is_shared(&self, targets: &[ServedTarget]) -> bool {
        self.led.iter().any(|(target, _)| !targets[*target].configured.client_auth.uids.is_empty())
    }

    /// Opens the listener.
    async fn bind(
        &self,
        targets: &[ServedTarget],
        proxies: RoutedProxies,
        state: &ReloadState,
    ) -> Result<BoundListener, SettingsError> {
        let (target, kind) = self.led[0];
        let configured = &targets[target].configured;
        let (place, is_shared) = (self.place, self.is_shared(targets));
        let opened = bind(place, &state.inherited, &configured.client_auth).await;
        let (listener, address) = opened.map_err(|error| {
            let origin = ListenerKind::ALL.into_iter().zip(&configured.listen_origins);
            let origin = origin.filter(|(other, _)| *other == kind).find_map(|(_, origin)| origin.as_ref());
            let change = ListenChange::of(kind, origin);
            let message = format!("cannot listen on {place}: {error}");
            let hint = not_bound(place, &error, is_shared, (targets.len(), change));
            SettingsError::one(ProblemKind::Machine, message, hint)
        })?;
        let open = Open {
            led: self.led(targets),
            place: place.clone(),
            number: self.number,
            address,
            is_shared,
            current: ProxyHandle::new(proxies),
            closing: CancellationToken::new(),
        };
        Ok(BoundListener { listener, open })
    }
}

/// The line that says where clients come in, and where they are led to.
impl std::fmt::Display for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let led = self.led.iter().map(|((name, _), kind)| format!("{name}{kind}"));
        write!(f, "listening on {} -> {}", self.address, led.collect::<Vec<_>>().join("; "))
    }
}

impl Open {
    /// The same listener for other targets.
    fn again(&self, led: Vec<Led>) -> Self {
        Self {
            led,
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

#[cfg(test)]
#[path = "tests/running.rs"]
mod tests;

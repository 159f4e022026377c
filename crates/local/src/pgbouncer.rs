//! The built-in PgBouncer of Flexible Server, which a server parameter switches on: a gateway signs clients in, and opens
//! their sessions at the PgBouncer.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use pgentra_emulator::PGBOUNCER_ENABLED;
use pgentra_gateway::{ClientTls, Config, Flavour, Pooler, UpstreamAddress};
use pgentra_localdb::{LocalPooler, PooledServer, PoolerProgram, PoolerSettings, StartError};
use pgentra_system::Env;
use tokio::net::TcpSocket;
use tokio::sync::Mutex;

use crate::error::{Failure, FailureKind};
use crate::gateway::RunningGateway;

/// Where programs of system administrators are, which a user's `PATH` may lack.
const FURTHER_FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/usr/bin"];
/// Clients that wait to be accepted, as tokio's listeners have it.
const BACKLOG: u32 = 1024;

/// The PgBouncer of a local cloud, and its ports. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct CloudPgBouncer(Arc<SharedPgBouncer>);

#[derive(Debug)]
struct SharedPgBouncer {
    parts: PgBouncerParts,
    /// The port for clients.
    port: u16,
    /// The port for clients that know the server by its name on Azure.
    named_port: u16,
    console_users: Arc<RwLock<Vec<String>>>,
    state: Mutex<PgBouncerState>,
}

/// What a PgBouncer is made of when it is switched on.
#[derive(Debug)]
pub(crate) struct PgBouncerParts {
    /// Its folder, which must not exist.
    pub(crate) folder: PathBuf,
    pub(crate) program: Result<PoolerProgram, StartError>,
    pub(crate) server: PooledServer,
    /// The configuration of the gateway without a PgBouncer.
    pub(crate) config: Config,
    /// TLS under the server's name on Azure.
    pub(crate) names: ClientTls,
    /// A further address to serve on.
    pub(crate) address: Option<IpAddr>,
}

#[derive(Debug)]
struct PgBouncerState {
    settings: PoolerSettings,
    /// The ports while it is off: bound, so that they stay the same, and not listening.
    reserved: Option<(TcpSocket, TcpSocket)>,
    running: Option<RunningPgBouncer>,
}

#[derive(Debug)]
struct RunningPgBouncer {
    gateway: RunningGateway,
    named_gateway: RunningGateway,
    pooler: LocalPooler,
}

/// What the options of a local cloud say of its PgBouncer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PgBouncerOptions {
    /// Whether it is on at the start.
    pub(crate) is_on: bool,
    /// The port for clients; 0: the usual one, or any free one.
    pub(crate) port: u16,
}

impl PgBouncerOptions {
    /// The installed PgBouncer: in the folders of `PATH`, or in those of system programs. It may be missing if it is off.
    pub(crate) fn find(
        self,
        env: &Env,
        flavour: Flavour,
    ) -> Result<Result<PoolerProgram, StartError>, Failure> {
        if (self.is_on || self.port != 0) && flavour != Flavour::Flexible {
            let message = "Single Server has no built-in PgBouncer";
            return Err(Failure::new(FailureKind::Usage, message).with_hint("use it with --flavour flexible"));
        }
        let path = env.get("PATH").unwrap_or_default();
        let own = std::env::split_paths(&path).filter(|folder| folder.is_absolute()).collect::<Vec<_>>();
        let program = PoolerProgram::find(own.into_iter().chain(FURTHER_FOLDERS.map(PathBuf::from)));
        match &program {
            Err(error) if self.is_on => {
                let message = format!("cannot switch PgBouncer on: {error}");
                Err(Failure::new(FailureKind::Usage, message).with_hint(INSTALL))
            }
            _ => Ok(program),
        }
    }
}

/// Why there is none, with the way to have one.
pub(crate) fn missing(error: &StartError) -> String {
    format!("{error}. {INSTALL}")
}

/// The way to have one.
const INSTALL: &str = "Install PgBouncer: apt-get install pgbouncer";

impl CloudPgBouncer {
    /// Takes the ports, and starts it with these parameters of the server if they switch it on. The first port is
    /// exactly that for clients; 0: the second, which is the usual one, or any free one.
    pub(crate) async fn start(
        parts: PgBouncerParts,
        settings: &BTreeMap<String, String>,
        (port, preferred): (u16, u16),
    ) -> Result<Self, Failure> {
        let new = Self::new(parts, port, preferred)?;
        let is_switch = |parameter: &str| parameter == PGBOUNCER_ENABLED;
        for (parameter, value) in settings.iter().filter(|(parameter, _)| !is_switch(parameter)) {
            new.set(parameter, value).await?;
        }
        if let Some(value) = settings.get(PGBOUNCER_ENABLED) {
            new.set(PGBOUNCER_ENABLED, value).await?;
        }
        Ok(new)
    }

    /// One that is off.
    fn new(parts: PgBouncerParts, port: u16, preferred: u16) -> Result<Self, Failure> {
        let own = match port {
            0 => match reserve(preferred) {
                Ok(socket) => Ok(socket),
                Err(_) => {
                    tracing::warn!(
                        port = preferred,
                        "PgBouncer's usual port is taken; another one serves in this run"
                    );
                    reserve(0)
                }
            },
            port => reserve(port),
        };
        let own = own.map_err(cannot_listen)?;
        let named = reserve(0).map_err(cannot_listen)?;
        let port_of = |socket: &TcpSocket| socket.local_addr().map(|it| it.port()).map_err(cannot_listen);
        Ok(Self(Arc::new(SharedPgBouncer {
            parts,
            port: port_of(&own)?,
            named_port: port_of(&named)?,
            console_users: Arc::default(),
            state: Mutex::new(PgBouncerState {
                settings: PoolerSettings::default(),
                reserved: Some((own, named)),
                running: None,
            }),
        })))
    }

    /// The port of 127.0.0.1 for clients, on which it listens while it is on.
    pub(crate) fn port(&self) -> u16 {
        self.0.port
    }

    /// The same under the server's name on Azure.
    pub(crate) fn named_port(&self) -> u16 {
        self.0.named_port
    }

    /// Sets a parameter, whose value was checked.
    pub(crate) async fn set(&self, parameter: &str, value: &str) -> Result<(), Failure> {
        let mut state = self.0.state.lock().await;
        if parameter == PGBOUNCER_ENABLED {
            return if value == "true" {
                self.switch_on(&mut state).await
            } else {
                self.switch_off(&mut state).await
            };
        }
        if parameter == "pgbouncer.stats_users" {
            let names = value.split(',').map(str::trim).filter(|name| !name.is_empty());
            let names = names.map(str::to_owned).collect();
            *self.0.console_users.write().unwrap_or_else(PoisonError::into_inner) = names;
            return Ok(());
        }
        if state.running.as_mut().is_some_and(|running| running.pooler.has_ended()) {
            let message = "PgBouncer has ended by itself. Set pgbouncer.enabled to true: it starts again";
            return Err(Failure::new(FailureKind::Machine, message));
        }
        state.set(parameter, value)?;
        let PgBouncerState { running, settings, .. } = &*state;
        match running {
            Some(running) => running.pooler.configure(settings).map_err(cannot_configure),
            None => Ok(()),
        }
    }

    /// Ends it.
    pub(crate) async fn end(&self) {
        let mut state = self.0.state.lock().await;
        if let Some(running) = state.running.take() {
            running.end().await;
        }
    }

    async fn switch_on(&self, state: &mut PgBouncerState) -> Result<(), Failure> {
        if let Some(running) = &mut state.running {
            if !running.pooler.has_ended() {
                return Ok(());
            }
            self.switch_off(state).await?;
        }
        let PgBouncerParts { folder, program, server, config, names, address } = &self.0.parts;
        let program = program
            .as_ref()
            .map_err(|error| Failure::new(FailureKind::Usage, error.to_string()).with_hint(INSTALL))?;
        let pooler = pgentra_localdb::start_pooler(folder.clone(), program, &state.settings, server).await;
        let pooler = pooler.map_err(|error| {
            let hint = match &error {
                StartError::Unreachable { .. } => {
                    "run it as another user than root, or set TMPDIR to a folder that every user may enter"
                }
                _ => "-vv says more",
            };
            Failure::machine("cannot start PgBouncer", error).with_hint(hint)
        })?;
        let console_users = self.0.console_users.clone();
        let config = Config {
            pooler: Some(Pooler {
                address: UpstreamAddress::Unix {
                    dir: pooler.socket_dir().to_path_buf(),
                    port: pooler.port(),
                },
                may_use_console: Arc::new(move |role| {
                    let users = console_users.read().unwrap_or_else(PoisonError::into_inner);
                    users.iter().any(|user| user == role)
                }),
            }),
            ..config.clone()
        };
        let reserved = match state.reserved.take() {
            Some(reserved) => reserved,
            None => self.reserve_again().map_err(cannot_listen)?,
        };
        let listen = |socket: TcpSocket| socket.listen(BACKLOG).map_err(cannot_listen);
        let named = Config { tls: names.clone(), ..config.clone() };
        let mut gateway = RunningGateway::start_on(config, listen(reserved.0)?)?;
        if let Some(address) = *address {
            gateway.serve_further(address).await?;
        }
        let named_gateway = RunningGateway::start_on(named, listen(reserved.1)?)?;
        state.running = Some(RunningPgBouncer { gateway, named_gateway, pooler });
        Ok(())
    }

    async fn switch_off(&self, state: &mut PgBouncerState) -> Result<(), Failure> {
        let Some(running) = state.running.take() else { return Ok(()) };
        running.end().await;
        // If another program takes a port meanwhile, PgBouncer cannot be switched on again.
        state.reserved = self.reserve_again().ok();
        Ok(())
    }

    fn reserve_again(&self) -> std::io::Result<(TcpSocket, TcpSocket)> {
        Ok((reserve(self.0.port)?, reserve(self.0.named_port)?))
    }
}

impl PgBouncerState {
    fn set(&mut self, parameter: &str, value: &str) -> Result<(), Failure> {
        let settings = &mut self.settings;
        let number = || {
            let number: Result<u32, _> = value.parse();
            number.map_err(|error| Failure::machine("the value is no number", error))
        };
        match parameter {
            "pgbouncer.default_pool_size" => settings.default_pool_size = number()?,
            "pgbouncer.ignore_startup_parameters" => {
                value.clone_into(&mut settings.ignore_startup_parameters)
            }
            "pgbouncer.max_client_conn" => settings.max_client_conn = number()?,
            "pgbouncer.max_prepared_statements" => settings.max_prepared_statements = number()?,
            "pgbouncer.min_pool_size" => settings.min_pool_size = number()?,
            "pgbouncer.pool_mode" => value.clone_into(&mut settings.pool_mode),
            "pgbouncer.query_wait_timeout" => settings.query_wait_timeout = number()?,
            "pgbouncer.server_idle_timeout" => settings.server_idle_timeout = number()?,
            _ => {
                let message = format!("PgBouncer has no parameter {parameter}");
                return Err(Failure::new(FailureKind::Machine, message));
            }
        }
        Ok(())
    }
}

impl RunningPgBouncer {
    async fn end(self) {
        let Self { gateway, named_gateway, pooler } = self;
        // Their sessions would take the whole time that the gateways give them.
        pooler.stop().await;
        tokio::join!(gateway.stop(), named_gateway.stop());
    }
}

/// A port of 127.0.0.1 that no other program can take. Clients that connect are refused.
fn reserve(port: u16) -> std::io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // As tokio's listeners: the last connections of the port may still be closing.
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::LOCALHOST, port).into())?;
    Ok(socket)
}

fn cannot_listen(error: std::io::Error) -> Failure {
    Failure::machine("cannot listen for clients of PgBouncer", error)
        .with_hint("give another --pgbouncer-port")
}

fn cannot_configure(error: std::io::Error) -> Failure {
    Failure::machine("cannot change the settings of PgBouncer", error)
}

//! A local Azure, a PostgreSQL with a gateway, and auth proxies in front of it.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex};

use bytes::BytesMut;
use eventually::{DEADLINE, eventually, holds};
use pgentra_connect::pgentra_identity::{Cloud, Credential, Resource};
use pgentra_connect::{Connector, Layers, Roots, Target};
use pgentra_emulator::{Clock, LocalAzure};
use pgentra_gateway::{Config, Principal, PrincipalKind};
use pgentra_local::{Host, LocalCloud, RunningGateway, Standby};
use pgentra_proxy::{AuthProxy, Listener, Naming, PoolStats};
use pgentra_session::Limits;
use pgentra_system::{Env, Files};
use pgentra_wire::backend::BackendMessage;
use pgentra_wire::fields::Fields;
use pgentra_wire::frame::Header;
use pgentra_wire::startup::StartupMessage;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};
use tokio_util::sync::CancellationToken;

/// The role that is mapped to the virtual machine's identity.
pub(crate) const ROLE: &str = "myuser";
/// A role with a password of its own.
pub(crate) const UNMAPPED: &str = "unmapped";

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
static STAGE: OnceCell<Stage> = OnceCell::const_new();

/// Runs a test on the runtime that the shared servers live on.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    RUNTIME.block_on(test)
}

pub(crate) struct Stage {
    cloud: LocalCloud,
    /// Its tenant.
    pub(crate) azure: Arc<LocalAzure>,
    /// That of the virtual machine.
    pub(crate) credential: Credential,
    /// Further gateways, which serve while the fixture lives.
    gateways: Mutex<Vec<RunningGateway>>,
}

impl Stage {
    pub(crate) async fn shared() -> &'static Self {
        STAGE.get_or_init(Self::new).await
    }

    pub(crate) async fn new() -> Self {
        let cloud = LocalCloud::builder().start().await.unwrap();
        let azure = Arc::clone(cloud.azure());
        let Config { upstream, service, .. } = cloud.gateway_config();
        let object_id = azure.vm().object_id();
        let role = Principal { name: ROLE.to_owned(), object_id, kind: PrincipalKind::Service };
        pgentra_gateway::add_administrator(&upstream, &service, &role).await.unwrap();
        let (credential, _) = cloud.credential(Host::Vm).unwrap();
        let role = format!("CREATE ROLE {UNMAPPED} LOGIN PASSWORD 'x'");
        cloud.superuser("postgres").await.unwrap().batch_execute(&role).await.unwrap();
        Self { cloud, azure, credential, gateways: Mutex::default() }
    }

    /// Starts a standby behind a gateway of its own. Commits wait for it from then on.
    pub(crate) async fn start_standby(&self) -> Standby {
        self.cloud.start_standby().await.unwrap()
    }

    /// Ends PostgreSQL and its gateway as a crash does.
    pub(crate) async fn crash(&mut self) {
        self.cloud.crash().await;
    }

    /// The port of the gateway.
    pub(crate) fn port(&self) -> u16 {
        self.cloud.postgres_addr().port()
    }

    /// The time of day for all parts.
    pub(crate) fn clock(&self) -> &Clock {
        self.azure.clock()
    }

    /// Starts another gateway in front of the same PostgreSQL and returns its port.
    pub(crate) async fn gateway_with(&self, tls: Arc<ServerConfig>) -> u16 {
        let config = Config { tls: tls.into(), ..self.cloud.gateway_config() };
        let gateway = RunningGateway::start(config, 0).await.unwrap();
        let port = gateway.address.port();
        self.gateways.lock().unwrap().push(gateway);
        port
    }

    /// A superuser session without proxy and gateway.
    pub(crate) async fn superuser(&self) -> Client {
        self.superuser_in("postgres").await
    }

    /// The same in this database.
    pub(crate) async fn superuser_in(&self, database: &str) -> Client {
        self.cloud.superuser(database).await.unwrap()
    }

    /// A connector to this fixture's gateway; `more` may set a role and a database.
    pub(crate) fn connector(&self, more: &str) -> Connector {
        self.connector_to(self.cloud.postgres_addr().port(), more, self.azure.certificates().pem())
    }

    /// A connector to the gateways at these ports, separated by commas.
    pub(crate) fn connector_to_each(&self, ports: &str, more: &str) -> Connector {
        let each = |text: &str| vec![text; ports.split(',').count()].join(",");
        let (hosts, addresses) = (each("localhost"), each("127.0.0.1"));
        let conninfo = format!("host={hosts} hostaddr={addresses} port={ports} {more}");
        self.connector_for(&conninfo, self.azure.certificates().pem())
    }

    /// The same with another source of tokens.
    pub(crate) fn connector_with(&self, credential: Credential) -> Connector {
        let target = self.connector("").target().clone();
        Connector::new(target, credential, resource()).unwrap()
    }

    pub(crate) fn connector_to(&self, port: u16, more: &str, roots: &str) -> Connector {
        self.connector_for(&format!("host=localhost hostaddr=127.0.0.1 port={port} {more}"), roots)
    }

    fn connector_for(&self, conninfo: &str, roots: &str) -> Connector {
        let env = Env::from_map::<String, String>([]);
        let layers = Layers::gather(Some(conninfo), &[], &env, &Files::in_memory()).unwrap();
        let target = Target::resolve_server(&layers).unwrap();
        let target = target.with_roots(Roots::from_pem(roots.as_bytes()).unwrap());
        Connector::new(target, self.credential.clone(), resource()).unwrap()
    }

    pub(crate) async fn inject(&self, more: &str) -> Running {
        Running::new(self.connector(more), Naming::Same, Limits::default()).await
    }

    pub(crate) async fn token(&self) -> String {
        self.credential.token(&resource()).await.unwrap().expose_secret().to_owned()
    }

    /// The server processes of sessions with this application name.
    pub(crate) async fn processes(&self, superuser: &Client, application: &str) -> Vec<i32> {
        let sql = "SELECT pid FROM pg_stat_activity WHERE application_name = $1 ORDER BY backend_start";
        superuser.query(sql, &[&application]).await.unwrap().iter().map(|row| row.get(0)).collect()
    }

    /// Waits until so many sessions with this application name are there.
    pub(crate) async fn until_processes(&self, superuser: &Client, application: &str, number: usize) {
        let what = format!("{number} server processes for {application:?}");
        let processes = async || {
            let there = self.processes(superuser, application).await;
            holds(there, |there| there.len() == number)
        };
        eventually(DEADLINE, &what, processes).await;
    }

    /// Waits until the role runs a statement that sleeps.
    pub(crate) async fn sleeping(&self, superuser: &Client, application: &str) {
        let sql = "SELECT 1 FROM pg_stat_activity WHERE application_name = $1 AND wait_event = 'PgSleep'";
        let what = format!("{application:?} runs pg_sleep");
        let sleeping = async || superuser.query_opt(sql, &[&application]).await.unwrap();
        eventually(DEADLINE, &what, sleeping).await;
    }
}

fn resource() -> Resource {
    Cloud::Public.postgres_resource()
}

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) shutdown: CancellationToken,
    pub(crate) served: JoinHandle<()>,
    pub(crate) proxy: Arc<AuthProxy>,
}

/// A listener for clients of this machine.
pub(crate) fn on_loopback(listener: TcpListener) -> Listener {
    Listener::tcp(listener, &pgentra_proxy::ClientAuth::default()).unwrap()
}

impl Running {
    pub(crate) async fn new(connector: Connector, naming: Naming, limits: Limits) -> Self {
        Self::with(connector, pgentra_proxy::Options { naming, limits, ..pgentra_proxy::Options::default() })
            .await
    }

    pub(crate) async fn with(connector: Connector, options: pgentra_proxy::Options) -> Self {
        Self::of(Arc::new(AuthProxy::new(connector, options))).await
    }

    /// Serves this proxy.
    pub(crate) async fn of(proxy: Arc<AuthProxy>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let served = tokio::spawn(Arc::clone(&proxy).serve(on_loopback(listener), shutdown.clone()));
        Self { address, shutdown, served, proxy }
    }

    /// Serves the fixture's PostgreSQL with this client authentication.
    pub(crate) async fn behind(client_auth: pgentra_proxy::ClientAuth) -> Self {
        let options = pgentra_proxy::Options { client_auth, ..pgentra_proxy::Options::default() };
        Self::with(Stage::shared().await.connector(""), options).await
    }

    pub(crate) async fn dial(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Connects with the driver, without a password.
    pub(crate) async fn connect(&self, user: &str, database: &str) -> Result<Client, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config.user(user).dbname(database);
        let (client, connection) = config.connect_raw(self.dial().await, NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Connects as the role, with an application name that makes the start-up unique.
    pub(crate) async fn named(&self, application: &str) -> Client {
        let mut config = tokio_postgres::Config::new();
        config.user(ROLE).dbname("postgres").application_name(application);
        let (client, connection) = config.connect_raw(self.dial().await, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Waits until the pool's counters satisfy a condition.
    pub(crate) async fn until_supply(&self, so: impl Fn(PoolStats) -> bool) {
        let supply = async || holds(self.proxy.supply(), |supply| so(*supply));
        eventually(DEADLINE, "the supply is as expected", supply).await;
    }

    /// The error that a client gets instead of a session.
    pub(crate) async fn refusal(&self, user: &str, database: &str) -> tokio_postgres::error::DbError {
        match self.connect(user, database).await {
            Ok(_) => panic!("{user} was let in"),
            Err(error) => error.as_db_error().expect("an ErrorResponse").clone(),
        }
    }
}

/// Waits until no listener is at this address.
pub(crate) async fn until_unreachable(address: SocketAddr) {
    let refused = async || TcpStream::connect(address).await.is_err();
    eventually(DEADLINE, &format!("no listener at {address}"), refused).await;
}

/// A client that says exactly what a test wants said.
pub(crate) struct Raw<S> {
    pub(crate) stream: S,
    received: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, received: BytesMut::new() }
    }

    pub(crate) async fn start(&mut self, start: &StartupMessage) {
        let mut out = BytesMut::new();
        start.encode(&mut out);
        self.stream.write_all(&out).await.unwrap();
    }

    pub(crate) async fn query(&mut self, sql: &str) {
        let mut out = vec![b'Q'];
        out.extend(u32::try_from(sql.len() + 5).unwrap().to_be_bytes());
        out.extend(sql.as_bytes());
        out.push(0);
        self.stream.write_all(&out).await.unwrap();
    }

    /// The next message; `None` at the end.
    pub(crate) async fn read(&mut self) -> Option<BackendMessage> {
        loop {
            if let Some(message) = BackendMessage::decode(&mut self.received).unwrap() {
                return Some(message);
            }
            if self.stream.read_buf(&mut self.received).await.unwrap() == 0 {
                return None;
            }
        }
    }

    pub(crate) async fn until_ready(&mut self) -> Vec<BackendMessage> {
        let mut messages = Vec::new();
        loop {
            match self.read().await {
                Some(BackendMessage::ReadyForQuery(_)) => return messages,
                Some(message) => messages.push(message),
                None => panic!("no more after {messages:?}"),
            }
        }
    }

    /// The types of the messages up to the next ReadyForQuery, or to the server's wish for COPY data.
    pub(crate) async fn tags_until_ready(&mut self) -> Vec<u8> {
        let mut tags = Vec::new();
        loop {
            while let Some(Header { tag, body }) = Header::peek(&self.received).unwrap() {
                if self.received.len() < Header::SIZE + body {
                    break;
                }
                let _ = self.received.split_to(Header::SIZE + body);
                tags.push(tag);
                if matches!(tag, b'Z' | b'G') {
                    return tags;
                }
            }
            assert_ne!(self.stream.read_buf(&mut self.received).await.unwrap(), 0, "more messages");
        }
    }

    /// The next message, which must be an error and the last one.
    pub(crate) async fn error(&mut self) -> Fields {
        let fields = match self.read().await {
            Some(BackendMessage::ErrorResponse(fields)) => fields,
            other => panic!("{other:?} instead of an error"),
        };
        assert_eq!(self.read().await, None);
        fields
    }
}

/// The process id of the session.
pub(crate) async fn pid(client: &Client) -> i32 {
    client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0)
}

/// The only column of the only row.
pub(crate) async fn one(client: &Client, sql: &str) -> String {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

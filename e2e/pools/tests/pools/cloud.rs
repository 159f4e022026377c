//! A local Azure, a PostgreSQL and a gateway in this process, all by one clock that can be moved.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pgentra_connect::{Connector, Layers, Target};
use pgentra_emulator::{Endpoint, LocalAzure, Options};
use pgentra_gateway::{
    Config, Flavour, Gateway, Principal, PrincipalKind, ServiceAccount, Setup, UpstreamAddress,
};
use pgentra_identity::{Cloud as AzureCloud, Credential};
use pgentra_localdb::{Installation, LocalDb};
use pgentra_session::Limits;
use pgentra_system::{Clock, Env, Files, RuntimeClock, System};
use pgentra_verify::{BoxFuture, FetchError, KeySource, Policy, Verifier};
use secrecy::ExposeSecret as _;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_postgres::NoTls;
use tokio_util::sync::CancellationToken;

/// The lifetime of a token here.
pub(crate) const LIFETIME: Duration = Duration::from_secs(60 * 60);
/// The time after expiry at which a verifier refuses the token.
pub(crate) const LEEWAY: Duration = Duration::from_secs(10 * 60);

/// The role of the machine's identity.
pub(crate) const ROLE: &str = "myVm";
/// A role of another identity.
pub(crate) const OTHER_ROLE: &str = "myIdentity";

pub(crate) struct Cloud {
    clock: Now,
    pub(crate) azure: Arc<LocalAzure>,
    db: LocalDb,
    gateway: Running,
    files: TempDir,
}

#[derive(Debug, Clone)]
struct Now(Arc<RuntimeClock>);

impl Clock for Now {
    fn now(&self) -> SystemTime {
        self.0.now()
    }
}

struct Running {
    port: u16,
    shutdown: CancellationToken,
    served: JoinHandle<()>,
}

impl Cloud {
    pub(crate) async fn start() -> Cloud {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let clock = Now(Arc::new(RuntimeClock::starting_at(start)));
        let now = clock.clone();
        let mut options = Options::new(pgentra_emulator::Clock::following(move || now.now()));
        options.lifetimes.managed_identity = LIFETIME;
        let azure = Arc::new(LocalAzure::start(options).await.unwrap());

        let files = tempfile::tempdir().unwrap();
        std::fs::write(files.path().join("ca.pem"), azure.ca_pem()).unwrap();
        let folder = files.path().join("db");
        let db = pgentra_localdb::Options { folder, server: Installation::Embedded };
        let db = pgentra_localdb::start(db).await.unwrap();
        pgentra_gateway::init(&upstream(&db), &service(&db), &setup(&azure)).await.unwrap();
        let gateway = serve(&azure, &db, &clock, 0).await;

        let cloud = Cloud { clock, azure, db, gateway, files };
        let administrator = cloud.azure.administrator().user_principal_name();
        let host = ("MSI_ENDPOINT", cloud.azure.cloud_shell());
        let session = cloud.sign_in(administrator, host, &[]).connect().await.unwrap();
        for identity in [cloud.azure.vm(), cloud.azure.user_assigned()] {
            let (name, id) = (identity.name(), identity.object_id());
            let sql = format!(
                "SELECT pgaadauth_create_principal_with_oid('{name}', '{id}', 'service', false, false)"
            );
            session.client().batch_execute(&sql).await.unwrap();
        }
        session.close().await.unwrap();
        cloud
    }

    /// Signs in with the machine's own identity, as `role`.
    pub(crate) fn connector(&self, role: &str) -> Connector {
        self.connector_with(role, &[])
    }

    /// The same with flags, which override everything else.
    pub(crate) fn connector_with(&self, role: &str, flags: &[(&str, String)]) -> Connector {
        self.sign_in(role, ("AZURE_POD_IDENTITY_AUTHORITY_HOST", self.azure.metadata_url()), flags)
    }

    /// Signs in on the host that the variable describes.
    fn sign_in(&self, role: &str, (variable, value): (&str, &str), flags: &[(&str, String)]) -> Connector {
        let env = [
            ("PGHOST", "localhost".to_owned()),
            ("PGPORT", self.gateway.port.to_string()),
            ("PGDATABASE", "postgres".to_owned()),
            ("PGUSER", role.to_owned()),
            ("PGSSLROOTCERT", self.files.path().join("ca.pem").display().to_string()),
            (variable, value.to_owned()),
        ];
        let system =
            System::builder().env(Env::from_map(env)).files(Files::real()).clock(self.clock.clone()).build();
        let target =
            Target::resolve(&Layers::gather(None, flags, system.env(), system.files()).unwrap()).unwrap();
        let credential = Credential::builder(system).build().unwrap();
        Connector::new(target, credential, AzureCloud::Public.postgres_resource()).unwrap()
    }

    /// Advances the clock. Timers that have passed fire.
    pub(crate) async fn pass(&self, time: Duration) {
        tokio::time::pause();
        tokio::time::advance(time).await;
        tokio::time::resume();
    }

    /// How often the metadata service was asked for a token.
    pub(crate) fn token_requests(&self) -> usize {
        self.azure.journal().count(Endpoint::ImdsToken)
    }

    /// Ends every session, as a server does that is shut down, and serves again at the same port.
    pub(crate) async fn restart(&mut self) {
        self.gateway.shutdown.cancel();
        (&mut self.gateway.served).await.unwrap();
        self.gateway = serve(&self.azure, &self.db, &self.clock, self.gateway.port).await;
    }

    /// Ends every session of the machine's role.
    pub(crate) async fn end_sessions(&self) {
        self.superuser(&format!(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = '{ROLE}'"
        ))
        .await;
    }

    pub(crate) async fn stop(self) {
        self.gateway.shutdown.cancel();
        self.gateway.served.await.unwrap();
        self.db.stop().await;
    }

    /// Runs SQL without the gateway.
    async fn superuser(&self, sql: &str) {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.db.socket_dir()).port(self.db.port()).dbname("postgres");
        config.user(self.db.superuser()).password(self.db.password().expose_secret());
        let (client, connection) = config.connect(NoTls).await.unwrap();
        let connection = tokio::spawn(connection);
        client.batch_execute(sql).await.unwrap();
        drop(client);
        connection.await.unwrap().unwrap();
    }
}

struct Published(Arc<LocalAzure>);

impl KeySource for Published {
    fn fetch(&self) -> BoxFuture<'_, Result<Vec<u8>, FetchError>> {
        Box::pin(async { Ok(self.0.keys()) })
    }
}

async fn serve(azure: &Arc<LocalAzure>, db: &LocalDb, clock: &Now, port: u16) -> Running {
    let clock = clock.clone();
    let audience = AzureCloud::Public.postgres_resource();
    let policy = Policy::builder(azure.tenant()).audience(audience.as_str()).build().unwrap();
    let gateway = Arc::new(Gateway::new(Config {
        tls: azure.certificates().issue(&["localhost"]).unwrap().server_config(&[]).unwrap(),
        upstream: upstream(db),
        service: service(db),
        flavour: Flavour::Flexible,
        server_name: "mydemoserver".to_owned(),
        verifier: Arc::new(Verifier::new(policy, Published(azure.clone()))),
        clock: Arc::new(move || clock.now()),
        limits: Limits { drain: Duration::ZERO, ..Limits::default() },
    }));
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let shutdown = CancellationToken::new();
    let served = tokio::spawn(gateway.serve(listener, shutdown.clone()));
    Running { port, shutdown, served }
}

fn upstream(db: &LocalDb) -> UpstreamAddress {
    UpstreamAddress::Unix { dir: db.socket_dir().to_owned(), port: db.port() }
}

fn service(db: &LocalDb) -> ServiceAccount {
    ServiceAccount { name: db.superuser().to_owned(), password: db.password().clone() }
}

fn setup(azure: &LocalAzure) -> Setup {
    let administrator = azure.administrator();
    Setup {
        flavour: Flavour::Flexible,
        tenant: azure.tenant(),
        administrators: vec![Principal {
            name: administrator.user_principal_name().to_owned(),
            object_id: administrator.object_id(),
            kind: PrincipalKind::User,
        }],
        directory: Vec::new(),
    }
}

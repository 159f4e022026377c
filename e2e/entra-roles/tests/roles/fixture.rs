//! A local Azure, a PostgreSQL and a gateway for each flavour, shared by the tests of this program; or one for a test that
//! needs all roles for itself.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use pgentra_connect::{ConnectError, Connector, Layers, Session, Target};
use pgentra_emulator::{Clock, LocalAzure};
use pgentra_gateway::{
    Config, Flavour, Gateway, Principal, PrincipalKind, ServiceAccount, Setup, UpstreamAddress,
};
use pgentra_identity::{Cloud, Credential};
use pgentra_localdb::{Installation, LocalDb};
use pgentra_roles::directory::{BoxFuture, Directory, DirectoryError, ServicePrincipal};
use pgentra_roles::{Change, Diagnostics, Options, Plan, RolesError, RolesFile, ServerSessions};
use pgentra_session::Limits;
use pgentra_system::{Env, Files, System};
use pgentra_verify::{FetchError, KeySource, Policy, Verifier};
use secrecy::ExposeSecret as _;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
static FLEXIBLE: OnceCell<Stage> = OnceCell::const_new();
static SINGLE: OnceCell<Stage> = OnceCell::const_new();

/// A client id and an object id that the tenant of [`Tenant`] has.
pub(crate) const CLIENT: Uuid = Uuid::from_u128(0x5f3c_1a52_0000_4000_8000_0000_0000_00c1);
pub(crate) const OBJECT: Uuid = Uuid::from_u128(0x5f3c_1a52_0000_4000_8000_0000_0000_00b1);

/// Runs a test on the runtime that the shared servers live on.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    RUNTIME.block_on(test)
}

pub(crate) struct Stage {
    pub(crate) azure: Arc<LocalAzure>,
    db: LocalDb,
    port: u16,
    files: TempDir,
}

impl Stage {
    pub(crate) async fn flexible() -> &'static Self {
        FLEXIBLE.get_or_init(|| Self::fresh(Flavour::Flexible)).await
    }

    pub(crate) async fn single() -> &'static Self {
        SINGLE.get_or_init(|| Self::fresh(Flavour::Single)).await
    }

    pub(crate) async fn fresh(flavour: Flavour) -> Self {
        let clock = Clock::fixed(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let azure = LocalAzure::start(pgentra_emulator::Options::new(clock)).await.unwrap();
        let azure = Arc::new(azure);
        let files = tempfile::tempdir().unwrap();
        std::fs::write(files.path().join("ca.pem"), azure.ca_pem()).unwrap();
        let folder = files.path().join("db");
        let options = pgentra_localdb::Options { folder, server: Installation::Embedded };
        let db = pgentra_localdb::start(options).await.unwrap();
        let upstream = UpstreamAddress::Unix { dir: db.socket_dir().to_owned(), port: db.port() };
        let service = ServiceAccount { name: db.superuser().to_owned(), password: db.password().clone() };
        pgentra_gateway::init(&upstream, &service, &setup(flavour, &azure)).await.unwrap();
        let keys = Published(azure.clone());
        let audience = Cloud::Public.postgres_resource();
        let policy = Policy::builder(azure.tenant()).audience(audience.as_str()).build().unwrap();
        let now = azure.clone();
        let gateway = Arc::new(Gateway::new(Config {
            tls: azure.certificates().issue(&["localhost"]).unwrap().server_config(&[]).unwrap(),
            upstream,
            service,
            flavour,
            server_name: "mydemoserver".to_owned(),
            verifier: Arc::new(Verifier::new(policy, keys)),
            clock: Arc::new(move || now.clock().now()),
            limits: Limits::default(),
        }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(gateway.serve(listener, CancellationToken::new()));
        Self { azure, db, port, files }
    }

    /// The server as the Entra administrator; `database` is the default database.
    pub(crate) fn server(&self, database: &str) -> ServerSessions {
        ServerSessions::new(self.administrator(database))
    }

    pub(crate) fn administrator(&self, database: &str) -> Connector {
        let name = self.azure.administrator().user_principal_name();
        self.connector(name, database, ("MSI_ENDPOINT", self.azure.cloud_shell()))
    }

    /// Signs in with the machine's identity as this role.
    pub(crate) async fn vm(&self, role: &str, database: &str) -> Result<Session, ConnectError> {
        let host = ("AZURE_POD_IDENTITY_AUTHORITY_HOST", self.azure.metadata_url());
        self.connector(role, database, host).connect().await
    }

    fn connector(&self, role: &str, database: &str, (variable, value): (&str, &str)) -> Connector {
        let env = [
            ("PGHOST", "localhost".to_owned()),
            ("PGPORT", self.port.to_string()),
            ("PGDATABASE", database.to_owned()),
            ("PGUSER", role.to_owned()),
            ("PGSSLROOTCERT", self.files.path().join("ca.pem").display().to_string()),
            (variable, value.to_owned()),
        ];
        let clock = At(self.azure.clone());
        let system = System::builder().env(Env::from_map(env)).files(Files::real()).clock(clock).build();
        let target =
            Target::resolve(&Layers::gather(None, &[], system.env(), system.files()).unwrap()).unwrap();
        let credential = Credential::builder(system).build().unwrap();
        Connector::new(target, credential, Cloud::Public.postgres_resource()).unwrap()
    }

    /// Runs statements as the Entra administrator.
    pub(crate) async fn admin(&self, database: &str, sql: &str) {
        let session = self.administrator(database).connect().await.unwrap();
        session.client().batch_execute(sql).await.unwrap();
    }

    /// Makes a database of the administrator's, with these statements in it.
    pub(crate) async fn database(&self, name: &str, sql: &str) {
        self.admin("postgres", &format!("CREATE DATABASE {name}")).await;
        self.admin(name, sql).await;
    }

    /// A superuser session without the gateway.
    pub(crate) async fn superuser(&self, database: &str) -> Client {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.db.socket_dir()).port(self.db.port()).dbname(database);
        config.user(self.db.superuser()).password(self.db.password().expose_secret());
        let (client, connection) = config.connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// The first column of every row.
    pub(crate) async fn texts(&self, database: &str, sql: &str) -> Vec<String> {
        let rows = self.superuser(database).await.query(sql, &[]).await.unwrap();
        rows.iter().map(|row| row.get::<_, Option<String>>(0).unwrap_or_default()).collect()
    }

    /// Plans a file, by default for the database `database`.
    pub(crate) async fn plan(&self, database: &str, text: &str) -> Result<Plan, RolesError> {
        self.plan_with(database, text, Options::default()).await
    }

    pub(crate) async fn plan_with(
        &self,
        database: &str,
        text: &str,
        options: Options,
    ) -> Result<Plan, RolesError> {
        let file = RolesFile::parse(text, database)?;
        Plan::make(&self.server(database), &file, options, Some(&Tenant)).await
    }

    /// Plans and applies, and checks that a second plan is empty. Returns the changes, line by
    /// line.
    pub(crate) async fn settle(&self, database: &str, text: &str) -> Vec<String> {
        let plan = self.plan(database, text).await.unwrap();
        plan.apply(&self.server(database)).await.unwrap();
        let again = self.plan(database, text).await.unwrap();
        assert_eq!(again.changes(), [], "{text}");
        lines(plan.changes())
    }

    /// The errors for a file on this server; nothing may have changed.
    pub(crate) async fn faults(&self, database: &str, text: &str) -> Vec<String> {
        let error = self.plan(database, text).await.unwrap_err();
        assert!(matches!(error, RolesError::Faults(_)), "{error:?}");
        let RolesError::Faults(faults) = error else { return Vec::new() };
        told(&faults)
    }
}

pub(crate) fn told(faults: &Diagnostics) -> Vec<String> {
    faults.all().iter().map(ToString::to_string).collect()
}

pub(crate) fn lines(changes: &[Change]) -> Vec<String> {
    changes.iter().map(ToString::to_string).collect()
}

/// A tenant with one service principal only.
pub(crate) struct Tenant;

impl Directory for Tenant {
    fn service_principal(
        &self,
        client_id: Uuid,
    ) -> BoxFuture<'_, Result<Option<ServicePrincipal>, DirectoryError>> {
        let found = ServicePrincipal { object_id: OBJECT, client_id, name: "my-app".to_owned() };
        Box::pin(async move { Ok(Some(found).filter(|_| client_id == CLIENT)) })
    }

    fn existing<'a>(
        &'a self,
        object_ids: &'a [Uuid],
    ) -> BoxFuture<'a, Result<BTreeSet<Uuid>, DirectoryError>> {
        Box::pin(async { Ok(object_ids.iter().copied().filter(|id| *id == OBJECT).collect()) })
    }
}

struct Published(Arc<LocalAzure>);

impl KeySource for Published {
    fn fetch(&self) -> pgentra_verify::BoxFuture<'_, Result<Vec<u8>, FetchError>> {
        Box::pin(async { Ok(self.0.keys()) })
    }
}

#[derive(Clone)]
struct At(Arc<LocalAzure>);

impl std::fmt::Debug for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("At")
    }
}

impl pgentra_system::Clock for At {
    fn now(&self) -> SystemTime {
        self.0.clock().now()
    }
}

fn setup(flavour: Flavour, azure: &LocalAzure) -> Setup {
    let principal = |name: &str, object_id, kind| Principal { name: name.to_owned(), object_id, kind };
    let administrator = azure.administrator();
    let administrator =
        principal(administrator.user_principal_name(), administrator.object_id(), PrincipalKind::User);
    Setup {
        flavour,
        tenant: azure.tenant(),
        administrators: vec![administrator.clone()],
        directory: vec![
            administrator,
            principal("myVm", azure.vm().object_id(), PrincipalKind::Service),
            principal("twin", azure.user_assigned().object_id(), PrincipalKind::Service),
            principal("twin", azure.application().object_id(), PrincipalKind::Service),
            principal(azure.group().name(), azure.group().object_id(), PrincipalKind::Group),
        ],
    }
}

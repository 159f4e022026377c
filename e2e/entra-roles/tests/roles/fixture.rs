//! A local cloud for each flavour, shared by the tests of this program, or one for a test that needs all roles for
//! itself.

use std::collections::BTreeSet;
use std::future::Future;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use pgentra_connect::{ConnectError, Connector, Session};
use pgentra_emulator::{Clock, LocalAzure};
use pgentra_local::{Flavour, Host, LocalCloud};
use pgentra_roles::directory::{BoxFuture, Directory, DirectoryError, ServicePrincipal};
use pgentra_roles::{Change, Diagnostics, Options, Plan, RolesError, RolesFile, ServerSessions};
use pgentra_system::System;
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;
use tokio_postgres::Client;
use uuid::Uuid;

/// Names the folder of an installed PostgreSQL, 14 or newer, such as `/usr/lib/postgresql/15`. Default: the embedded one.
const POSTGRES: &str = "PGENTRA_TEST_POSTGRES";

/// The major versions that Azure Database for PostgreSQL has.
const VERSIONS: std::ops::RangeInclusive<i32> = 14..=18;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
static FLEXIBLE: OnceCell<Stage> = OnceCell::const_new();
static SINGLE: OnceCell<Stage> = OnceCell::const_new();
static INSTALLED: OnceCell<Vec<Stage>> = OnceCell::const_new();

/// A client id and an object id that the tenant of [`Tenant`] has.
pub(crate) const CLIENT: Uuid = Uuid::from_u128(0x5f3c_1a52_0000_4000_8000_0000_0000_00c1);
pub(crate) const OBJECT: Uuid = Uuid::from_u128(0x5f3c_1a52_0000_4000_8000_0000_0000_00b1);

/// Runs a test on the runtime that the shared servers live on.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    RUNTIME.block_on(test)
}

pub(crate) struct Stage {
    cloud: LocalCloud,
    is_installed: bool,
    pub(crate) azure: Arc<LocalAzure>,
}

impl Stage {
    pub(crate) async fn flexible() -> &'static Self {
        FLEXIBLE.get_or_init(|| Self::fresh(Flavour::Flexible)).await
    }

    /// The server of all tests, and one on every version of PostgreSQL that is installed.
    pub(crate) async fn every_version() -> Vec<&'static Self> {
        let mut stages = vec![Self::flexible().await];
        stages.extend(Self::installed().await);
        stages
    }

    pub(crate) async fn single() -> &'static Self {
        SINGLE.get_or_init(|| Self::fresh(Flavour::Single)).await
    }

    pub(crate) async fn fresh(flavour: Flavour) -> Self {
        Self::on(flavour, System::real().env().get(POSTGRES).map(PathBuf::from)).await
    }

    /// A Flexible Server on each version of PostgreSQL that is installed on this machine. Those that are not are named on
    /// the standard error of the test.
    async fn installed() -> &'static [Self] {
        INSTALLED
            .get_or_init(async || {
                let mut stages = Vec::new();
                for version in VERSIONS {
                    match installation(version) {
                        Some(folder) => stages.push(Self::on(Flavour::Flexible, Some(folder)).await),
                        None => say(&format!("not tested on PostgreSQL {version}: it is not installed")),
                    }
                }
                stages
            })
            .await
    }

    /// Whether the server has timers: the embedded one has none.
    pub(crate) fn has_timers(&self) -> bool {
        self.is_installed
    }

    async fn on(flavour: Flavour, folder: Option<PathBuf>) -> Self {
        let is_installed = folder.is_some();
        let clock = Clock::fixed(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let cloud = LocalCloud::builder().flavour(flavour).postgres(folder).clock(clock).tenant(|azure| {
            azure.new_identity("twin");
            azure.new_identity("twin");
        });
        let cloud = cloud.start().await.unwrap();
        let azure = cloud.azure().clone();
        Self { cloud, is_installed, azure }
    }

    /// The server as the Entra administrator; `database` is the default database.
    pub(crate) fn server(&self, database: &str) -> ServerSessions {
        ServerSessions::new(self.administrator(database))
    }

    pub(crate) fn administrator(&self, database: &str) -> Connector {
        self.cloud.connector(Host::Admin, &[("dbname", database.to_owned())]).unwrap()
    }

    /// Signs in with the machine's identity as this role.
    pub(crate) async fn vm(&self, role: &str, database: &str) -> Result<Session, ConnectError> {
        let flags = [("user", role.to_owned()), ("dbname", database.to_owned())];
        self.cloud.connector(Host::Vm, &flags).unwrap().connect().await
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
        self.cloud.superuser(database).await.unwrap()
    }

    /// The server's version, as `server_version_num` has it.
    pub(crate) async fn version(&self) -> i32 {
        self.texts("postgres", "SELECT current_setting('server_version_num')").await[0].parse().unwrap()
    }

    /// Says on the standard error of the test on which version something is tested.
    pub(crate) async fn say_version(&self, what: &str) {
        say(&format!("{what}: PostgreSQL {}", self.version().await / 10_000));
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

/// The folder of an installed PostgreSQL: where Debian puts it, or where `e2e/setup.sh` does.
fn installation(version: i32) -> Option<PathBuf> {
    let npm = "../../target/e2e-clients/postgresql-versions/node_modules";
    let npm = Path::new(env!("CARGO_MANIFEST_DIR")).join(npm).join(format!("postgresql-{version}/native"));
    let debian = PathBuf::from(format!("/usr/lib/postgresql/{version}"));
    [debian, npm].into_iter().find(|folder| folder.join("bin/initdb").is_file())
}

/// Writes a line past the output that the test harness captures.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "entra-roles: {line}");
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

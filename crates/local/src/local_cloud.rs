//! A running local cloud.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pgentra_connect::{Connector, Layers, Target, quote};
use pgentra_emulator::LocalAzure;
use pgentra_gateway::{Config, Flavour, ServiceAccount, Setup, UpstreamAddress};
use pgentra_identity::{Cloud, Credential, Resource};
use pgentra_localdb::{Installation, Janitor, LocalDb, SavedData};
use pgentra_system::{Env, Files, System};
use secrecy::ExposeSecret;
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

use crate::administrators::ChangesEnd;
use crate::clock::CloudClock;
use crate::environment::{self, CloudFiles, CloudView};
use crate::error::{Error, Failure};
use crate::faults::CloudFaults;
use crate::folder::write;
use crate::gateway::RunningGateway;
use crate::host::Host;
use crate::page::CloudPage;
use crate::pgbouncer::CloudPgBouncer;
use crate::state::{FixedParts, Rescue, Snapshots, StateFile};

/// The name of the server in this cloud: Single Server users write it after the `@`.
pub const SERVER_NAME: &str = "mydemoserver";
/// Time for a token from a service on this machine, which takes milliseconds.
const TOKEN_TIME: Duration = Duration::from_secs(20);

/// A running local cloud. Dropping it ends its processes and removes its folder without waiting;
/// [`LocalCloud::stop`] waits.
#[derive(Debug)]
pub struct LocalCloud {
    pub(crate) name: String,
    pub(crate) started: SystemTime,
    pub(crate) flavour: Flavour,
    pub(crate) azure: Arc<LocalAzure>,
    pub(crate) gateway: RunningGateway,
    /// The same under the server's name on Azure.
    pub(crate) named_gateway: RunningGateway,
    /// The built-in PgBouncer, which Flexible Server has.
    pub(crate) pgbouncer: Option<CloudPgBouncer>,
    pub(crate) config: Config,
    pub(crate) setup: Setup,
    pub(crate) clock: CloudClock,
    pub(crate) page: CloudPage,
    pub(crate) faults: CloudFaults,
    /// Whether the metadata service's own address is served too.
    pub(crate) is_link_local: bool,
    /// Tasks that refresh the pod's token files and update the database.
    pub(crate) followers: JoinSet<()>,
    /// Ends the changes of the database that Resource Manager asks for.
    pub(crate) changes_end: ChangesEnd,
    pub(crate) database: LocalDb,
    /// Files for programs in containers.
    #[cfg(target_os = "linux")]
    pub(crate) container_files: Option<crate::inside::ContainerFiles>,
    /// The file that its state is written into at the stop.
    pub(crate) state: Option<StateFile>,
    /// The folder for the state if it cannot be written into that file.
    pub(crate) rescue: Option<PathBuf>,
    /// Whether it began with a saved state.
    pub(crate) is_restored: bool,
    /// The PostgreSQL that it runs.
    pub(crate) installation: Installation,
    /// The folder of the Arc agent, if there is one.
    pub(crate) arc: Option<Janitor>,
    // The last field, so that it is dropped last.
    pub(crate) janitor: Janitor,
}

impl LocalCloud {
    /// Creates a role for every identity, as the Entra administrator does, and a certificate for
    /// the application. Those of a saved state are there already.
    ///
    /// # Errors
    /// If the administrator cannot sign in or PostgreSQL refuses.
    pub async fn create_roles(&mut self) -> Result<(), Error> {
        let file = CloudFiles::new(self.folder()).client_certificate;
        if !file.exists() {
            let certificate = self.azure.new_client_certificate().await;
            let certificate = certificate
                .map_err(|error| Failure::machine("cannot make the application's certificate", error))?;
            write(&file, certificate.pem().expose_secret())?;
        }
        if self.is_restored {
            return Ok(());
        }
        let session = self.connector(Host::Admin, &[])?.connect().await?;
        let azure = &self.azure;
        let application = azure.application();
        for (role, object_id, client_id) in [
            (azure.vm().name(), azure.vm().object_id(), azure.vm().client_id()),
            (
                azure.user_assigned().name(),
                azure.user_assigned().object_id(),
                azure.user_assigned().client_id(),
            ),
            (application.name(), application.object_id(), application.client_id()),
        ] {
            for statement in self.role_statements(role, object_id, client_id) {
                let done = session.client().batch_execute(&statement).await;
                done.map_err(|error| Failure::machine("cannot create the role of an identity", error))?;
            }
        }
        Ok(session.close().await?)
    }

    /// The SQL with which an Entra administrator creates `role` for a service principal.
    pub fn role_statements(&self, role: &str, object_id: Uuid, client_id: Uuid) -> Vec<String> {
        match self.flavour {
            Flavour::Single => vec![
                "SET aad_validate_oids_in_tenant = off;".to_owned(),
                format!(
                    "CREATE ROLE {} WITH LOGIN PASSWORD '{}' IN ROLE azure_ad_user;",
                    sql_name(role),
                    client_id
                ),
            ],
            Flavour::Flexible => vec![format!(
                "select * from pgaadauth_create_principal_with_oid({}, '{object_id}', 'service', false, false);",
                quote::literal(role)
            )],
        }
    }

    /// A connector of a program on `host`, for the host's own role; `flags` override its
    /// environment, as psql's do.
    ///
    /// # Errors
    /// If the flags are none that libpq knows.
    pub fn connector(&self, host: Host, flags: &[(&str, String)]) -> Result<Connector, Error> {
        let system = self.system(host);
        let layers = Layers::gather(None, flags, system.env(), system.files())?;
        let (credential, resource) = self.credential(host)?;
        Ok(Connector::new(Target::resolve(&layers)?, credential, resource)?)
    }

    /// The credential of a program on `host`, and the resource of its tokens for PostgreSQL.
    ///
    /// # Errors
    /// If the cloud is not this host.
    pub fn credential(&self, host: Host) -> Result<(Credential, Resource), Error> {
        let credential = Credential::builder(self.system(host)).deadline(TOKEN_TIME).build()?;
        Ok((credential, Cloud::Public.postgres_resource()))
    }

    /// The system that a program on `host` sees: its environment, this machine's files, and the
    /// cloud's clock.
    pub fn system(&self, host: Host) -> System {
        let env = Env::from_map(self.environment(host));
        System::builder().env(env).files(Files::real()).clock(self.clock.clone()).build()
    }

    /// Everything that libpq, the Azure SDKs and pgentra need on `host`.
    pub fn environment(&self, host: Host) -> BTreeMap<String, String> {
        environment::of(host, &self.view())
    }

    /// The local tenant and the services that issue its tokens.
    pub fn azure(&self) -> &Arc<LocalAzure> {
        &self.azure
    }

    /// The name that it was started with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// When it was ready, by this machine's clock.
    pub fn started(&self) -> SystemTime {
        self.started
    }

    /// The Azure product that it imitates.
    pub fn flavour(&self) -> Flavour {
        self.flavour
    }

    /// The address of PostgreSQL for clients.
    pub fn postgres_addr(&self) -> SocketAddr {
        self.gateway.address
    }

    /// The port of 127.0.0.1 of the built-in PgBouncer, on which it listens while the server parameter
    /// `pgbouncer.enabled` is `true`. `None`: Single Server has none.
    pub fn pgbouncer_port(&self) -> Option<u16> {
        self.pgbouncer.as_ref().map(CloudPgBouncer::port)
    }

    /// PostgreSQL's version, such as "17.5".
    pub fn postgres_version(&self) -> &str {
        self.database.version()
    }

    /// The address of the page for people, such as `http://127.0.0.1:18500/`.
    pub fn page_url(&self) -> String {
        self.page.url()
    }

    /// The folder, which is removed at the stop.
    pub fn folder(&self) -> &Path {
        self.janitor.folder()
    }

    /// The files in the folder that programs read.
    pub fn files(&self) -> CloudFiles {
        CloudFiles::new(self.folder())
    }

    /// The time of this cloud.
    pub fn clock(&self) -> &CloudClock {
        &self.clock
    }

    /// What its faults are switched on and off with.
    pub fn faults(&self) -> &CloudFaults {
        &self.faults
    }

    /// The configuration of the gateway, for another one in front of the same PostgreSQL.
    pub fn gateway_config(&self) -> Config {
        self.config.clone()
    }

    /// What PostgreSQL was prepared with.
    pub fn gateway_setup(&self) -> &Setup {
        &self.setup
    }

    /// The file into which [`LocalCloud::stop_and_save`] writes the state. Default: none.
    pub fn state_file(&self) -> Option<&Path> {
        self.state.as_ref().map(StateFile::path)
    }

    /// What saves its state while it runs.
    pub fn snapshots(&self) -> Snapshots {
        let data = SavedData {
            version: self.database.version().to_owned(),
            platform: SavedData::platform(),
            password: self.database.password().clone(),
        };
        let (flavour, folder, backup) = (self.flavour, self.folder().to_owned(), self.database.backup());
        Snapshots::new(self.azure.clone(), self.faults.clone(), FixedParts { flavour, data, backup, folder })
    }

    /// Shuts the gateway down, which ends every session, and serves again at the same port.
    ///
    /// # Errors
    /// If another program has taken the port meanwhile.
    pub async fn restart_gateway(&mut self) -> Result<(), Failure> {
        self.gateway.end().await;
        let (port, further) = (self.postgres_addr().port(), self.gateway.further);
        self.gateway = RunningGateway::start(self.config.clone(), port).await?;
        if let Some(address) = further {
            self.gateway.serve_further(address).await?;
        }
        Ok(())
    }

    /// A superuser session in this database, without the gateway. Its connection is driven by a
    /// task of its own.
    ///
    /// # Errors
    /// If there is no such database, or PostgreSQL has ended.
    pub async fn superuser(&self, database: &str) -> Result<Client, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config
            .host_path(self.database.socket_dir())
            .port(self.database.port())
            .user(self.database.superuser())
            .password(self.database.password().expose_secret())
            .dbname(database);
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Returns when PostgreSQL has ended by itself, with its exit status. Cancel-safe.
    pub async fn died(&mut self) -> String {
        match self.database.ended().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }

    /// Ends sessions and requests, writes the state into the file of [`state`](crate::LocalCloudBuilder::state), if there
    /// is one, and stops.
    ///
    /// # Errors
    /// If the state could not be written. The file is as it was then, and the local cloud has stopped. The hint names the
    /// file, or the folder of PostgreSQL's files, that the state is in instead.
    pub async fn stop_and_save(mut self) -> Result<(), Failure> {
        let Some(file) = self.state.take() else {
            self.stop().await;
            return Ok(());
        };
        let snapshots = self.snapshots();
        // From here on nothing changes: first those end who ask for changes, then those who make them.
        self.gateway.end().await;
        self.named_gateway.end().await;
        self.page.end().await;
        let faults = snapshots.faults();
        self.azure.close().await;
        self.changes_end.reach().await;
        if let Some(pgbouncer) = &self.pgbouncer {
            pgbouncer.end().await;
        }
        self.faults.finish().await;
        self.followers.shutdown().await;
        let ended = self.database.shut_down().await;
        let saved = match &ended {
            Ok(()) => snapshots.save_ended(file, faults.clone(), self.database.data().to_owned()).await,
            Err(error) => Err(Failure::machine(
                &format!("cannot write the state into {}", file.path().display()),
                std::io::Error::new(error.kind(), error.to_string()),
            )),
        };
        let saved = match saved {
            Ok(_) => Ok(()),
            Err(failure) => {
                let rescue = Rescue {
                    snapshots: &snapshots,
                    faults,
                    name: &self.name,
                    folder: self.rescue.as_deref(),
                    data: self.database.data(),
                    cloud: self.janitor.folder(),
                };
                Err(match ended {
                    Ok(()) => rescue.another_file(failure).await,
                    // What still runs changes the files.
                    Err(_) => rescue.files(failure),
                })
            }
        };
        drop(snapshots);
        self.stop().await;
        saved
    }

    /// Ends sessions, processes and listeners, and removes the folder. The state is lost.
    pub async fn stop(self) {
        let Self {
            azure,
            gateway,
            named_gateway,
            pgbouncer,
            clock,
            page,
            faults,
            mut followers,
            database,
            arc,
            janitor,
            ..
        } = self;
        faults.end().await;
        drop(faults);
        if let Some(pgbouncer) = pgbouncer {
            pgbouncer.end().await;
        }
        gateway.stop().await;
        named_gateway.stop().await;
        page.stop().await;
        drop(clock);
        followers.shutdown().await;
        if let Some(azure) = Arc::into_inner(azure) {
            azure.stop().await;
        }
        database.stop().await;
        // Blocks for some milliseconds; no other work is left.
        for janitor in arc.into_iter().chain([janitor]) {
            if let Err(error) = janitor.finish() {
                tracing::error!(%error, "a folder of the local cloud could not be removed");
            }
        }
    }

    /// What environments are made of.
    pub(crate) fn view(&self) -> CloudView<'_> {
        CloudView {
            azure: &self.azure,
            folder: self.folder(),
            port: self.postgres_addr().port(),
            is_link_local: self.is_link_local,
        }
    }
}

/// The PostgreSQL behind the gateway, and the superuser that the gateway reads with.
pub(crate) fn upstream(database: &LocalDb) -> (UpstreamAddress, ServiceAccount) {
    let upstream = UpstreamAddress::Unix { dir: database.socket_dir().to_path_buf(), port: database.port() };
    let service =
        ServiceAccount { name: database.superuser().to_owned(), password: database.password().clone() };
    (upstream, service)
}

/// A role's name as the article writes it where PostgreSQL takes it so, quoted elsewhere.
fn sql_name(role: &str) -> String {
    let plain = role.starts_with(|first: char| first.is_ascii_lowercase())
        && role.chars().all(|char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_');
    if plain { role.to_owned() } else { quote::identifier(role) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_where_they_must_be() {
        assert_eq!(sql_name("myuser"), "myuser");
        assert_eq!(sql_name("myVm"), "\"myVm\"");
        assert_eq!(sql_name("a\"b"), "\"a\"\"b\"");
    }
}

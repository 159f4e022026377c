//! Emulator, PostgreSQL and gateway as one local cloud, in this process.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pgentra_connect::{Connector, Layers, Target, quote};
use pgentra_emulator::options::{AzureArcAgent, ServerOptions};
use pgentra_emulator::{Clock, Identity, LocalAzure, Options};
use pgentra_gateway::{Flavour, Gateway, ServiceAccount, Setup, Upstream};
use pgentra_identity::{Cloud, Credential, Resource};
use pgentra_localdb::{Janitor, LocalDb, StartError};
use pgentra_session::Limits;
use pgentra_system::http::HttpClient;
use pgentra_system::{Env, System};
use pgentra_verify::{Policy, Verifier};
use secrecy::ExposeSecret;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::administrators::{self, Database};
use super::environment::{self, CloudFiles, CloudView};
use super::folder::{self, write};
use super::keys::PublishedKeys;
use super::pod::Pod;
use crate::options::{FixedPlaces, Host, LocalDatabase};
use crate::problem::{Outcome, Problem};
use crate::progress::Progress;
use crate::sql;

/// The name of the server in this cloud: what Single Server users write behind the `@`.
pub(crate) const SERVER_NAME: &str = "mydemoserver";
/// A token of a service on this machine takes milliseconds.
const TOKEN_TIME: Duration = Duration::from_secs(20);

/// How a local cloud is to be.
pub(crate) struct CloudOptions {
    pub(crate) folder: PathBuf,
    pub(crate) database: LocalDatabase,
    /// Port of PostgreSQL; 0 takes any.
    pub(crate) port: u16,
    /// Port of the metadata service; 0 takes any.
    pub(crate) metadata_port: u16,
    /// What to be besides, at its own place on the machine.
    pub(crate) fixed: FixedPlaces,
}

/// A running local cloud. Dropping it ends its processes and removes its folder; `stop` does so in order.
pub(crate) struct LocalCloud {
    flavour: Flavour,
    azure: Arc<LocalAzure>,
    gateway: JoinHandle<()>,
    port: u16,
    stop: CancellationToken,
    pod: Pod,
    /// The metadata service's own address answers too.
    is_link_local: bool,
    /// What follows the cloud: the pod's token files, and the database.
    followers: Vec<JoinHandle<()>>,
    database: LocalDb,
    /// The folder of the Arc agent, if it is one.
    arc: Option<Janitor>,
    // Last, so that it goes last.
    janitor: Janitor,
}

impl LocalCloud {
    /// Starts everything and waits until it serves. Cancel-safe: dropped before it is done, it leaves nothing behind.
    pub(crate) async fn start(system: &System, options: CloudOptions, progress: &Progress) -> Outcome<Self> {
        let janitor = folder::create(system.env(), &options.folder)?;
        let arc = options.fixed.arc.then(folder::create_arc).transpose()?;
        let flavour = options.database.flavour;
        progress.show("starting PostgreSQL, the metadata service and the Entra tenant");
        let (database, azure) = tokio::try_join!(
            start_database(system, &options),
            start_azure(system, &options, arc.as_ref().map(folder::arc_keys))
        )?;
        let places = CloudFiles::new(janitor.folder());
        write(&places.certificate, azure.ca_pem())?;
        progress.show("installing Azure's functions and roles");
        let upstream = Upstream::Unix { dir: database.socket_dir().to_path_buf(), port: database.port() };
        let service =
            ServiceAccount { name: database.superuser().to_owned(), password: database.password().clone() };
        pgentra_gateway::init(&upstream, &service, &setup(flavour, &azure))
            .await
            .map_err(|error| Problem::ours("cannot prepare PostgreSQL for Entra roles", error))?;
        let certificate = azure
            .certificates()
            .issue(&["localhost", "127.0.0.1", "::1"])
            .and_then(|issued| issued.server_config(&[]))
            .map_err(|error| Problem::ours("cannot make the server's certificate", error))?;
        let clock = azure.clock().clone();
        let behind = Database { upstream: upstream.clone(), service: service.clone() };
        let gateway = Arc::new(Gateway::new(pgentra_gateway::Config {
            tls: certificate,
            upstream,
            service,
            flavour,
            server_name: SERVER_NAME.to_owned(),
            verifier: Arc::new(verifier(&azure)?),
            clock: Arc::new(move || clock.now()),
            limits: Limits::default(),
        }));
        let (listener, port) = listen(options.port).await?;
        let stop = CancellationToken::new();
        let gateway = tokio::spawn(gateway.serve(listener, stop.clone()));
        let azure = Arc::new(azure);
        let pod = Pod::new(places, azure.clone());
        pod.write()?;
        let is_link_local = options.fixed.link_local;
        let followers = vec![
            tokio::spawn(pod.clone().keep()),
            tokio::spawn(administrators::follow(behind.clone(), azure.follow_administrators())),
            tokio::spawn(administrators::know(behind, azure.clone(), azure.principals_changed())),
        ];
        Ok(Self {
            flavour,
            azure,
            gateway,
            port,
            stop,
            pod,
            is_link_local,
            followers,
            database,
            arc,
            janitor,
        })
    }

    /// Gives every identity a role, as the Entra administrator does it, and the application a certificate.
    pub(crate) async fn create_roles(&mut self) -> Outcome {
        let certificate = self.azure.new_client_certificate().await;
        let certificate =
            certificate.map_err(|error| Problem::ours("cannot make the application's certificate", error))?;
        write(&CloudFiles::new(self.folder()).client_certificate, certificate.pem().expose_secret())?;
        let session = self.connector(Host::Admin, None)?.connect().await?;
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
                sql::results(&session, &statement).await?;
            }
        }
        Ok(session.close().await?)
    }

    /// What an Entra administrator types to make `role` belong to a service principal.
    pub(crate) fn role_statements(&self, role: &str, object_id: Uuid, client_id: Uuid) -> Vec<String> {
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

    /// Signs in as the identity of `host`; as its own role, or as `user`.
    pub(crate) fn connector(&self, host: Host, user: Option<&str>) -> Outcome<Connector> {
        let system = self.system_of(host);
        let flags: Vec<_> = user.map(|user| ("user", user.to_owned())).into_iter().collect();
        let layers = Layers::gather(None, &flags, system.env(), system.files())?;
        let target = Target::resolve(&layers)?;
        let (credential, resource) = self.credential(host)?;
        Ok(Connector::new(target, credential, resource)?)
    }

    /// The credential of a program on `host`.
    pub(crate) fn credential(&self, host: Host) -> Outcome<(Credential, Resource)> {
        let credential = Credential::builder(self.system_of(host)).deadline(TOKEN_TIME).build()?;
        Ok((credential, Cloud::Public.postgres_resource()))
    }

    /// The machine's system-assigned identity.
    pub(crate) fn vm(&self) -> &Identity {
        self.azure.vm()
    }

    /// The local tenant.
    pub(crate) fn azure(&self) -> &LocalAzure {
        &self.azure
    }

    /// Which product it behaves as.
    pub(crate) fn flavour(&self) -> Flavour {
        self.flavour
    }

    /// PostgreSQL's port, as clients see it.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// PostgreSQL's version, such as "17.5".
    pub(crate) fn postgres_version(&self) -> &str {
        self.database.version()
    }

    /// The folder that goes when it stops.
    pub(crate) fn folder(&self) -> &Path {
        self.janitor.folder()
    }

    /// The token files of the pod, and the clock.
    pub(crate) fn pod(&self) -> &Pod {
        &self.pod
    }

    /// What environments are made of.
    pub(crate) fn view(&self) -> CloudView<'_> {
        CloudView {
            azure: &self.azure,
            folder: self.folder(),
            port: self.port,
            is_link_local: self.is_link_local,
        }
    }

    /// The time in this cloud.
    pub(crate) fn now(&self) -> SystemTime {
        self.azure.clock().now()
    }

    /// Returns when PostgreSQL ended by itself. Cancel-safe.
    pub(crate) async fn died(&mut self) -> String {
        match self.database.ended().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }

    /// Ends sessions, processes and listeners, and removes the folder.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        let _ = self.gateway.await;
        drop(self.pod);
        for task in self.followers {
            task.abort();
            let _ = task.await;
        }
        if let Some(azure) = Arc::into_inner(self.azure) {
            azure.stop().await;
        }
        self.database.stop().await;
        // Blocks for some milliseconds, and nothing else is left to do.
        for janitor in self.arc.into_iter().chain([self.janitor]) {
            if let Err(error) = janitor.finish() {
                tracing::error!(%error, "a folder of the local cloud could not be removed");
            }
        }
    }

    /// The world of a program on `host`: its environment, this machine's files and clock.
    fn system_of(&self, host: Host) -> System {
        let variables = environment::of(host, &self.view());
        System::builder().env(Env::from_map(variables)).files(pgentra_system::Files::real()).build()
    }
}

async fn start_database(system: &System, options: &CloudOptions) -> Outcome<LocalDb> {
    let server = match &options.database.postgres {
        Some(folder) => pgentra_localdb::Server::Installed(folder.clone()),
        None => pgentra_localdb::Server::Embedded,
    };
    let folder = options.folder.join("db");
    pgentra_localdb::start(pgentra_localdb::Options { folder, server }).await.map_err(|error| {
        let hint = not_started(&error, system, options);
        Problem::ours("cannot start PostgreSQL", error).hint(hint)
    })
}

/// What to do about a PostgreSQL that did not start.
fn not_started(error: &StartError, system: &System, options: &CloudOptions) -> String {
    let embedded = options.database.postgres.is_none();
    match error {
        StartError::Io { source, .. } if embedded && source.kind() == ErrorKind::PermissionDenied => format!(
            "programs in {} cannot be run, as on a file system that is mounted noexec: set {} to a folder where they \
             can, or take an installed PostgreSQL with --postgres DIR",
            options.folder.display(),
            folder::variable(system.env())
        ),
        StartError::Io { source, .. } if source.kind() == ErrorKind::StorageFull => {
            format!("free some space, or set {} to a folder on another disk", folder::variable(system.env()))
        }
        StartError::Folder { .. } | StartError::PathTooLong { .. } => {
            format!("set {} to another folder with a short path", folder::variable(system.env()))
        }
        StartError::NotEmbedded | StartError::NotInstalled { .. } | StartError::Version { .. } => {
            "name an installed one: --postgres /usr/lib/postgresql/17".to_owned()
        }
        StartError::Unreachable { .. } => format!(
            "run it as another user than root, or set {} to a folder that every user may enter",
            folder::variable(system.env())
        ),
        _ => "-vv says more; --postgres DIR takes an installed one".to_owned(),
    }
}

async fn start_azure(
    system: &System,
    options: &CloudOptions,
    arc_keys: Option<PathBuf>,
) -> Outcome<LocalAzure> {
    let clock = system.clock().clone();
    let mut azure = Options::new(Clock::following(move || clock.now()));
    azure.ports.metadata = options.metadata_port;
    // Resource Manager has no port: clients find it in PGPORT.
    azure.server = match options.database.flavour {
        Flavour::Flexible => Some(ServerOptions::new(SERVER_NAME, "localhost")),
        _ => None,
    };
    azure.link_local = options.fixed.link_local;
    azure.arc = arc_keys.map(AzureArcAgent::new);
    LocalAzure::start(azure).await.map_err(|error| {
        let problem = Problem::ours("cannot start the local Azure", error);
        if options.fixed.link_local {
            problem.hint("as root: ip addr add 169.254.169.254/32 dev lo, best in a network namespace")
        } else {
            problem.hint("give another --metadata-port, or 0 for any free one")
        }
    })
}

/// Who is who in the local tenant, for roles that are created by name.
fn setup(flavour: Flavour, azure: &LocalAzure) -> Setup {
    let administrator = azure.administrator();
    let administrator = pgentra_gateway::Principal {
        name: administrator.user_principal_name().to_owned(),
        object_id: administrator.object_id(),
        kind: pgentra_gateway::PrincipalKind::User,
    };
    Setup {
        flavour,
        tenant: azure.tenant(),
        administrators: vec![administrator],
        directory: administrators::directory(azure),
    }
}

/// A verifier of the local tenant's tokens, with the keys where the tenant publishes them.
fn verifier(azure: &LocalAzure) -> Outcome<Verifier> {
    let policy = Policy::builder(azure.tenant())
        .issuer(azure.issuer())
        .audience(Cloud::Public.postgres_resource().as_str())
        .build()
        .map_err(|error| Problem::ours("cannot make the policy for tokens", error))?;
    let http = HttpClient::new(&Env::from_map::<String, String>([]), &pgentra_system::Files::in_memory())
        .with_extra_roots(azure.ca_pem().as_bytes())
        .map_err(|error| Problem::ours("cannot trust the local authority", error))?;
    Ok(Verifier::new(policy, PublishedKeys::new(http, azure.keys_url())))
}

async fn listen(port: u16) -> Outcome<(TcpListener, u16)> {
    let bound = async {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let port = listener.local_addr()?.port();
        Ok::<_, std::io::Error>((listener, port))
    };
    bound.await.map_err(|error| {
        Problem::ours("cannot listen for PostgreSQL clients", error)
            .hint("give another --port, or 0 for any free one")
    })
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

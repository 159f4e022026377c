//! Runs emulator, PostgreSQL and gateway as one local cloud in this process.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pgentra_connect::{Connector, Layers, Target, quote};
use pgentra_emulator::options::{AzureArcAgent, ServerOptions};
use pgentra_emulator::{Clock, Identity, LocalAzure, Options};
use pgentra_gateway::{Flavour, Gateway, ServiceAccount, Setup, UpstreamAddress};
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

/// The name of the server in this cloud: Single Server users write it after the `@`.
pub(crate) const SERVER_NAME: &str = "mydemoserver";
/// Time for a token from a service on this machine, which takes milliseconds.
const TOKEN_TIME: Duration = Duration::from_secs(20);

/// Options of a local cloud.
pub(crate) struct CloudOptions {
    pub(crate) folder: PathBuf,
    pub(crate) database: LocalDatabase,
    /// Port of PostgreSQL; 0 takes any free one.
    pub(crate) port: u16,
    /// Port of the metadata service; 0 takes any free one.
    pub(crate) metadata_port: u16,
    /// Services at fixed addresses or paths of the machine.
    pub(crate) fixed: FixedPlaces,
}

/// A running local cloud. Dropping it ends its processes and removes its folder without waiting;
/// `stop` waits.
pub(crate) struct LocalCloud {
    flavour: Flavour,
    azure: Arc<LocalAzure>,
    gateway: JoinHandle<()>,
    port: u16,
    stop: CancellationToken,
    pod: Pod,
    /// Whether the metadata service's own address is served too.
    is_link_local: bool,
    /// Tasks that refresh the pod's token files and update the database.
    followers: Vec<JoinHandle<()>>,
    database: LocalDb,
    /// The folder of the Arc agent, if there is one.
    arc: Option<Janitor>,
    // The last field, so that it is dropped last.
    janitor: Janitor,
}

impl LocalCloud {
    /// Starts all parts and waits until they serve. Cancel-safe: dropped before it is done, it
    /// removes everything again.
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
        let upstream =
            UpstreamAddress::Unix { dir: database.socket_dir().to_path_buf(), port: database.port() };
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

    /// Creates a role for every identity, as the Entra administrator does, and a certificate for
    /// the application.
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

    /// The SQL with which an Entra administrator creates `role` for a service principal.
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

    /// A connector with the identity of `host`, for its own role or for `user`.
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

    /// The Azure product that it imitates.
    pub(crate) fn flavour(&self) -> Flavour {
        self.flavour
    }

    /// PostgreSQL's port for clients.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// PostgreSQL's version, such as "17.5".
    pub(crate) fn postgres_version(&self) -> &str {
        self.database.version()
    }

    /// The folder, which is removed at the stop.
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

    /// The current time of this cloud.
    pub(crate) fn now(&self) -> SystemTime {
        self.azure.clock().now()
    }

    /// Returns when PostgreSQL has ended by itself. Cancel-safe.
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
        // Blocks for some milliseconds; no other work is left.
        for janitor in self.arc.into_iter().chain([self.janitor]) {
            if let Err(error) = janitor.finish() {
                tracing::error!(%error, "a folder of the local cloud could not be removed");
            }
        }
    }

    /// The system that a program on `host` sees: its environment, and this machine's files and
    /// clock.
    fn system_of(&self, host: Host) -> System {
        let variables = environment::of(host, &self.view());
        System::builder().env(Env::from_map(variables)).files(pgentra_system::Files::real()).build()
    }
}

async fn start_database(system: &System, options: &CloudOptions) -> Outcome<LocalDb> {
    let server = match &options.database.postgres {
        Some(folder) => pgentra_localdb::Installation::Installed(folder.clone()),
        None => pgentra_localdb::Installation::Embedded,
    };
    let folder = options.folder.join("db");
    pgentra_localdb::start(pgentra_localdb::Options { folder, server }).await.map_err(|error| {
        let hint = not_started(&error, system, options);
        Problem::ours("cannot start PostgreSQL", error).hint(hint)
    })
}

/// The hint for a PostgreSQL that did not start.
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
    // Resource Manager has no port: clients read it from PGPORT.
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

/// The principals of the local tenant, for roles that are created by name.
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

/// A verifier of the local tenant's tokens, which fetches the keys from the tenant.
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

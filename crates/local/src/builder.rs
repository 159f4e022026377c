//! Starts a local cloud.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use pgentra_emulator::certificates::Authority;
use pgentra_emulator::options::{AzureArcAgent, ServerOptions};
use pgentra_emulator::{Clock, Ids, LocalAzure, Options, PrincipalKind};
use pgentra_gateway::{ClientTls, Config, Flavour, Setup};
use pgentra_localdb::{Installation, Janitor, LocalDb, PooledServer, PoolerProgram, StartError};
use pgentra_session::Limits;
use pgentra_system::System;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::administrators::{self, ChangesEnd, Database};
use crate::azure_names;
use crate::clock::CloudClock;
use crate::cluster;
use crate::environment::{CloudFiles, DATABASE};
use crate::error::{Error, Failure, FailureKind};
use crate::faults::CloudFaults;
use crate::folder::{self, folder_of, write};
use crate::gateway::RunningGateway;
use crate::gateway_config;
use crate::host::Host;
use crate::kept::{self, KeptPorts};
use crate::local_cloud::{LocalCloud, SERVER_NAME, upstream};
use crate::page::{CloudPage, HostStrings, PageSource, ServerPlace};
use crate::pgbouncer::{self, CloudPgBouncer, PgBouncerOptions, PgBouncerParts};
use crate::server_faults::ServerFaults;
use crate::state::{SavedState, StateFile, StateOption};
use crate::trust_store::trust_store_with;

/// How to start a [`LocalCloud`]. By default it is a Flexible Server on the embedded PostgreSQL, with
/// a name of its own, at free ports, by this machine's clock.
pub struct LocalCloudBuilder<'a> {
    system: System,
    name: Option<String>,
    folder: Option<PathBuf>,
    flavour: Option<Flavour>,
    postgres: Option<PathBuf>,
    port: u16,
    metadata_port: u16,
    pgbouncer: PgBouncerOptions,
    entra_port: u16,
    authority: Option<(PathBuf, PathBuf)>,
    is_link_local: bool,
    is_arc: bool,
    address: Option<IpAddr>,
    host_names: Vec<String>,
    trusted_cluster: Option<(String, PathBuf)>,
    origin: Identifiers,
    seed: Option<String>,
    state: Option<PathBuf>,
    snapshot: Option<PathBuf>,
    clock: Option<Clock>,
    limits: Limits,
    progress: Box<dyn Fn(&str) + Send + Sync + 'a>,
    azure: Box<dyn FnOnce(&mut Options) + Send + 'a>,
    tenant: Box<dyn FnOnce(&LocalAzure) + Send + 'a>,
}

/// Where ids, ports and the certificate authority come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Identifiers {
    /// They are new.
    New,
    /// They are those of the name.
    Name,
}

impl LocalCloud {
    /// Options of a new local cloud.
    pub fn builder<'a>() -> LocalCloudBuilder<'a> {
        LocalCloudBuilder {
            system: System::real(),
            name: None,
            folder: None,
            flavour: None,
            postgres: None,
            port: 0,
            metadata_port: 0,
            pgbouncer: PgBouncerOptions::default(),
            entra_port: 0,
            authority: None,
            is_link_local: false,
            is_arc: false,
            address: None,
            host_names: Vec::new(),
            trusted_cluster: None,
            origin: Identifiers::New,
            seed: None,
            state: None,
            snapshot: None,
            clock: None,
            limits: Limits::default(),
            progress: Box::new(|_| {}),
            azure: Box::new(|_| {}),
            tenant: Box::new(|_| {}),
        }
    }
}

impl<'a> LocalCloudBuilder<'a> {
    /// The environment that names the folder's parent, and the clock. Default: this machine's.
    pub fn system(mut self, system: &System) -> Self {
        self.system = system.clone();
        self
    }

    /// The name. Default: one that no other cloud of this machine has.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The folder, which must not exist; its parent must. Default: [`folder_of`] the name.
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// The Azure product to imitate. Default: that of the saved state, else Flexible Server.
    pub fn flavour(mut self, flavour: impl Into<Option<Flavour>>) -> Self {
        self.flavour = flavour.into();
        self
    }

    /// The folder of an installed PostgreSQL. Default: the embedded one.
    pub fn postgres(mut self, folder: Option<PathBuf>) -> Self {
        self.postgres = folder;
        self
    }

    /// The port of PostgreSQL for clients. Default: 0, any free one.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// The port of the metadata service. Default: 0, any free one.
    pub fn metadata_port(mut self, port: u16) -> Self {
        self.metadata_port = port;
        self
    }

    /// Whether the built-in PgBouncer is on at the start, as the server parameter `pgbouncer.enabled` has it. Flexible Server
    /// only. Default: no.
    pub fn pgbouncer(mut self, is_on: bool) -> Self {
        self.pgbouncer.is_on = is_on;
        self
    }

    /// The port of PgBouncer for clients. Flexible Server has one. Default: 0, any free one.
    pub fn pgbouncer_port(mut self, port: u16) -> Self {
        self.pgbouncer.port = port;
        self
    }

    /// The port of Entra's endpoints. Default: 0, any free one.
    pub fn entra_port(mut self, port: u16) -> Self {
        self.entra_port = port;
        self
    }

    /// The files of the certificate authority that signs for PostgreSQL and Entra: its certificate and its key, in PEM.
    /// Default: one of its own.
    pub fn authority(mut self, files: Option<(PathBuf, PathBuf)>) -> Self {
        self.authority = files;
        self
    }

    /// Whether the metadata service also answers at 169.254.169.254:80. Default: no.
    pub fn link_local(mut self, is_link_local: bool) -> Self {
        self.is_link_local = is_link_local;
        self
    }

    /// Whether the cloud is an Azure Arc server too, which needs root. Default: no.
    pub fn arc(mut self, is_arc: bool) -> Self {
        self.is_arc = is_arc;
        self
    }

    /// One more address on which PostgreSQL and Entra are served, at the same ports. It may be that of another network:
    /// each client that reaches it can be the administrator. Default: none.
    pub fn address(mut self, address: Option<IpAddr>) -> Self {
        self.address = address;
        self
    }

    /// Names and addresses under which other machines reach PostgreSQL and Entra, for their certificates. With one, the
    /// certificate authority is new at each start: the kept one signs for this machine only. Default: none.
    pub fn host_names(mut self, names: Vec<String>) -> Self {
        self.host_names = names;
        self
    }

    /// The issuer of a Kubernetes cluster, and the file with its keys (a JSON Web Key Set). Entra takes tokens of its
    /// service accounts where a federated credential is registered for them. Default: none.
    pub fn trusted_cluster(mut self, cluster: Option<(String, PathBuf)>) -> Self {
        self.trusted_cluster = cluster;
        self
    }

    /// Whether ids, ports and the certificate authority are those of the name, as in every other
    /// run. The key of the authority is kept in the [`state_folder`](crate::state_folder). A port that
    /// is taken is replaced for this run, with a warning in the log. Default: no, all are new.
    pub fn kept(mut self, is_kept: bool) -> Self {
        self.origin = if is_kept { Identifiers::Name } else { Identifiers::New };
        self
    }

    /// Ids of the tenant, the subscription and the identities are those of this text, under any name.
    /// Default: as [`LocalCloudBuilder::kept`] says.
    pub fn seed(mut self, seed: Option<String>) -> Self {
        self.seed = seed;
        self
    }

    /// The file with the state to begin with, if it exists. [`LocalCloud::stop_and_save`] writes the state into it.
    /// Its ids are used, and no seed. Default: none.
    pub fn state(mut self, file: Option<PathBuf>) -> Self {
        self.state = file;
        self
    }

    /// The file with the state to begin with. It is not changed, and several clouds can have it. Without
    /// [`LocalCloudBuilder::state`]. Default: none.
    pub fn snapshot(mut self, file: Option<PathBuf>) -> Self {
        self.snapshot = file;
        self
    }

    /// The clock that tokens follow. Default: the system's, plus whatever the cloud is advanced by.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// The limits of the gateway.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Called with each step of the start, as a text for a person.
    pub fn progress(mut self, progress: impl Fn(&str) + Send + Sync + 'a) -> Self {
        self.progress = Box::new(progress);
        self
    }

    /// Changes the options of the emulator.
    pub fn azure(mut self, change: impl FnOnce(&mut Options) + Send + 'a) -> Self {
        self.azure = Box::new(change);
        self
    }

    /// Changes the tenant before PostgreSQL is prepared with its directory.
    pub fn tenant(mut self, change: impl FnOnce(&LocalAzure) + Send + 'a) -> Self {
        self.tenant = Box::new(change);
        self
    }

    /// Starts all parts and waits until they serve. Cancel-safe: dropped before it is done, it
    /// removes everything again.
    ///
    /// # Errors
    /// If a folder cannot be made, a port cannot be bound, PostgreSQL does not start, or the saved state cannot be used.
    pub async fn start(mut self) -> Result<LocalCloud, Error> {
        let name = self.name.take().unwrap_or_else(unique_name);
        let folder = self.folder.take().unwrap_or_else(|| folder_of(self.system.env(), &name));
        let (state, saved) = self.saved()?;
        let flavour = saved.as_ref().map_or(self.flavour.unwrap_or(Flavour::Flexible), |saved| saved.flavour);
        let janitor = folder::create(self.system.env(), &folder)?;
        let arc = self.is_arc.then(folder::create_arc).transpose()?;
        // Before PostgreSQL, which takes seconds: a port that is taken is told at once.
        let listener = own_listener(self.port).await?;
        let program = self.pgbouncer.find(self.system.env(), flavour)?;
        (self.progress)("starting PostgreSQL, the metadata service and the Entra tenant");
        let server = server_options(flavour, self.pgbouncer, &program);
        let (mut options, preferred) = self.options(&name, &folder, arc.as_ref(), server)?;
        (self.azure)(&mut options);
        let installation = self.postgres.map_or(Installation::Embedded, Installation::Installed);
        let (database, azure) = tokio::try_join!(
            start_database(&self.system, &folder, &installation, saved.as_ref()),
            start_azure(options, saved.as_ref())
        )?;
        let files = CloudFiles::new(janitor.folder());
        write(&files.certificate, azure.ca_pem())?;
        saved.as_ref().map_or(Ok(()), |saved| saved.write_files(&files))?;
        let trust_store = trust_store_of(&azure);
        let names = names_of(&azure, &files)?;
        (self.progress)("installing Azure's functions and roles");
        let (upstream, service) = upstream(&database);
        (self.tenant)(&azure);
        let setup = setup(flavour, &azure);
        pgentra_gateway::init(&upstream, &service, &setup)
            .await
            .map_err(|error| Failure::machine("cannot prepare PostgreSQL for Entra roles", error))?;
        write(&files.trust_store, trust_store.await?)?;
        let tls = tls(azure.certificates(), &own_names(&self.host_names))?;
        let behind = Database { upstream, service };
        let config = gateway_config::config(&azure, &behind, (flavour, self.limits), tls)?;
        let mut gateway = RunningGateway::start_kept(config.clone(), listener, preferred.postgres).await?;
        if let Some(address) = self.address {
            gateway.serve_further(address).await?;
        }
        let named_gateway = RunningGateway::start(Config { tls: names.clone(), ..config.clone() }, 0).await?;
        let pooled = match flavour {
            Flavour::Flexible => {
                let parts = PgBouncerParts {
                    folder: janitor.folder().join("pgbouncer"),
                    program,
                    server: PooledServer::of(&database),
                    config: config.clone(),
                    names,
                    address: self.address,
                };
                let ports = (self.pgbouncer.port, preferred.pgbouncer);
                Some(CloudPgBouncer::start(parts, &azure.pgbouncer_settings(), ports).await?)
            }
            Flavour::Single => None,
        };
        let azure = Arc::new(azure);
        let clock = CloudClock::new(files, azure.clone());
        clock.write()?;
        let faults = CloudFaults::new(azure.clone(), ServerFaults::new(&database));
        let source = PageSource {
            name: name.clone(),
            flavour,
            postgres: database.version().to_owned(),
            azure: azure.clone(),
            clock: clock.clone(),
            faults: faults.clone(),
            telemetry: config.telemetry.clone(),
            access: access(&name, &azure, gateway.address.port(), janitor.folder()),
        };
        let page = CloudPage::start(source, preferred.page).await?;
        let changes_end = ChangesEnd::default();
        let followers = follow(flavour, behind, &pooled, (&azure, &clock), changes_end.clone());
        faults.restore(saved.as_ref().map_or(&[], |saved| &saved.faults)).await;
        Ok(LocalCloud {
            name,
            started: self.system.clock().now(),
            flavour,
            azure,
            gateway,
            named_gateway,
            pgbouncer: pooled,
            config,
            setup,
            clock,
            page,
            faults,
            is_link_local: self.is_link_local,
            followers,
            changes_end,
            database,
            #[cfg(target_os = "linux")]
            container_files: None,
            rescue: state.as_ref().and_then(|_| kept::state_folder(self.system.env())),
            state,
            is_restored: saved.is_some(),
            installation,
            arc,
            janitor,
        })
    }

    /// The file that the state is written into, and the state to begin with.
    fn saved(&self) -> Result<(Option<StateFile>, Option<SavedState>), Failure> {
        let state = self.state.as_deref().map(StateFile::take).transpose()?;
        let saved = match (&self.state, &self.snapshot) {
            (Some(file), _) => SavedState::open(file, StateOption::State)?,
            (None, Some(file)) => Some(SavedState::existing(file)?),
            (None, None) => None,
        };
        if let Some(saved) = &saved {
            saved.check(self.flavour, self.seed.as_deref())?;
        }
        Ok((state, saved))
    }

    /// The options of the emulator, and the ports to take where they are free.
    fn options(
        &self,
        name: &str,
        folder: &Path,
        arc: Option<&Janitor>,
        server: Option<ServerOptions>,
    ) -> Result<(Options, KeptPorts), Failure> {
        let now = self.system.clock().clone();
        let clock = self.clock.clone().unwrap_or_else(|| Clock::following(move || now.now()));
        let mut options = Options::new(clock);
        options.ports.metadata = self.metadata_port;
        options.ports.authority = self.entra_port;
        // Resource Manager has no port: clients read it from PGPORT.
        options.server = server;
        options.link_local = self.is_link_local;
        options.azure_names = true;
        options.arc = arc.map(folder::arc_keys).map(AzureArcAgent::new);
        options.entra_address = self.address;
        options.host_names.clone_from(&self.host_names);
        let cluster = self.trusted_cluster.as_ref();
        options.trusted_cluster = cluster.map(|(issuer, keys)| cluster::trusted(issuer, keys)).transpose()?;
        let mut preferred = KeptPorts::default();
        if self.origin == Identifiers::Name {
            options.ids = Ids::derived(name);
            preferred = kept::ports(folder);
            options.preferred_ports = preferred.azure.clone();
            if self.host_names.is_empty() {
                options.authority = kept::authority(self.system.env(), name)?.map(Arc::new);
            }
        }
        if let Some((certificate, key)) = &self.authority {
            options.authority = Some(Arc::new(kept::given_authority(certificate, key)?));
        }
        if let Some(seed) = &self.seed {
            options.ids = Ids::derived(seed);
        }
        Ok((options, preferred))
    }
}

/// A listener at exactly this port. `None` for 0.
async fn own_listener(port: u16) -> Result<Option<TcpListener>, Failure> {
    match port {
        0 => Ok(None),
        port => RunningGateway::listen(port).await.map(Some),
    }
}

/// The tasks that keep the database and the files of the pod up to date.
fn follow(
    flavour: Flavour,
    behind: Database,
    pooled: &Option<CloudPgBouncer>,
    (azure, clock): (&Arc<LocalAzure>, &CloudClock),
    end: ChangesEnd,
) -> JoinSet<()> {
    let mut followers = JoinSet::new();
    followers.spawn(clock.clone().keep());
    followers.spawn(administrators::follow(behind.clone(), pooled.clone(), azure.follow_server(), end));
    if flavour == Flavour::Flexible {
        followers.spawn(administrators::sync(behind.clone(), azure.clone()));
    }
    followers.spawn(administrators::know(behind, azure.clone(), azure.principals_changed()));
    followers
}

/// The server of the subscription: Resource Manager has no Single Server.
fn server_options(
    flavour: Flavour,
    options: PgBouncerOptions,
    program: &Result<PoolerProgram, StartError>,
) -> Option<ServerOptions> {
    (flavour == Flavour::Flexible).then(|| {
        let mut server = ServerOptions::new(SERVER_NAME, "localhost");
        server.pgbouncer_enabled = options.is_on;
        server.pgbouncer_missing = program.as_ref().err().map(pgbouncer::missing);
        server
    })
}

/// What programs on each host of the cloud write.
fn access(name: &str, azure: &LocalAzure, port: u16, folder: &Path) -> Vec<HostStrings> {
    let certificate = &CloudFiles::new(folder).certificate;
    let server = ServerPlace { cloud: name, host: "localhost", port, database: DATABASE, certificate };
    Host::of(azure).map(|host| HostStrings::new(server, host.name(), host.role(azure))).collect()
}

/// The trust store for a JVM. It is made while PostgreSQL is prepared: the machine has some hundred certificates.
fn trust_store_of(azure: &LocalAzure) -> impl Future<Output = Result<Vec<u8>, Failure>> + use<> {
    let certificate = azure.ca_pem().to_owned();
    let made = tokio::task::spawn_blocking(move || trust_store_with(&certificate));
    async { made.await.map_err(|error| Failure::machine("cannot make the trust store of a JVM", error))? }
}

/// The names of this machine, and further ones.
fn own_names(further: &[String]) -> Vec<&str> {
    let own = ["localhost", "127.0.0.1", "::1"];
    own.into_iter().chain(further.iter().map(String::as_str)).collect()
}

/// TLS for clients, with a certificate for these names.
fn tls(authority: &Authority, names: &[&str]) -> Result<ClientTls, Failure> {
    let issued = authority.issue(names);
    issued
        .and_then(|issued| issued.server_config(&[]))
        .map(ClientTls::from)
        .map_err(|error| Failure::machine("cannot make the server's certificate", error))
}

/// TLS for clients that know PostgreSQL by its name on Azure. Writes the certificate of the
/// authority for such names.
fn names_of(azure: &LocalAzure, files: &CloudFiles) -> Result<ClientTls, Failure> {
    let names = azure.azure_names();
    let names = names.ok_or_else(|| Failure::new(FailureKind::Machine, "there are no names of Azure"))?;
    write(&files.azure_certificate, names.authority().pem())?;
    std::fs::create_dir(&files.namespace)
        .map_err(|error| Failure::machine("cannot make a folder for namespaces", error))?;
    tls(names.authority(), &[&azure_names::server_host()])
}

/// A name that no other cloud of this machine has.
fn unique_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

async fn start_database(
    system: &System,
    folder: &Path,
    installation: &Installation,
    saved: Option<&SavedState>,
) -> Result<LocalDb, Failure> {
    let is_embedded = *installation == Installation::Embedded;
    let options = pgentra_localdb::Options { folder: folder.join("db"), server: installation.clone() };
    let started = match saved {
        None => pgentra_localdb::start(options).await,
        Some(saved) => {
            let file = saved.content.clone();
            pgentra_localdb::start_saved(options, saved.data.clone(), move |to| file.unpack(to)).await
        }
    };
    started.map_err(|error| {
        if let (Some(saved), StartError::Io { source, .. }) = (saved, &error)
            && source.kind() == ErrorKind::InvalidData
        {
            return saved.content.damaged(error);
        }
        let hint = not_started(&error, system, folder, is_embedded);
        Failure::machine("cannot start PostgreSQL", error).with_hint(hint)
    })
}

/// The hint for a PostgreSQL that did not start.
fn not_started(error: &StartError, system: &System, folder: &Path, is_embedded: bool) -> String {
    match error {
        StartError::Io { source, .. } if is_embedded && source.kind() == ErrorKind::PermissionDenied => {
            format!(
                "programs in {} cannot be run, as on a file system that is mounted noexec: set {} to a folder where they \
             can, or take an installed PostgreSQL with --postgres DIR",
                folder.display(),
                folder::variable(system.env())
            )
        }
        StartError::Io { source, .. } if source.kind() == ErrorKind::StorageFull => {
            format!("free some space, or set {} to a folder on another disk", folder::variable(system.env()))
        }
        StartError::Folder { .. } | StartError::PathTooLong { .. } => {
            format!("set {} to another folder with a short path", folder::variable(system.env()))
        }
        StartError::NotEmbedded | StartError::NotInstalled { .. } | StartError::Version { .. } => {
            "name an installed one: --postgres /usr/lib/postgresql/17".to_owned()
        }
        StartError::OtherVersion { saved, .. } => {
            let major = saved.split('.').next().unwrap_or_default();
            format!(
                "take a PostgreSQL {major}: --postgres /usr/lib/postgresql/{major}, or without --postgres the embedded one (17)"
            )
        }
        StartError::OtherPlatform { .. } => {
            "PostgreSQL's files are bound to the machine: begin with a new local cloud and a dump".to_owned()
        }
        StartError::Unreachable { .. } => format!(
            "run it as another user than root, or set {} to a folder that every user may enter",
            folder::variable(system.env())
        ),
        _ => "-vv says more; --postgres DIR takes an installed one".to_owned(),
    }
}

async fn start_azure(options: Options, saved: Option<&SavedState>) -> Result<LocalAzure, Failure> {
    let is_link_local = options.link_local;
    let started = match saved {
        None => LocalAzure::start(options).await,
        Some(saved) => LocalAzure::start_saved(options, saved.azure.clone()).await,
    };
    started.map_err(|error| {
        let failure = Failure::machine("cannot start the local Azure", error);
        if is_link_local {
            failure.with_hint("as root: ip addr add 169.254.169.254/32 dev lo, best in a network namespace")
        } else {
            failure.with_hint("give another --metadata-port, or 0 for any free one")
        }
    })
}

/// The principals of the local tenant, for roles that are created by name.
fn setup(flavour: Flavour, azure: &LocalAzure) -> Setup {
    let first = azure.administrator();
    let first = (first.user_principal_name().to_owned(), first.object_id(), PrincipalKind::User);
    let administrators = match flavour {
        Flavour::Single => vec![first],
        // Those of a saved state may be others.
        Flavour::Flexible => {
            azure.administrators().into_iter().map(|it| (it.name, it.object_id, it.kind)).collect()
        }
    };
    let administrators =
        administrators.iter().map(|it| administrators::principal(&it.0, it.1, it.2)).collect();
    Setup {
        flavour,
        tenant: azure.tenant(),
        administrators,
        directory: administrators::directory(azure),
        memberships: administrators::memberships(azure),
    }
}

//! The local cloud as a value: start it, ask it where things are, stop it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use rustls::ServerConfig;
use secrecy::SecretString;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::arc_agent::Agent;
use crate::azure_names::{self, AzureNames};
use crate::clock::Clock;
use crate::cloud::{Addresses, Cloud, CloudState, Secrets, TokenOverrides};
use crate::directory::{Application, Identity, Machine, RESOURCE_GROUP, TenantDirectory};
use crate::door::Door;
use crate::error::StartError;
use crate::fault::Faults;
use crate::federation::Federation;
use crate::holders::Holders;
use crate::journal::Journal;
use crate::keys::{KeyError, KeyRing, on_a_blocking_thread};
use crate::listen::{self, BoundPort};
use crate::mint::{Draft, random};
use crate::options::{GRAPH, Options, ResourceApplication};
use crate::saved::SavedAzure;
use crate::serve;
use crate::subscription::{Administrator, NamedCredential, ServerChange, Subscription};
use crate::token_log::{TokenLog, TokenRecord};
use crate::token_proxy::PROXY_NAME;
use pgentra_certificates::{Authority, CertificateError, names_of, server_config_for_name};
use pgentra_directory::{Certificates, DeviceCodes, Group, PrincipalKind, Principals, SignIns, User};

/// The identity side of a local Azure. It serves requests until it is stopped or dropped.
#[derive(Debug)]
pub struct LocalAzure {
    pub(crate) cloud: Arc<Cloud>,
    authority: Arc<Authority>,
    azure_names: Option<AzureNames>,
    facts: Facts,
    tasks: TaskTracker,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

/// A member of the tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Principal {
    /// A user's sign-in name, else the display name.
    pub name: String,
    /// Object id: what roles of Flexible Server are mapped to.
    pub object_id: Uuid,
    /// User, group or service principal.
    pub kind: PrincipalKind,
}

/// Texts that stay the same for the life of a local cloud.
#[derive(Debug)]
struct Facts {
    issuer: String,
    keys_url: String,
    cloud_shell: String,
}

impl LocalAzure {
    /// Starts a local cloud. When this returns, every endpoint answers.
    ///
    /// Cancel-safe: if the future is dropped, nothing keeps running.
    ///
    /// # Errors
    /// If [`Options::address`] is not loopback, a port cannot be bound, or the crypto library fails.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        Self::begin(options, None).await
    }

    /// As [`LocalAzure::start`], with the state that [`LocalAzure::save`] returned in an earlier run. Its ids are used
    /// instead of [`Options::ids`], and the clock is as far ahead as it was.
    ///
    /// # Errors
    /// Those of [`LocalAzure::start`], and if a key of the state cannot be read.
    pub async fn start_saved(options: Options, saved: SavedAzure) -> Result<Self, StartError> {
        Self::begin(options, Some(saved)).await
    }

    async fn begin(options: Options, saved: Option<SavedAzure>) -> Result<Self, StartError> {
        if !options.address.is_loopback() {
            return Err(StartError::NotLoopback(options.address));
        }
        let authority = match &options.authority {
            Some(authority) => authority.clone(),
            None => Arc::new(Authority::generate()?),
        };
        let sockets = Sockets::bind(&options).await?;
        let certificates = ServerCertificates::issue(&authority, &options)?;
        let addresses = Addresses::of(options.address, &sockets, &certificates);
        let wants_names = options.azure_names;
        let cloud = Arc::new(on_a_blocking_thread(move || new_cloud(options, addresses, saved)).await?);

        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();
        let serve = |cloud: &Arc<Cloud>, door, tls: Option<Arc<ServerConfig>>, bound: BoundPort| {
            for listener in bound.listeners {
                let (cloud, tls, stop) = (cloud.clone(), tls.clone(), stop.clone());
                let server = serve::EndpointServer { cloud, door, tls, stop };
                tasks.spawn(server.run(listener, tasks.clone()));
            }
        };
        for (door, bound) in sockets.0 {
            serve(&cloud, door, certificates.of(door), bound);
        }
        let mut azure_names = None;
        if wants_names {
            let authority = Authority::named("pgentra local CA for the names of Azure")?;
            let tls = azure_names::server_config(&authority)?;
            let named = Arc::new(cloud.under_azure_names());
            let mut port = [0; 3];
            for (at, door) in [Door::LinkLocal, Door::Entra, Door::Management].into_iter().enumerate() {
                let bound = listen::bind(Ipv4Addr::LOCALHOST.into(), 0).await?;
                port[at] = bound.port;
                serve(&named, door, (door != Door::LinkLocal).then(|| tls.clone()), bound);
            }
            let [metadata_port, entra_port, management_port] = port;
            azure_names = Some(AzureNames { authority, metadata_port, entra_port, management_port });
        }
        tasks.close();
        let facts = Facts::of(&cloud);
        tracing::debug!(metadata = %cloud.addresses.metadata, authority = %cloud.addresses.authority, "local cloud started");
        let _stop_on_drop = stop.clone().drop_guard();
        Ok(Self { cloud, authority, azure_names, facts, tasks, stop, _stop_on_drop })
    }

    /// The state, for [`LocalAzure::start_saved`] in a later run.
    ///
    /// # Errors
    /// If the crypto library fails.
    pub fn save(&self) -> Result<SavedAzure, KeyError> {
        SavedAzure::of(&self.cloud)
    }

    /// Stops answering, closes every connection and port, and returns when that is done.
    pub async fn stop(self) {
        self.close().await;
    }

    /// As [`LocalAzure::stop`]; what is in the tenant can still be asked for.
    pub async fn close(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }

    /// Address of the metadata service, `http://127.0.0.1:…`: the value of `AZURE_POD_IDENTITY_AUTHORITY_HOST`.
    pub fn metadata_url(&self) -> &str {
        &self.cloud.addresses.metadata
    }

    /// `MSI_ENDPOINT` of Cloud Shell; the token is the administrator's.
    pub fn cloud_shell(&self) -> &str {
        &self.facts.cloud_shell
    }

    /// Entra's address, `https://localhost:…/`: the value of `AZURE_AUTHORITY_HOST`.
    pub fn authority_host(&self) -> &str {
        &self.cloud.addresses.authority
    }

    /// Id of the Entra tenant: `tid` in a token.
    pub fn tenant(&self) -> Uuid {
        self.cloud.directory.ids.tenant
    }

    /// `iss` of v1 tokens: `https://sts.windows.net/{tenant}/`.
    pub fn issuer(&self) -> &str {
        &self.facts.issuer
    }

    /// Where the tenant publishes its keys.
    pub fn keys_url(&self) -> &str {
        &self.facts.keys_url
    }

    /// Certificate of the local authority in PEM, to be trusted by clients of Entra's address.
    pub fn ca_pem(&self) -> &str {
        self.authority.pem()
    }

    /// The local certificate authority, for further servers that clients shall trust.
    pub fn certificates(&self) -> &Authority {
        &self.authority
    }

    /// Where the services answer under their names on Azure; `None` unless
    /// [`Options::azure_names`](crate::Options::azure_names) asked for it.
    pub fn azure_names(&self) -> Option<&AzureNames> {
        self.azure_names.as_ref()
    }

    /// The system-assigned identity of the virtual machine `myVm`.
    pub fn vm(&self) -> &Identity {
        &self.cloud.directory.vm
    }

    /// The user-assigned identity `myIdentity`, which is assigned to `myVm` at the start.
    pub fn user_assigned(&self) -> &Identity {
        &self.cloud.directory.user_assigned
    }

    /// The user who is an owner of the subscription.
    pub fn administrator(&self) -> &User {
        &self.cloud.directory.administrator
    }

    /// The application `myApp`, an owner of the subscription.
    pub fn application(&self) -> &Application {
        &self.cloud.directory.application
    }

    /// The group that the administrator is in.
    pub fn group(&self) -> &Group {
        &self.cloud.directory.group
    }

    /// Id of the subscription that the machine is in.
    pub fn subscription(&self) -> Uuid {
        self.cloud.directory.ids.subscription
    }

    /// The identities that the machine has; both of them at the start.
    pub fn machine(&self) -> &Machine {
        &self.cloud.machine
    }

    /// A new user-assigned identity, not yet assigned to the machine; a resource like those that a client creates.
    pub fn new_identity(&self, name: &str) -> Identity {
        let identity = self.cloud.directory.new_identity(RESOURCE_GROUP, name);
        if self.cloud.subscription.add_identity(identity.clone()).is_err() {
            tracing::warn!(name, "the subscription is full: the new identity is not listed");
        }
        self.cloud.principals.touch();
        identity
    }

    /// The user-assigned identities of the subscription.
    pub fn identities(&self) -> Vec<Identity> {
        self.cloud.subscription.identities()
    }

    /// The users of the tenant.
    pub fn users(&self) -> Vec<User> {
        self.cloud.principals.users()
    }

    /// The sign-in name of a new user with this display name.
    pub fn user_principal_name(&self, name: &str) -> String {
        self.cloud.directory.user_principal_name(name)
    }

    /// A new user in the tenant.
    pub fn new_user(&self, name: &str) -> User {
        let user = self.cloud.directory.new_user(name);
        if self.cloud.principals.add_user(user.clone()).is_err() {
            tracing::warn!(name, "the tenant is full: the new user is not in it");
        }
        user
    }

    /// A new group in the tenant.
    pub fn new_group(&self, name: &str) -> Group {
        let group = Group::new(name, Uuid::new_v4());
        if self.cloud.principals.add_group(group.clone()).is_err() {
            tracing::warn!(name, "the tenant is full: the new group is not in it");
        }
        group
    }

    /// Makes a user or a service principal a member of a group. Graph says so; of users, their next tokens, too.
    pub fn join_group(&self, member: Uuid, group: Uuid) {
        if self.cloud.principals.join_group(member, group).is_err() {
            tracing::warn!(%member, %group, "the tenant is full: the principal is no member");
        }
    }

    /// Ends the membership of a user or a service principal in a group.
    pub fn leave_group(&self, member: Uuid, group: Uuid) {
        self.cloud.principals.leave_group(member, group);
    }

    /// The members of every group of the tenant: the object ids of the group and of the member.
    pub fn memberships(&self) -> Vec<(Uuid, Uuid)> {
        self.cloud.principals.memberships()
    }

    /// Enables or disables the account of a user or a service principal: `accountEnabled` in Graph. What was signed
    /// before stays valid.
    pub fn set_account_enabled(&self, object_id: Uuid, is_enabled: bool) {
        self.cloud.principals.set_enabled(object_id, is_enabled);
    }

    /// Deletes a user, a group, a user-assigned identity or the application's principal from the directory. What was
    /// signed before stays valid.
    pub fn delete_principal(&self, object_id: Uuid) {
        self.cloud.delete_principal(object_id);
    }

    /// Resource Manager's address, `https://localhost:…`.
    pub fn resource_manager(&self) -> &str {
        &self.cloud.addresses.management
    }

    /// Graph's address, without the version; the same as Resource Manager's.
    pub fn graph(&self) -> &str {
        &self.cloud.addresses.graph
    }

    /// Changes of the database server, from now on and in order. The operation behind each
    /// runs until the database has answered; the last caller gets them all. Without a caller a change needs no database.
    pub fn follow_server(&self) -> mpsc::UnboundedReceiver<ServerChange> {
        self.cloud.subscription.follow_server()
    }

    /// Who is in the tenant right now, under the names that a database knows them by.
    pub fn principals(&self) -> Vec<Principal> {
        let principals = &self.cloud.principals;
        let principal = |name: &str, object_id, kind| Principal { name: name.to_owned(), object_id, kind };
        let service = |name: &str, object_id| principal(name, object_id, PrincipalKind::ServicePrincipal);
        let applications = principals.registrations();
        let applications = applications.iter().filter_map(|one| Some(service(one.name(), one.object_id()?)));
        let agents = principals.agents();
        let agents = agents.iter().map(|one| service(one.name(), one.object_id()));
        let identities = self.cloud.managed_identities();
        let identities = identities.iter().map(|one| service(one.name(), one.object_id()));
        let users = principals.users();
        let users = users
            .iter()
            .map(|one| principal(one.user_principal_name(), one.object_id(), PrincipalKind::User));
        let groups = principals.groups();
        let groups = groups.iter().map(|one| principal(one.name(), one.object_id(), PrincipalKind::Group));
        applications.chain(agents).chain(identities).chain(users).chain(groups).collect()
    }

    /// Changes whenever a user, a group, an identity or an application comes into the tenant or leaves it, and with the
    /// members of groups.
    pub fn principals_changed(&self) -> watch::Receiver<()> {
        self.cloud.principals.watch()
    }

    /// The Entra administrators of the server, those of operations that have ended. None without a server.
    pub fn administrators(&self) -> Vec<Administrator> {
        self.cloud.subscription.administrators(self.cloud.clock.unix())
    }

    /// The parameters of the built-in PgBouncer that were set, with their values as they are stored.
    pub fn pgbouncer_settings(&self) -> BTreeMap<String, String> {
        self.cloud.subscription.pgbouncer_settings(self.cloud.clock.unix())
    }

    /// The issuers of federated assertions and their credentials.
    pub fn federation(&self) -> &Federation {
        &self.cloud.federation
    }

    /// The clock that all lifetimes follow.
    pub fn clock(&self) -> &Clock {
        &self.cloud.clock
    }

    /// The queue of faults that requests get.
    pub fn faults(&self) -> &Faults {
        &self.cloud.faults
    }

    /// The requests that the endpoints have received.
    pub fn journal(&self) -> &Journal {
        &self.cloud.journal
    }

    /// The access tokens that the endpoints gave out last, newest first: at most `most`, and never more than 200.
    pub fn last_tokens(&self, most: usize) -> Vec<TokenRecord> {
        self.cloud.tokens.last(most)
    }

    /// How many access tokens the endpoints have given out.
    pub fn tokens_given(&self) -> u64 {
        self.cloud.tokens.total()
    }

    /// The key set that [`LocalAzure::keys_url`] publishes, without a connection.
    pub fn keys(&self) -> Vec<u8> {
        crate::entra::key_set(&self.cloud, true).into_text().into_bytes()
    }

    /// Signs a token, without asking whether Entra would.
    ///
    /// # Errors
    /// If the crypto library fails.
    pub fn mint(&self, draft: &Draft) -> Result<SecretString, KeyError> {
        Ok(self.cloud.mint(draft, &TokenOverrides::default())?.token)
    }

    /// From now on a new key signs; the old ones stay published, at most three of them.
    ///
    /// Not cancel-safe: dropped while it runs, it may still roll over.
    ///
    /// # Errors
    /// If the crypto library fails.
    pub async fn roll_over_keys(&self) -> Result<(), KeyError> {
        let cloud = self.cloud.clone();
        on_a_blocking_thread(move || cloud.keys.roll_over()).await
    }

    /// Takes all keys but the signing one from the published set: tokens they signed no longer verify.
    pub fn forget_old_keys(&self) {
        self.cloud.keys.forget_old();
    }
}

impl Facts {
    fn of(cloud: &Cloud) -> Self {
        let tenant = cloud.directory.ids.tenant;
        Self {
            issuer: format!("https://sts.windows.net/{tenant}/"),
            keys_url: format!("{}{tenant}/discovery/v2.0/keys", cloud.addresses.authority),
            cloud_shell: format!("{}/oauth2/token", cloud.addresses.metadata),
        }
    }
}

struct Sockets(Vec<(Door, BoundPort)>);

impl Sockets {
    async fn bind(options: &Options) -> Result<Self, StartError> {
        let (ports, preferred) = (&options.ports, &options.preferred_ports);
        let mut wanted = vec![
            (Door::Metadata, ports.metadata, preferred.metadata),
            (Door::Entra, ports.authority, preferred.authority),
            (Door::Federation, ports.federation, preferred.federation),
            (Door::ServiceFabric, ports.service_fabric, preferred.service_fabric),
            (Door::TokenProxy, ports.token_proxy, preferred.token_proxy),
            (Door::Management, ports.management, preferred.management),
        ];
        wanted.extend(options.arc.is_some().then_some((Door::Arc, ports.arc, preferred.arc)));
        let mut sockets = Vec::new();
        for (door, port, preferred) in wanted {
            sockets.push((door, listen::bind_preferred(options.address, port, preferred).await?));
        }
        if let Some(address) = options.entra_address {
            let port = sockets.iter().find(|(door, _)| *door == Door::Entra).map(|(_, bound)| bound.port);
            sockets.push((Door::Entra, listen::bind(address, port.unwrap_or_default()).await?));
        }
        if options.link_local {
            sockets.push((Door::LinkLocal, listen::bind_link_local().await?));
        }
        Ok(Self(sockets))
    }

    fn port(&self, door: Door) -> Option<u16> {
        self.0.iter().find(|(other, _)| *other == door).map(|(_, bound)| bound.port)
    }
}

/// What the TLS endpoints show.
struct ServerCertificates {
    /// Of the local authority: Entra and the issuers.
    local: Arc<ServerConfig>,
    /// Of the local authority too, so that clients which do not pin the thumbprint can trust it.
    service_fabric: Arc<ServerConfig>,
    thumbprint: String,
    /// Of an authority of its own, and for one name.
    token_proxy: Arc<ServerConfig>,
    token_proxy_ca: String,
}

impl ServerCertificates {
    fn issue(authority: &Authority, options: &Options) -> Result<Self, CertificateError> {
        let names = names_of(options.address);
        let names: Vec<&str> = names.iter().chain(&options.host_names).map(String::as_str).collect();
        let node = authority.issue(&names)?;
        let cluster = Authority::named("pgentra local AKS CA")?;
        let proxy = cluster.issue(&[PROXY_NAME])?;
        Ok(Self {
            local: authority.issue(&names)?.server_config(&[b"http/1.1"])?,
            service_fabric: node.server_config(&[b"http/1.1"])?,
            thumbprint: node.thumbprint(),
            token_proxy: server_config_for_name(PROXY_NAME, &proxy)?,
            token_proxy_ca: cluster.pem().to_owned(),
        })
    }

    /// The TLS configuration behind `door`; `None` where plain HTTP is spoken.
    fn of(&self, door: Door) -> Option<Arc<ServerConfig>> {
        match door {
            Door::Metadata | Door::LinkLocal | Door::Arc => None,
            Door::Entra | Door::Federation | Door::Management => Some(self.local.clone()),
            Door::ServiceFabric => Some(self.service_fabric.clone()),
            Door::TokenProxy => Some(self.token_proxy.clone()),
        }
    }
}

impl Addresses {
    fn of(address: IpAddr, sockets: &Sockets, certificates: &ServerCertificates) -> Self {
        let literal = match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        let name = if address == IpAddr::from([127, 0, 0, 1]) { "localhost" } else { &literal };
        let plain = |door| sockets.port(door).map(|port| format!("http://{literal}:{port}"));
        let tls = |door| format!("https://{name}:{}", sockets.port(door).unwrap_or_default());
        Self {
            metadata: plain(Door::Metadata).unwrap_or_default(),
            authority: format!("{}/", tls(Door::Entra)),
            sign_in: format!("{}/", tls(Door::Entra)),
            federation: tls(Door::Federation),
            service_fabric: tls(Door::ServiceFabric),
            thumbprint: certificates.thumbprint.clone(),
            token_proxy: tls(Door::TokenProxy),
            token_proxy_ca: certificates.token_proxy_ca.clone(),
            arc: plain(Door::Arc),
            management: tls(Door::Management),
            graph: tls(Door::Management),
        }
    }
}

/// The names of the federated credentials that the user-assigned identity starts with.
const FEDERATED: [&str; 3] = ["my-cluster", "my-repository", "my-connection"];

fn new_cloud(options: Options, addresses: Addresses, saved: Option<SavedAzure>) -> Result<Cloud, KeyError> {
    let directory = match &saved {
        Some(saved) => TenantDirectory::new(saved.ids.clone(), saved.secret.clone()),
        None => TenantDirectory::new(options.ids, random(30)?.into()),
    };
    let mut resources = options.resources;
    // Clients that know Graph by its address alone ask for tokens for that address, as the Azure CLI does.
    resources.push(ResourceApplication::new(addresses.management.clone(), GRAPH));
    // People send tokens for it to the application, which asks for others on their behalf.
    let application = directory.ids.application_client;
    resources.push(ResourceApplication::new(format!("api://{application}"), application));
    let federation = Federation::new(
        options.clock.clone(),
        options.lifetimes.clone(),
        options.trusted_cluster,
        &addresses.federation,
    );
    let subscription = Subscription::new(&directory, options.server.as_ref());
    for (name, credential) in FEDERATED.into_iter().zip(federation.credentials()) {
        let new = NamedCredential { name: name.to_owned(), credential };
        subscription.set_federated(directory.user_assigned.object_id, new);
    }
    let server_host = options.server.as_ref().map(|server| server.host.clone()).unwrap_or_default();
    let host_names = options.host_names;
    let mut state = CloudState {
        principals: Principals::new(
            vec![directory.administrator.clone()],
            vec![directory.group.clone()],
            vec![directory.registration()],
        ),
        machine: Machine::new(vec![directory.vm.clone(), directory.user_assigned.clone()]),
        holders: Holders::new(directory.ids.subscription),
        subscription,
        server: options.server,
        operation_time: options.operation_time,
        federation,
        clock: options.clock,
        lifetimes: options.lifetimes,
        resources,
        directory,
        keys: KeyRing::restore(saved.as_ref().map_or(&[], |saved| &saved.keys))?,
        faults: Faults::default(),
        journal: Journal::default(),
        secrets: Secrets::generate()?,
        certificates: Certificates::default(),
        arc: options.arc.map(Agent::new),
        legacy_dates: options.legacy_dates,
        device_codes: DeviceCodes::default(),
        sign_ins: SignIns::default(),
        tokens: TokenLog::default(),
        issued: std::sync::Mutex::default(),
    };
    if let Some(saved) = saved {
        saved.restore(&mut state, &addresses);
    }
    Ok(Cloud { addresses, host_names, server_host, state: Arc::new(state) })
}

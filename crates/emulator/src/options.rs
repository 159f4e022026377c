//! What a local cloud can be told at its start.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use uuid::{Uuid, uuid};

use crate::clock::Clock;
use crate::directory::Ids;
use pgentra_certificates::Authority;

/// Application id of Microsoft Graph.
pub(crate) const GRAPH: Uuid = uuid!("00000003-0000-0000-c000-000000000000");

/// How to start a [`LocalAzure`](crate::LocalAzure).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The clock; everything but connection timeouts follows it.
    pub clock: Clock,
    /// Ids of everything in the tenant. Default: fresh ones.
    pub ids: Ids,
    /// Lifetimes of tokens, by the kind of their subject.
    pub lifetimes: Lifetimes,
    /// Ports; default: any free ones.
    pub ports: Ports,
    /// Where [`Options::ports`] takes any free port: the one to take if it is free. Default: none.
    pub preferred_ports: Ports,
    /// The certificate authority. Default: a new one, whose key is lost with the process.
    pub authority: Option<Arc<Authority>>,
    /// Loopback address to listen on. Default: 127.0.0.1, and ::1 beside it where the machine has it, because
    /// `localhost` can mean either. Any address that is not loopback is refused.
    pub address: IpAddr,
    /// Also answer as a metadata service at the true address, 169.254.169.254 port 80. The address must be on an
    /// interface of this machine, and the process must be allowed to bind the port. Default: no.
    pub link_local: bool,
    /// Also answer under the names of Azure's services, at further ports of loopback: see
    /// [`AzureNames`](crate::AzureNames). Default: no.
    pub azure_names: bool,
    /// Names and addresses under which clients may reach the local cloud besides `localhost` and loopback addresses, such
    /// as the name of a relay in front of it. The certificates contain them. A request whose `Host` is another name is
    /// refused. Default: none.
    pub host_names: Vec<String>,
    /// One more address on which Entra answers, at the same port: the address may be that of another network, so that
    /// other machines reach it. Each of them can be the administrator, by the device code flow. The names in their
    /// requests must be in [`Options::host_names`]. Default: none.
    pub entra_address: Option<IpAddr>,
    /// A real Kubernetes cluster, whose service account tokens Entra takes where they are registered. Resource Manager
    /// lists it as the AKS cluster `trustedCluster`. Default: none.
    pub trusted_cluster: Option<TrustedCluster>,
    /// Also answer as the agent of an Azure Arc server. Default: no.
    pub arc: Option<AzureArcAgent>,
    /// How App Service writes an expiry in its protocol of 2017. Default: as on Linux.
    pub legacy_dates: DateText,
    /// The flexible server in Resource Manager. Default: `mydemoserver`; `None`: no server.
    pub server: Option<ServerOptions>,
    /// How long an operation of Resource Manager runs, by the clock. Default: 1 second; on Azure it can be minutes.
    pub operation_time: Duration,
    /// The applications whose tokens can be asked for. Default: the ones named at [`ResourceApplication::known`].
    pub resources: Vec<ResourceApplication>,
}

impl Options {
    /// The defaults, on `clock`. For a live system: `Clock::following(SystemTime::now)`.
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            ids: Ids::random(),
            lifetimes: Lifetimes::default(),
            ports: Ports::default(),
            preferred_ports: Ports::default(),
            authority: None,
            address: Ipv4Addr::LOCALHOST.into(),
            link_local: false,
            azure_names: false,
            host_names: Vec::new(),
            entra_address: None,
            trusted_cluster: None,
            arc: None,
            legacy_dates: DateText::Linux,
            server: Some(ServerOptions::new("mydemoserver", "mydemoserver.postgres.database.azure.com")),
            operation_time: Duration::from_secs(1),
            resources: ResourceApplication::known(),
        }
    }
}

/// A Kubernetes cluster outside the local cloud.
#[derive(Clone)]
pub struct TrustedCluster {
    pub(crate) issuer: String,
    pub(crate) verifies: Arc<Verifies>,
}

/// Whether a token is signed by one of the cluster's keys and valid at a time.
type Verifies = dyn Fn(&str, SystemTime) -> bool + Send + Sync;

impl TrustedCluster {
    /// The cluster with this issuer (`iss` of its tokens). `verifies` says whether one of its keys has signed a token
    /// that is valid at a time. It is called on a thread that serves connections, so it must not block.
    pub fn new(
        issuer: impl Into<String>,
        verifies: impl Fn(&str, SystemTime) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self { issuer: issuer.into(), verifies: Arc::new(verifies) }
    }
}

impl fmt::Debug for TrustedCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustedCluster").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

/// Lifetimes of tokens, by the kind of their subject.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lifetimes {
    /// Tokens of managed identities. Default: 24 hours (Microsoft: managed-identities-faq).
    pub managed_identity: Duration,
    /// Tokens of users. Default: 75 minutes, the middle of Entra's 60 to 90 (Microsoft: access-tokens, "Token
    /// lifetime").
    pub user: Duration,
    /// Tokens of applications. Default: 75 minutes, as for users.
    pub application: Duration,
    /// The platform gives out the same token of a managed identity again while more than this is left of it.
    /// Default: 10 minutes; Microsoft says only "near expiry", and clients ask again 5 minutes before it.
    pub platform_renewal: Duration,
    /// `refresh_in` in answers of the token endpoint. Default: none, as for most tokens.
    pub refresh_in: Option<Duration>,
    /// Service account tokens of the Kubernetes cluster. Default: one hour, as for a projected one.
    pub service_account: Duration,
    /// Tokens of GitHub's and Azure Pipelines' issuers. Default: 5 minutes, the least that is seen.
    pub workflow: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            managed_identity: Duration::from_secs(24 * 60 * 60),
            user: Duration::from_secs(75 * 60),
            application: Duration::from_secs(75 * 60),
            platform_renewal: Duration::from_secs(10 * 60),
            refresh_in: None,
            service_account: Duration::from_secs(60 * 60),
            workflow: Duration::from_secs(5 * 60),
        }
    }
}

/// Ports to listen on; 0 means any free one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ports {
    /// The metadata service, App Service and Cloud Shell endpoints, over HTTP.
    pub metadata: u16,
    /// Entra's endpoints, over HTTPS.
    pub authority: u16,
    /// The issuers of federated assertions, over HTTPS.
    pub federation: u16,
    /// The node of a Service Fabric cluster, over HTTPS with a certificate of its own.
    pub service_fabric: u16,
    /// The token proxy of AKS identity bindings, over HTTPS with an authority of its own.
    pub token_proxy: u16,
    /// Resource Manager and Graph, over HTTPS.
    pub management: u16,
    /// The agent of an Azure Arc server, over HTTP; unused without [`Options::arc`].
    pub arc: u16,
}

/// The agent of an Azure Arc server (Microsoft: azure-arc, managed-identity-authentication).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AzureArcAgent {
    /// Where it writes its challenge files; must exist. A real agent has `/var/opt/azcmagent/tokens`, and clients read
    /// no other folder.
    pub keys: PathBuf,
    /// Whether it knows user-assigned identities and confirms the one that was asked for. Older agents ignore the
    /// question and answer for the machine. Default: it does.
    pub user_assigned: bool,
}

impl AzureArcAgent {
    /// A current agent that writes its challenge files into `keys`.
    pub fn new(keys: impl Into<PathBuf>) -> Self {
        Self { keys: keys.into(), user_assigned: true }
    }
}

/// The flexible server in Resource Manager.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerOptions {
    /// Name of the resource.
    pub name: String,
    /// `fullyQualifiedDomainName`: the host that clients connect to.
    pub host: String,
}

impl ServerOptions {
    /// A server with this name, which clients reach at this host.
    pub fn new(name: impl Into<String>, host: impl Into<String>) -> Self {
        Self { name: name.into(), host: host.into() }
    }
}

/// Date texts that App Service has sent in `expires_on`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DateText {
    /// Linux: `06/19/2019 23:42:01 +00:00`.
    Linux,
    /// Windows: `1/16/2020 5:24:12 AM +00:00`.
    Windows,
    /// `1/16/2020 12:0:12 AM +00:00`: no field is padded.
    Unpadded,
}

/// Which form of access token an application takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenVersion {
    /// `aud` is the resource as it was asked for, `iss` is `https://sts.windows.net/{tenant}/`.
    V1,
    /// `aud` is the application id of the resource, `iss` is `{authority}/{tenant}/v2.0`.
    V2,
}

/// An application that tokens can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResourceApplication {
    /// Application id URI, without a slash at its end.
    pub identifier: String,
    /// Application id (a GUID): `aud` in tokens of version 2.
    pub application_id: Uuid,
    /// The version of access tokens that the application accepts.
    pub version: TokenVersion,
}

impl ResourceApplication {
    /// An application that takes v1 tokens, as those of Azure itself do.
    pub fn new(identifier: impl Into<String>, application_id: Uuid) -> Self {
        Self { identifier: identifier.into(), application_id, version: TokenVersion::V1 }
    }

    /// Azure Database for PostgreSQL in its three clouds, Azure Resource Manager, Microsoft Graph, Key Vault, Storage,
    /// and the exchange audience of federated credentials.
    pub fn known() -> Vec<Self> {
        const POSTGRESQL: Uuid = uuid!("123cd850-d9df-40bd-94d5-c9f07b7fa203");
        [
            ("https://ossrdbms-aad.database.windows.net", POSTGRESQL),
            ("https://ossrdbms-aad.database.usgovcloudapi.net", POSTGRESQL),
            ("https://ossrdbms-aad.database.chinacloudapi.cn", POSTGRESQL),
            ("https://management.azure.com", uuid!("797f4846-ba00-4fd7-ba43-dac1f8f63013")),
            ("https://management.core.windows.net", uuid!("797f4846-ba00-4fd7-ba43-dac1f8f63013")),
            ("https://graph.microsoft.com", GRAPH),
            ("https://vault.azure.net", uuid!("cfa8b339-82a2-471a-a3c9-0fc0be7a4093")),
            ("https://storage.azure.com", uuid!("e406a681-f3d4-42a8-90b6-c2b029497af1")),
            ("api://AzureADTokenExchange", uuid!("fb60f99c-7a34-4190-8149-302f77469936")),
        ]
        .map(|(identifier, application_id)| Self::new(identifier, application_id))
        .into()
    }
}

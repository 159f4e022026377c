//! The environment variables of each kind of host.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pgentra_emulator::LocalAzure;
use pgentra_system::Env;
use secrecy::ExposeSecret;

use crate::host::Host;
use crate::trust_store::{JAVA_VARIABLE, java_options};

/// The name of the local cloud that an environment belongs to.
pub const NAME_VARIABLE: &str = "PGENTRA_LOCAL";
/// The folder of the local cloud, with its control socket.
pub const FOLDER_VARIABLE: &str = "PGENTRA_LOCAL_FOLDER";
/// Identifies one run among runs of the same name.
pub const INSTANCE_VARIABLE: &str = "PGENTRA_LOCAL_INSTANCE";

/// The database that programs connect to.
pub(crate) const DATABASE: &str = "postgres";

/// Every variable that some host sets, to be unset where no local cloud runs that could be asked. `NO_PROXY` and
/// `JAVA_TOOL_OPTIONS` are not among them: they may hold more than what a local cloud adds.
pub const VARIABLES: [&str; 40] = [
    NAME_VARIABLE,
    FOLDER_VARIABLE,
    INSTANCE_VARIABLE,
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
    "ACTIONS_ID_TOKEN_REQUEST_URL",
    "AZURESUBSCRIPTION_CLIENT_ID",
    "AZURESUBSCRIPTION_SERVICE_CONNECTION_ID",
    "AZURESUBSCRIPTION_TENANT_ID",
    "AZURE_AUTHORITY_HOST",
    "AZURE_CLIENT_CERTIFICATE_PATH",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_KUBERNETES_CA_DATA",
    "AZURE_KUBERNETES_SNI_NAME",
    "AZURE_KUBERNETES_TOKEN_PROXY",
    "AZURE_POD_IDENTITY_AUTHORITY_HOST",
    "AZURE_SUBSCRIPTION_ID",
    "AZURE_TENANT_ID",
    "DEFAULT_IDENTITY_CLIENT_ID",
    "IDENTITY_ENDPOINT",
    "IDENTITY_HEADER",
    "IDENTITY_SERVER_THUMBPRINT",
    "IMDS_ENDPOINT",
    "MSI_ENDPOINT",
    "MSI_SECRET",
    "NODE_EXTRA_CA_CERTS",
    "PGDATABASE",
    "PGENTRA_GRAPH_ENDPOINT",
    "PGENTRA_MANAGEMENT_CA",
    "PGENTRA_MANAGEMENT_ENDPOINT",
    "PGHOST",
    "PGPORT",
    "PGSSLMODE",
    "PGSSLROOTCERT",
    "PGUSER",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
    "SYSTEM_ACCESSTOKEN",
    "SYSTEM_OIDCREQUESTURI",
];

/// What of a local cloud an environment names.
pub(crate) struct CloudView<'a> {
    pub(crate) azure: &'a LocalAzure,
    /// The folder of the local cloud.
    pub(crate) folder: &'a Path,
    /// PostgreSQL's port, as clients see it.
    pub(crate) port: u16,
    /// Whether the metadata service's own address answers too.
    pub(crate) is_link_local: bool,
}

/// The files of a local cloud that programs read.
#[derive(Debug)]
pub struct CloudFiles {
    /// The local authority's certificate.
    pub certificate: PathBuf,
    /// The trust store for a JVM: the machine's certificates and the local authority's.
    pub trust_store: PathBuf,
    /// The certificate of the authority for the names of Azure.
    pub azure_certificate: PathBuf,
    /// An empty folder, where a program's namespace has its files.
    pub namespace: PathBuf,
    /// The pod's service account token.
    pub pod_token: PathBuf,
    /// The same account's token for an identity binding.
    pub bound_pod_token: PathBuf,
    /// Certificate and key of the application `myApp`.
    pub client_certificate: PathBuf,
}

impl CloudFiles {
    /// The paths below the cloud's folder.
    pub fn new(folder: &Path) -> Self {
        Self {
            certificate: folder.join("ca.pem"),
            trust_store: folder.join("trust.p12"),
            azure_certificate: folder.join("azure-ca.pem"),
            namespace: folder.join("namespace"),
            pod_token: folder.join("azure-identity-token"),
            bound_pod_token: folder.join("azure-identity-binding-token"),
            client_certificate: folder.join("myApp.pem"),
        }
    }
}

/// The address of the metadata service for SDKs, if it is not the service's own address.
pub const METADATA_VARIABLE: &str = "AZURE_POD_IDENTITY_AUTHORITY_HOST";

impl Host {
    /// The hosts that a cloud can be.
    pub(crate) fn of(azure: &LocalAzure) -> impl Iterator<Item = Self> {
        let has_arc = azure.arc().is_some();
        Self::ALL.into_iter().filter(move |host| has_arc || *host != Self::AzureArc)
    }

    /// The database role that is mapped to the identity of this host.
    pub(crate) fn role(self, azure: &LocalAzure) -> &str {
        match self {
            Self::Vm | Self::AppService | Self::ServiceFabric | Self::AzureMl | Self::AzureArc => {
                azure.vm().name()
            }
            Self::UserAssigned
            | Self::Aks
            | Self::AksBinding
            | Self::GithubActions
            | Self::AzurePipelines => azure.user_assigned().name(),
            Self::ClientSecret | Self::ClientCertificate => azure.application().name(),
            Self::Admin => azure.administrator().user_principal_name(),
        }
    }
}

/// The variables of every host that this cloud can be.
pub(crate) fn all(cloud: &CloudView<'_>) -> BTreeMap<String, BTreeMap<String, String>> {
    Host::of(cloud.azure).map(|host| (host.name().to_owned(), of(host, cloud))).collect()
}

/// Everything that libpq, the Azure SDKs and pgentra need on `host`.
pub(crate) fn of(host: Host, cloud: &CloudView<'_>) -> BTreeMap<String, String> {
    let mut variables = libpq(host, cloud);
    let mut set = |name: &str, value: &str| drop(variables.insert(name.to_owned(), value.to_owned()));
    let azure = cloud.azure;
    match host {
        // Where the service has its own address, SDKs take that.
        Host::Vm if cloud.is_link_local => {}
        Host::Vm => set(METADATA_VARIABLE, azure.metadata_url()),
        Host::UserAssigned => {
            if !cloud.is_link_local {
                set(METADATA_VARIABLE, azure.metadata_url());
            }
            set("AZURE_CLIENT_ID", &azure.user_assigned().client_id().to_string());
        }
        Host::AppService => {
            let service = azure.app_service();
            set("IDENTITY_ENDPOINT", &service.endpoint);
            set("IDENTITY_HEADER", service.header.expose_secret());
        }
        Host::ServiceFabric => {
            let fabric = azure.service_fabric();
            set("IDENTITY_ENDPOINT", &fabric.endpoint);
            set("IDENTITY_HEADER", fabric.header.expose_secret());
            set("IDENTITY_SERVER_THUMBPRINT", &fabric.thumbprint);
        }
        Host::AzureMl => {
            let learning = azure.machine_learning();
            set("MSI_ENDPOINT", &learning.endpoint);
            set("MSI_SECRET", learning.secret.expose_secret());
            set("DEFAULT_IDENTITY_CLIENT_ID", &learning.default_client_id.to_string());
        }
        Host::AzureArc => {
            if let Some(arc) = azure.arc() {
                set("IDENTITY_ENDPOINT", &arc.identity_endpoint);
                set("IMDS_ENDPOINT", &arc.imds_endpoint);
            }
        }
        Host::Admin => {
            set("MSI_ENDPOINT", azure.cloud_shell());
            // It talks to Resource Manager and Graph.
            let certificate = CloudFiles::new(cloud.folder).certificate.display().to_string();
            set("SSL_CERT_FILE", &certificate);
            set("REQUESTS_CA_BUNDLE", &certificate);
        }
        Host::Aks
        | Host::AksBinding
        | Host::GithubActions
        | Host::AzurePipelines
        | Host::ClientSecret
        | Host::ClientCertificate => variables.extend(at_entra(host, cloud)),
    }
    variables
}

/// The variables that keep requests to a local cloud's hosts away from an HTTP proxy, merged with
/// the values in `env`. Programs read either the upper or the lower case name, so both get all
/// hosts.
pub fn unproxied(
    env: &Env,
    environments: &BTreeMap<String, BTreeMap<String, String>>,
) -> [(String, String); 2] {
    let is_link_local =
        environments.get(Host::Vm.name()).is_some_and(|vm| !vm.contains_key(METADATA_VARIABLE));
    let own = ["localhost", "127.0.0.1"].into_iter().chain(is_link_local.then_some("169.254.169.254"));
    let standing: Vec<String> = NO_PROXY.iter().filter_map(|name| env.get(name)).collect();
    let standing = standing.iter().flat_map(|value| value.split(',')).map(str::trim);
    let mut hosts = Vec::new();
    for host in standing.chain(own).filter(|host| !host.is_empty()) {
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    // An asterisk means all hosts, and must be the only value.
    let value = if hosts.contains(&"*") { "*".to_owned() } else { hosts.join(",") };
    NO_PROXY.map(|name| (name.to_owned(), value.clone()))
}

const NO_PROXY: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// What names the server and the role.
fn libpq(host: Host, cloud: &CloudView<'_>) -> BTreeMap<String, String> {
    let files = CloudFiles::new(cloud.folder);
    let certificate = files.certificate.display().to_string();
    [
        ("PGHOST", "localhost"),
        ("PGPORT", &cloud.port.to_string()),
        ("PGDATABASE", DATABASE),
        ("PGUSER", host.role(cloud.azure)),
        ("PGSSLMODE", "verify-full"),
        ("PGSSLROOTCERT", &certificate),
        // Node.js adds it to its own roots; only programs that use the local authority need it.
        ("NODE_EXTRA_CA_CERTS", &certificate),
        // A JVM reads no file in PEM.
        (JAVA_VARIABLE, &java_options(&files.trust_store)),
        // For Resource Manager and Graph only, so that other programs of this shell keep their
        // trusted roots.
        ("PGENTRA_MANAGEMENT_CA", &certificate),
        ("PGENTRA_MANAGEMENT_ENDPOINT", cloud.azure.resource_manager()),
        ("PGENTRA_GRAPH_ENDPOINT", cloud.azure.graph()),
        ("AZURE_SUBSCRIPTION_ID", &cloud.azure.subscription().to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// What a host needs whose tokens come from Entra's token endpoint.
fn at_entra(host: Host, cloud: &CloudView<'_>) -> BTreeMap<String, String> {
    let azure = cloud.azure;
    let places = CloudFiles::new(cloud.folder);
    let (certificate, tenant) = (places.certificate.display().to_string(), azure.tenant().to_string());
    let client = match host {
        Host::ClientSecret | Host::ClientCertificate => azure.application().client_id(),
        _ => azure.user_assigned().client_id(),
    };
    let mut variables = BTreeMap::new();
    let mut set = |name: &str, value: &str| drop(variables.insert(name.to_owned(), value.to_owned()));
    set("AZURE_AUTHORITY_HOST", azure.authority_host());
    // OpenSSL, Python's requests and pgentra use these instead of the system's roots.
    set("SSL_CERT_FILE", &certificate);
    set("REQUESTS_CA_BUNDLE", &certificate);
    set("AZURE_TENANT_ID", &tenant);
    set("AZURE_CLIENT_ID", &client.to_string());
    match host {
        Host::AksBinding => {
            let proxy = azure.token_proxy();
            set("AZURE_FEDERATED_TOKEN_FILE", &places.bound_pod_token.display().to_string());
            set("AZURE_KUBERNETES_TOKEN_PROXY", &proxy.url);
            set("AZURE_KUBERNETES_SNI_NAME", &proxy.sni_name);
            set("AZURE_KUBERNETES_CA_DATA", &proxy.ca_pem);
        }
        Host::GithubActions => {
            let github = azure.github();
            set("ACTIONS_ID_TOKEN_REQUEST_URL", &github.request_url);
            set("ACTIONS_ID_TOKEN_REQUEST_TOKEN", github.request_token.expose_secret());
        }
        Host::AzurePipelines => {
            let pipelines = azure.pipelines();
            set("SYSTEM_OIDCREQUESTURI", &pipelines.request_uri);
            set("SYSTEM_ACCESSTOKEN", pipelines.access_token.expose_secret());
            set("AZURESUBSCRIPTION_SERVICE_CONNECTION_ID", &pipelines.service_connection.to_string());
            set("AZURESUBSCRIPTION_CLIENT_ID", &client.to_string());
            set("AZURESUBSCRIPTION_TENANT_ID", &tenant);
        }
        Host::ClientSecret => set("AZURE_CLIENT_SECRET", azure.application().secret().expose_secret()),
        Host::ClientCertificate => {
            set("AZURE_CLIENT_CERTIFICATE_PATH", &places.client_certificate.display().to_string())
        }
        _ => set("AZURE_FEDERATED_TOKEN_FILE", &places.pod_token.display().to_string()),
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_the_cloud_join_those_that_are_asked_directly() {
        let vm = |variables: &[(&str, &str)]| {
            let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            BTreeMap::from([("vm".to_owned(), variables.collect())])
        };
        let usual = vm(&[(METADATA_VARIABLE, "http://127.0.0.1:1")]);
        for (standing, expected) in [
            (&[][..], "localhost,127.0.0.1"),
            (&[("NO_PROXY", "")], "localhost,127.0.0.1"),
            (&[("NO_PROXY", "a.example, .b.example")], "a.example,.b.example,localhost,127.0.0.1"),
            (&[("no_proxy", "127.0.0.1,a.example")], "127.0.0.1,a.example,localhost"),
            (
                &[("NO_PROXY", "a.example"), ("no_proxy", "b.example")],
                "a.example,b.example,localhost,127.0.0.1",
            ),
            (&[("NO_PROXY", "*")], "*"),
            (
                &[("NO_PROXY", "localhost,127.0.0.1"), ("no_proxy", "localhost,127.0.0.1")],
                "localhost,127.0.0.1",
            ),
        ] {
            let env = Env::from_map(standing.iter().copied());
            let both = unproxied(&env, &usual);
            assert_eq!(both.each_ref().map(|(name, _)| &**name), NO_PROXY);
            assert_eq!(both.map(|(_, value)| value), [expected, expected], "{standing:?}");
        }
        let link_local = unproxied(&Env::from_map::<String, String>([]), &vm(&[]));
        assert_eq!(link_local[0].1, "localhost,127.0.0.1,169.254.169.254");
    }
}

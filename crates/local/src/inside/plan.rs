//! What the namespaces of a program contain.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::refused::{failed_at, usage};
use crate::azure_names::METADATA_ADDRESS;
use crate::environment::{METADATA_VARIABLE, NAME_VARIABLE, VARIABLES};
use crate::error::Failure;
use crate::host::Host;
use crate::status::Status;
use crate::trust_store::{JAVA_VARIABLE, java_options, joined_options};

/// The most services of the machine that a program can reach: a number of a listener is a byte, and
/// the cloud's own need some.
const MOST_REACHED: usize = 100;

/// The variables that a host of Azure itself has, and those of the developer's own identity: a
/// program on another host must not have them.
const IDENTITY: [&str; 28] = [
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
    "ACTIONS_ID_TOKEN_REQUEST_URL",
    "AZURESUBSCRIPTION_CLIENT_ID",
    "AZURESUBSCRIPTION_SERVICE_CONNECTION_ID",
    "AZURESUBSCRIPTION_TENANT_ID",
    "AZURE_CLIENT_CERTIFICATE_PASSWORD",
    "AZURE_CLIENT_CERTIFICATE_PATH",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_CLIENT_SEND_CERTIFICATE_CHAIN",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_KUBERNETES_CA_DATA",
    "AZURE_KUBERNETES_SNI_NAME",
    "AZURE_KUBERNETES_TOKEN_PROXY",
    "AZURE_PASSWORD",
    "AZURE_REGIONAL_AUTHORITY_NAME",
    "AZURE_TENANT_ID",
    "AZURE_TOKEN_CREDENTIALS",
    "AZURE_USERNAME",
    "DEFAULT_IDENTITY_CLIENT_ID",
    "IDENTITY_ENDPOINT",
    "IDENTITY_HEADER",
    "IDENTITY_SERVER_THUMBPRINT",
    "IMDS_ENDPOINT",
    "MSI_ENDPOINT",
    "MSI_SECRET",
    "SYSTEM_ACCESSTOKEN",
    "SYSTEM_OIDCREQUESTURI",
];
/// Where Entra is, on a host that says so.
const AUTHORITY: &str = "AZURE_AUTHORITY_HOST";
/// HTTP proxies of the machine are not reached in the namespace, and Azure needs none.
const PROXIES: [&str; 8] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
];

/// What the namespaces of a program contain.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NamespacePlan {
    /// An empty folder of the machine, where the namespace has its files.
    pub(super) folder: PathBuf,
    /// Certificates in PEM that programs shall trust too.
    pub(super) certificates: Vec<String>,
    /// Names, with their addresses in the namespace.
    pub(super) hosts: Vec<(String, Ipv4Addr)>,
    /// Addresses of the namespace besides 127.0.0.0/8.
    pub(super) addresses: Vec<Ipv4Addr>,
    /// Where it is listened, in the order of the relay's targets.
    pub(super) listen: Vec<SocketAddr>,
    /// The variables of the host.
    variables: BTreeMap<String, String>,
}

/// Where the connections of a listener lead, outside the namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RelayTarget {
    /// A name or an address.
    pub(super) host: String,
    /// A port.
    pub(super) port: u16,
}

/// A service outside the namespace that a program shall reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// A name or an IPv4 address.
    pub host: String,
    /// A port.
    pub port: u16,
}

impl std::str::FromStr for Reach {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = text.rsplit_once(':').ok_or("HOST:PORT is expected")?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or("a port is a number from 1 to 65535")?;
        let is_name = !host.is_empty()
            && host.len() <= 253
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
        if !is_name {
            return Err("a host is a name or an IPv4 address");
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl std::fmt::Display for Reach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl NamespacePlan {
    /// The namespaces of a program on `host` of this cloud, and the target of each listener.
    ///
    /// # Errors
    /// If the cloud is not this host or is of another version, or if its certificates cannot be read.
    pub(super) fn new(
        status: &Status,
        host: Host,
        reached: &[Reach],
    ) -> Result<(Self, Vec<RelayTarget>), Failure> {
        let Some(names) = &status.azure_names else {
            return Err(usage(
                "the running local cloud is of another version of pgentra",
                "stop it and start it again",
            ));
        };
        let Some(environment) = status.environments.get(host.name()) else {
            let message = format!("the running local cloud is no host `{host}`");
            return Err(usage(message, "start it with --arc, as root"));
        };
        if reached.len() > MOST_REACHED {
            let message = format!("--reach is given {} times", reached.len());
            return Err(usage(message, "it can be given 100 times"));
        }
        let is_azures = |reach: &&Reach| names.services.iter().any(|service| service.name == reach.host);
        if let Some(reach) = reached.iter().find(is_azures) {
            return Err(usage(
                format!("--reach cannot be {reach}: the local cloud is {}", reach.host),
                "reach it under another name, or without `pgentra local run`",
            ));
        }
        let certificates = [&names.certificate, &status.server.sslrootcert]
            .map(|path| fs::read_to_string(path).map_err(|error| failed_at("read", path, error)));
        let mut plan = Self {
            folder: names.folder.clone(),
            certificates: certificates.into_iter().collect::<Result<_, _>>()?,
            hosts: Vec::new(),
            addresses: Vec::new(),
            listen: Vec::new(),
            variables: BTreeMap::new(),
        };
        let mut targets = Vec::new();
        let mut addresses = (10..).map(|last| Ipv4Addr::new(127, 0, 0, last));
        let mut by_port: BTreeMap<u16, Ipv4Addr> = BTreeMap::new();
        let mut by_name: BTreeMap<&str, Ipv4Addr> = BTreeMap::new();
        for service in &names.services {
            let target = RelayTarget { host: "127.0.0.1".to_owned(), port: service.local_port };
            if service.name == METADATA_ADDRESS {
                // An application with a secret is anywhere, and App Service has endpoints of its own.
                if matches!(host, Host::Vm | Host::UserAssigned) {
                    plan.add(service.name.parse().ok(), service.port, target, &mut targets);
                }
                continue;
            }
            // Services with one port have one address, and so has a name with two ports.
            let known = by_port.get(&service.local_port).or_else(|| by_name.get(&*service.name)).copied();
            let Some(address) = known.or_else(|| addresses.next()) else { continue };
            if by_port.insert(service.local_port, address).is_none() {
                plan.add(Some(address), service.port, target, &mut targets);
            }
            if by_name.insert(&service.name, address).is_none() {
                plan.hosts.push((service.name.clone(), address));
            }
        }
        plan.variables = own_variables(host, environment);
        for port in own_ports(&plan.variables) {
            let target = RelayTarget { host: "127.0.0.1".to_owned(), port };
            for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
                plan.listen.push((address, port).into());
                targets.push(target.clone());
            }
        }
        let mut outside: BTreeMap<&str, Ipv4Addr> = BTreeMap::new();
        for (number, reach) in (1..).zip(reached) {
            let target = RelayTarget { host: reach.host.clone(), port: reach.port };
            let literal = reach.host.parse::<Ipv4Addr>().ok();
            let address = match literal {
                Some(address) => address,
                None if reach.host == "localhost" => Ipv4Addr::LOCALHOST,
                None => *outside.entry(&reach.host).or_insert(Ipv4Addr::new(127, 0, 1, number)),
            };
            if literal.is_none() && address != Ipv4Addr::LOCALHOST {
                plan.hosts.push((reach.host.clone(), address));
            }
            plan.add(Some(address), reach.port, target, &mut targets);
        }
        Ok((plan, targets))
    }

    fn add(
        &mut self,
        address: Option<Ipv4Addr>,
        port: u16,
        target: RelayTarget,
        targets: &mut Vec<RelayTarget>,
    ) {
        let Some(address) = address else { return };
        if !address.is_loopback() && !self.addresses.contains(&address) {
            self.addresses.push(address);
        }
        let listen = SocketAddr::from((address, port));
        if !self.listen.contains(&listen) {
            self.listen.push(listen);
            targets.push(target);
        }
    }

    /// The same with the files in another folder.
    pub(super) fn at(self, folder: &Path) -> Self {
        Self { folder: folder.to_path_buf(), ..self }
    }

    /// The file with all trusted certificates.
    pub(super) fn bundle(&self) -> PathBuf {
        self.folder.join("ca-bundle.pem")
    }

    /// The trust store for a JVM.
    pub(super) fn store(&self) -> PathBuf {
        self.folder.join("ca-bundle.p12")
    }

    /// The variables to set, where `own_java` are the user's own options in `JAVA_TOOL_OPTIONS`.
    pub fn variables(&self, own_java: Option<&str>) -> BTreeMap<String, String> {
        let bundle = self.bundle().display().to_string();
        let java = joined_options(own_java, &java_options(&self.store()));
        let mut variables = self.variables.clone();
        for (name, value) in [
            // OpenSSL, Go, .NET, Ruby; requests, whose own certificates are in a package; Node.js.
            ("SSL_CERT_FILE", &bundle),
            ("REQUESTS_CA_BUNDLE", &bundle),
            ("NODE_EXTRA_CA_CERTS", &bundle),
            (JAVA_VARIABLE, &java),
        ] {
            variables.insert(name.to_owned(), value.clone());
        }
        variables
    }

    /// The variables to unset, in an environment that has the variables of a local cloud or not.
    pub fn unset(has: impl Fn(&str) -> bool) -> Vec<&'static str> {
        let clouds = if has(NAME_VARIABLE) { &VARIABLES[..] } else { &[] };
        // curl would trust this file alone.
        let always = [AUTHORITY, METADATA_VARIABLE, "AZURE_POD_IDENTITY_TOKEN_URL", "CURL_CA_BUNDLE"];
        IDENTITY.iter().chain(&PROXIES).chain(&always).chain(clouds).copied().collect()
    }
}

/// The variables that the host has on Azure.
fn own_variables(host: Host, environment: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let is_own = |(name, _): &(&String, &String)| IDENTITY.contains(&name.as_str());
    let own = environment.iter().filter(is_own).map(|(name, value)| (name.clone(), value.clone()));
    let mut own: BTreeMap<_, _> = own.collect();
    // The webhook of workload identity sets it.
    if matches!(host, Host::Aks | Host::AksBinding) {
        own.insert(AUTHORITY.to_owned(), "https://login.microsoftonline.com/".to_owned());
    }
    own
}

/// The ports of this machine in the addresses of the host's endpoints. They are the same inside.
fn own_ports(variables: &BTreeMap<String, String>) -> Vec<u16> {
    let port = |value: &String| {
        let (_, rest) = value.split_once("://")?;
        let (host, port) = rest.split('/').next()?.rsplit_once(':')?;
        ["localhost", "127.0.0.1"].contains(&host).then(|| port.parse().ok()).flatten()
    };
    let mut ports: Vec<u16> = variables.values().filter_map(port).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_to_reach_is_a_host_and_a_port() {
        let reach = |text: &str| text.parse::<Reach>();
        assert_eq!(reach("db.example:5432").map(|it| it.to_string()), Ok("db.example:5432".to_owned()));
        for bad in [
            "",
            "db",
            "db:",
            "db:0",
            "db:65536",
            ":1",
            "a b:1",
            "[::1]:1",
            "a\nb:1",
            &format!("{}:1", "x".repeat(254)),
        ] {
            assert!(reach(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_the_ports_of_endpoints_are_taken() {
        let variables = [
            ("IDENTITY_ENDPOINT", "http://127.0.0.1:4001/MSI/token"),
            ("MSI_ENDPOINT", "http://127.0.0.1:4001/x"),
            ("SYSTEM_OIDCREQUESTURI", "https://localhost:4002/a?b=c"),
            ("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.com/"),
            ("IDENTITY_HEADER", "a:80"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        assert_eq!(own_ports(&variables), [4001, 4002]);
    }

    #[test]
    fn the_variables_of_a_local_cloud_are_unset_where_it_set_them() {
        assert!(!NamespacePlan::unset(|_| false).contains(&"PGHOST"));
        assert!(NamespacePlan::unset(|name| name == NAME_VARIABLE).contains(&"PGHOST"));
        for always in ["AZURE_CLIENT_ID", "HTTPS_PROXY", METADATA_VARIABLE] {
            assert!(NamespacePlan::unset(|_| false).contains(&always));
        }
    }
}

//! Arguments of `pgentra local` and `pgentra quickstart`.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use pgentra_local::control::FURTHEST;
use pgentra_local::faults::{self, KnownEndpoint, KnownFault, MOST_TIMES};
#[cfg(target_os = "linux")]
use pgentra_local::inside::Reach;
use pgentra_local::principals::MemberName;
use pgentra_local::{Flavour, Host};
use pgentra_proxy_config::quantity;

use super::shell::Shell;
use crate::options::Output;

/// The name of the local cloud if none is given.
pub(crate) const DEFAULT_NAME: &str = "default";

/// Which of several local clouds.
#[derive(Clone, Debug, Args)]
pub(crate) struct LocalName {
    /// Name of the local cloud, where several run at once. Default: PGENTRA_LOCAL, which `local env` sets, else default.
    #[arg(long, default_value = "", hide_default_value = true, value_parser = local_name_or_none)]
    pub(crate) name: String,
}

/// The PostgreSQL of a local cloud.
#[derive(Clone, Debug, Args)]
pub(crate) struct LocalDatabase {
    /// Which Azure product to behave as: flexible (Flexible Server) or single (Single Server, as in the article).
    /// Default: that of --state or --snapshot, else flexible.
    #[arg(long, value_name = "FLAVOUR", value_parser = flavour(), ignore_case = true)]
    pub(crate) flavour: Option<Flavour>,
    /// Use the PostgreSQL installed in this folder instead of the embedded one.
    #[arg(long, value_name = "DIR")]
    pub(crate) postgres: Option<PathBuf>,
}

/// The built-in PgBouncer of Flexible Server.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct BuiltInPgBouncer {
    /// Switch the built-in PgBouncer on, as the server parameter pgbouncer.enabled does. PgBouncer must be installed. Default: off.
    #[arg(long)]
    pub(crate) pgbouncer: bool,
    /// Port of PgBouncer, which Flexible Server has; 0 takes the usual one of this name, or any free one.
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    pub(crate) pgbouncer_port: u16,
}

impl BuiltInPgBouncer {
    /// The arguments again.
    pub(crate) fn words(self) -> Vec<OsString> {
        let mut words: Vec<OsString> =
            vec!["--pgbouncer-port".into(), self.pgbouncer_port.to_string().into()];
        words.extend(self.pgbouncer.then(|| "--pgbouncer".into()));
        words
    }
}

/// What can only be had at its own place on the machine, which takes privileges.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct FixedPlaces {
    /// Also answer at 169.254.169.254:80. The address must be on the loopback interface, which takes root or a network namespace.
    #[arg(long)]
    pub(crate) link_local: bool,
    /// Also be the agent of an Azure Arc server. Its folder /var/opt/azcmagent must not be there yet; to make it takes root.
    #[arg(long)]
    pub(crate) arc: bool,
}

/// What clients on other machines and in clusters need.
#[derive(Clone, Debug, Args)]
pub(crate) struct OtherMachines {
    /// Also serve PostgreSQL and Entra on this address, which other machines may reach: each of them can become the
    /// administrator. Default: loopback only.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) danger_listen_beyond_loopback: Option<IpAddr>,
    /// A name or address under which other machines reach PostgreSQL and Entra, for their certificates. Can be given several times.
    #[arg(long, value_name = "NAME", value_parser = host_name)]
    pub(crate) host_name: Vec<String>,
    /// A Kubernetes cluster whose service accounts can have identities: the issuer of its tokens, and a file with its keys,
    /// as `kubectl get --raw /openid/v1/jwks` prints them. It is the AKS cluster trustedCluster.
    #[arg(long, num_args = 2, value_names = ["ISSUER", "FILE"])]
    pub(crate) trust_cluster: Vec<String>,
    /// Port of Entra's endpoints; 0 takes any free one.
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    pub(crate) entra_port: u16,
    /// A certificate authority that other machines trust already: its certificate and its key, in PEM. It signs for
    /// PostgreSQL and Entra. Default: the local cloud makes one.
    #[arg(long, num_args = 2, value_names = ["CERTIFICATE", "KEY"])]
    pub(crate) authority: Vec<PathBuf>,
}

impl OtherMachines {
    /// The files of the authority.
    pub(crate) fn authority(&self) -> Option<(PathBuf, PathBuf)> {
        match &self.authority[..] {
            [certificate, key] => Some((certificate.clone(), key.clone())),
            _ => None,
        }
    }

    /// The issuer and the file of the trusted cluster.
    pub(crate) fn cluster(&self) -> Option<(String, PathBuf)> {
        match &self.trust_cluster[..] {
            [issuer, file] => Some((issuer.clone(), file.into())),
            _ => None,
        }
    }

    /// The arguments again, for another process in the same folder.
    pub(crate) fn words(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["--entra-port".into(), self.entra_port.to_string().into()];
        if let Some(address) = self.danger_listen_beyond_loopback {
            words.extend(["--danger-listen-beyond-loopback".into(), address.to_string().into()]);
        }
        for name in &self.host_name {
            words.extend(["--host-name".into(), name.into()]);
        }
        if !self.trust_cluster.is_empty() {
            words.push("--trust-cluster".into());
            words.extend(self.trust_cluster.iter().map(OsString::from));
        }
        if !self.authority.is_empty() {
            words.push("--authority".into());
            words.extend(self.authority.iter().map(OsString::from));
        }
        words
    }
}

/// What programs in containers need to find themselves on Azure.
#[cfg(target_os = "linux")]
#[derive(Clone, Debug, Args)]
pub(crate) struct Containers {
    /// Also serve Azure's names at this address, each at its port on Azure: 80, 443, 5432 and 6432. Other containers reach it under these
    /// names, and each of them can become the administrator. Default: loopback only.
    #[arg(long, value_name = "ADDRESS", requires = "azure_files")]
    pub(crate) danger_azure_names: Option<IpAddr>,
    /// A folder that these containers share: the variables, tokens and trusted certificates for programs in them.
    #[arg(long, value_name = "FOLDER", requires = "danger_azure_names")]
    pub(crate) azure_files: Option<PathBuf>,
}

#[cfg(target_os = "linux")]
impl Containers {
    /// The arguments again, for another process in the same folder.
    pub(crate) fn words(&self) -> Vec<OsString> {
        let mut words = Vec::new();
        if let (Some(address), Some(folder)) = (self.danger_azure_names, &self.azure_files) {
            words.extend(["--danger-azure-names".into(), address.to_string().into()]);
            words.extend(["--azure-files".into(), folder.into()]);
        }
        words
    }
}

/// Arguments of `pgentra quickstart`.
#[derive(Debug, Args)]
pub(crate) struct Quickstart {
    /// Keep the local cloud, with the name quickstart, until Ctrl-C or `pgentra local down --name quickstart`.
    #[arg(long, conflicts_with = "output")]
    pub(crate) keep: bool,
    #[command(flatten)]
    pub(crate) database: LocalDatabase,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `pgentra local …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Local {
    /// Start the local cloud; it runs until Ctrl-C or `pgentra local down`.
    #[command(after_help = "Example: pgentra local up --flavour single --detach")]
    Up(LocalUp),
    /// Stop the local cloud and remove all of its files but the state.
    #[command(after_help = "Example: pgentra local down")]
    Down(LocalName),
    /// List the local clouds that run.
    #[command(after_help = "Example: pgentra local list")]
    List(Output),
    /// Show whether the local cloud runs, its addresses and its identities.
    #[command(after_help = "Example: pgentra local status -o json")]
    Status(LocalStatus),
    /// Print the address of the local cloud's page, and open it: identities, tokens, logins, clock, faults.
    #[command(after_help = "Example: pgentra local open --print")]
    Open(LocalOpen),
    /// Print the environment with which Azure SDKs, libpq and pgentra use the local cloud.
    #[command(
        after_help = "Example: eval \"$(pgentra local env)\" && pgentra query -c 'SELECT current_user'"
    )]
    Env(LocalEnv),
    /// Advance the clock of the local cloud, so that tokens expire at once.
    #[command(after_help = "Example: pgentra local clock --advance 25h")]
    Clock(LocalClock),
    /// Save the state of the running local cloud in a file, for `pgentra local up --snapshot` or `--state`.
    #[command(after_help = "Example: pgentra local snapshot with-schema.pgentra")]
    Snapshot(LocalSnapshot),
    /// Run a program that finds itself on Azure: Azure's own names and addresses lead to the local cloud. Linux only.
    #[cfg(target_os = "linux")]
    #[command(after_help = "Example: pgentra local run --host aks -- python3 app.py\n         \
                      pgentra local run --publish 8080 --reach db.example:5432 -- java -jar app.jar")]
    Run(LocalRun),
    /// List, add or remove user-assigned managed identities, which are assigned to the VM.
    #[command(subcommand)]
    Identity(IdentityCommand),
    /// List, add or remove users of the tenant.
    #[command(subcommand)]
    User(UserCommand),
    /// List, add or remove groups of the tenant and their members.
    #[command(subcommand)]
    Group(GroupCommand),
    /// Switch faults on and off in the answers of the local cloud's endpoints, and in PostgreSQL.
    #[command(subcommand)]
    Fault(FaultCommand),
}

/// `pgentra local identity …`.
#[derive(Debug, Subcommand)]
pub(crate) enum IdentityCommand {
    /// List them.
    #[command(after_help = "Example: pgentra local identity list")]
    List(MemberList),
    /// Add one. It exists at once, in Resource Manager, Graph and for roles in PostgreSQL.
    #[command(after_help = "Example: pgentra local identity add my-api")]
    Add(MemberNamed),
    /// Remove one. Tokens that were given out stay valid until they expire.
    #[command(after_help = "Example: pgentra local identity remove my-api")]
    Remove(MemberNamed),
}

/// `pgentra local user …`.
#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// List them.
    #[command(after_help = "Example: pgentra local user list")]
    List(MemberList),
    /// Add one. It exists at once, in Graph and for roles in PostgreSQL.
    #[command(after_help = "Example: pgentra local user add \"Ada Lovelace\"")]
    Add(MemberNamed),
    /// Remove one. Tokens that were given out stay valid until they expire.
    #[command(after_help = "Example: pgentra local user remove \"Ada Lovelace\"")]
    Remove(MemberNamed),
}

/// `pgentra local group …`.
#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// List them.
    #[command(after_help = "Example: pgentra local group list")]
    List(MemberList),
    /// Add one. It exists at once, in Graph and for roles in PostgreSQL.
    #[command(after_help = "Example: pgentra local group add developers")]
    Add(MemberNamed),
    /// Remove one. Tokens that were given out stay valid until they expire.
    #[command(after_help = "Example: pgentra local group remove developers")]
    Remove(MemberNamed),
    /// List the members of a group.
    #[command(after_help = "Example: pgentra local group members developers")]
    Members(MemberNamed),
    /// Make a user, an identity or an application a member of a group. The next token of a user names the group.
    #[command(after_help = "Example: pgentra local group add-member developers \"Ada Lovelace\"")]
    AddMember(GroupMember),
    /// End a membership of a group.
    #[command(after_help = "Example: pgentra local group remove-member developers \"Ada Lovelace\"")]
    RemoveMember(GroupMember),
}

impl IdentityCommand {
    pub(crate) fn name_mut(&mut self) -> &mut LocalName {
        match self {
            Self::List(arguments) => &mut arguments.name,
            Self::Add(arguments) | Self::Remove(arguments) => &mut arguments.list.name,
        }
    }
}

impl UserCommand {
    pub(crate) fn name_mut(&mut self) -> &mut LocalName {
        match self {
            Self::List(arguments) => &mut arguments.name,
            Self::Add(arguments) | Self::Remove(arguments) => &mut arguments.list.name,
        }
    }
}

impl GroupCommand {
    pub(crate) fn name_mut(&mut self) -> &mut LocalName {
        match self {
            Self::List(arguments) => &mut arguments.name,
            Self::Add(arguments) | Self::Remove(arguments) | Self::Members(arguments) => {
                &mut arguments.list.name
            }
            Self::AddMember(arguments) | Self::RemoveMember(arguments) => &mut arguments.list.name,
        }
    }
}

/// Arguments that name a group and a member.
#[derive(Debug, Args)]
pub(crate) struct GroupMember {
    /// The name or the object id of the group.
    #[arg(value_name = "GROUP")]
    pub(crate) group: MemberName,
    /// The name or the object id of the member, or the sign-in name of a user.
    #[arg(value_name = "MEMBER")]
    pub(crate) member: MemberName,
    #[command(flatten)]
    pub(crate) list: MemberList,
}

/// Arguments of a list.
#[derive(Debug, Args)]
pub(crate) struct MemberList {
    #[command(flatten)]
    pub(crate) name: LocalName,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Arguments that name a principal.
#[derive(Debug, Args)]
pub(crate) struct MemberNamed {
    /// The name. A principal to remove can also be named by object id, and a user by sign-in name.
    #[arg(value_name = "NAME")]
    pub(crate) member: MemberName,
    #[command(flatten)]
    pub(crate) list: MemberList,
}

/// `pgentra local fault …`.
#[derive(Debug, Subcommand)]
pub(crate) enum FaultCommand {
    /// List the faults that are on. With `-o json` also those that can be switched on.
    #[command(after_help = "Example: pgentra local fault list")]
    List(FaultListing),
    /// Switch a fault on.
    #[command(after_help = "Example: pgentra local fault set throttled --times 3")]
    Set(FaultSet),
    /// Switch a fault off, or all of them.
    #[command(after_help = "Example: pgentra local fault clear throttled")]
    Clear(FaultClear),
}

impl FaultCommand {
    pub(crate) fn name(&self) -> &LocalName {
        match self {
            Self::List(arguments) => &arguments.name,
            Self::Set(arguments) => &arguments.name,
            Self::Clear(arguments) => &arguments.name,
        }
    }

    pub(crate) fn name_mut(&mut self) -> &mut LocalName {
        match self {
            Self::List(arguments) => &mut arguments.name,
            Self::Set(arguments) => &mut arguments.name,
            Self::Clear(arguments) => &mut arguments.name,
        }
    }
}

/// Arguments of `pgentra local fault list`.
#[derive(Debug, Args)]
pub(crate) struct FaultListing {
    #[command(flatten)]
    pub(crate) name: LocalName,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Arguments of `pgentra local fault set`.
#[derive(Debug, Args)]
pub(crate) struct FaultSet {
    /// The fault.
    #[arg(value_name = "FAULT", value_parser = fault())]
    pub(crate) fault: &'static KnownFault,
    /// The endpoint whose answers suffer it. Default: imds-token, the metadata service of a VM; entra-token for
    /// mfa-required, access-blocked and tenant-throttled; postgresql for failover and connection-limit.
    #[arg(long, value_name = "ENDPOINT", value_parser = endpoint())]
    pub(crate) at: Option<&'static KnownEndpoint>,
    /// How many requests suffer it, 1 to 1000. Default: all, until the fault is cleared.
    #[arg(long, value_name = "N", value_parser = times)]
    pub(crate) times: Option<usize>,
    #[command(flatten)]
    pub(crate) name: LocalName,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Arguments of `pgentra local fault clear`.
#[derive(Debug, Args)]
pub(crate) struct FaultClear {
    /// The fault. Default: all faults.
    #[arg(value_name = "FAULT", value_parser = fault())]
    pub(crate) fault: Option<&'static KnownFault>,
    /// The endpoint at which it is switched off. Default: every endpoint.
    #[arg(long, value_name = "ENDPOINT", value_parser = endpoint(), requires = "fault")]
    pub(crate) at: Option<&'static KnownEndpoint>,
    #[command(flatten)]
    pub(crate) name: LocalName,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Arguments of `pgentra local up`.
#[derive(Debug, Args)]
pub(crate) struct LocalUp {
    #[command(flatten)]
    pub(crate) name: LocalName,
    #[command(flatten)]
    pub(crate) database: LocalDatabase,
    /// Port of PostgreSQL for clients; 0 takes any free one.
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    pub(crate) port: u16,
    /// Port of the metadata service (plain HTTP, as on a VM); 0 takes any free one.
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    pub(crate) metadata_port: u16,
    #[command(flatten)]
    pub(crate) pgbouncer: BuiltInPgBouncer,
    #[command(flatten)]
    pub(crate) fixed: FixedPlaces,
    #[command(flatten)]
    pub(crate) other_machines: OtherMachines,
    #[cfg(target_os = "linux")]
    #[command(flatten)]
    pub(crate) containers: Containers,
    /// Keep the state in this file: begin with its content if it exists, and write it at the stop. It has secrets and
    /// private keys. Default: the state is lost at the stop.
    #[arg(long, value_name = "FILE")]
    pub(crate) state: Option<PathBuf>,
    /// Begin with the state in this file, which is not changed: of `pgentra local snapshot`, or of --state.
    #[arg(long, value_name = "FILE", conflicts_with = "state")]
    pub(crate) snapshot: Option<PathBuf>,
    /// Text on which the ids of the tenant, the subscription and the identities depend. Default: the name.
    #[arg(long, value_name = "TEXT")]
    pub(crate) seed: Option<String>,
    /// Start the cloud in the background and return when it is ready.
    #[arg(long)]
    pub(crate) detach: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Arguments of `pgentra local status`.
#[derive(Debug, Args)]
pub(crate) struct LocalStatus {
    #[command(flatten)]
    pub(crate) name: LocalName,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Arguments of `pgentra local open`.
#[derive(Debug, Args)]
pub(crate) struct LocalOpen {
    #[command(flatten)]
    pub(crate) name: LocalName,
    /// Only print the address. Without this option a browser opens it, if there is a desktop and standard output is a terminal.
    #[arg(long)]
    pub(crate) print: bool,
}

/// Arguments of `pgentra local env`.
#[derive(Debug, Args)]
pub(crate) struct LocalEnv {
    #[command(flatten)]
    pub(crate) name: LocalName,
    /// The Azure host to imitate; it determines which variables are set.
    #[arg(long, default_value_t = Host::Vm, value_parser = host(), ignore_case = true)]
    pub(crate) host: Host,
    /// Output format: a shell, or a file of variables. Default: the shell in SHELL, else sh.
    #[arg(long, value_enum, value_name = "SHELL", ignore_case = true)]
    pub(crate) shell: Option<Shell>,
    /// Print commands that unset all variables of a local cloud. Works without a running one.
    #[arg(long, conflicts_with_all = ["host", "output"])]
    pub(crate) unset: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Arguments of `pgentra local run`.
#[cfg(target_os = "linux")]
#[derive(Debug, Args)]
pub(crate) struct LocalRun {
    #[command(flatten)]
    pub(crate) name: LocalName,
    /// The Azure host that the program finds itself on.
    #[arg(long, default_value_t = Host::Vm, value_parser = host(), ignore_case = true)]
    pub(crate) host: Host,
    /// Let 127.0.0.1:PORT of this machine lead to the program's port. Can be given several times.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) publish: Vec<u16>,
    /// Let the program reach this service, at the same name and port. Can be given several times.
    #[arg(long, value_name = "HOST:PORT", value_parser = reach)]
    pub(crate) reach: Vec<Reach>,
    /// The program and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) program: Vec<OsString>,
}

/// A service outside the namespaces of a program.
#[cfg(target_os = "linux")]
pub(crate) fn reach(text: &str) -> Result<Reach, &'static str> {
    text.parse()
}

/// Arguments of `pgentra local snapshot`.
#[derive(Debug, Args)]
pub(crate) struct LocalSnapshot {
    /// The file, which only you can read: it has secrets and private keys.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Replace the file if it exists.
    #[arg(long)]
    pub(crate) replace: bool,
    #[command(flatten)]
    pub(crate) name: LocalName,
}

/// Arguments of `pgentra local clock`.
#[derive(Debug, Args)]
pub(crate) struct LocalClock {
    #[command(flatten)]
    pub(crate) name: LocalName,
    /// Time to advance: 90s, 10m, 25h, 3d. Without it the command shows the local cloud's time.
    #[arg(long, value_name = "TIME", value_parser = how_far, allow_negative_numbers = true)]
    pub(crate) advance: Option<Duration>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// A time such as `25h` or `1h 30m`, forward, of a year at most.
fn how_far(text: &str) -> Result<Duration, String> {
    quantity::time_within(text, 0..=FURTHEST.as_secs())
}

/// A DNS name or an IP address, as a certificate takes it.
fn host_name(text: &str) -> Result<String, String> {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let is_name = text.len() <= 253 && text.split('.').all(is_label);
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(address.to_string()),
        Err(_) if is_name => Ok(text.to_owned()),
        Err(_) => Err("not a host name or an address".to_owned()),
    }
}

/// A fault of a local cloud, with what a program sees.
fn fault() -> impl TypedValueParser<Value = &'static KnownFault> {
    let described = faults::FAULTS.iter().map(|known| PossibleValue::new(known.name).help(known.what));
    PossibleValuesParser::new(described.collect::<Vec<_>>())
        .try_map(|name| KnownFault::named(&name).ok_or("no fault of a local cloud"))
}

/// An endpoint of a local cloud, with what it is.
fn endpoint() -> impl TypedValueParser<Value = &'static KnownEndpoint> {
    let described = faults::ENDPOINTS.iter().map(|known| PossibleValue::new(known.name()).help(known.title));
    PossibleValuesParser::new(described.collect::<Vec<_>>())
        .try_map(|name| KnownEndpoint::named(&name).ok_or("no endpoint of a local cloud"))
}

/// A number of requests.
fn times(text: &str) -> Result<usize, String> {
    let times = text.parse().ok().filter(|times| (1..=MOST_TIMES).contains(times));
    times.ok_or_else(|| format!("a number from 1 to {MOST_TIMES}"))
}

fn flavour() -> impl TypedValueParser<Value = Flavour> {
    PossibleValuesParser::new(["flexible", "single"]).try_map(|text| text.parse::<Flavour>())
}

/// A host of a local cloud, with what it is.
pub(crate) fn host() -> impl TypedValueParser<Value = Host> {
    let described = Host::ALL.map(|host| {
        let what = match host {
            Host::Vm => "A virtual machine with a system-assigned identity",
            Host::UserAssigned => "The same machine, with its user-assigned identity",
            Host::AppService => "App Service, Functions or Container Apps",
            Host::Aks => "A pod with workload identity",
            Host::AksBinding => "A pod with workload identity through an identity binding's token proxy",
            Host::ServiceFabric => "A Service Fabric application",
            Host::AzureMl => "An Azure Machine Learning compute",
            Host::GithubActions => "A workflow at GitHub",
            Host::AzurePipelines => "A job at Azure Pipelines",
            Host::AzureArc => "A server connected through Azure Arc; needs `pgentra local up --arc`",
            Host::ClientSecret => "An application with a client secret",
            Host::ClientCertificate => "An application with a certificate",
            Host::Admin => "The Entra administrator of the server, a person at a Cloud Shell",
        };
        PossibleValue::new(host.name()).help(what)
    });
    PossibleValuesParser::new(described).try_map(|text| text.parse::<Host>())
}

/// A name that can be a folder: letters, digits, `-` and `_`, at most 32, so that socket paths stay short.
pub(crate) fn local_name(text: &str) -> Result<String, String> {
    let fits = (1..=32).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    if fits { Ok(text.to_owned()) } else { Err("1 to 32 letters, digits, `-` or `_`".to_owned()) }
}

fn local_name_or_none(text: &str) -> Result<String, String> {
    if text.is_empty() { Ok(String::new()) } else { local_name(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_span_goes_forward_and_not_too_far() {
        for (text, seconds) in
            [("90s", 90), ("10m", 600), ("25h", 90_000), ("1h 30m", 5_400), ("3d", 259_200), ("1", 1)]
        {
            assert_eq!(how_far(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "-1h", "400d", "soon", "99999999999999999999d"] {
            assert!(how_far(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_host_name_fits_a_certificate() {
        for (text, written) in [
            ("cloud", "cloud"),
            ("db.example.com", "db.example.com"),
            ("10.0.0.1", "10.0.0.1"),
            ("::01", "::1"),
        ] {
            assert_eq!(host_name(text).as_deref(), Ok(written));
        }
        for bad in ["", ".", "a..b", "-a", "a_b", "a b", "a:1", "*.a", "ä", &"x".repeat(64)] {
            assert!(host_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_of_local_clouds_are_plain() {
        assert!(local_name("single-2").is_ok());
        for bad in ["", "a/b", "..", "ä", &"x".repeat(33)] {
            assert!(local_name(bad).is_err(), "{bad}");
        }
    }
}

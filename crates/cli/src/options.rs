//! The options that several commands share.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use pgentra_identity::{Cloud, IdentityOptions, SourceName};
use pgentra_local::{Flavour, Host};
use pgentra_proxy_config::quantity;

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
    #[arg(long, default_value = "flexible", value_name = "FLAVOUR", value_parser = flavour(), ignore_case = true)]
    pub(crate) flavour: Flavour,
    /// Use the PostgreSQL installed in this folder instead of the embedded one.
    #[arg(long, value_name = "DIR")]
    pub(crate) postgres: Option<PathBuf>,
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

/// Which identity, and which tokens.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Identity")]
pub(crate) struct Identity {
    /// Client (application) id of a user-assigned identity. Default: AZURE_CLIENT_ID, else the host's own identity.
    #[arg(long, value_name = "GUID", group = "selector")]
    pub(crate) client_id: Option<String>,
    /// Object (principal) id of a user-assigned identity.
    #[arg(long, value_name = "GUID", group = "selector")]
    pub(crate) object_id: Option<String>,
    /// Resource Manager id of a user-assigned identity.
    #[arg(long, value_name = "ID", group = "selector")]
    pub(crate) resource_id: Option<String>,
    /// Where the token comes from, instead of finding out: imds, app-service, app-service-2017, azure-arc, service-fabric,
    /// cloud-shell, azure-ml, workload-identity, github-actions, azure-pipelines, client-secret, client-certificate,
    /// azure-cli or azure-developer-cli.
    #[arg(long, value_name = "NAME", value_parser = IdentityOptions::parse_source)]
    pub(crate) source: Option<SourceName>,
    /// A shell command that prints a token, or JSON as az does, as the source. It finds what the token is for in PGENTRA_RESOURCE, PGENTRA_HOST, PGENTRA_PORT and PGENTRA_ROLE.
    #[arg(long, value_name = "CMD", conflicts_with_all = ["source", "selector"])]
    pub(crate) token_command: Option<String>,
    /// How long a token of the command is valid: 15m, 1h. Needed where neither token nor output says it.
    #[arg(long, value_name = "TIME", requires = "token_command", value_parser = token_lifetime, allow_negative_numbers = true)]
    pub(crate) token_lifetime: Option<Duration>,
    /// Entra tenant, a GUID or a domain name. Default: AZURE_TENANT_ID, where the source needs one.
    #[arg(long, value_name = "TENANT", value_parser = IdentityOptions::parse_tenant)]
    pub(crate) tenant: Option<String>,
    /// The Azure cloud: public, usgov or china.
    #[arg(long, default_value = "public", value_name = "CLOUD", value_parser = IdentityOptions::parse_cloud)]
    pub(crate) cloud: Cloud,
    /// The resource (or scope) to ask a token for, instead of the cloud's PostgreSQL.
    #[arg(long, value_name = "URI")]
    pub(crate) resource: Option<String>,
    /// Give up on a token after this time: 90s, 5m, or a bare number of seconds. A metadata service that restarts may need 70 s
    #[arg(long, value_name = "TIME", default_value = "80s", value_parser = token_timeout, allow_negative_numbers = true)]
    pub(crate) token_timeout: Duration,
}

/// Which server, role and database: named as in psql.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Connection {
    /// A connection URI or a conninfo string, as psql takes it.
    #[arg(value_name = "CONNINFO")]
    pub(crate) conninfo: Option<String>,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// The flags with which psql names server, role and database.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Server {
    /// Server name. Default: PGHOST.
    #[arg(short = 'h', long, value_name = "HOST")]
    pub(crate) host: Option<String>,
    /// Port. Default: PGPORT, else 5432.
    #[arg(short = 'p', long, value_name = "PORT")]
    pub(crate) port: Option<String>,
    /// Role to sign in as. Default: PGUSER.
    #[arg(short = 'U', long, value_name = "ROLE")]
    pub(crate) username: Option<String>,
    /// Database. Default: PGDATABASE, else the role's name.
    #[arg(short = 'd', long, value_name = "NAME")]
    pub(crate) dbname: Option<String>,
}

impl Server {
    /// The flags as keywords of a connection string.
    pub(crate) fn keywords(&self) -> Vec<(&'static str, String)> {
        let given =
            [("host", &self.host), ("port", &self.port), ("user", &self.username), ("dbname", &self.dbname)];
        given.into_iter().filter_map(|(keyword, value)| Some((keyword, value.clone()?))).collect()
    }
}

/// How a result is printed.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Output {
    /// Form of the result on stdout.
    #[arg(short, long, value_enum, default_value_t = Format::Text, value_name = "FORMAT", ignore_case = true)]
    pub(crate) output: Format,
}

/// Forms of a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs: stable, one document.
    Json,
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

fn token_timeout(text: &str) -> Result<Duration, String> {
    quantity::time_within(text, IdentityOptions::TOKEN_TIMEOUTS)
}

fn token_lifetime(text: &str) -> Result<Duration, String> {
    quantity::time_within(text, IdentityOptions::TOKEN_LIFETIMES)
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
    fn names_of_local_clouds_are_plain() {
        assert!(local_name("single-2").is_ok());
        for bad in ["", "a/b", "..", "ä", &"x".repeat(33)] {
            assert!(local_name(bad).is_err(), "{bad}");
        }
    }
}

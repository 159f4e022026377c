//! The options that several commands share.

use std::time::Duration;

use clap::{Args, ValueEnum};
use pgentra_identity::{Cloud, IdentityOptions, SourceName};
use pgentra_proxy_config::quantity;

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

fn token_timeout(text: &str) -> Result<Duration, String> {
    quantity::time_within(text, IdentityOptions::TOKEN_TIMEOUTS)
}

fn token_lifetime(text: &str) -> Result<Duration, String> {
    quantity::time_within(text, IdentityOptions::TOKEN_LIFETIMES)
}

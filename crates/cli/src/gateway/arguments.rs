//! Arguments of `pgentra gateway`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use pgentra_gateway::GatewayNetwork;
use pgentra_gateway_config::{GatewaySet, GatewaySources};
use uuid::Uuid;

use super::administrator::AdministratorArgument;
use crate::service::Flags;

/// Arguments of `pgentra gateway`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct GatewayArguments {
    /// A TOML file with the same settings, and servers. Default: PGENTRA_GATEWAY_CONFIG
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Check the configuration, the keys of the tenants, the sign-in at each server and its mapping,
    /// print the results, and exit without listening.
    #[arg(long)]
    pub(crate) check: bool,
    /// Check the configuration and the files that it names, print the problems, and exit. Contacts
    /// no server and no issuer, and does not listen.
    #[arg(long, conflicts_with = "check")]
    pub(crate) check_config: bool,
    /// With --check: a file with an access token, to see what it may do.
    #[arg(long, value_name = "FILE", requires = "check", requires = "role")]
    pub(crate) token_file: Option<PathBuf>,
    /// With --token-file: the role that the token is for.
    #[arg(long, value_name = "ROLE", requires = "token_file")]
    pub(crate) role: Option<String>,
    #[command(flatten)]
    pub(crate) flags: Flags<GatewaySet>,
    #[command(subcommand)]
    pub(crate) command: Option<GatewayCommand>,
}

/// Further commands for a gateway.
#[derive(Debug, Subcommand)]
pub(crate) enum GatewayCommand {
    /// Prepare a PostgreSQL for the gateway: print the SQL, and the lines of pg_hba.conf and
    /// pg_ident.conf.
    #[command(
        after_help = "Without --apply, the output is a script for psql, with the lines as comments at its end.\n\n\
                      Example: pgentra gateway init --tenant 00000000-1111-2222-3333-444444444444 --user pgentra | sudo -u postgres psql\n         \
                      pgentra gateway init --tenant 00000000-1111-2222-3333-444444444444 --user pgentra --apply 'host=/var/run/postgresql user=postgres'"
    )]
    Init(Init),
    /// Verify tokens for a PostgreSQL that asks by LDAP, as a line of its pg_hba.conf says.
    #[command(
        after_help = "The tenants, the mapping and the sign-in at the server are those of the gateway's configuration.\n\n\
                            Example: pgentra gateway ldap --config gateway.toml --listen 127.0.0.1:389\n         \
                            hostssl all +entra 0.0.0.0/0 ldap ldapserver=127.0.0.1 ldapport=389 ldapprefix=\"\" ldapsuffix=\"\""
    )]
    Ldap(Ldap),
}

/// Arguments of `pgentra gateway ldap`.
#[derive(Debug, Args)]
pub(crate) struct Ldap {
    /// The gateway's TOML file. Default: PGENTRA_GATEWAY_CONFIG
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The server whose roles sign in, by its name. Default: the first one.
    #[arg(long, value_name = "NAME")]
    pub(crate) server: Option<String>,
    /// Where PostgreSQL connects, on the loopback interface. On a port of 1024 or above, any user of
    /// this machine could listen in its place.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:389")]
    pub(crate) listen: std::net::SocketAddr,
    /// What stands before the role in a bind: ldapprefix in pg_hba.conf.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) prefix: String,
    /// What stands behind it: ldapsuffix.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) suffix: String,
}

/// Arguments of `pgentra gateway init`.
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// The tenant of the principals.
    #[arg(long, value_name = "GUID")]
    pub(crate) tenant: Uuid,
    /// How the gateway will sign in: by the user that it runs as over a Unix socket, by certificates
    /// that it signs, or by a password that all mapped roles have.
    #[arg(long, value_enum, default_value_t = GatewayMethod::Peer, value_name = "METHOD")]
    pub(crate) method: GatewayMethod,
    /// Where roles will be mapped to principals: as on that Azure product, or in a file.
    #[arg(long, value_enum, default_value_t = InitFlavour::Flexible, value_name = "FLAVOUR")]
    pub(crate) flavour: InitFlavour,
    /// With method peer: the user of this machine that the gateway runs as.
    #[arg(long, value_name = "USER", required_if_eq("method", "peer"))]
    pub(crate) user: Option<String>,
    /// With method cert: the file of the authority. It is made if it does not exist; FILE.crt gets
    /// its certificate, for the server's ssl_ca_file.
    #[arg(long, value_name = "FILE", required_if_eq("method", "cert"))]
    pub(crate) authority: Option<PathBuf>,
    /// With method scram: the file with the password. It is made if it does not exist.
    #[arg(long, value_name = "FILE", required_if_eq("method", "scram"))]
    pub(crate) password_file: Option<PathBuf>,
    /// A principal that may manage Entra roles: the name of its role, its object id and kind. May be
    /// repeated.
    #[arg(long, value_name = "ROLE=GUID[:user|group|service]")]
    pub(crate) admin: Vec<AdministratorArgument>,
    /// With methods cert and scram: an address or network that the gateway connects from, for
    /// pg_hba.conf. May be repeated. Default: the server's machine.
    #[arg(long, value_name = "ADDRESS[/BITS]")]
    pub(crate) gateway: Vec<GatewayNetwork>,
    /// Run the SQL as this superuser, in the database postgres: a conninfo string of a Unix socket or
    /// the loopback interface.
    #[arg(long, value_name = "CONNINFO")]
    pub(crate) apply: Option<String>,
}

/// How the gateway signs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum GatewayMethod {
    /// By the user that it runs as.
    Peer,
    /// By certificates that it signs.
    Cert,
    /// By a password that all mapped roles have.
    Scram,
}

/// Where roles are mapped to principals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum InitFlavour {
    /// In the database, as on Flexible Server.
    Flexible,
    /// In the database, as on Single Server.
    Single,
    /// In a file.
    None,
}

impl GatewayArguments {
    /// What the arguments configure the gateway with.
    pub(crate) fn sources(&self) -> GatewaySources {
        GatewaySources { file: self.config.clone(), flags: self.flags.0.clone() }
    }
}

//! Arguments of `pgentra proxy`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::flags::Flags;
use super::wait::Wait;
use crate::options::{Format, Server};

/// Arguments of `pgentra proxy`.
#[derive(Debug, Default, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Proxy {
    /// A server, as a host name (with a dot, or localhost), a connection URI or a conninfo string; several may be given. A role or database that it names is the
    /// only one that clients may use. Its parameters may set what holds for it alone: …?max_connections=20
    #[arg(value_name = "TARGET")]
    pub(crate) targets: Vec<String>,
    /// A TOML file with the same settings, and targets. Default: PGENTRA_CONFIG
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Sign in to every target once, say how that went, and listen on nothing.
    #[arg(long)]
    pub(crate) check: bool,
    /// Read the configuration and the files that it names, report what is wrong with them, and exit. Contacts no server and
    /// no token source, and listens on nothing.
    #[arg(long, conflicts_with = "check")]
    pub(crate) check_config: bool,
    /// Form in which --check says it.
    #[arg(short, long, value_enum, default_value_t = Format::Text, value_name = "FORMAT", requires = "check")]
    pub(crate) output: Format,
    #[command(flatten)]
    pub(crate) flags: Flags,
    #[command(flatten)]
    pub(crate) server: Server,
    #[command(subcommand)]
    pub(crate) command: Option<ProxyCommand>,
}

/// What else there is to do with a proxy.
#[derive(Debug, Subcommand)]
pub(crate) enum ProxyCommand {
    /// Wait until a proxy that was started elsewhere is ready: it listens, and has a token for every target.
    #[command(after_help = "Example: pgentra proxy wait --health 127.0.0.1:9091 --timeout 30")]
    Wait(Wait),
    /// Print the line of a role in the file of --listen-auth-file. Asks for the password, or reads it from its standard
    /// input.
    #[command(after_help = "Example: pgentra proxy hash-password app >> /etc/pgentra/users")]
    HashPassword {
        /// The role, as clients name it.
        role: String,
    },
}

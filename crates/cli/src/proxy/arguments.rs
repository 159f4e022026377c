//! Arguments of `pgentra proxy`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use pgentra_proxy_config::Set;

use super::program_formats::Program;
use super::wait::Wait;
use crate::options::{Format, Server};
use crate::service::Flags;

/// Arguments of `pgentra proxy`.
#[derive(Debug, Default, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Proxy {
    /// A server, as a host name (with a dot, or localhost), a connection URI or a conninfo string;
    /// several may be given. If it names a role or database, clients may use no other. Its
    /// parameters may set values for this target alone: …?max_connections=20
    #[arg(value_name = "TARGET")]
    pub(crate) targets: Vec<String>,
    /// A TOML file with the same settings, and targets. Default: PGENTRA_CONFIG
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Sign in to every target once, print the results, and exit without listening.
    #[arg(long)]
    pub(crate) check: bool,
    /// Check the configuration and the files that it names, print the problems, and exit. Contacts
    /// no server and no token source, and does not listen.
    #[arg(long, conflicts_with = "check")]
    pub(crate) check_config: bool,
    /// Print how a program connects to the listeners of this configuration, in the program's own
    /// format, and exit without listening. Asks for a token if the configuration names no role.
    #[arg(long, value_enum, value_name = "PROGRAM", ignore_case = true, conflicts_with_all = ["check", "check_config"])]
    pub(crate) print_config: Option<Program>,
    /// Output format of --check.
    #[arg(short, long, value_enum, default_value_t = Format::Text, value_name = "FORMAT", requires = "check")]
    pub(crate) output: Format,
    #[command(flatten)]
    pub(crate) flags: Flags<Set>,
    #[command(flatten)]
    pub(crate) server: Server,
    #[command(subcommand)]
    pub(crate) command: Option<ProxyCommand>,
}

/// Further commands for a proxy.
#[derive(Debug, Subcommand)]
pub(crate) enum ProxyCommand {
    /// Wait until a running proxy is ready: it listens, and has a token for every target.
    #[command(after_help = "Example: pgentra proxy wait --health 127.0.0.1:9091 --timeout 30")]
    Wait(Wait),
    /// Print a role's line for the file of --listen-auth-file. Asks for the password on a terminal,
    /// or reads it from standard input.
    #[command(after_help = "Example: pgentra proxy hash-password app >> /etc/pgentra/users")]
    HashPassword {
        /// The role in the form that clients use.
        role: String,
    },
}

//! The command lines of `pgentra local run` and of its hidden processes.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use pgentra_local::Host;
use pgentra_local::inside::Reach;

use crate::local::arguments::{LocalName, host};

/// Arguments of `pgentra local run`.
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

/// Arguments of the hidden command outside the namespaces.
#[derive(Debug, Args)]
pub(crate) struct LocalRelay {
    #[command(flatten)]
    pub(crate) name: LocalName,
    #[arg(long, value_parser = host())]
    pub(crate) host: Host,
    #[arg(long)]
    pub(crate) publish: Vec<u16>,
    #[arg(long, value_parser = reach)]
    pub(crate) reach: Vec<Reach>,
    /// Process id of the program.
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) program: i32,
    /// Serve in this process instead of a further one.
    #[arg(long)]
    pub(crate) detached: bool,
}

/// Arguments of the hidden command inside the namespaces.
#[derive(Debug, Args)]
pub(crate) struct LocalConnector {
    /// The socket of the relay.
    #[arg(long)]
    pub(crate) socket: PathBuf,
    /// Serve in this process instead of a further one.
    #[arg(long)]
    pub(crate) detached: bool,
}

fn reach(text: &str) -> Result<Reach, &'static str> {
    text.parse()
}

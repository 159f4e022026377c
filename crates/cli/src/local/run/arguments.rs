//! The command lines of the hidden processes of `pgentra local run`.

use std::path::PathBuf;

use clap::Args;
use pgentra_local::Host;
use pgentra_local::inside::Reach;

use crate::local::arguments::{LocalName, host, reach};

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

impl LocalRelay {
    /// The words of a command line that says the same, but for `--detached`.
    pub(super) fn words(&self) -> Vec<String> {
        let Self { name, host, publish, reach, program, detached: _ } = self;
        let mut words = vec!["--program".to_owned(), program.to_string()];
        words.extend(["--name", &name.name, "--host", host.name()].map(str::to_owned));
        words.extend(publish.iter().flat_map(|port| ["--publish".to_owned(), port.to_string()]));
        words.extend(reach.iter().flat_map(|reach| ["--reach".to_owned(), reach.to_string()]));
        words
    }
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

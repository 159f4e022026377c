//! The process inside the namespaces that connects to the ports that the program publishes.

use pgentra_local::inside;
use pgentra_system::System;

use super::arguments::LocalConnector;
use super::process::this_program;
use crate::problem::{Outcome, Problem};

/// The hidden command of this process.
pub(super) const COMMAND: &str = "local-connector";

/// Connects until the relay ends. The first process only starts a second one, which is no child of
/// the program.
pub(crate) fn serve(system: &System, arguments: &LocalConnector) -> Outcome {
    if arguments.detached {
        return Ok(inside::connect_inside(&arguments.socket)?);
    }
    this_program(system.env(), COMMAND)?
        .args(["--detached", "--socket"])
        .arg(&arguments.socket)
        .spawn()
        .map(drop)
        .map_err(|error| Problem::ours("cannot start the connector", error))
}

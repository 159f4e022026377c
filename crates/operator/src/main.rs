//! `pgentra-operator`: pgentra in Kubernetes.
//!
//! One process does all that is asked of it ([`run`]). Replicas of it share the work of the admission webhook; resources are
//! the leader's alone.

mod arguments;
mod error;
mod health;
mod log;
mod run;
mod webhook;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use pgentra_system::System;

use arguments::{OperatorArguments, OperatorCommand};
use error::OperatorError;

fn main() -> ExitCode {
    let system = System::real();
    let arguments = OperatorArguments::parse();
    match start(&system, arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A closed stderr is not an error.
            let _ = std::io::stderr().lock().write_all(error.told().as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn start(system: &System, arguments: OperatorArguments) -> Result<(), OperatorError> {
    let OperatorCommand::Run(arguments) = arguments.command;
    log::start(system, arguments.log_format)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(OperatorError::Runtime)?.block_on(run::run(system, arguments))
}

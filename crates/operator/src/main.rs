//! `pgentra-operator`: pgentra in Kubernetes.
//!
//! One process does all that is asked of it ([`run`]). Replicas of it share the work of the admission webhook; resources are
//! the leader's alone.

mod answer;
mod arguments;
mod claimants;
mod claims;
mod condition;
mod controller;
mod crd;
mod error;
mod failure;
mod health;
mod lease;
mod log;
mod look;
mod made;
mod reconcile;
mod resource;
mod roles_metrics;
mod run;
mod schedule;
mod servers;
mod status_file;
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
    let arguments = match arguments.command {
        OperatorCommand::Run(arguments) => *arguments,
        OperatorCommand::Crd => {
            let text = crd::yaml().map_err(OperatorError::Definition)?;
            return std::io::stdout().lock().write_all(text.as_bytes()).map_err(OperatorError::Output);
        }
    };
    log::start(system, arguments.log_format)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(OperatorError::Runtime)?.block_on(run::run(system, arguments))
}

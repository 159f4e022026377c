//! What the relay tells when it can serve the namespaces, or never will.

use std::path::PathBuf;

use pgentra_local::inside::NamespacePlan;
use serde::{Deserialize, Serialize};

use crate::problem::Problem;

/// A line of JSON on the relay's standard output.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RelayReport {
    /// What the namespaces need, and where the relay takes their sockets.
    Ready { plan: NamespacePlan, socket: PathBuf },
    /// Why there is no relay.
    Failed { exit_code: u8, error: Vec<String>, hint: Option<String> },
}

impl RelayReport {
    pub(super) fn failed(problem: &Problem) -> Self {
        Self::Failed {
            exit_code: problem.blame() as u8,
            error: std::iter::once(problem.error_text()).chain(problem.causes()).collect(),
            hint: problem.hint_text().map(str::to_owned),
        }
    }
}

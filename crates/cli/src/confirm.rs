//! The one question before something is changed.

use std::io::IsTerminal as _;

use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::blame::Blame;
use crate::output;
use crate::problem::{Outcome, Problem};

/// Asks once, on a terminal; elsewhere nobody could answer.
///
/// # Errors
/// No terminal, where `--yes` is the answer.
pub(crate) async fn confirmed() -> Outcome<bool> {
    if !std::io::stdin().is_terminal() {
        return Err(Problem::new(
            Blame::Usage,
            "this would change something, and nobody is here to be asked",
        )
        .hint("--yes carries it out without asking; nothing was changed"));
    }
    output::ask("Carry this out? [y/N] ");
    let mut answer = String::new();
    let read = BufReader::new(tokio::io::stdin()).read_line(&mut answer).await;
    read.map_err(|error| Problem::ours("cannot read the answer", error))?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

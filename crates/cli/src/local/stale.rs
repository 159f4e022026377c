//! Detects an environment of `pgentra local env` whose local cloud has ended.

use std::path::PathBuf;
use std::time::Duration;

use pgentra_connect::quote;
use pgentra_local::{FOLDER_VARIABLE, INSTANCE_VARIABLE, NAME_VARIABLE, control};
use pgentra_system::System;

use crate::blame::Blame;
use crate::problem::{Outcome, Problem};

/// Time for an answer. A local cloud answers within milliseconds; one that takes longer is busy and
/// counts as running.
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// Refuses an environment whose local cloud was stopped or restarted: its ports, keys and ids have
/// changed, and each request would fail after its own retries.
///
/// # Errors
///
/// The state of the local cloud. If it cannot be determined, there is no error.
pub(crate) async fn check(system: &System) -> Outcome {
    let env = system.env();
    let (Some(name), Some(folder), Some(instance)) =
        (env.get(NAME_VARIABLE), env.get(FOLDER_VARIABLE), env.get(INSTANCE_VARIABLE))
    else {
        return Ok(());
    };
    let folder = PathBuf::from(folder);
    let asked = tokio::time::timeout(ANSWER_TIME, control::status(&folder)).await;
    let fate = match asked {
        Ok(Ok(Some(found))) if found.instance == instance => return Ok(()),
        Ok(Ok(Some(_))) => "has been stopped and started anew",
        Ok(Ok(None)) => "has been stopped",
        Ok(Err(error)) => {
            tracing::debug!(
                problem = Problem::from(error).chain(),
                "it is not known whether the local cloud runs"
            );
            return Ok(());
        }
        Err(_) => return Ok(()),
    };
    let option = if name == "default" { String::new() } else { format!(" --name {name}") };
    let start = match fate {
        "has been stopped" => format!("pgentra local up{option} --detach && "),
        _ => String::new(),
    };
    Err(Problem::new(
        Blame::Usage,
        format!("this shell is set up for the local cloud {}, which {fate}", quote::name(&name)),
    )
    .hint(format!(
        "{start}eval \"$(pgentra local env{option})\"; or, to leave it: eval \"$(pgentra local env --unset)\""
    )))
}

#[cfg(test)]
mod tests {
    use pgentra_system::Env;

    use super::*;

    fn system(variables: &[(&str, &str)]) -> System {
        System::builder().env(Env::from_map(variables.iter().copied())).build()
    }

    #[tokio::test]
    async fn a_shell_without_a_local_cloud_is_fine() {
        check(&system(&[])).await.unwrap();
        check(&system(&[(NAME_VARIABLE, "default")])).await.unwrap();
    }

    #[tokio::test]
    async fn a_local_cloud_that_is_gone_is_told_at_once() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("gone").display().to_string();
        let problem =
            check(&system(&[(NAME_VARIABLE, "t2"), (FOLDER_VARIABLE, &folder), (INSTANCE_VARIABLE, "1")]))
                .await
                .unwrap_err();
        assert_eq!(
            problem.error_text(),
            "this shell is set up for the local cloud \"t2\", which has been stopped"
        );
        let hint = problem.hint_text().unwrap();
        assert!(hint.contains("local up --name t2") && hint.contains("env --name t2"), "{hint}");
        assert!(hint.contains("local env --unset"), "{hint}");
        assert_eq!(problem.blame(), Blame::Usage);
    }

    #[tokio::test]
    async fn what_cannot_be_found_out_is_no_error() {
        // A file in place of the folder is not a private folder.
        let file = tempfile::NamedTempFile::new().unwrap();
        let folder = file.path().display().to_string();
        check(&system(&[(NAME_VARIABLE, "x"), (FOLDER_VARIABLE, &folder), (INSTANCE_VARIABLE, "1")]))
            .await
            .unwrap();
    }
}

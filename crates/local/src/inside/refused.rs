//! The failures of a step towards a namespace.

use std::io;
use std::path::Path;

use nix::errno::Errno;

use crate::error::{Failure, FailureKind};

/// The way out where a system does not allow namespaces.
const WAY_OUT: &str = "start the local cloud and the program as root. Ubuntu allows it to every user after: sudo sysctl \
                       kernel.apparmor_restrict_unprivileged_userns=0. A container needs CAP_SYS_ADMIN. `pgentra local env` \
                       needs no namespaces.";

/// A failure of this step; where the system does not allow namespaces, one sentence that says so.
pub(super) fn failed(step: &str, error: io::Error) -> Failure {
    let is_forbidden = error.kind() == io::ErrorKind::PermissionDenied
        // The limit of user namespaces is 0.
        || error.raw_os_error() == Some(Errno::ENOSPC as i32)
        || error.raw_os_error() == Some(Errno::EUSERS as i32)
        // The kernel has none.
        || error.raw_os_error() == Some(Errno::ENOSYS as i32);
    if is_forbidden {
        let message = "this system does not let this user make network and mount namespaces";
        return Failure::machine(message, FailedStep(step.to_owned(), error)).with_hint(WAY_OUT);
    }
    Failure::machine(step, error)
}

/// A step that the system refused.
#[derive(Debug, thiserror::Error)]
#[error("{0}: {1}")]
struct FailedStep(String, io::Error);

/// A failure that names a file.
pub(super) fn failed_at(doing: &str, path: &Path, error: io::Error) -> Failure {
    failed(&format!("cannot {doing} {}", path.display()), error)
}

/// A failure of options.
pub(super) fn usage(message: impl Into<String>, hint: &str) -> Failure {
    Failure::new(FailureKind::Usage, message).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forbidden_has_one_sentence_and_a_way_out() {
        for errno in [Errno::EPERM, Errno::EACCES, Errno::ENOSPC, Errno::EUSERS, Errno::ENOSYS] {
            let failure = failed("cannot make namespaces", errno.into());
            assert!(failure.to_string().starts_with("this system does not let this user"), "{failure}");
            assert!(failure.hint().is_some_and(|hint| hint.contains("as root")), "{failure:?}");
        }
        let other = failed("cannot make namespaces", Errno::ENOMEM.into());
        assert_eq!(other.to_string(), "cannot make namespaces");
    }
}

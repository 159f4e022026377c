//! The state of a process that its targets need.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::SystemTime;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::problems::RefusedClients;
use pgentra_observe::AuditLog;

/// The clock, the audit log and the counters of a process.
pub(super) struct Process {
    pub(super) clock: Box<dyn Fn() -> SystemTime + Send + Sync>,
    pub(super) began: SystemTime,
    /// Identifies the process, because several processes may write to one audit file.
    pub(super) instance: Uuid,
    /// Cancelled when the process begins to drain.
    pub(super) stop: CancellationToken,
    pub(super) started: AtomicBool,
    pub(super) problems: RefusedClients,
    pub(super) audit: Option<AuditLog>,
    pub(super) sessions: AtomicU64,
}

impl Process {
    pub(super) fn now(&self) -> SystemTime {
        (self.clock)()
    }

    pub(super) fn audit(&self) -> Option<&AuditLog> {
        self.audit.as_ref()
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("began", &self.began).finish_non_exhaustive()
    }
}

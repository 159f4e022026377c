//! The logins at the gateway of a local cloud.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use pgentra_emulator::Clock;
use pgentra_gateway::{LoginCheck, LoginEvent, LoginOutcome};
use uuid::Uuid;

/// How many logins are remembered; the oldest are forgotten first. Each takes a kilobyte or two.
const REMEMBERED: usize = 100;

/// How much of a text of the server is remembered, in bytes.
const TEXT_LIMIT: usize = 1000;

/// A login that was decided.
#[derive(Clone, Debug)]
pub(crate) struct LoginRecord {
    /// 1 for the first login of the local cloud, and so on.
    pub(crate) number: u64,
    pub(crate) at: SystemTime,
    pub(crate) client: String,
    pub(crate) role: Option<String>,
    pub(crate) database: Option<String>,
    pub(crate) application_name: Option<String>,
    /// The object id of the token's owner, once the token was verified.
    pub(crate) object_id: Option<Uuid>,
    pub(crate) decision: LoginDecision,
}

/// How a login came out.
#[derive(Clone, Debug)]
pub(crate) enum LoginDecision {
    LetIn,
    Refused(LoginRefusal),
    /// The client hung up when this check was made.
    Left(LoginCheck),
}

/// Why a client was refused.
#[derive(Clone, Debug)]
pub(crate) struct LoginRefusal {
    pub(crate) check: LoginCheck,
    pub(crate) sqlstate: String,
    pub(crate) message: String,
    pub(crate) detail: Option<String>,
    pub(crate) hint: Option<String>,
}

/// The logins of the past, oldest first.
#[derive(Debug)]
pub(crate) struct LoginLog {
    clock: Clock,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    records: VecDeque<LoginRecord>,
    counts: LoginCounts,
}

/// How many logins were let in, refused by each check, and left by their clients.
#[derive(Clone, Debug, Default)]
pub(crate) struct LoginCounts {
    pub(crate) let_in: u64,
    pub(crate) refused: BTreeMap<LoginCheck, u64>,
    pub(crate) left: u64,
}

impl LoginLog {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, entries: Mutex::default() }
    }

    /// Writes down what a gateway has decided.
    pub(crate) fn write(&self, event: &LoginEvent<'_>) {
        let decision = match event.outcome {
            LoginOutcome::Refused { check, error } => LoginDecision::Refused(LoginRefusal {
                check,
                sqlstate: error.sqlstate().into_owned(),
                message: shortened(&error.message()),
                detail: error.detail().as_deref().map(shortened),
                hint: error.hint().as_deref().map(shortened),
            }),
            LoginOutcome::Left { check } => LoginDecision::Left(check),
            _ => LoginDecision::LetIn,
        };
        let mut entries = self.entries();
        let counts = &mut entries.counts;
        match &decision {
            LoginDecision::LetIn => counts.let_in += 1,
            LoginDecision::Refused(refusal) => *counts.refused.entry(refusal.check).or_default() += 1,
            LoginDecision::Left(_) => counts.left += 1,
        }
        let number = counts.let_in + counts.refused.values().sum::<u64>() + counts.left;
        if entries.records.len() >= REMEMBERED {
            entries.records.pop_front();
        }
        entries.records.push_back(LoginRecord {
            number,
            at: self.clock.now(),
            client: event.client.to_string(),
            role: event.role.map(shortened),
            database: event.database.map(shortened),
            application_name: event.application_name.map(shortened),
            object_id: event.principal.map(pgentra_verify::Principal::object_id),
            decision,
        });
    }

    /// The last logins, newest first and at most `most`.
    pub(crate) fn last(&self, most: usize) -> Vec<LoginRecord> {
        self.entries().records.iter().rev().take(most).cloned().collect()
    }

    pub(crate) fn counts(&self) -> LoginCounts {
        self.entries().counts.clone()
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shortened(text: &str) -> String {
    let end = (0..=TEXT_LIMIT.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text[..end.unwrap_or_default()].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_off_at_a_character() {
        assert_eq!(shortened("short"), "short");
        assert_eq!(shortened(&"ä".repeat(TEXT_LIMIT)).len(), TEXT_LIMIT);
        assert_eq!(shortened(&format!("a{}", "ä".repeat(TEXT_LIMIT))).len(), TEXT_LIMIT - 1);
    }
}

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
    /// `None`: the client was let in.
    pub(crate) refusal: Option<LoginRefusal>,
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
    let_in: u64,
    refused: BTreeMap<LoginCheck, u64>,
}

/// How many logins were let in, and refused by each check.
#[derive(Clone, Debug, Default)]
pub(crate) struct LoginCounts {
    pub(crate) let_in: u64,
    pub(crate) refused: BTreeMap<LoginCheck, u64>,
}

impl LoginLog {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, entries: Mutex::default() }
    }

    /// Writes down what a gateway has decided.
    pub(crate) fn write(&self, event: &LoginEvent<'_>) {
        let refusal = match event.outcome {
            LoginOutcome::Refused { check, error } => Some(LoginRefusal {
                check,
                sqlstate: error.sqlstate().into_owned(),
                message: shortened(&error.message()),
                detail: error.detail().as_deref().map(shortened),
                hint: error.hint().as_deref().map(shortened),
            }),
            _ => None,
        };
        let mut entries = self.entries();
        match &refusal {
            Some(refusal) => *entries.refused.entry(refusal.check).or_default() += 1,
            None => entries.let_in += 1,
        }
        let number = entries.let_in + entries.refused.values().sum::<u64>();
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
            refusal,
        });
    }

    /// The last logins, newest first and at most `most`.
    pub(crate) fn last(&self, most: usize) -> Vec<LoginRecord> {
        self.entries().records.iter().rev().take(most).cloned().collect()
    }

    pub(crate) fn counts(&self) -> LoginCounts {
        let entries = self.entries();
        LoginCounts { let_in: entries.let_in, refused: entries.refused.clone() }
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

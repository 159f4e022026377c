//! The last logins, for pages that show them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use pgentra_verify::Principal;
use uuid::Uuid;

use crate::observed::{LoginCheck, LoginEvent, LoginOutcome};

/// How many logins are remembered; the oldest are forgotten first. Each takes a kilobyte or two.
const REMEMBERED: usize = 100;

/// How much of a text of the server is remembered, in bytes.
const TEXT_LIMIT: usize = 1000;

/// A login that was decided.
#[derive(Clone, Debug)]
pub struct LoginRecord {
    /// 1 for the first login of the process, and so on.
    pub number: u64,
    /// When it was decided.
    pub at: SystemTime,
    /// The server that the client was led to; empty if it did not come so far.
    pub server: String,
    /// The address of the client.
    pub client: String,
    /// The role that the client asked for.
    pub role: Option<String>,
    /// The database that the client asked for.
    pub database: Option<String>,
    /// The client's `application_name`.
    pub application_name: Option<String>,
    /// The object id of the token's owner, once the token was verified.
    pub object_id: Option<Uuid>,
    /// How it came out.
    pub decision: LoginDecision,
}

/// How a login came out.
#[derive(Clone, Debug)]
pub enum LoginDecision {
    /// The client has a session.
    LetIn,
    /// The client got an error.
    Refused(LoginRefusal),
    /// The client hung up when this check was made.
    Left(LoginCheck),
}

/// Why a client was refused.
#[derive(Clone, Debug)]
pub struct LoginRefusal {
    /// The check that failed.
    pub check: LoginCheck,
    /// The SQLSTATE of the error.
    pub sqlstate: String,
    /// Its message.
    pub message: String,
    /// Its detail.
    pub detail: Option<String>,
    /// Its hint.
    pub hint: Option<String>,
}

/// The last logins of a process. Tokens are never in it.
#[derive(Debug, Default)]
pub struct LoginLog(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    records: VecDeque<LoginRecord>,
    number: u64,
    /// By the name of the server.
    counts: BTreeMap<String, LoginCounts>,
}

/// How many logins were let in, refused by each check, and left by their clients.
#[derive(Clone, Debug, Default)]
pub struct LoginCounts {
    /// Clients that got a session.
    pub let_in: u64,
    /// Clients that got an error, by the check that failed.
    pub refused: BTreeMap<LoginCheck, u64>,
    /// Clients that hung up.
    pub left: u64,
}

impl LoginLog {
    /// Writes down what a gateway has decided at this time.
    pub(crate) fn write(&self, event: &LoginEvent<'_>, at: SystemTime) {
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
        entries.number += 1;
        let number = entries.number;
        let counts = entries.counts.entry(event.server.to_owned()).or_default();
        match &decision {
            LoginDecision::LetIn => counts.let_in += 1,
            LoginDecision::Refused(refusal) => *counts.refused.entry(refusal.check).or_default() += 1,
            LoginDecision::Left(_) => counts.left += 1,
        }
        if entries.records.len() >= REMEMBERED {
            entries.records.pop_front();
        }
        entries.records.push_back(LoginRecord {
            number,
            at,
            server: event.server.to_owned(),
            client: event.client.to_string(),
            role: event.role.map(shortened),
            database: event.database.map(shortened),
            application_name: event.application_name.map(shortened),
            object_id: event.principal.map(Principal::object_id),
            decision,
        });
    }

    /// The last logins, newest first and at most `most`.
    pub fn last(&self, most: usize) -> Vec<LoginRecord> {
        self.entries().records.iter().rev().take(most).cloned().collect()
    }

    /// The numbers of all servers.
    pub fn counts(&self) -> LoginCounts {
        let mut sum = LoginCounts::default();
        for counts in self.entries().counts.values() {
            sum.let_in += counts.let_in;
            sum.left += counts.left;
            for (check, number) in &counts.refused {
                *sum.refused.entry(*check).or_default() += number;
            }
        }
        sum
    }

    /// The numbers of one server.
    pub(crate) fn counts_of(&self, server: &str) -> LoginCounts {
        self.entries().counts.get(server).cloned().unwrap_or_default()
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

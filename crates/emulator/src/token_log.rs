//! The access tokens that were given out, without the tokens themselves.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::endpoint::Endpoint;
use crate::journal::shorten;

/// How many tokens are remembered; the oldest are forgotten first. Each takes about two kilobytes.
const REMEMBERED: usize = 200;

/// An access token that was given out: what it says, and not the token. From these claims no token can be made.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TokenRecord {
    /// 1 for the first token of the local cloud, and so on.
    pub number: u64,
    /// When it was given out, by the clock of the local cloud.
    pub at: SystemTime,
    /// The endpoint that gave it out.
    pub endpoint: Endpoint,
    /// The object id of its subject.
    pub object_id: Uuid,
    /// The resource that was asked for, as the client wrote it; cut off at 200 bytes.
    pub resource: String,
    /// Its claims.
    pub claims: Arc<Map<String, Value>>,
    /// Whether it is the same token as before, from the cache of the platform.
    pub is_repeated: bool,
}

/// The tokens of the past, oldest first.
#[derive(Debug, Default)]
pub(crate) struct TokenLog(Mutex<Log>);

#[derive(Debug, Default)]
struct Log {
    records: VecDeque<TokenRecord>,
    total: u64,
}

impl TokenLog {
    /// Writes down a token and numbers it.
    pub(crate) fn write(&self, mut record: TokenRecord) {
        shorten(&mut record.resource);
        let mut log = self.log();
        if log.records.len() >= REMEMBERED {
            log.records.pop_front();
        }
        log.total += 1;
        record.number = log.total;
        log.records.push_back(record);
    }

    /// The last tokens, newest first and at most `most`.
    pub(crate) fn last(&self, most: usize) -> Vec<TokenRecord> {
        self.log().records.iter().rev().take(most).cloned().collect()
    }

    /// How many tokens were given out since the start.
    pub(crate) fn total(&self) -> u64 {
        self.log().total
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_tokens_are_forgotten() {
        let log = TokenLog::default();
        for number in 0..=REMEMBERED {
            log.write(TokenRecord {
                number: 0,
                at: SystemTime::UNIX_EPOCH,
                endpoint: Endpoint::ImdsToken,
                object_id: Uuid::nil(),
                resource: format!("{number}{}", "ä".repeat(REMEMBERED)),
                claims: Arc::default(),
                is_repeated: false,
            });
        }
        assert_eq!(log.total(), REMEMBERED as u64 + 1);
        let last = log.last(usize::MAX);
        assert_eq!(last.len(), REMEMBERED);
        assert!(last[0].resource.starts_with("200") && last[REMEMBERED - 1].resource.starts_with("1ä"));
        assert!(last.iter().all(|record| record.resource.len() <= 200));
        assert_eq!(log.last(3).iter().map(|it| it.number).collect::<Vec<_>>(), [201, 200, 199]);
    }
}

//! Codes of the device authorization flow that wait for their user.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most codes that wait; the oldest goes first.
const WAITING: usize = 64;

/// Codes that were given out.
#[derive(Debug, Default)]
pub struct DeviceCodes(Mutex<VecDeque<DeviceCode>>);

/// One code, with the request that it is for.
#[expect(missing_docs, reason = "each field is what its name says")]
pub struct DeviceCode {
    pub device: String,
    pub user: String,
    pub client: String,
    pub scope: String,
    /// By the clock of the local cloud.
    pub expires: i64,
    pub is_confirmed: bool,
}

impl DeviceCodes {
    /// Adds a code; the oldest makes room for it.
    pub fn add(&self, code: DeviceCode) {
        let mut codes = self.waiting();
        codes.truncate(WAITING - 1);
        codes.push_front(code);
    }

    /// The codes, the newest first.
    pub fn waiting(&self) -> MutexGuard<'_, VecDeque<DeviceCode>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for DeviceCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, expires, is_confirmed, .. } = self;
        f.debug_struct("DeviceCode")
            .field("client", client)
            .field("expires", expires)
            .field("is_confirmed", is_confirmed)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_shows_no_code() {
        let codes = DeviceCodes::default();
        let (device, user) = ("hidden-device".to_owned(), "hidden-user".to_owned());
        let (client, scope) = ("psql".to_owned(), String::new());
        codes.add(DeviceCode { device, user, client, scope, expires: 1, is_confirmed: false });
        let shown = format!("{codes:?}");
        assert!(shown.contains("psql") && !shown.contains("hidden"), "{shown}");
    }
}

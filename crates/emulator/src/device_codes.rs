//! Codes of the device authorization flow that wait for their user.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most codes that wait; the oldest goes first.
const WAITING: usize = 64;

/// Codes that were given out.
#[derive(Debug, Default)]
pub(crate) struct DeviceCodes(Mutex<VecDeque<DeviceCode>>);

/// One code, with the request that it is for.
#[derive(Debug)]
pub(crate) struct DeviceCode {
    pub(crate) device: String,
    pub(crate) user: String,
    pub(crate) client: String,
    pub(crate) scope: String,
    /// By the clock of the local cloud.
    pub(crate) expires: i64,
    pub(crate) is_confirmed: bool,
}

impl DeviceCodes {
    /// Adds a code; the oldest makes room for it.
    pub(crate) fn add(&self, code: DeviceCode) {
        let mut codes = self.waiting();
        codes.truncate(WAITING - 1);
        codes.push_front(code);
    }

    /// The codes, the newest first.
    pub(crate) fn waiting(&self) -> MutexGuard<'_, VecDeque<DeviceCode>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

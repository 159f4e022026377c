//! Tokens in memory, one slot for each resource.
//!
//! The promises, each with a test of its own:
//!
//! 1. Reading a cached token takes no lock and allocates nothing.
//! 2. One request at a time per resource: all callers that wait get its result.
//! 3. Cancelling one waiter cancels neither the other waiters nor the request.
//! 4. A token that is still valid is served while its successor is being fetched.
//! 5. Its successor is asked for at [`AccessToken::refresh_on`], up to a minute earlier so that machines which started
//!    together do not ask together.
//! 6. A failed refresh keeps the old token and is reported, not thrown; the next try comes after 30 s, then 60 s,
//!    doubling up to ten minutes.
//! 7. A token that has expired is never cached and never served.
//! 8. A forced refresh says whether the same token came back, and asks no more for 30 s after it did.
//! 9. One resource never waits for another.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use rand::Rng as _;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::chain::Chain;
use crate::{AccessToken, Resource, TokenError, TokenErrorKind};
use pgentra_system::{Clock, span};

/// A token is not served in the last seconds before its expiry: it must still be valid when the server checks it.
const LOGIN_TIME: Duration = Duration::from_secs(10);

/// The wait after a first failed refresh, and after one that brought the same token.
const BACK_OFF: Duration = Duration::from_secs(30);

/// The longest wait after failed refreshes.
const MAX_BACK_OFF: Duration = Duration::from_secs(600);

/// A refresh comes up to this much earlier than asked for, by chance.
const MAX_JITTER: Duration = Duration::from_secs(60);

/// How many resources one credential can hold tokens for. A program uses one or two; the slots are searched in line.
const MAX_RESOURCES: usize = 32;

/// A source that misses its deadline is cancelled this long after it. The delay lets the source return its own error,
/// which is more precise.
const GRACE: Duration = Duration::from_millis(100);

/// The value of [`Slot::refresh_at`] while a request is in flight.
const NEVER: u64 = u64::MAX;

/// Result of a forced refresh.
#[derive(Debug, Clone)]
pub enum Refreshed {
    /// Another token than the rejected one.
    New(AccessToken),
    /// The platform gave the rejected token again: asking once more will not help before it expires.
    Same(AccessToken),
}

/// How the token for one resource is doing.
#[derive(Debug, Clone)]
pub struct Health {
    /// When the cached token expires; `None` if there is none.
    pub expires_on: Option<SystemTime>,
    /// When the cached token was obtained; `None` if there is none.
    pub obtained_on: Option<SystemTime>,
    /// Requests that brought a token, since the credential was made.
    pub succeeded: u64,
    /// Requests that failed, since the credential was made; the retries within one are not counted.
    pub failed: u64,
    /// Failed attempts since the last success.
    pub failures: u32,
    /// The last failure since the last success.
    pub last_error: Option<TokenError>,
}

#[derive(Debug)]
pub(crate) struct Cache {
    chain: Arc<Chain>,
    clock: Arc<dyn Clock>,
    deadline: Duration,
    slots: [OnceLock<Arc<Slot>>; MAX_RESOURCES],
}

impl Cache {
    pub(crate) fn new(chain: Arc<Chain>, clock: Arc<dyn Clock>, deadline: Duration) -> Self {
        Self { chain, clock, deadline, slots: [const { OnceLock::new() }; MAX_RESOURCES] }
    }

    pub(crate) fn now(&self) -> SystemTime {
        self.clock.now()
    }

    pub(crate) async fn token(&self, resource: &Resource) -> Result<AccessToken, TokenError> {
        let slot = self.slot(resource)?;
        if let Some(token) = self.read(slot, AccessToken::clone) {
            return Ok(token);
        }
        match self.fetch(slot).await {
            Ok(token) => Ok(token),
            // The old token is within `LOGIN_TIME` of its expiry and may still be accepted.
            Err(error) => slot.last_resort(self.clock.now()).ok_or(error),
        }
    }

    /// Reads the cached token, if there is one with enough life left, and has it refreshed in the background if it is time.
    pub(crate) fn with_cached<R>(
        &self,
        resource: &Resource,
        read: impl FnOnce(&AccessToken) -> R,
    ) -> Option<R> {
        let slot = self.slots.iter().map_while(OnceLock::get).find(|slot| slot.resource == *resource)?;
        self.read(slot, read)
    }

    pub(crate) async fn refresh(
        &self,
        resource: &Resource,
        rejected: &AccessToken,
    ) -> Result<Refreshed, TokenError> {
        let slot = self.slot(resource)?;
        if let Some(token) = self.read(slot, AccessToken::clone) {
            // Another caller has refreshed it since the rejected copy was read.
            if !token.same_secret(rejected) {
                return Ok(Refreshed::New(token));
            }
            // Metadata services cache tokens too: until theirs changes, another request brings the same one.
            if slot.state().same_until.is_some_and(|until| Instant::now() < until) {
                return Ok(Refreshed::Same(token));
            }
        }
        let token = self.fetch(slot).await?;
        if token.same_secret(rejected) {
            slot.state().same_until = Some(Instant::now() + BACK_OFF);
            return Ok(Refreshed::Same(token));
        }
        Ok(Refreshed::New(token))
    }

    pub(crate) fn health(&self, resource: &Resource) -> Health {
        let slot = self.slots.iter().map_while(OnceLock::get).find(|slot| slot.resource == *resource);
        let held = slot.and_then(|slot| slot.held.load_full());
        let state = slot.map(|slot| slot.state());
        Health {
            expires_on: held.map(|token| token.expires_on()),
            obtained_on: state.as_ref().and_then(|state| state.obtained_on),
            succeeded: state.as_ref().map_or(0, |state| state.succeeded),
            failed: state.as_ref().map_or(0, |state| state.failed),
            failures: state.as_ref().map_or(0, |state| state.failures),
            last_error: state.and_then(|state| state.last_error.clone()),
        }
    }

    fn slot(&self, resource: &Resource) -> Result<&Arc<Slot>, TokenError> {
        let mut slots =
            self.slots.iter().map(|slot| slot.get_or_init(|| Arc::new(Slot::new(resource.clone()))));
        slots.find(|slot| slot.resource == *resource).ok_or_else(|| {
            let message = format!("one credential holds tokens for at most {MAX_RESOURCES} resources");
            TokenError::new(TokenErrorKind::Config, message)
        })
    }

    fn read<R>(&self, slot: &Arc<Slot>, read: impl FnOnce(&AccessToken) -> R) -> Option<R> {
        let now = self.clock.now();
        let held = slot.held.load();
        let token = held.as_deref().filter(|token| now + LOGIN_TIME < token.expires_on())?;
        if slot.is_due(now) {
            self.refresh_in_background(slot);
        }
        Some(read(token))
    }

    fn refresh_in_background(&self, slot: &Arc<Slot>) {
        // The caller whose swap removes the due time starts the request. Without a runtime no task can be spawned.
        if let Ok(runtime) = Handle::try_current()
            && slot.refresh_at.swap(NEVER, Ordering::AcqRel) != NEVER
        {
            let _request = self.join_or_start(slot, &runtime);
        }
    }

    /// Joins the request in flight, or starts one; starts a second one if the first was lost with its runtime.
    async fn fetch(&self, slot: &Arc<Slot>) -> Result<AccessToken, TokenError> {
        let runtime = Handle::try_current().map_err(|cause| {
            TokenError::new(TokenErrorKind::Config, "a token can only be fetched inside a tokio runtime")
                .caused_by(cause)
        })?;
        match self.join_or_start(slot, &runtime).await {
            Err(error) if error.kind() == TokenErrorKind::Abandoned => {
                self.join_or_start(slot, &runtime).await
            }
            result => result,
        }
    }

    fn join_or_start(&self, slot: &Arc<Slot>, runtime: &Handle) -> Shared<SharedResult> {
        let mut state = slot.state();
        if let Some(running) = &state.running {
            return running.clone();
        }
        let (sender, receiver) = oneshot::channel();
        let result = async move {
            receiver.await.unwrap_or_else(|cause| {
                let message = "the request was abandoned: its runtime was shut down, or the source panicked";
                Err(TokenError::new(TokenErrorKind::Abandoned, message).caused_by(cause))
            })
        };
        let result = result.boxed().shared();
        state.running = Some(result.clone());
        slot.refresh_at.store(NEVER, Ordering::Release);
        // A runtime that is shutting down drops the task at once, and with it the guard, which wants this lock.
        drop(state);
        // The request runs in its own task, so that it goes on when the caller is cancelled.
        let guard = InFlightGuard { slot: slot.clone(), clock: self.clock.clone() };
        let request = fetch(guard, self.chain.clone(), self.deadline);
        runtime.spawn(async move {
            // Fails if every waiter was cancelled; the token is in the slot all the same.
            let _waiters = sender.send(request.await);
        });
        result
    }
}

type SharedResult = BoxFuture<'static, Result<AccessToken, TokenError>>;

/// One resource's token and the request for its successor.
#[derive(Debug)]
struct Slot {
    resource: Resource,
    held: ArcSwapOption<AccessToken>,
    /// When the next refresh is due, in milliseconds since 1970.
    refresh_at: AtomicU64,
    state: Mutex<RequestState>,
}

#[derive(Debug, Default)]
struct RequestState {
    running: Option<Shared<SharedResult>>,
    obtained_on: Option<SystemTime>,
    succeeded: u64,
    failed: u64,
    failures: u32,
    last_error: Option<TokenError>,
    same_until: Option<Instant>,
}

impl Slot {
    fn new(resource: Resource) -> Self {
        Self {
            resource,
            held: ArcSwapOption::empty(),
            refresh_at: AtomicU64::new(NEVER),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, RequestState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_due(&self, now: SystemTime) -> bool {
        self.refresh_at.load(Ordering::Acquire) <= milliseconds(now)
    }

    fn last_resort(&self, now: SystemTime) -> Option<AccessToken> {
        self.held.load().as_deref().filter(|token| now < token.expires_on()).cloned()
    }

    fn keep(&self, token: &AccessToken, now: SystemTime) {
        let wait = token.refresh_on().duration_since(now).unwrap_or_default();
        // At most a tenth of the wait, so that a token with a short life is not refreshed at once.
        let jitter = MAX_JITTER.min(wait / 10).mul_f64(rand::rng().random_range(0.0..1.0));
        let is_same = self.held.load().as_deref().is_some_and(|held| held.same_secret(token));
        // The source's own cache is not renewed yet. Asking again at once would make a loop of requests.
        let least = if is_same { BACK_OFF } else { Duration::ZERO };
        self.held.store(Some(Arc::new(token.clone())));
        let mut state = self.state();
        state.obtained_on = Some(now);
        state.succeeded += 1;
        state.failures = 0;
        state.last_error = None;
        self.refresh_at.store(milliseconds(now + (wait - jitter).max(least)), Ordering::Release);
    }

    fn report(&self, error: &TokenError, now: SystemTime) {
        let mut state = self.state();
        // The shift is bounded: 30 s * 2^10 is beyond MAX_BACK_OFF, and `1 << 32` would overflow.
        let wait = BACK_OFF.saturating_mul(1 << state.failures.min(10)).min(MAX_BACK_OFF);
        state.failed += 1;
        state.failures = state.failures.saturating_add(1);
        state.last_error = Some(error.clone());
        self.refresh_at.store(milliseconds(now + wait), Ordering::Release);
        if self.held.load().as_deref().is_some_and(|held| now < held.expires_on()) {
            let retry_s = wait.as_secs();
            tracing::warn!(resource = %self.resource, %error, retry_s, "refresh failed; the old token stays in use");
        }
    }
}

/// Held while a request is in flight. Its drop, after a result or with a lost runtime, allows the next request.
struct InFlightGuard {
    slot: Arc<Slot>,
    clock: Arc<dyn Clock>,
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.slot.state().running = None;
        let lost = milliseconds(self.clock.now() + BACK_OFF);
        // Still `NEVER` only if the request ended without a result: a result has set the next due time.
        let _was_lost =
            self.slot.refresh_at.compare_exchange(NEVER, lost, Ordering::AcqRel, Ordering::Acquire);
    }
}

async fn fetch(guard: InFlightGuard, chain: Arc<Chain>, limit: Duration) -> Result<AccessToken, TokenError> {
    let slot = &guard.slot;
    let deadline = Instant::now() + limit;
    let result = match timeout_at(deadline + GRACE, chain.token(&slot.resource, deadline)).await {
        Ok(Ok(token)) if token.expires_on() <= guard.clock.now() => {
            Err(TokenError::expired(token.source(), "the token has already expired"))
        }
        Ok(result) => result,
        Err(_) => {
            let message = format!("no token within the time limit of {}", span::shown(limit));
            Err(TokenError::new(TokenErrorKind::Timeout, message))
        }
    };
    match &result {
        Ok(token) => slot.keep(token, guard.clock.now()),
        Err(error) => slot.report(error, guard.clock.now()),
    }
    result
}

fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(NEVER - 1)
}

#[cfg(test)]
mod tests;

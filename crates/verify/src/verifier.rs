//! The question this crate answers.

use std::fmt;
use std::time::SystemTime;

use crate::claims::Claims;
use crate::compact::Compact;
use crate::keys::{KeyCache, KeySource};
use crate::memo::Memo;
use crate::policy::Policy;
use crate::principal::Principal;
use crate::rejection::{FetchError, Rejection};

/// Verifies tokens of one tenant. Share one verifier: it caches the keys, and the verified tokens by their digests.
pub struct Verifier {
    policy: Policy,
    keys: KeyCache,
    memo: Memo,
}

impl Verifier {
    /// Fetches no keys: the first [`Verifier::verify`] or [`Verifier::warm`] does.
    pub fn new(policy: Policy, keys: impl KeySource + 'static) -> Verifier {
        let keys = KeyCache::new(keys, policy.tenant(), policy.refetch_interval());
        Verifier { policy, keys, memo: Memo::default() }
    }

    /// The policy that tokens are checked against.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Fetches the keys if needed, and returns their number: for a readiness check, and so that the first client need
    /// not wait. `now` is the current time. Cancel-safe, as [`Verifier::verify`] is.
    pub async fn warm(&self, now: SystemTime) -> Result<usize, FetchError> {
        Ok(self.keys.current(now).await?.keys.len())
    }

    /// Whose token this is, if it is good at the time `now`.
    ///
    /// Usually answers without waiting. It waits for one fetch of the keys when there are none, when they are a day old,
    /// or when the token names an unknown key and the last fetch is longer ago than the policy's refetch interval.
    ///
    /// Good means: signed by the tenant, for the audience, within its time. It does not mean that the principal still
    /// exists, or may do anything.
    ///
    /// Cancel-safe: if every caller that waits for a fetch is cancelled, the next call that needs it continues it.
    pub async fn verify(&self, token: &str, now: SystemTime) -> Result<Principal, Rejection> {
        let compact = Compact::split(token)?;
        // The token is hashed before any part of it is decoded: a pool sends one token for each of its connections, and all
        // but the first stop at the memo.
        let digests = compact.digests();
        let known = self.keys.fresh(now).and_then(|loaded| self.memo.find(&digests.token, loaded.generation));
        if let Some(principal) = known {
            // The signature and the claims of these bytes cannot change; the time can.
            self.policy.check_time(principal.not_before(), principal.expires_on(), now)?;
            return Ok(principal);
        }

        let key_id = compact.key_id()?;
        let signature = compact.signature()?;
        let loaded = self.keys.holding(&key_id, now).await?;
        if !loaded.keys.verify(&key_id, &digests.signing_input, &signature) {
            return Err(Rejection::Signature);
        }
        // The payload is parsed only after its signature was verified.
        let payload = compact.payload()?;
        let principal = self.policy.judge(&Claims::parse(&payload)?, now)?;
        self.memo.insert(digests.token, loaded.generation, principal.clone());
        Ok(principal)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("policy", &self.policy).finish_non_exhaustive()
    }
}

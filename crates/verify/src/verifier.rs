//! The question this crate answers.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use crate::claims::Claims;
use crate::compact::{Compact, Digests};
use crate::keys::{KeyCache, KeySource};
use crate::memo::Memo;
use crate::policy::Policy;
use crate::principal::Principal;
use crate::rejection::{FetchError, Rejection};

/// The most issuers of one verifier. Each keeps its own keys and its own memo of a megabyte.
pub const ISSUERS_LIMIT: usize = 16;

/// Verifies tokens of one issuer, or of several. Share one verifier: it caches the keys, and the verified tokens by their
/// digests.
pub struct Verifier {
    /// At least one.
    issuers: Vec<IssuerVerifier>,
}

/// One issuer: a token of it is verified by its own keys and judged by its own policy, never by those of another.
struct IssuerVerifier {
    policy: Policy,
    keys: KeyCache,
    memo: Memo,
}

/// Why policies are not those of one verifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifierError {
    /// There is no policy.
    #[error("no issuer of tokens is named")]
    NoIssuer,
    /// There are more than [`ISSUERS_LIMIT`].
    #[error("more than {ISSUERS_LIMIT} issuers of tokens are named")]
    TooMany,
    /// Two policies accept the same issuer, so that it is open which of them judges its tokens.
    #[error("an issuer of tokens is named twice")]
    SameIssuer,
}

impl Verifier {
    /// A verifier of one issuer. Fetches no keys: the first [`Verifier::verify`] or [`Verifier::warm`] does.
    pub fn new(policy: Policy, keys: impl KeySource + 'static) -> Verifier {
        Verifier { issuers: vec![IssuerVerifier::new(policy, Arc::new(keys))] }
    }

    /// A verifier of several issuers, each with the keys that it publishes.
    ///
    /// # Errors
    /// No issuer, too many, or the same one twice.
    pub fn of_several(
        issuers: impl IntoIterator<Item = (Policy, Arc<dyn KeySource>)>,
    ) -> Result<Verifier, VerifierError> {
        let issuers: Vec<_> =
            issuers.into_iter().map(|(policy, keys)| IssuerVerifier::new(policy, keys)).collect();
        let names: Vec<_> = issuers.iter().flat_map(|issuer| issuer.policy.issuers()).collect();
        match issuers.len() {
            0 => Err(VerifierError::NoIssuer),
            len if len > ISSUERS_LIMIT => Err(VerifierError::TooMany),
            _ if (1..names.len()).any(|at| names[..at].contains(&names[at])) => {
                Err(VerifierError::SameIssuer)
            }
            _ => Ok(Verifier { issuers }),
        }
    }

    /// The policy that tokens are checked against; of several, the first.
    pub fn policy(&self) -> &Policy {
        &self.issuers[0].policy
    }

    /// The policies of all issuers.
    pub fn policies(&self) -> impl Iterator<Item = &Policy> {
        self.issuers.iter().map(|issuer| &issuer.policy)
    }

    /// For each issuer its policy and, once its keys were fetched, their number and the time of the fetch. Fetches nothing.
    pub fn keys_at_hand(&self) -> impl Iterator<Item = (&Policy, Option<(usize, SystemTime)>)> {
        self.issuers.iter().map(|issuer| (&issuer.policy, issuer.keys.standing()))
    }

    /// Fetches the keys of every issuer if needed, and returns their number: for a readiness check, and so that the first
    /// client need not wait. `now` is the current time. Cancel-safe, as [`Verifier::verify`] is.
    ///
    /// # Errors
    /// That of the first issuer whose keys could not be fetched.
    pub async fn warm(&self, now: SystemTime) -> Result<usize, FetchError> {
        let mut keys = 0;
        for issuer in &self.issuers {
            keys += issuer.keys.current(now).await?.keys.len();
        }
        Ok(keys)
    }

    /// Renews the keys of every issuer that are half as old as they may become, so that no login has to wait for them.
    /// To be called now and then, such as every minute: it fetches only what is due. Cancel-safe.
    ///
    /// # Errors
    /// That of the first issuer whose keys could not be renewed; the keys at hand stay in use.
    pub async fn refresh(&self, now: SystemTime) -> Result<(), FetchError> {
        let mut outcome = Ok(());
        for issuer in &self.issuers {
            let refreshed = issuer.keys.refresh(now).await;
            outcome = outcome.and(refreshed);
        }
        outcome
    }

    /// Whose token this is, if it is good at the time `now`.
    ///
    /// Usually answers without waiting. It waits for one fetch of the keys when there are none, when they are a day old,
    /// or when the token names an unknown key and the last fetch is longer ago than the policy's refetch interval.
    ///
    /// Good means: signed by its issuer, for the audience, within its time. It does not mean that the principal still
    /// exists, or may do anything.
    ///
    /// Cancel-safe: if every caller that waits for a fetch is cancelled, the next call that needs it continues it.
    pub async fn verify(&self, token: &str, now: SystemTime) -> Result<Principal, Rejection> {
        let compact = Compact::split(token)?;
        // The token is hashed before any part of it is decoded: a pool sends one token for each of its connections, and all
        // but the first stop at the memo.
        let digests = compact.digests();
        for issuer in &self.issuers {
            if let Some(remembered) = issuer.recall(&digests, now) {
                return remembered;
            }
        }
        self.named_in(&compact)?.verify(&compact, &digests, now).await
    }

    /// The issuer that the token names, which proves nothing yet: its own keys have to verify the token.
    fn named_in(&self, compact: &Compact<'_>) -> Result<&IssuerVerifier, Rejection> {
        if let [issuer] = &*self.issuers {
            return Ok(issuer);
        }
        let payload = compact.payload()?;
        let claims = Claims::parse(&payload)?;
        let named = claims.text("iss")?;
        self.issuers.iter().find(|issuer| issuer.policy.accepts_issuer(named)).ok_or(Rejection::Issuer)
    }
}

impl IssuerVerifier {
    fn new(policy: Policy, keys: Arc<dyn KeySource>) -> IssuerVerifier {
        let keys = KeyCache::new(keys, policy.key_rules(), policy.refetch_interval());
        IssuerVerifier { policy, keys, memo: Memo::default() }
    }

    /// The answer for a token that was verified before.
    fn recall(&self, digests: &Digests, now: SystemTime) -> Option<Result<Principal, Rejection>> {
        let loaded = self.keys.fresh(now)?;
        let principal = self.memo.find(&digests.token, loaded.generation)?;
        // The signature and the claims of these bytes cannot change; the time can.
        let in_time = self.policy.check_time(principal.not_before(), principal.expires_on(), now);
        Some(in_time.map(|()| principal))
    }

    async fn verify(
        &self,
        compact: &Compact<'_>,
        digests: &Digests,
        now: SystemTime,
    ) -> Result<Principal, Rejection> {
        let (algorithm, key_id) = compact.key_id(self.policy.algorithms())?;
        let signature = compact.signature()?;
        let loaded = self.keys.holding(&key_id, now).await?;
        if !loaded.keys.can(&key_id, algorithm) {
            return Err(Rejection::Algorithm);
        }
        if !loaded.keys.verify(&key_id, algorithm, &digests.signing_input, &signature) {
            return Err(Rejection::Signature);
        }
        // What the payload says counts only after its signature was verified.
        let payload = compact.payload()?;
        let principal = self.policy.judge(&Claims::parse(&payload)?, now)?;
        self.memo.insert(digests.token, loaded.generation, principal.clone());
        Ok(principal)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("policies", &self.policies().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

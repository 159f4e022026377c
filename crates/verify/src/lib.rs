//! Verifies access tokens of Entra and of other OpenID Connect issuers: signing keys, policy, principal.
//!
//! Hand a [`Policy`] and a [`KeySource`] to a [`Verifier`], then ask it about tokens:
//!
//! ```
//! use pgentra_verify::{BoxFuture, FetchError, KeySource, Policy, Rejection, Verifier};
//! use std::time::{Duration, SystemTime};
//! use uuid::Uuid;
//!
//! struct Nowhere;
//! impl KeySource for Nowhere {
//!     fn fetch(&self) -> BoxFuture<'_, Result<Vec<u8>, FetchError>> {
//!         Box::pin(async { Err(FetchError::new("no network in this example")) })
//!     }
//! }
//!
//! # async fn example() {
//! let tenant = Uuid::from_u128(1);
//! let policy = Policy::builder(tenant).build().unwrap();
//! let verifier = Verifier::new(policy, Nowhere);
//! let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
//! assert!(matches!(verifier.verify("hello", now).await, Err(Rejection::NotAToken(_))));
//! # }
//! ```
//!
//! This crate knows no clock, no runtime and no HTTP client: the time is an argument, and keys come through a trait of
//! one method. It cannot mint a token: the crate uses no private key and no signing function. What a token says about
//! keys (`jku`, `x5u`, `jwk`, `x5c`) is never looked at.

mod algorithm;
mod claims;
mod compact;
mod discovery;
mod jwks;
mod keys;
mod memo;
mod object;
mod policy;
mod principal;
mod rejection;
mod verifier;

pub use algorithm::{Algorithm, UnknownAlgorithm};
pub use compact::TOKEN_LIMIT;
pub use discovery::{BadDiscovery, DISCOVERY_LIMIT, Discovery};
pub use futures_util::future::BoxFuture;
pub use jwks::{JWKS_LIMIT, KEYS_LIMIT};
pub use keys::{KeySource, MAX_STALE, REFRESH_AFTER, REFRESH_AHEAD, RETRY_AFTER};
pub use policy::{Cloud, DEFAULT_LEEWAY, DEFAULT_REFETCH_INTERVAL, Policy, PolicyBuilder, PolicyError};
pub use principal::{Groups, Principal, SubjectKind};
pub use rejection::{FetchError, Malformed, Rejection};
pub use verifier::{ISSUERS_LIMIT, Verifier, VerifierError};

use std::fmt;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use crate::{AccessToken, Reason, Resource, SourceName, TokenError};

/// One place a token can come from, without any cache.
///
/// It answers in one of three ways: a token; "does not apply here, because…"; "applies and failed". A chain goes on to
/// the next source only after the second.
pub trait TokenSource: Send + Sync + fmt::Debug {
    /// The source's name, for messages and decisions.
    fn name(&self) -> SourceName;

    /// Asks for a token once, with the retries the source's protocol prescribes.
    ///
    /// Dropping the future abandons the request; no state is left half-changed.
    fn token<'a>(&'a self, request: TokenRequest<'a>) -> BoxFuture<'a, Result<AccessToken, NoToken>>;
}

/// What is asked of a [`TokenSource`].
#[derive(Debug, Clone, Copy)]
pub struct TokenRequest<'a> {
    /// What the token is for.
    pub resource: &'a Resource,
    /// When the caller stops waiting: no retry begins that could not end by then.
    pub deadline: Instant,
}

/// Why a source gave no token.
#[derive(Debug, Clone)]
pub enum NoToken {
    /// The source is not present on this host: ask the next one.
    NotApplicable(Reason),
    /// The source is the right one, and it failed: asking another would hide the problem.
    Failed(TokenError),
}

impl From<TokenError> for NoToken {
    fn from(error: TokenError) -> Self {
        Self::Failed(error)
    }
}

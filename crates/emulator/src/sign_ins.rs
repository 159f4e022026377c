//! What Entra remembers of people who signed in: authorization codes and refresh tokens.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use uuid::Uuid;

/// The most codes and the most refresh tokens; the oldest goes first.
const MOST: usize = 1024;

/// Codes and refresh tokens that were given out.
#[derive(Debug, Default)]
pub(crate) struct SignIns(Mutex<SignInState>);

#[derive(Debug, Default)]
struct SignInState {
    codes: VecDeque<AuthorizationCode>,
    refresh_tokens: VecDeque<RefreshToken>,
}

/// A code of the authorization code flow, with the request that it is for.
#[derive(Clone, Debug)]
pub(crate) struct AuthorizationCode {
    pub(crate) code: String,
    pub(crate) user: Uuid,
    pub(crate) client: String,
    pub(crate) scope: String,
    pub(crate) redirect_uri: String,
    /// The challenge of PKCE.
    pub(crate) challenge: Option<String>,
    pub(crate) nonce: Option<String>,
    /// By the clock of the local cloud.
    pub(crate) expires: i64,
    pub(crate) is_used: bool,
}

/// A refresh token. It stays valid when it is used, as at Entra.
#[derive(Clone, Debug)]
pub(crate) struct RefreshToken {
    pub(crate) token: String,
    pub(crate) user: Uuid,
    pub(crate) client: String,
    pub(crate) expires: i64,
}

impl SignIns {
    pub(crate) fn add_code(&self, code: AuthorizationCode) {
        let codes = &mut self.0.lock().unwrap_or_else(PoisonError::into_inner).codes;
        codes.truncate(MOST - 1);
        codes.push_front(code);
    }

    /// The code as it was before this use.
    pub(crate) fn use_code(&self, code: &str) -> Option<AuthorizationCode> {
        let codes = &mut self.0.lock().unwrap_or_else(PoisonError::into_inner).codes;
        let found = codes.iter_mut().find(|one| one.code == code)?;
        let before = found.clone();
        found.is_used = true;
        Some(before)
    }

    pub(crate) fn add_refresh_token(&self, token: RefreshToken) {
        let tokens = &mut self.0.lock().unwrap_or_else(PoisonError::into_inner).refresh_tokens;
        tokens.truncate(MOST - 1);
        tokens.push_front(token);
    }

    pub(crate) fn refresh_token(&self, token: &str) -> Option<RefreshToken> {
        let tokens = &self.0.lock().unwrap_or_else(PoisonError::into_inner).refresh_tokens;
        tokens.iter().find(|one| one.token == token).cloned()
    }
}

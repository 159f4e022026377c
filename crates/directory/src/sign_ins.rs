//! What Entra remembers of people who signed in: authorization codes and refresh tokens.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The most codes and the most refresh tokens; the oldest goes first.
const MOST: usize = 1024;

/// Codes and refresh tokens that were given out.
#[derive(Debug, Default)]
pub struct SignIns(Mutex<SignInState>);

#[derive(Debug, Default)]
struct SignInState {
    codes: VecDeque<AuthorizationCode>,
    refresh_tokens: VecDeque<RefreshToken>,
}

/// A code of the authorization code flow, with the request that it is for.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each field is what its name says")]
pub struct AuthorizationCode {
    pub code: SecretString,
    pub user: Uuid,
    pub client: String,
    pub scope: String,
    pub redirect_uri: String,
    /// The challenge of PKCE.
    pub challenge: Option<String>,
    pub nonce: Option<String>,
    /// By the clock of the local cloud.
    pub expires: i64,
    pub is_used: bool,
}

/// A refresh token. It stays valid when it is used, as at Entra.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each field is what its name says")]
pub struct RefreshToken {
    #[serde(with = "crate::exposed")]
    pub token: SecretString,
    pub user: Uuid,
    pub client: String,
    pub expires: i64,
}

impl SignIns {
    /// Adds a code; the oldest makes room for it.
    pub fn add_code(&self, code: AuthorizationCode) {
        let codes = &mut self.0.lock().unwrap_or_else(PoisonError::into_inner).codes;
        codes.truncate(MOST - 1);
        codes.push_front(code);
    }

    /// The code as it was before this use.
    pub fn use_code(&self, code: &str) -> Option<AuthorizationCode> {
        let codes = &mut self.0.lock().unwrap_or_else(PoisonError::into_inner).codes;
        let found = codes.iter_mut().find(|one| one.code.expose_secret() == code)?;
        let before = found.clone();
        found.is_used = true;
        Some(before)
    }

    /// Adds a refresh token; the oldest makes room for it.
    pub fn add_refresh_token(&self, token: RefreshToken) {
        let tokens = &mut self.0.lock().unwrap_or_else(PoisonError::into_inner).refresh_tokens;
        tokens.truncate(MOST - 1);
        tokens.push_front(token);
    }

    /// Every refresh token, the newest first.
    pub fn refresh_tokens(&self) -> Vec<RefreshToken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).refresh_tokens.iter().cloned().collect()
    }

    /// Those of an earlier run, the newest first.
    pub fn of(refresh_tokens: Vec<RefreshToken>) -> Self {
        Self(Mutex::new(SignInState { refresh_tokens: refresh_tokens.into(), ..SignInState::default() }))
    }

    /// The refresh token with this text.
    pub fn refresh_token(&self, token: &str) -> Option<RefreshToken> {
        let tokens = &self.0.lock().unwrap_or_else(PoisonError::into_inner).refresh_tokens;
        tokens.iter().find(|one| one.token.expose_secret() == token).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_shows_no_code_and_no_token() {
        let sign_ins = SignIns::default();
        let (user, client) = (Uuid::nil(), String::new());
        let (token, code) = (SecretString::from("hidden-token"), SecretString::from("hidden-code"));
        sign_ins.add_refresh_token(RefreshToken { token, user, client: client.clone(), expires: 1 });
        sign_ins.add_code(AuthorizationCode {
            code,
            user,
            client,
            scope: String::new(),
            redirect_uri: String::new(),
            challenge: None,
            nonce: None,
            expires: 1,
            is_used: false,
        });
        assert!(!format!("{sign_ins:?}").contains("hidden"), "{sign_ins:?}");
        assert!(
            sign_ins.refresh_token("hidden-token").is_some() && sign_ins.use_code("hidden-code").is_some()
        );
    }
}

//! How a connector's token is doing, and whose it is.

use std::fmt;
use std::time::SystemTime;

use pgentra_identity::{Credential, Resource, TokenError, UnverifiedClaims};

use crate::role_name::role_candidates;

/// Ids in a token are GUIDs, of 36 characters; what is longer is none.
const ID_LIMIT: usize = 64;

/// State of a connector's token, for monitoring. It contains no part of the token's text.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TokenState {
    /// The token source that is asked, such as `imds`; `None` where it is not decided yet.
    pub source: Option<String>,
    /// Which identity is asked for, in words.
    pub asked_for: String,
    /// Whose the cached token is; `None` without a token, and where it cannot be read.
    pub identity: Option<TokenIdentity>,
    /// Names that a role of this identity usually has, the likeliest first; none where the token does not tell.
    pub role_names: Vec<String>,
    /// When the cached token was obtained; `None` without a token.
    pub obtained_on: Option<SystemTime>,
    /// When the cached token expires; `None` without a token.
    pub expires_on: Option<SystemTime>,
    /// Requests that brought a token, since the credential was made.
    pub succeeded: u64,
    /// Requests that failed, since the credential was made; the retries within one are not counted.
    pub failed: u64,
    /// The last failure since the last success.
    pub last_error: Option<TokenError>,
}

/// The principal in a token's claims, not verified: for display, never for a decision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenIdentity {
    tenant: Option<String>,
    object_id: Option<String>,
    client_id: Option<String>,
}

impl TokenState {
    pub(crate) fn of(credential: &Credential, resource: &Resource) -> Self {
        let read = credential.with_cached(resource, |token| (token.source(), UnverifiedClaims::of(token)));
        let (source, claims) = read.unzip();
        let claims = claims.flatten();
        let roles = claims.as_ref().map(role_candidates).unwrap_or_default();
        let health = credential.health(resource);
        let decision = credential.decision();
        Self {
            source: source.or_else(|| decision.source()).map(|source| source.to_string()),
            asked_for: decision.selector().to_string(),
            identity: claims.as_ref().map(TokenIdentity::of),
            role_names: roles.into_iter().map(|role| role.name).collect(),
            obtained_on: health.obtained_on,
            expires_on: health.expires_on,
            succeeded: health.succeeded,
            failed: health.failed,
            last_error: health.last_error,
        }
    }
}

impl TokenIdentity {
    /// `tid`: the tenant that issued the token; `None` if the token does not tell.
    pub fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// `oid`: the object id of the user or service principal.
    pub fn object_id(&self) -> Option<&str> {
        self.object_id.as_deref()
    }

    /// `appid` or `azp`: the client id.
    pub fn client_id(&self) -> Option<&str> {
        self.client_id.as_deref()
    }

    pub(crate) fn of(claims: &UnverifiedClaims) -> Self {
        let id = |text: Option<&str>| text.filter(|text| text.len() <= ID_LIMIT).map(str::to_owned);
        Self {
            tenant: id(claims.tenant()),
            object_id: id(claims.object_id()),
            client_id: id(claims.client_id()),
        }
    }
}

impl fmt::Display for TokenIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = |id: &Option<String>| id.clone().unwrap_or_else(|| "unknown".to_owned());
        write!(f, "object id {}, client id {}", known(&self.object_id), known(&self.client_id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_for_an_id_is_none() {
        // {"oid":"o","appid":"xxx…"}
        let claims = |payload: &str| UnverifiedClaims::read(&format!("e30.{payload}.")).unwrap();
        let short = TokenIdentity::of(&claims("eyJvaWQiOiJvIiwiYXBwaWQiOiJhIn0"));
        assert_eq!((short.object_id(), short.client_id(), short.tenant()), (Some("o"), Some("a"), None));
        assert_eq!(short.to_string(), "object id o, client id a");
        // {"oid": "0…0"} with 66 of them
        let long = format!("eyJvaWQiOiAi{}In0", "MDAw".repeat(22));
        assert_eq!(TokenIdentity::of(&claims(&long)), TokenIdentity::default());
    }
}

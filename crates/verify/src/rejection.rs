//! Why a token was refused.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// Why a token was refused. No variant holds the token or a part of its signature.
///
/// The checks run in the order of the variants, so the first thing wrong is the one reported.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// The text is not a signed JSON Web Token in compact form (RFC 7515 section 7.1).
    #[error("this is not a signed JSON Web Token")]
    NotAToken(#[source] Malformed),
    /// The header names an algorithm that the policy does not allow or that the key is not for. Entra signs access tokens
    /// with `RS256` alone.
    #[error("the token is signed with an algorithm that its issuer does not use")]
    Algorithm,
    /// No key of the issuer has the `kid` of the header. The keys were fetched again, unless that happened within the
    /// policy's refetch interval.
    #[error("the token is signed with a key that its issuer does not publish")]
    UnknownKey,
    /// The signing keys could not be had, so nothing can be said about the token.
    #[error("the signing keys of the issuer cannot be fetched")]
    KeysUnavailable(#[source] FetchError),
    /// The signature does not belong to this header and payload.
    #[error("the signature of the token is wrong")]
    Signature,
    /// A claim has the wrong JSON type or an impossible value.
    #[error("the claim \"{0}\" of the token is not valid")]
    BadClaim(&'static str),
    /// A claim that every Entra access token has is missing.
    #[error("the token has no claim \"{0}\"")]
    MissingClaim(&'static str),
    /// `exp` is past, beyond the policy's leeway.
    #[error("the token has expired")]
    Expired,
    /// `nbf` is ahead, beyond the policy's leeway.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `aud` is none of the policy's audiences.
    #[error("the token is for another audience: {found:?}")]
    Audience {
        /// The first 200 characters of the token's `aud`.
        found: String,
    },
    /// `iss` is none of the policy's issuers, or `ver` is no version that Entra issues.
    #[error("the token was issued by another issuer")]
    Issuer,
    /// `tid` is not the policy's tenant.
    #[error("the token belongs to another tenant")]
    Tenant,
}

/// What is wrong with the form of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// Longer than [`TOKEN_LIMIT`](crate::TOKEN_LIMIT).
    #[error("longer than PostgreSQL's password message can carry")]
    TooLong,
    /// Not exactly three parts between dots. Five parts are an encrypted token, which a server is never sent.
    #[error("not three parts separated by dots")]
    Parts,
    /// The third part is empty: an unsigned token.
    #[error("the signature is empty")]
    Unsigned,
    /// A part is not canonical base64url without padding (RFC 7515 section 2).
    #[error("a part is not canonical base64url without padding")]
    Base64,
    /// The header is not a JSON object, names a member twice, or has members of the wrong type.
    #[error("the header is not the header of a token")]
    Header,
    /// The header has `crit`, which asks for an extension. None is supported (RFC 7515 section 4.1.11).
    #[error("the header demands an extension")]
    CriticalExtension,
    /// The header has no `kid`, so no key can be chosen.
    #[error("the header names no key")]
    NoKeyId,
    /// The payload is not a JSON object, or names a member twice.
    #[error("the payload is not a JSON object with distinct members")]
    Payload,
}

/// Why the signing keys could not be fetched: any error, shared between those who waited for the same fetch.
#[derive(Debug, Clone)]
pub struct FetchError(Arc<dyn Error + Send + Sync>);

impl FetchError {
    /// Wraps an error, or a text.
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> FetchError {
        FetchError(Arc::from(error.into()))
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for FetchError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

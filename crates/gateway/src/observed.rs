//! What a gateway tells a program that watches its logins.

use std::fmt;
use std::net::SocketAddr;

use pgentra_verify::{Principal, Rejection};
use pgentra_wire::fields::Fields;

/// A check that a client has to pass. The gateway makes them in the order of the variants, so the
/// first one that fails refuses the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum LoginCheck {
    /// The connection is encrypted, and its start-up names a user and a database of the gateway.
    Connection,
    /// The role is mapped to a principal; one that is not authenticates at the server by a password,
    /// or not at all.
    Role,
    /// Not too many tokens for the role were refused from this address.
    Attempts,
    /// The answer to the request for a password is a signed JSON Web Token.
    Format,
    /// The issuer publishes the key that the token names.
    Key,
    /// The signature is that of the key.
    Signature,
    /// The token is valid now: `nbf` and `exp`.
    Time,
    /// The token is for this server: `aud`.
    Audience,
    /// The token is of the right issuer and tenant: `iss` and `tid`.
    Issuer,
    /// The token's principal may use the role: `oid`, `groups`, kind, second factor.
    Principal,
    /// The PostgreSQL server opens the session.
    Server,
}

/// The decision about a client.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct LoginEvent<'a> {
    /// The name of the server that the client is led to; empty if it did not come so far.
    pub server: &'a str,
    /// The address of the client.
    pub client: SocketAddr,
    /// The role that the client asked for, as it wrote it; `None` if it did not come so far.
    pub role: Option<&'a str>,
    /// The database that the client asked for.
    pub database: Option<&'a str>,
    /// The client's `application_name`.
    pub application_name: Option<&'a str>,
    /// The owner of the token, once the token was verified.
    pub principal: Option<&'a Principal>,
    /// What was decided.
    pub outcome: LoginOutcome<'a>,
}

/// What was decided about a client.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum LoginOutcome<'a> {
    /// The client has a session. Without a [`LoginEvent::principal`] it authenticated at the server,
    /// by a password.
    LetIn,
    /// The client got this error.
    Refused {
        /// The check that failed.
        check: LoginCheck,
        /// The error: SQLSTATE, message, detail and hint.
        error: &'a Fields,
    },
    /// The client hung up, as one does that is asked for something that it does not have.
    Left {
        /// The check that was made then.
        check: LoginCheck,
    },
}

/// Is called with each decision, on the task of the client: it must not wait.
pub(crate) type LoginObserver = Box<dyn Fn(&LoginEvent<'_>) + Send + Sync>;

impl LoginCheck {
    /// All checks, in their order.
    pub const ALL: [LoginCheck; 11] = [
        Self::Connection,
        Self::Role,
        Self::Attempts,
        Self::Format,
        Self::Key,
        Self::Signature,
        Self::Time,
        Self::Audience,
        Self::Issuer,
        Self::Principal,
        Self::Server,
    ];

    /// The check that a token failed.
    pub(crate) fn of(rejection: &Rejection) -> Self {
        match rejection {
            Rejection::NotAToken(_) => Self::Format,
            Rejection::Algorithm | Rejection::UnknownKey | Rejection::KeysUnavailable(_) => Self::Key,
            Rejection::Signature => Self::Signature,
            Rejection::Expired | Rejection::NotYetValid => Self::Time,
            Rejection::Audience { .. } => Self::Audience,
            Rejection::Issuer | Rejection::Tenant => Self::Issuer,
            Rejection::BadClaim(claim) | Rejection::MissingClaim(claim) => match *claim {
                "exp" | "nbf" | "iat" => Self::Time,
                "aud" => Self::Audience,
                "iss" | "ver" | "tid" => Self::Issuer,
                _ => Self::Principal,
            },
            // A later addition says something about the claims.
            _ => Self::Principal,
        }
    }
}

impl fmt::Display for LoginCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connection => "connection",
            Self::Role => "role",
            Self::Attempts => "attempts",
            Self::Format => "format",
            Self::Key => "key",
            Self::Signature => "signature",
            Self::Time => "time",
            Self::Audience => "audience",
            Self::Issuer => "issuer",
            Self::Principal => "principal",
            Self::Server => "server",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_checks_are_listed_in_their_order() {
        assert!(LoginCheck::ALL.is_sorted_by(|one, next| one < next));
    }

    #[test]
    fn a_claim_is_judged_by_the_check_that_reads_it() {
        for (claim, check) in [
            ("exp", LoginCheck::Time),
            ("aud", LoginCheck::Audience),
            ("tid", LoginCheck::Issuer),
            ("oid", LoginCheck::Principal),
        ] {
            assert_eq!(LoginCheck::of(&Rejection::MissingClaim(claim)), check, "{claim}");
            assert_eq!(LoginCheck::of(&Rejection::BadClaim(claim)), check, "{claim}");
        }
    }
}

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::AccessToken;

/// The claims of a token, **not verified**: for display, never for a decision.
///
/// An access token is opaque to its client by contract (Microsoft identity platform, "Access tokens"): its form may
/// change, and nothing here was checked against a key. The names of the claims are those of "Access token claims
/// reference" of the same documentation.
#[derive(Debug, Clone, PartialEq)]
pub struct UnverifiedClaims {
    header: Map<String, Value>,
    payload: Map<String, Value>,
}

/// Whether a token was issued to an application or to a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenKind {
    /// App-only: a managed identity or a service principal.
    App,
    /// A delegated token, issued for a user.
    User,
}

impl UnverifiedClaims {
    /// Reads a token's header and claims; `None` when it is not a JSON Web Token.
    pub fn of(token: &AccessToken) -> Option<Self> {
        Self::read(token.expose_secret())
    }

    /// Reads the header and claims of a token in its text form; `None` when it is not a JSON Web Token.
    pub fn read(token: &str) -> Option<Self> {
        let mut parts = token.split('.');
        let (header, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let object = |part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok();
        Some(Self { header: object(header)?, payload: object(payload)? })
    }

    /// The header: algorithm and key id.
    pub fn header(&self) -> &Map<String, Value> {
        &self.header
    }

    /// All claims of the payload, including those without a method here.
    pub fn payload(&self) -> &Map<String, Value> {
        &self.payload
    }

    /// A claim that is a text.
    pub fn text(&self, claim: &str) -> Option<&str> {
        self.payload.get(claim)?.as_str()
    }

    /// A claim that is a time, in seconds since 1970, such as `exp`.
    pub fn time(&self, claim: &str) -> Option<SystemTime> {
        let seconds = Duration::try_from_secs_f64(self.payload.get(claim)?.as_f64()?).ok()?;
        UNIX_EPOCH.checked_add(seconds)
    }

    /// `tid`: the tenant that issued the token.
    pub fn tenant(&self) -> Option<&str> {
        self.text("tid")
    }

    /// `oid`: the object id of the user or service principal.
    pub fn object_id(&self) -> Option<&str> {
        self.text("oid")
    }

    /// `appid` (version 1.0) or `azp` (version 2.0): the client id.
    pub fn client_id(&self) -> Option<&str> {
        self.text("appid").or_else(|| self.text("azp"))
    }

    /// App-only when `idtyp` says so, or when there is no `scp` and `oid` is `sub`; a user's where there is a `scp`.
    pub fn kind(&self) -> Option<TokenKind> {
        match self.text("idtyp") {
            Some("app") => Some(TokenKind::App),
            Some("user") => Some(TokenKind::User),
            _ if self.payload.contains_key("scp") => Some(TokenKind::User),
            _ if self.object_id()? == self.text("sub")? => Some(TokenKind::App),
            _ => None,
        }
    }

    /// How many groups it lists; `None` when it lists none, which says nothing about membership.
    pub fn groups(&self) -> Option<usize> {
        Some(self.payload.get("groups")?.as_array()?.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(payload: &str) -> String {
        format!(
            "{}.{}.c2ln",
            URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","kid":"k"}"#),
            URL_SAFE_NO_PAD.encode(payload)
        )
    }

    #[test]
    fn claims_are_read() {
        let claims = UnverifiedClaims::read(&token(
            r#"{"tid":"t","oid":"o","sub":"o","appid":"a","exp":1800000000,"groups":["g","h"]}"#,
        ))
        .unwrap();
        assert_eq!(claims.tenant(), Some("t"));
        assert_eq!(claims.client_id(), Some("a"));
        assert_eq!(claims.kind(), Some(TokenKind::App));
        assert_eq!(claims.time("exp"), Some(UNIX_EPOCH + Duration::from_secs(1_800_000_000)));
        assert_eq!(claims.groups(), Some(2));
        assert_eq!(claims.header()["kid"], "k");
    }

    #[test]
    fn the_kind_is_known_or_it_is_not() {
        for (payload, kind) in [
            (r#"{"idtyp":"app"}"#, Some(TokenKind::App)),
            (r#"{"idtyp":"user","oid":"o","sub":"o"}"#, Some(TokenKind::User)),
            (r#"{"scp":"user_impersonation","oid":"o","sub":"p"}"#, Some(TokenKind::User)),
            (r#"{"oid":"o","sub":"p"}"#, None),
            (r#"{"oid":"o"}"#, None),
        ] {
            let claims = UnverifiedClaims::read(&token(payload)).unwrap();
            assert_eq!(claims.kind(), kind, "{payload}");
        }
    }

    #[test]
    fn what_is_no_token_has_no_claims() {
        for text in ["", "a.b", "a.b.c", "a.b.c.d", &token("[1]"), &token("not json"), "....", "e30.e30"] {
            assert_eq!(UnverifiedClaims::read(text), None, "{text}");
        }
        assert!(UnverifiedClaims::read("e30.e30.").is_some(), "an empty header is one");
    }
}

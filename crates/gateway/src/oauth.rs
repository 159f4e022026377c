//! What a client of OAUTHBEARER is told about the issuer.

use pgentra_verify::Policy;

use crate::ask_method::AskMethod;

/// How clients are asked for a token, and where a client that has none gets one (RFC 7628 section 3.2.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Oauth {
    /// How a client is asked that does not say it in its start-up.
    pub default: AskMethod,
    /// The issuer, without a slash at its end. libpq compares it with its `oauth_issuer`, byte for byte.
    pub issuer: String,
    /// The scopes that a client asks the issuer for, with spaces between; libpq's `oauth_scope` replaces them.
    pub scope: String,
}

impl Oauth {
    /// Cleartext passwords by default; the last issuer of the policy, which for Entra is that of version 2.0, and the
    /// scope `/.default` of its first audience (Microsoft: "Scopes and permissions in the Microsoft identity platform").
    pub fn of(policy: &Policy) -> Self {
        let issuer = policy.issuers().last().map(String::as_str).unwrap_or_default();
        let audience = policy.audiences().first().map(String::as_str).unwrap_or_default();
        Self {
            default: AskMethod::Password,
            issuer: issuer.trim_end_matches('/').to_owned(),
            scope: format!("{}/.default", audience.trim_end_matches('/')),
        }
    }

    /// The address of the issuer's metadata (OpenID Connect Discovery 1.0 section 4).
    pub(crate) fn openid_configuration(&self) -> String {
        format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn entra_is_told_as_libpq_wants_it() {
        let tenant = Uuid::from_u128(1);
        let oauth = Oauth::of(&Policy::builder(tenant).build().unwrap());
        assert_eq!(oauth.default, AskMethod::Password);
        assert_eq!(oauth.issuer, format!("https://login.microsoftonline.com/{tenant}/v2.0"));
        assert_eq!(oauth.scope, "https://ossrdbms-aad.database.windows.net/.default");
        let expected = format!("{}/.well-known/openid-configuration", oauth.issuer);
        assert_eq!(oauth.openid_configuration(), expected);
    }
}

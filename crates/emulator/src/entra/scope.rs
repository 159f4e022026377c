//! The resource that a request for a token names in `scope`.

use super::refusal::{EntraError, missing};
use crate::exchange::Parameters;

/// The scopes of OpenID Connect. MSAL for Go and for Java send them beside `/.default`, each in an order of its own; they
/// change nothing for a client that acts for itself.
const OPENID: [&str; 4] = ["openid", "profile", "email", "offline_access"];

/// Where `User.Read` and the like are scopes.
const GRAPH: &str = "https://graph.microsoft.com";

/// The resource of a person's scopes, which are permissions of one resource beside those of OpenID Connect; Graph, if
/// there are no others.
pub(super) fn delegated(scope: &str) -> Result<&str, EntraError> {
    let of = |scope: &'_ str| -> usize {
        match scope.rfind('/') {
            Some(at) if scope.contains(':') => at,
            _ => 0,
        }
    };
    let asked = scope.split_whitespace().filter(|scope| !OPENID.contains(scope));
    let mut resources = asked.map(|scope| if of(scope) == 0 { GRAPH } else { &scope[..of(scope)] });
    let first = resources.next().unwrap_or(GRAPH);
    if resources.any(|other| other != first) {
        let sentence = format!(
            "AADSTS28000: Provided value for the input parameter scope is not valid because it contains more than one \
             resource. Scope {scope} is not valid."
        );
        return Err(EntraError::new(28000, "invalid_request", sentence));
    }
    Ok(first)
}

/// The resource in `scope`, a list with spaces between (RFC 6749 section 3.3): a client that acts for itself can ask for
/// the `/.default` of one resource only.
pub(super) fn scoped(form: &Parameters) -> Result<&str, EntraError> {
    let scope = form.get("scope").ok_or_else(|| missing("scope"))?;
    let asked: Vec<&str> = scope.split_whitespace().filter(|scope| !OPENID.contains(scope)).collect();
    let resources: Option<Vec<&str>> = asked.iter().map(|scope| scope.strip_suffix("/.default")).collect();
    if let [_, _, ..] = resources.as_deref().unwrap_or_default() {
        let sentence = format!(
            "AADSTS28000: Provided value for the input parameter scope is not valid because it contains more than one \
             resource. Scope {scope} is not valid."
        );
        return Err(EntraError::new(28000, "invalid_request", sentence));
    }
    resources.unwrap_or_default().pop().ok_or_else(|| {
        let sentence = format!(
            "AADSTS1002012: The provided value for scope {scope} is not valid. Client credential flows must have a \
             scope value with /.default suffixed to the resource identifier (application ID URI)."
        );
        EntraError::new(1_002_012, "invalid_scope", sentence)
    })
}

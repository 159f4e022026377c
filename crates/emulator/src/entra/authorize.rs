//! The authorization code flow up to its code (RFC 6749 section 4.1, RFC 7636; Microsoft: v2-oauth2-auth-code-flow): a
//! page on which a person chooses who signs in. There is no password.

use hyper::{Method, StatusCode};
use pgentra_directory::AuthorizationCode;
use uuid::Uuid;

use super::refusal::{EntraError, missing, unknown_client, unknown_resource, unknown_tenant};
use super::scope::delegated;
use super::{is_tenant_of_users, split_tenant};
use crate::cloud::Cloud;
use crate::exchange::{Answer, Call};
use crate::keys::KeyError;
use crate::mint::random;

/// How long a code can be used, in seconds (Microsoft: about 10 minutes).
const LIFE: i64 = 600;

/// What the page's links add to the request.
const CHOSEN: &str = "signed_in_user";

/// A request that can be answered at its redirect address.
struct AuthorizationRequest<'a> {
    client: &'a str,
    redirect_uri: &'a str,
    scope: &'a str,
    mode: &'a str,
    state: Option<&'a str>,
    challenge: Option<&'a str>,
}

/// `GET /{tenant}/oauth2/v2.0/authorize`
pub(crate) fn authorize(cloud: &Cloud, call: &Call) -> Result<Answer, KeyError> {
    if call.method != Method::GET {
        return Ok(Answer::text(StatusCode::METHOD_NOT_ALLOWED, "").with_header("Allow", "GET"));
    }
    let request = match AuthorizationRequest::of(cloud, call) {
        Ok(request) => request,
        Err(refusal) => {
            let sentence = escaped(refusal.sentence());
            let body = format!("<h1>The sign-in cannot begin</h1><p>{sentence}</p>");
            return Ok(html(StatusCode::BAD_REQUEST, &body));
        }
    };
    if call.query.get("prompt") == Some("none") {
        let description = "AADSTS50058: A silent sign-in request was sent but no user is signed in.";
        return Ok(request.answer(&[("error", "login_required"), ("error_description", description)]));
    }
    let users = cloud.principals.users();
    let chosen = call.query.get(CHOSEN).and_then(|id| id.parse::<Uuid>().ok());
    let Some(user) = users.iter().find(|user| Some(user.object_id()) == chosen) else {
        return Ok(html(StatusCode::OK, &page(cloud, call)));
    };
    if !cloud.principals.is_enabled(user.object_id()) {
        let description = "AADSTS50057: The user account is disabled.";
        return Ok(request.answer(&[("error", "access_denied"), ("error_description", description)]));
    }
    let code = random(48)?;
    cloud.sign_ins.add_code(AuthorizationCode {
        code: code.clone().into(),
        user: user.object_id(),
        client: request.client.to_owned(),
        scope: request.scope.to_owned(),
        redirect_uri: request.redirect_uri.to_owned(),
        challenge: request.challenge.map(str::to_owned),
        nonce: call.query.get("nonce").map(str::to_owned),
        expires: cloud.clock.unix() + LIFE,
        is_used: false,
    });
    Ok(request.answer(&[("code", &code)]))
}

impl<'a> AuthorizationRequest<'a> {
    fn of(cloud: &Cloud, call: &'a Call) -> Result<Self, EntraError> {
        let (tenant, _) = split_tenant(&call.path);
        if !is_tenant_of_users(cloud, tenant) {
            return Err(unknown_tenant(tenant));
        }
        let query = &call.query;
        let required = |name| query.get(name).ok_or_else(|| missing(name));
        let client = required("client_id")?;
        if client.parse::<Uuid>().is_err() {
            return Err(unknown_client(cloud, client));
        }
        let redirect_uri = required("redirect_uri")?;
        if !is_loopback(redirect_uri) {
            let sentence = format!(
                "AADSTS50011: The redirect URI '{redirect_uri}' specified in the request does not match the redirect URIs \
                 configured for the application '{client}'. The local cloud takes those of this machine: http://localhost."
            );
            return Err(EntraError::new(50011, "invalid_request", sentence));
        }
        let kind = required("response_type")?;
        if kind != "code" {
            let sentence =
                format!("AADSTS700054: response_type '{kind}' is not enabled for the application.");
            return Err(EntraError::new(700_054, "unsupported_response_type", sentence));
        }
        let scope = required("scope")?;
        let resource = delegated(scope)?;
        if cloud.resource(resource).is_none() {
            return Err(EntraError::new(500_011, "invalid_resource", unknown_resource(cloud, resource)));
        }
        let challenge = query.get("code_challenge");
        if challenge.is_some() && query.get("code_challenge_method") != Some("S256") {
            let sentence = "AADSTS501491: Invalid size or method of Code_Challenge parameter. The local cloud takes S256.";
            return Err(EntraError::new(501_491, "invalid_request", sentence));
        }
        let mode = query.get("response_mode").unwrap_or("query");
        if !["query", "fragment", "form_post"].contains(&mode) {
            let sentence = format!("AADSTS90023: Unsupported 'response_mode' value '{mode}'.");
            return Err(EntraError::new(90023, "invalid_request", sentence));
        }
        Ok(Self { client, redirect_uri, scope, mode, state: query.get("state"), challenge })
    }

    /// Sends the browser to the program, with these values and the state.
    fn answer(&self, values: &[(&str, &str)]) -> Answer {
        let values = values.iter().copied().chain(self.state.map(|state| ("state", state)));
        if self.mode == "form_post" {
            let fields: String = values
                .map(|(name, value)| {
                    format!("<input type=\"hidden\" name=\"{name}\" value=\"{}\">", escaped(value))
                })
                .collect();
            let body = format!(
                "<form method=\"post\" action=\"{}\">{fields}<p><button>Go back to the program</button></p></form>\
                 <script>document.forms[0].submit()</script>",
                escaped(self.redirect_uri)
            );
            return html(StatusCode::OK, &body);
        }
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(values).finish();
        let (address, fragment) = self.redirect_uri.split_once('#').unwrap_or((self.redirect_uri, ""));
        let joint = match (self.mode, address.contains('?')) {
            ("fragment", _) => "#",
            (_, true) => "&",
            (_, false) => "?",
        };
        let fragment = if fragment.is_empty() { String::new() } else { format!("#{fragment}") };
        Answer::text(StatusCode::FOUND, "")
            .with_header("Location", format!("{address}{joint}{query}{fragment}"))
    }
}

/// Whether an address leads to this machine, as those of programs without a browser do (RFC 8252 section 7.3).
fn is_loopback(address: &str) -> bool {
    let uri = address.parse::<hyper::Uri>().ok();
    let host = uri.as_ref().filter(|uri| uri.scheme_str() == Some("http")).and_then(|uri| uri.host());
    host.is_some_and(|host| ["localhost", "127.0.0.1", "[::1]"].contains(&host))
        && !address.bytes().any(|byte| byte.is_ascii_control())
}

/// A link for each user of the tenant.
fn page(cloud: &Cloud, call: &Call) -> String {
    let link = |id: Uuid| {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(call.query.pairs().filter(|(name, _)| *name != CHOSEN));
        query.append_pair(CHOSEN, &id.to_string());
        format!("{}?{}", call.path, query.finish())
    };
    let mut users = cloud.principals.users();
    let hint = call.query.get("login_hint").unwrap_or_default();
    users.sort_by_key(|user| !user.user_principal_name().eq_ignore_ascii_case(hint));
    let item = |(id, name, upn): (Uuid, &str, &str)| {
        let name = if name == upn { escaped(name) } else { format!("{} ({})", escaped(name), escaped(upn)) };
        format!("<li><a href=\"{}\">{name}</a></li>", escaped(&link(id)))
    };
    let users: String =
        users.iter().map(|user| item((user.object_id(), user.name(), user.user_principal_name()))).collect();
    let client = call.query.get("client_id").unwrap_or_default();
    format!(
        "<h1>Who signs in?</h1><p>The program {} asks for {}.</p><ul>{users}</ul>",
        escaped(client),
        escaped(call.query.get("scope").unwrap_or_default())
    )
}

fn html(status: StatusCode, body: &str) -> Answer {
    let text = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>Sign in – pgentra local</title><style>body{{font:1rem/1.5 system-ui;max-width:40rem;margin:3rem auto;padding:0 1rem;\
         color-scheme:light dark;overflow-wrap:anywhere}}</style>{body}</html>\n"
    );
    Answer::text(status, text)
        .typed("text/html; charset=utf-8")
        .with_header("Cache-Control", "no-store, no-cache")
}

/// Text for HTML, also in an attribute.
fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, char| {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            char => out.push(char),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_redirected_to() {
        for (address, ours) in [
            ("http://localhost", true),
            ("http://localhost:8400/callback?x=1", true),
            ("http://127.0.0.1:1", true),
            ("http://[::1]:1", true),
            ("https://localhost", false),
            ("http://localhost.evil.example", false),
            ("http://localhost@evil.example", false),
            ("http://evil.example/?localhost", false),
            ("urn:ietf:wg:oauth:2.0:oob", false),
            ("javascript:alert(1)", false),
            ("http://localhost/\r\nx", false),
        ] {
            assert_eq!(is_loopback(address), ours, "{address}");
        }
    }

    #[test]
    fn text_is_escaped() {
        assert_eq!(escaped("<a href=\"x\">&'"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;");
    }
}

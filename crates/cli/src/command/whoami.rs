//! `pgentra whoami`: the identity and the claims of its token.

use std::time::SystemTime;

use pgentra_connect::{quote, role_candidates};
use pgentra_identity::{AccessToken, Credential, TokenKind, UnverifiedClaims, Verdict};
use pgentra_system::System;
use serde::Serialize;

use crate::arguments::Whoami;
use crate::options::Format;
use crate::problem::Outcome;
use crate::progress::waiting;
use crate::text::{Text, bold, faint, hang, text};
use crate::time::{date, unix};
use crate::{output, sign_in};

/// Gets a token and prints its identity.
pub(crate) async fn run(system: &System, arguments: Whoami) -> Outcome {
    let target = sign_in::target_of_environment(system);
    let (credential, resource) = sign_in::credential_for(system, &arguments.identity, target.as_ref())?;
    let token = waiting("waiting for a token", credential.token(&resource)).await?;
    let found = Found::of(&credential, &token);
    match arguments.output.output {
        Format::Json => output::json(&found),
        Format::Text => output::result(found.text(system.clock().now())),
    }
}

/// The document of `pgentra whoami -o json`. Everything below `claims` comes from the token and is
/// not verified.
#[derive(Serialize)]
struct Found {
    source: String,
    /// Every source in the order of detection, with the decision about it.
    considered: Vec<PrintedSource>,
    resource: String,
    /// Seconds since 1970.
    expires_on: u64,
    claims: Option<PrintedClaims>,
    role_candidates: Vec<PrintedRole>,
    verified: bool,
}

#[derive(Serialize)]
struct PrintedSource {
    source: String,
    /// `first`, `later` (if none before it applies) or `no`.
    asked: &'static str,
    reason: String,
    /// The environment variables that led to the decision.
    variables: Vec<&'static str>,
}

#[derive(Serialize)]
struct PrintedClaims {
    tenant_id: Option<String>,
    client_id: Option<String>,
    object_id: Option<String>,
    /// `app` or `user`; null where the token does not say.
    kind: Option<&'static str>,
    user_principal_name: Option<String>,
    managed_identity: Option<String>,
    /// Seconds since 1970.
    not_before: Option<u64>,
    groups: Option<usize>,
}

#[derive(Serialize)]
struct PrintedRole {
    name: String,
    because: String,
}

impl Found {
    fn of(credential: &Credential, token: &AccessToken) -> Self {
        let claims = UnverifiedClaims::of(token);
        let role_candidates = claims.as_ref().map(role_candidates).unwrap_or_default();
        Self {
            source: token.source().to_string(),
            considered: credential.decision().considered().iter().map(PrintedSource::of).collect(),
            resource: token.resource().to_string(),
            expires_on: unix(token.expires_on()),
            claims: claims.as_ref().map(PrintedClaims::of),
            role_candidates: role_candidates
                .into_iter()
                .map(|role| PrintedRole { name: role.name, because: role.because.to_owned() })
                .collect(),
            verified: false,
        }
    }

    fn text(&self, now: SystemTime) -> Text {
        let mut text = Text::default();
        let mut line = |name: &str, value: &str| {
            text.push(text![format!("{name:<12}"), hang(), quote::line(value), "\n"]);
        };
        line("source", &self.source);
        for one in self.considered.iter().filter(|one| one.asked == "first") {
            line("why", &one.reason);
        }
        line("resource", &self.resource);
        line("expires", &expiry(self.expires_on, now));
        match &self.claims {
            None => line("identity", "unknown: the token is not in a form that can be read"),
            Some(claims) => {
                let or_unknown =
                    |value: &Option<String>| value.clone().unwrap_or_else(|| "not in the token".to_owned());
                line(
                    "kind",
                    match claims.kind {
                        Some("app") => "app (a managed identity or a service principal)",
                        Some(_) => "user",
                        None => "unknown: the token does not say",
                    },
                );
                line("tenant", &or_unknown(&claims.tenant_id));
                line("object id", &or_unknown(&claims.object_id));
                line("client id", &or_unknown(&claims.client_id));
                if let Some(name) = &claims.user_principal_name {
                    line("user", name);
                }
                if let Some(id) = &claims.managed_identity {
                    line("resource id", id);
                }
            }
        }
        match self.role_candidates.as_slice() {
            [] => line(
                "role name",
                "unknown: the token holds no name; ask who made the role (it is often the identity's name)",
            ),
            roles => {
                for role in roles {
                    text.push(text![
                        format!("{:<12}", "role name"),
                        hang(),
                        bold(&role.name),
                        " ",
                        faint(&format!("if {}", role.because)),
                        "\n",
                    ]);
                }
            }
        }
        text.push(faint("What the token says of itself, not verified: only the server decides."));
        text.push("\n");
        text
    }
}

impl PrintedSource {
    fn of(one: &pgentra_identity::Considered) -> Self {
        Self {
            source: one.source().to_string(),
            asked: match one.verdict() {
                Verdict::First => "first",
                Verdict::Later => "later",
                _ => "no",
            },
            reason: one.reason().to_string(),
            variables: one.variables().to_vec(),
        }
    }
}

impl PrintedClaims {
    fn of(claims: &UnverifiedClaims) -> Self {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Self {
            tenant_id: owned(claims.tenant()),
            client_id: owned(claims.client_id()),
            object_id: owned(claims.object_id()),
            kind: claims.kind().map(|kind| if kind == TokenKind::App { "app" } else { "user" }),
            user_principal_name: owned(claims.text("upn").or_else(|| claims.text("preferred_username"))),
            managed_identity: owned(claims.text("xms_mirid")),
            not_before: claims.time("nbf").map(unix),
            groups: claims.groups(),
        }
    }
}

/// A date and time, and how far away it is.
fn expiry(seconds: u64, now: SystemTime) -> String {
    let date = date(seconds);
    let left = seconds.saturating_sub(unix(now));
    match left {
        0 => format!("{date} (over)"),
        _ => format!("{date} (in {} h {} min)", left / 3600, left % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn an_expiry_is_a_date_and_a_distance() {
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        assert_eq!(expiry(1_800_000_000 + 3_660, now), "2027-01-15T09:01:00Z (in 1 h 1 min)");
        assert_eq!(expiry(1_700_000_000, now), "2023-11-14T22:13:20Z (over)");
    }
}

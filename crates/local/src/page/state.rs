//! What the page shows, as a document.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pgentra_emulator::{Principal, PrincipalKind, TokenRecord};
use pgentra_gateway::{LoginCheck, LoginCounts, LoginDecision, LoginRecord};
use pgentra_observe::rfc3339;
use serde::Serialize;
use serde_json::{Map, Value};

use super::connection_strings::HostStrings;
use super::source::PageSource;
use crate::faults::{FaultList, KnownEndpoint};

/// How many tokens and how many logins are shown.
const SHOWN: usize = 50;

/// The document of `/state.json`.
#[derive(Debug, Serialize)]
pub(crate) struct PageState {
    name: String,
    flavour: String,
    /// The version of pgentra.
    version: &'static str,
    /// The version of PostgreSQL.
    postgres: String,
    /// The time of the cloud (RFC 3339).
    pub(crate) now: String,
    /// How far its clock is ahead of this machine's.
    pub(crate) ahead_seconds: u64,
    tenant_id: String,
    pub(crate) counts: StateCounts,
    checks: Vec<CheckRow>,
    pub(crate) identities: Vec<IdentityRow>,
    /// Newest first.
    pub(crate) tokens: Vec<TokenRow>,
    /// Newest first.
    pub(crate) logins: Vec<LoginRow>,
    pub(crate) faults: FaultList,
    pub(crate) connect: Vec<HostStrings>,
}

#[derive(Debug, Serialize)]
pub(crate) struct StateCounts {
    pub(crate) tokens: u64,
    pub(crate) let_in: u64,
    pub(crate) refused: u64,
    /// Logins that their clients left.
    left: u64,
}

/// A check of the gateway, in its place.
#[derive(Debug, Serialize)]
struct CheckRow {
    name: String,
    title: &'static str,
    what: &'static str,
    /// How many logins it refused.
    refused: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct IdentityRow {
    pub(crate) name: String,
    pub(crate) kind: String,
    /// The role that was made for it at the start.
    pub(crate) role: Option<String>,
    pub(crate) object_id: String,
    client_id: Option<String>,
    resource_id: Option<String>,
    /// Where a program has this identity: `pgentra local env --host`.
    pub(crate) hosts: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
pub(crate) struct TokenRow {
    number: u64,
    pub(crate) time: String,
    /// The name of its subject.
    pub(crate) name: Option<String>,
    object_id: String,
    pub(crate) resource: String,
    endpoint: String,
    pub(crate) endpoint_title: String,
    expires: Option<String>,
    /// 0: it has expired.
    pub(crate) left_seconds: u64,
    repeated: bool,
    claims: Map<String, Value>,
}

#[derive(Debug, Serialize)]
pub(crate) struct LoginRow {
    number: u64,
    pub(crate) time: String,
    pub(crate) role: Option<String>,
    pub(crate) database: Option<String>,
    application_name: Option<String>,
    client: String,
    /// The owner of the token, once it was verified.
    pub(crate) name: Option<String>,
    object_id: Option<String>,
    /// `let in`, `refused`, or `left` by the client.
    pub(crate) outcome: &'static str,
    /// The check at which it ended, if it was not let in.
    pub(crate) ended_at: Option<String>,
    checks: Vec<MadeCheck>,
    pub(crate) sqlstate: Option<String>,
    pub(crate) message: Option<String>,
    detail: Option<String>,
    hint: Option<String>,
}

/// A check and how it came out for one login.
#[derive(Debug, Serialize)]
struct MadeCheck {
    name: String,
    title: &'static str,
    /// `passed`, `refused`, `left`, `not made`, or `password` for a role that signs in without a token.
    result: &'static str,
}

impl PageState {
    /// The state now.
    pub(crate) fn of(source: &PageSource) -> Self {
        let azure = &source.azure;
        let now = source.clock.now();
        let principals = azure.principals();
        let counts = source.telemetry.logins().counts();
        let last = |record| TokenRow::of(record, now, &principals);
        Self {
            name: source.name.clone(),
            flavour: source.flavour.to_string(),
            version: env!("CARGO_PKG_VERSION"),
            postgres: source.postgres.clone(),
            now: rfc3339(now),
            ahead_seconds: azure.clock().ahead().as_secs(),
            tenant_id: azure.tenant().to_string(),
            counts: StateCounts {
                tokens: azure.tokens_given(),
                let_in: counts.let_in,
                refused: counts.refused.values().sum(),
                left: counts.left,
            },
            checks: checks(&counts),
            identities: identities(source, &principals),
            tokens: azure.last_tokens(SHOWN).into_iter().map(last).collect(),
            logins: source
                .telemetry
                .logins()
                .last(SHOWN)
                .into_iter()
                .map(|record| LoginRow::of(record, &principals))
                .collect(),
            faults: source.faults.list(),
            connect: source.access.clone(),
        }
    }
}

/// The title of a check, and what it compares.
pub(crate) fn described(check: LoginCheck) -> (&'static str, &'static str) {
    match check {
        LoginCheck::Connection => ("TLS", "The connection is encrypted, before anything is asked."),
        LoginCheck::Role => (
            "role",
            "The role is mapped to a principal of the tenant; if not, PostgreSQL asks for its own password.",
        ),
        LoginCheck::Attempts => {
            ("attempts", "Few tokens for this role were refused from this address before.")
        }
        LoginCheck::Format => ("token", "The password is a signed JSON Web Token, as it was given out."),
        LoginCheck::Key => ("key", "The tenant publishes the key that the token names (kid)."),
        LoginCheck::Signature => ("signature", "The token was signed by that key and not changed since."),
        LoginCheck::Time => ("time", "The token is valid now (nbf, exp), with 5 min of leeway."),
        LoginCheck::Audience => {
            ("audience", "The token was asked for PostgreSQL and no other resource (aud).")
        }
        LoginCheck::Issuer => ("issuer", "The token is of this tenant (iss, tid)."),
        LoginCheck::Principal => {
            ("object id", "The token's principal is the one that the role is mapped to (oid, or groups).")
        }
        _ => (
            "PostgreSQL",
            "PostgreSQL opens the session: the database is there, and the role may connect to it.",
        ),
    }
}

fn checks(counts: &LoginCounts) -> Vec<CheckRow> {
    let row = |check: LoginCheck| {
        let (title, what) = described(check);
        let refused = counts.refused.get(&check).copied().unwrap_or_default();
        CheckRow { name: check.to_string(), title, what, refused }
    };
    LoginCheck::ALL.map(row).into()
}

/// The identities that a program can have, and everything else in the tenant.
fn identities(source: &PageSource, principals: &[Principal]) -> Vec<IdentityRow> {
    let own = crate::identities::identities(&source.azure);
    let others: Vec<_> = principals
        .iter()
        .filter(|principal| own.iter().all(|it| it.object_id != principal.object_id.to_string()))
        .map(|principal| IdentityRow {
            name: principal.name.clone(),
            kind: match principal.kind {
                PrincipalKind::User => "user",
                PrincipalKind::Group => "group",
                _ => "service principal",
            }
            .to_owned(),
            role: None,
            object_id: principal.object_id.to_string(),
            client_id: None,
            resource_id: None,
            hosts: Vec::new(),
        })
        .collect();
    let own = own.into_iter().map(|it| IdentityRow {
        hosts: source.access.iter().filter(|access| access.role == it.role).map(|it| it.host).collect(),
        name: it.name,
        kind: it.kind,
        role: Some(it.role),
        object_id: it.object_id,
        client_id: it.client_id,
        resource_id: it.resource_id,
    });
    own.chain(others).collect()
}

impl TokenRow {
    fn of(record: TokenRecord, now: SystemTime, principals: &[Principal]) -> Self {
        let seconds = record.claims.get("exp").and_then(Value::as_u64);
        let expires = seconds.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
        let left = expires.and_then(|expires| expires.duration_since(now).ok()).unwrap_or_default();
        Self {
            number: record.number,
            time: rfc3339(record.at),
            name: name_of(record.object_id, principals),
            object_id: record.object_id.to_string(),
            resource: record.resource,
            endpoint: record.endpoint.to_string(),
            endpoint_title: KnownEndpoint::title(record.endpoint),
            expires: expires.map(rfc3339),
            left_seconds: left.as_secs(),
            repeated: record.is_repeated,
            claims: Map::clone(&record.claims),
        }
    }
}

impl LoginRow {
    fn of(record: LoginRecord, principals: &[Principal]) -> Self {
        let (outcome, ended_at) = match &record.decision {
            LoginDecision::LetIn => ("let in", None),
            LoginDecision::Refused(refusal) => ("refused", Some(refusal.check)),
            LoginDecision::Left(check) => ("left", Some(*check)),
        };
        let has_token = record.object_id.is_some();
        let refusal = match record.decision {
            LoginDecision::Refused(refusal) => Some(refusal),
            _ => None,
        };
        Self {
            number: record.number,
            time: rfc3339(record.at),
            role: record.role,
            database: record.database,
            application_name: record.application_name,
            client: record.client,
            name: record.object_id.and_then(|id| name_of(id, principals)),
            object_id: record.object_id.map(|id| id.to_string()),
            outcome,
            ended_at: ended_at.map(|check| check.to_string()),
            checks: made(ended_at, outcome, has_token),
            sqlstate: refusal.as_ref().map(|it| it.sqlstate.clone()),
            message: refusal.as_ref().map(|it| it.message.clone()),
            detail: refusal.as_ref().and_then(|it| it.detail.clone()),
            hint: refusal.and_then(|it| it.hint),
        }
    }
}

/// The checks in their order. At `ended_at` the login had this outcome.
fn made(ended_at: Option<LoginCheck>, outcome: &'static str, has_token: bool) -> Vec<MadeCheck> {
    let reached = ended_at.unwrap_or(LoginCheck::Server);
    // A session that has no token came by a password of PostgreSQL.
    let is_password = !has_token && reached == LoginCheck::Server;
    let result = |check: LoginCheck| match check {
        check if ended_at == Some(check) => outcome,
        LoginCheck::Role if is_password => "password",
        LoginCheck::Connection | LoginCheck::Server if is_password => "passed",
        _ if is_password || check > reached => "not made",
        _ => "passed",
    };
    let row = |check: LoginCheck| MadeCheck {
        name: check.to_string(),
        title: described(check).0,
        result: result(check),
    };
    // It is no check of Azure's: it is shown where it refuses.
    let shown = |check: &LoginCheck| *check != LoginCheck::Attempts || ended_at == Some(*check);
    LoginCheck::ALL.into_iter().filter(shown).map(row).collect()
}

fn name_of(object_id: uuid::Uuid, principals: &[Principal]) -> Option<String> {
    principals.iter().find(|it| it.object_id == object_id).map(|it| it.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(ended_at: Option<LoginCheck>, has_token: bool) -> String {
        let made = made(ended_at, "refused", has_token);
        made.iter().map(|it| format!("{} {}", it.title, it.result)).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn checks_after_the_one_that_refused_were_not_made() {
        assert_eq!(
            results(Some(LoginCheck::Time), false),
            "TLS passed, role passed, token passed, key passed, signature passed, time refused, audience not made, \
             issuer not made, object id not made, PostgreSQL not made"
        );
        assert!(results(Some(LoginCheck::Attempts), false).contains("attempts refused, token not made"));
        assert!(!results(None, true).contains("not made") && !results(None, true).contains("refused"));
    }

    #[test]
    fn a_role_with_a_password_passes_no_check_of_a_token() {
        let let_in = results(None, false);
        assert!(let_in.starts_with("TLS passed, role password, token not made"), "{let_in}");
        assert!(let_in.ends_with("object id not made, PostgreSQL passed"), "{let_in}");
        assert!(results(Some(LoginCheck::Server), false).ends_with("PostgreSQL refused"));
        assert!(
            results(Some(LoginCheck::Role), false).starts_with("TLS passed, role refused, token not made")
        );
    }
}

//! What a server's refusal means.

use pgentra_wire::fields::Fields;

use crate::{quote, strike_out};

/// Why a server refused a sign-in, as told by its words and its SQLSTATE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// The access token has expired.
    Expired,
    /// The token is for another audience.
    Audience,
    /// The password is not a token.
    BadFormat,
    /// The server could not validate the token.
    Validation,
    /// The token has no object id.
    OidMissing,
    /// The role is mapped to another object id.
    OidMismatch,
    /// A person's token for a role of an application.
    UserTokenForServiceRole,
    /// An application's token for a role of a person.
    AppTokenForUserRole,
    /// The token does not list the group that the role is mapped to.
    NotInGroup,
    /// The role signs in with a password, or does not exist: it is not mapped to Entra.
    RoleNotMapped,
    /// The role exists and may not sign in.
    RoleMayNotSignIn,
    /// The role may not replicate.
    RoleMayNotReplicate,
    /// The server insists on TLS and saw none.
    NoTls,
    /// The server lets no client of this address in.
    Firewall,
    /// The database does not exist.
    DatabaseMissing,
    /// The role may not use the database.
    DatabaseForbidden,
    /// `max_connections` of the server or `CONNECTION LIMIT` of the role is reached.
    TooManyConnections,
    /// The server is starting, stopping or recovering.
    NotReady,
    /// A pooler in front of the server cannot take a token of this length.
    PoolerLimit,
    /// Another reason; see the server's message.
    Other,
}

/// The server's ErrorResponse, without the token, which a hostile server could send back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerMessage {
    sqlstate: String,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
}

/// Fragments that both wordings of Azure's messages have in common, the older ("Please acquire a new token and retry")
/// and the newer ("Acquire a new token and try again"), in lower case. The first row that fits counts.
const BY_TEXT: [(&str, Refusal); 20] = [
    ("access token has expired", Refusal::Expired),
    ("valid audience claim", Refusal::Audience),
    ("access token has invalid format", Refusal::BadFormat),
    ("valid oid claim", Refusal::OidMissing),
    ("principal oid mismatch for role", Refusal::OidMismatch),
    ("cannot generate aad_auth_tokentype_app_user tokens for role", Refusal::UserTokenForServiceRole),
    ("is neither an aad_auth_tokentype_app_user", Refusal::AppTokenForUserRole),
    ("does not contain group id", Refusal::NotInGroup),
    ("error occurred while validating the access token", Refusal::Validation),
    // PostgreSQL 18, whose validator module says the reason to the server's log alone.
    ("oauth bearer authentication failed for user", Refusal::Validation),
    ("is not permitted to log in", Refusal::RoleMayNotSignIn),
    ("permission denied to start wal sender", Refusal::RoleMayNotReplicate),
    // PostgreSQL 15 and older.
    ("must be superuser or replication role to start walsender", Refusal::RoleMayNotReplicate),
    ("permission denied for database", Refusal::DatabaseForbidden),
    ("no encryption", Refusal::NoTls),
    ("ssl off", Refusal::NoTls),
    ("ssl connection is required", Refusal::NoTls),
    ("no pg_hba.conf entry", Refusal::Firewall),
    ("password authentication failed for user", Refusal::RoleNotMapped),
    ("client sent partial pkt in startup phase", Refusal::PoolerLimit),
];

/// PostgreSQL, "Appendix A. PostgreSQL Error Codes".
/// 42501 is not among them: at start-up it also says that a role may not replicate, set a parameter or take a place that is
/// reserved.
const BY_SQLSTATE: [(&str, Refusal); 7] = [
    ("28P01", Refusal::RoleNotMapped),
    ("3D000", Refusal::DatabaseMissing),
    ("53300", Refusal::TooManyConnections),
    ("57P01", Refusal::NotReady),
    ("57P02", Refusal::NotReady),
    ("57P03", Refusal::NotReady),
    ("57P05", Refusal::NotReady),
];

impl Refusal {
    /// All variants, for tables in documents and tests.
    pub const ALL: [Refusal; 20] = [
        Refusal::Expired,
        Refusal::Audience,
        Refusal::BadFormat,
        Refusal::Validation,
        Refusal::OidMissing,
        Refusal::OidMismatch,
        Refusal::UserTokenForServiceRole,
        Refusal::AppTokenForUserRole,
        Refusal::NotInGroup,
        Refusal::RoleNotMapped,
        Refusal::RoleMayNotSignIn,
        Refusal::RoleMayNotReplicate,
        Refusal::NoTls,
        Refusal::Firewall,
        Refusal::DatabaseMissing,
        Refusal::DatabaseForbidden,
        Refusal::TooManyConnections,
        Refusal::NotReady,
        Refusal::PoolerLimit,
        Refusal::Other,
    ];

    /// Classifies a refusal. The text is matched before the SQLSTATE: Azure's codes for its token messages are not documented.
    pub fn classify(sqlstate: &str, message: &str) -> Refusal {
        // `lc_messages` other than English leaves the SQLSTATE only; Azure's own messages are always English.
        let message = message.to_lowercase();
        let by_text =
            BY_TEXT.iter().find(|(fragment, _)| message.contains(fragment)).map(|(_, refusal)| *refusal);
        // With `peer`, `cert` or `trust` PostgreSQL names the role that does not exist. 28000 alone says much else.
        let role_missing = || {
            (sqlstate == "28000" && message.contains("role") && message.contains("does not exist"))
                .then_some(Refusal::RoleNotMapped)
        };
        let by_sqlstate =
            || BY_SQLSTATE.iter().find(|(code, _)| *code == sqlstate).map(|(_, refusal)| *refusal);
        by_text.or_else(role_missing).or_else(by_sqlstate).unwrap_or(Refusal::Other)
    }

    /// Whether an out-of-date token can be the reason, so that a newer one may help: it has expired, or was issued
    /// before the principal was created anew or joined the group. A plain 28P01 is none of these: Azure says it of a role
    /// that is not mapped, and each wrong role name would cost a request for a token.
    pub fn stale_token_explains(self) -> bool {
        matches!(self, Refusal::Expired | Refusal::Validation | Refusal::OidMismatch | Refusal::NotInGroup)
    }
}

impl ServerMessage {
    /// The SQLSTATE, five characters.
    pub fn sqlstate(&self) -> &str {
        &self.sqlstate
    }

    /// The message of the server's ErrorResponse (field `M`).
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The DETAIL of the server's ErrorResponse (field `D`), if there is one.
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// The HINT of the server's ErrorResponse (field `H`), if there is one.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Takes the texts out of an ErrorResponse. Where they repeat the token or a part of it, the part is struck out.
    pub(crate) fn read(fields: &Fields, token: &str) -> ServerMessage {
        let clean = |text: &str| clean(text, token);
        ServerMessage {
            sqlstate: clean(&fields.sqlstate()),
            message: clean(&fields.message()),
            detail: fields.detail().map(|text| clean(&text)),
            hint: fields.hint().map(|text| clean(&text)),
        }
    }
}

/// More of a server's text than this is not kept.
const TEXT_LIMIT: usize = 2000;

fn clean(text: &str, token: &str) -> String {
    let kept: String = strike_out::in_text(text, token).chars().take(TEXT_LIMIT).collect();
    // A control character in a terminal can hide or forge lines.
    quote::line(&kept)
}

#[cfg(test)]
mod tests {
    use pgentra_wire::fields::Severity;

    use super::*;
    use crate::advice::AttemptedSignIn;

    /// Each message as Azure or PostgreSQL words it, in every wording known.
    const MESSAGES: [(&str, &str, Refusal); 34] = [
        ("28000", "The access token has expired. Please acquire a new token and retry.", Refusal::Expired),
        ("28000", "The access token has expired. Acquire a new token and try again.", Refusal::Expired),
        (
            "28000",
            "The access token does not have a valid audience claim. Please acquire a new token for the resource \"https://ossrdbms-aad.database.windows.net\".",
            Refusal::Audience,
        ),
        (
            "28000",
            "The access token doesn't have a valid audience claim. Acquire a new token for resource \"https://x/\"",
            Refusal::Audience,
        ),
        (
            "28000",
            "The access token has invalid format. Please ensure the token is passed exactly as returned by the authentication endpoint and retry.",
            Refusal::BadFormat,
        ),
        (
            "28000",
            "An error occurred while validating the access token. Please acquire a new token and retry",
            Refusal::Validation,
        ),
        (
            "28000",
            "The access token doesn't have a valid oid claim. Acquire a new token and try again",
            Refusal::OidMissing,
        ),
        ("28000", "Service Principal oid mismatch for role[myuser].", Refusal::OidMismatch),
        (
            "28000",
            "Service principal oid mismatch for role \"The oid in the security label [a] does not match the appid [b] or oid [c] in the token.\"",
            Refusal::OidMismatch,
        ),
        (
            "28000",
            "Service Principals cannot generate AAD_AUTH_TOKENTYPE_APP_USER tokens for role[myuser]",
            Refusal::UserTokenForServiceRole,
        ),
        (
            "28000",
            "Service principals cannot generate AAD_AUTH_TOKENTYPE_APP_USER tokens for role \"myuser\"",
            Refusal::UserTokenForServiceRole,
        ),
        (
            "28000",
            "Azure AD user token for role[ada] is neither an AAD_AUTH_TOKENTYPE_APP_USER or an AAD_AUTH_TOKENTYPE_APP_OBO token.",
            Refusal::AppTokenForUserRole,
        ),
        (
            "28000",
            "Microsoft Entra user token for role \"ada\" is neither an AAD_AUTH_TOKENTYPE_APP_USER or an AAD_AUTH_TOKENTYPE_APP_OBO token.",
            Refusal::AppTokenForUserRole,
        ),
        (
            "28000",
            "Azure AD access token not valid for role readers (does not contain group ID dddddddd-0000-4000-8000-000000000004)",
            Refusal::NotInGroup,
        ),
        ("28000", "OAuth bearer authentication failed for user \"myuser\"", Refusal::Validation),
        ("28P01", "password authentication failed for user \"myuser\"", Refusal::RoleNotMapped),
        ("28000", "role \"unknown\" does not exist", Refusal::RoleNotMapped),
        ("28000", "role \"readers\" is not permitted to log in", Refusal::RoleMayNotSignIn),
        (
            "28000",
            "no pg_hba.conf entry for host \"1.2.3.4\", user \"u\", database \"d\", no encryption",
            Refusal::NoTls,
        ),
        (
            "28000",
            "no pg_hba.conf entry for host \"1.2.3.4\", user \"u\", database \"d\", SSL off",
            Refusal::NoTls,
        ),
        (
            "28000",
            "no pg_hba.conf entry for host \"1.2.3.4\", user \"u\", database \"d\", SSL on",
            Refusal::Firewall,
        ),
        (
            "28000",
            "no pg_hba.conf entry for host \"1.2.3.4\", user \"u\", database \"d\", SSL encryption",
            Refusal::Firewall,
        ),
        ("3D000", "database \"nowhere\" does not exist", Refusal::DatabaseMissing),
        ("42501", "permission denied for database \"app\"", Refusal::DatabaseForbidden),
        ("42501", "permission denied to start WAL sender", Refusal::RoleMayNotReplicate),
        ("42501", "must be superuser or replication role to start walsender", Refusal::RoleMayNotReplicate),
        ("42501", "permission denied to set parameter \"log_statement\"", Refusal::Other),
        ("42501", "must be superuser to connect in binary upgrade mode", Refusal::Other),
        (
            "53300",
            "remaining connection slots are reserved for roles with the SUPERUSER attribute",
            Refusal::TooManyConnections,
        ),
        ("53300", "sorry, too many clients already", Refusal::TooManyConnections),
        ("57P03", "the database system is starting up", Refusal::NotReady),
        ("08P01", "client sent partial pkt in startup phase", Refusal::PoolerLimit),
        ("28P01", "anything, in any language", Refusal::RoleNotMapped),
        ("XX000", "internal error", Refusal::Other),
    ];

    impl Refusal {
        /// A new refusal does not compile here before it has a number.
        pub(crate) fn number(self) -> usize {
            match self {
                Refusal::Expired => 0,
                Refusal::Audience => 1,
                Refusal::BadFormat => 2,
                Refusal::Validation => 3,
                Refusal::OidMissing => 4,
                Refusal::OidMismatch => 5,
                Refusal::UserTokenForServiceRole => 6,
                Refusal::AppTokenForUserRole => 7,
                Refusal::NotInGroup => 8,
                Refusal::RoleNotMapped => 9,
                Refusal::RoleMayNotSignIn => 10,
                Refusal::RoleMayNotReplicate => 11,
                Refusal::NoTls => 12,
                Refusal::Firewall => 13,
                Refusal::DatabaseMissing => 14,
                Refusal::DatabaseForbidden => 15,
                Refusal::TooManyConnections => 16,
                Refusal::NotReady => 17,
                Refusal::PoolerLimit => 18,
                Refusal::Other => 19,
            }
        }
    }

    #[test]
    fn every_wording_has_its_meaning_and_its_hint() {
        for (sqlstate, message, refusal) in MESSAGES {
            assert_eq!(Refusal::classify(sqlstate, message), refusal, "{message}");
            let sign_in = AttemptedSignIn { role: "it's", database: "db", token: "t", claims: None };
            let hint = refusal.hint(&sign_in, message);
            assert_eq!(hint.is_some(), refusal != Refusal::Other, "{refusal:?}");
        }
    }

    #[test]
    fn only_a_stale_token_is_worth_a_second_try() {
        for refusal in [Refusal::Expired, Refusal::Validation, Refusal::OidMismatch, Refusal::NotInGroup] {
            assert!(refusal.stale_token_explains());
        }
        for refusal in
            [Refusal::RoleNotMapped, Refusal::Audience, Refusal::BadFormat, Refusal::DatabaseMissing]
        {
            assert!(!refusal.stale_token_explains());
        }
    }

    #[test]
    fn a_token_sent_back_is_struck_out() {
        let token = "eyJhbGciOiJSUzI1NiJ9.eyJvaWQiOiJhYmMifQ.c2lnbmF0dXJlc2lnbmF0dXJl";
        let fields = Fields::new(Severity::Fatal, "28000", &format!("you said {token}, did you?"))
            .with_detail("payload eyJvaWQiOiJhYmMifQ")
            .with_hint("\u{1b}[2Jhidden");
        let message = ServerMessage::read(&fields, token);
        assert_eq!(message.message(), "you said [redacted], did you?");
        assert_eq!(message.detail(), Some("payload [redacted]"));
        assert_eq!(message.hint(), Some("\\x1B[2Jhidden"));
        let long = Fields::new(Severity::Fatal, "28000", &"x".repeat(30_000));
        assert_eq!(ServerMessage::read(&long, token).message().len(), TEXT_LIMIT);
    }
}

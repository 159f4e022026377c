//! The errors that clients get, with Azure's messages where they are known.
//!
//! The messages are those of Azure Database for PostgreSQL Flexible Server since 2025 ("Acquire a
//! new token and try again"), and older ones where no newer message is known. Programs match
//! fragments of them, because drivers often do not expose the SQLSTATE of a refused log-in.

use std::net::IpAddr;
use std::time::Duration;

use pgentra_verify::{Groups, Policy, Principal, Rejection};
use pgentra_wire::fields::Fields;
use pgentra_wire::session_attrs::SessionAttrs;
use uuid::Uuid;

use pgentra_session::login_error::{fatal, sqlstate};

const TRY_NEW_TOKEN: &str = "Get a new token with: pgentra token";
const COMPARE: &str = "Compare the role's principal with the token's: pgentra whoami";

/// The same error as PostgreSQL with only `hostssl` lines in `pg_hba.conf`.
pub(crate) fn no_encryption(address: IpAddr, user: &[u8], database: &[u8]) -> Fields {
    let text = String::from_utf8_lossy;
    refused(&format!(
        "no pg_hba.conf entry for host \"{address}\", user \"{}\", database \"{}\", no encryption",
        text(user),
        text(database)
    ))
    .with_hint("Connect with TLS: sslmode=verify-full")
}

pub(crate) fn shutting_down() -> Fields {
    fatal(sqlstate::CANNOT_CONNECT_NOW, "the database system is shutting down")
}

/// PostgreSQL cannot be reached. The gateway logs the reason.
pub(crate) fn unreachable() -> Fields {
    fatal(sqlstate::CANNOT_CONNECT_NOW, "the gateway cannot reach its PostgreSQL server")
        .with_hint("Try again; if it stays so, see the log of the gateway.")
}

/// The server answers, and the gateway cannot read which principals may use a role. It stays so until an
/// administrator changes it, so it is not a code after which drivers try again. PostgreSQL sends the same
/// code to a client that it cannot authenticate by its configuration (`auth.c`: certificates without a
/// root certificate store).
pub(crate) fn mapping_unreadable() -> Fields {
    fatal(sqlstate::CONFIG_FILE_ERROR, "the gateway cannot read which principals may use which roles")
        .with_hint(
            "The administrator of the gateway finds the reason with pgentra doctor --gateway, and in its log.",
        )
}

/// No server is of the kind that clients are led to. The gateway logs what each of them is.
pub(crate) fn no_server_fits(wanted: SessionAttrs) -> Fields {
    let message = format!("no PostgreSQL server of the gateway fits target_session_attrs={wanted}");
    fatal(sqlstate::CANNOT_CONNECT_NOW, &message)
        .with_hint("Try again; if it stays so, see the log of the gateway.")
}

/// As PostgreSQL says it.
pub(crate) fn no_database(database: &str) -> Fields {
    fatal(sqlstate::INVALID_CATALOG_NAME, &format!("database \"{database}\" does not exist"))
}

/// As PgBouncer refuses a user that is not in its `stats_users` (`admin_post_login`).
pub(crate) fn no_console() -> Fields {
    fatal(sqlstate::PROTOCOL_VIOLATION, "not allowed")
        .with_hint("Add the role to the server parameter pgbouncer.stats_users.")
}

/// PostgreSQL closed the connection, or did not answer as it was prepared to.
pub(crate) fn broken() -> Fields {
    fatal(sqlstate::CONNECTION_FAILURE, "the gateway's PostgreSQL server did not open the session")
        .with_hint("Try again; if it stays so, see the log of the gateway.")
}

/// Many tokens were refused, one after the other.
pub(crate) fn too_many_attempts(wait: Duration) -> Fields {
    let seconds = wait.as_secs_f64().ceil();
    refused("too many refused tokens for this user from this address")
        .with_detail("The token was not verified.")
        .with_hint(&format!("Try again in {seconds} seconds."))
}

/// The text is not a token.
pub(crate) fn not_a_token() -> Fields {
    refused(
        "The access token has invalid format. Please ensure the token is passed exactly as returned by the authentication endpoint and retry.",
    )
    .with_hint(TRY_NEW_TOKEN)
}

/// A client that asked for the issuer and sent no token. The message is PostgreSQL's.
pub(crate) fn no_bearer(user: &str) -> Fields {
    refused(&format!("OAuth bearer authentication failed for user \"{user}\"")).with_hint(TRY_NEW_TOKEN)
}

pub(crate) fn rejected(rejection: &Rejection, policy: &Policy) -> Fields {
    match rejection {
        Rejection::NotAToken(_) => not_a_token(),
        Rejection::Expired => refused("The access token has expired. Acquire a new token and try again."),
        Rejection::Audience { .. } => {
            let resource = policy.audiences().first().map(String::as_str).unwrap_or_default();
            refused(&format!(
                "The access token doesn't have a valid audience claim. Acquire a new token for resource \"{resource}\""
            ))
        }
        Rejection::MissingClaim("oid") => {
            refused("The access token doesn't have a valid oid claim. Acquire a new token and try again")
        }
        Rejection::KeysUnavailable(_) => {
            return fatal(
                sqlstate::CANNOT_CONNECT_NOW,
                "The access token can't be validated, because the signing keys of the tenant are not available.",
            )
            .with_hint("Try again; if it stays so, see the log of the gateway.");
        }
        // Signature, unknown key, algorithm, issuer, tenant, malformed claims, and any later
        // addition.
        other => {
            refused("An error occurred while validating the access token. Please acquire a new token and retry")
                .with_detail(&other.to_string())
        }
    }
    .with_hint(TRY_NEW_TOKEN)
}

/// A user's token for a role of type `service`.
pub(crate) fn user_token_for_service(role: &str) -> Fields {
    refused(&format!(
        "Service principals cannot generate AAD_AUTH_TOKENTYPE_APP_USER tokens for role \"{role}\""
    ))
    .with_hint(COMPARE)
}

/// An application's token for a role of type `user`.
pub(crate) fn app_token_for_user(role: &str) -> Fields {
    refused(&format!(
        "Microsoft Entra user token for role \"{role}\" is neither an AAD_AUTH_TOKENTYPE_APP_USER or an AAD_AUTH_TOKENTYPE_APP_OBO token."
    ))
    .with_hint(COMPARE)
}

/// The token of another application. The explanation replaces the role's name, as on Azure.
pub(crate) fn service_mismatch(label: Uuid, principal: &Principal) -> Fields {
    let app_id = principal.app_id().map(|id| id.to_string()).unwrap_or_default();
    refused(&format!(
        "Service principal oid mismatch for role \"The oid in the security label [{label}] does not match the appid [{app_id}] or oid [{}] in the token.\"",
        principal.object_id()
    ))
    .with_hint(COMPARE)
}

/// The token of another user. Azure's message is unknown; this one follows that for an application.
pub(crate) fn user_mismatch(role: &str, label: Uuid, principal: &Principal) -> Fields {
    refused(&format!(
        "Microsoft Entra user principal oid mismatch for role \"{role}\". The oid in the security label [{label}] does not match the oid [{}] in the token.",
        principal.object_id()
    ))
    .with_hint(COMPARE)
}

/// The token of a principal outside of the group.
pub(crate) fn not_in_group(role: &str, group: Uuid, principal: &Principal) -> Fields {
    let fields = refused(&format!(
        "Microsoft Entra access token not valid for role \"{role}\" (does not contain group ID {group})"
    ));
    about_groups(fields, principal)
}

/// The token of a principal outside of the group, on Single Server.
pub(crate) fn not_in_group_single(role: &str, group: Uuid, principal: &Principal) -> Fields {
    let fields = refused(&format!(
        "Azure AD access token not valid for role {role} (does not contain group ID {group})"
    ));
    about_groups(fields, principal)
}

/// On Single Server PostgreSQL compares the password, so the gateway does not know the expected id.
pub(crate) fn service_mismatch_single(role: &str) -> Fields {
    refused(&format!("Service Principal oid mismatch for role[{role}]."))
        .with_hint("The role's password must be the client id of the identity: pgentra whoami")
}

/// The same for a user's token. Azure's message is unknown; this one follows that for an
/// application.
pub(crate) fn user_mismatch_single(role: &str) -> Fields {
    refused(&format!("Azure AD user principal oid mismatch for role[{role}]."))
        .with_hint("Did you specify the correct user name and access token?")
}

/// The role requires a second factor.
pub(crate) fn no_second_factor() -> Fields {
    refused("The access token doesn't have a valid mfa claim. Sign in with multifactor authentication and try again")
        .with_hint(TRY_NEW_TOKEN)
}

/// A role that no principal is mapped to, where such roles do not sign in at all.
pub(crate) fn not_mapped(role: &str) -> Fields {
    refused(&format!("role \"{role}\" is not mapped to a Microsoft Entra principal"))
        .with_hint("The administrator of the gateway maps roles to principals.")
}

/// A principal that a rule excludes.
pub(crate) fn denied(role: &str) -> Fields {
    refused(&format!("Microsoft Entra access token not valid for role \"{role}\": its principal is denied"))
        .with_hint(COMPARE)
}

/// A principal whose token does not list its groups, where some groups are denied.
pub(crate) fn denied_if_member(role: &str) -> Fields {
    refused(&format!(
        "Microsoft Entra access token not valid for role \"{role}\": it does not list the groups of its principal, and some are denied"
    ))
    .with_hint(
        "The administrator of the gateway can have it ask Microsoft Graph (group_overage = \"graph\").",
    )
}

/// A principal whose token does not list its groups, where more groups decide than can be asked for.
pub(crate) fn too_many_groups(role: &str, most: usize) -> Fields {
    refused(&format!(
        "Microsoft Entra access token not valid for role \"{role}\": it does not list the groups of its principal, and more than {most} groups decide who may use the role"
    ))
    .with_hint("The administrator of the gateway has to name fewer groups, or the principal's object id.")
}

/// A principal whose account is disabled or gone.
pub(crate) fn disabled(role: &str, principal: &Principal) -> Fields {
    let id = principal.object_id();
    refused(&format!(
        "Microsoft Entra access token not valid for role \"{role}\": the principal with oid [{id}] is disabled or was deleted"
    ))
    .with_hint("An administrator of the tenant can enable it.")
}

/// Microsoft Graph does not answer. The gateway logs the reason.
pub(crate) fn no_directory() -> Fields {
    fatal(
        sqlstate::CANNOT_CONNECT_NOW,
        "the gateway cannot ask Microsoft Graph about the principal of the access token",
    )
    .with_hint("Try again; if it stays so, see the log of the gateway.")
}

/// A principal that no rule of the role names.
pub(crate) fn no_rule(role: &str, principal: &Principal) -> Fields {
    let fields = refused(&format!(
        "Microsoft Entra access token not valid for role \"{role}\": no rule of the role names the oid [{}]",
        principal.object_id()
    ));
    let fields = match principal.groups() {
        Groups::Overage => {
            fields.with_detail("The token's principal is in more groups than a token can list.")
        }
        _ => fields,
    };
    fields.with_hint(COMPARE)
}

/// The server refused the gateway itself, and not what the client asked for.
pub(crate) fn not_let_in() -> Fields {
    refused("the gateway's PostgreSQL server does not let this role in")
        .with_hint("The log of the gateway has the reason.")
}

/// No server of the gateway has this name or database.
pub(crate) fn no_server(database: &[u8]) -> Fields {
    let database = String::from_utf8_lossy(database);
    fatal(sqlstate::INVALID_CATALOG_NAME, &format!("database \"{database}\" does not exist"))
        .with_hint("No server of the gateway has it; look at the host name and the database.")
}

fn about_groups(fields: Fields, principal: &Principal) -> Fields {
    let fields = match principal.groups() {
        Groups::Overage => {
            fields.with_detail("The token's principal is in more groups than a token can list.")
        }
        _ => fields,
    };
    fields.with_hint("Did you specify the correct user name and access token?")
}

fn refused(message: &str) -> Fields {
    fatal(sqlstate::INVALID_AUTHORIZATION, message)
}

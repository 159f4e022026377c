//! The errors that clients get instead of a session: SQLSTATE, message, detail and hint.

use std::error::Error;
use std::fmt::Display;
use std::time::Duration;

use pgentra_connect::{ConnectError, ConnectErrorKind, SessionAttrs, quote};
use pgentra_wire::fields::Fields;
use pgentra_wire::startup::StartupMessage;

use pgentra_session::login_error::{chain, fatal, login_timeout, sqlstate, too_many_clients};

/// Length of a SQLSTATE.
const SQLSTATE: usize = 5;

pub(crate) fn too_many(limit: usize) -> Fields {
    too_many_clients()
        .with_detail(&format!("The proxy opens {limit} sessions to this server at once."))
        .with_hint("Close sessions that are no longer used, or start the proxy with a larger limit.")
}

pub(crate) fn too_fast(per_second: u32) -> Fields {
    fatal(sqlstate::CANNOT_CONNECT_NOW, "too many clients ask for new sessions")
        .with_detail(&format!(
            "The proxy opens {per_second} connections to this server in a second, and the queue is too long."
        ))
        .with_hint(
            "Try again in a few seconds. Keep sessions in a pool, or start the proxy with a larger rate \
             (--connect-rate) or with --reuse.",
        )
}

pub(crate) fn slow() -> Fields {
    login_timeout().with_detail(
        "The client did not do its part of the sign-in in time: TLS, its start-up packet, its password.",
    )
}

pub(crate) fn shutting_down() -> Fields {
    fatal(sqlstate::CANNOT_CONNECT_NOW, "the proxy is shutting down").with_hint("Try again in a few seconds.")
}

/// Uses PostgreSQL's own message, which drivers and pools know.
pub(crate) fn terminated() -> Fields {
    fatal(sqlstate::ADMIN_SHUTDOWN, "terminating connection due to administrator command")
        .with_detail("The proxy is shutting down.")
        .with_hint("Connect again in a few seconds.")
}

/// As [`terminated`]: the session's server is no longer one of the kind that the target wants.
pub(crate) fn demoted(wanted: SessionAttrs) -> Fields {
    fatal(sqlstate::ADMIN_SHUTDOWN, "terminating connection due to administrator command")
        .with_detail(&format!("The server no longer fits target_session_attrs={wanted}."))
        .with_hint("Connect again: new sessions go to a server that fits.")
}

pub(crate) fn peer_uid_denied(address: impl Display) -> Fields {
    fatal(sqlstate::INVALID_AUTHORIZATION, &format!("the {address} may not use the proxy's socket"))
        .with_hint("Connect as the user that the proxy runs as, or add your user to its listen_uids.")
}

pub(crate) fn unauthenticated(address: impl Display) -> Fields {
    let message = format!("the proxy serves {address} only with client authentication, which is not set up");
    fatal(sqlstate::INVALID_AUTHORIZATION, &message).with_hint(
        "Connect from the machine that the proxy runs on, or set up TLS with a certificate or password.",
    )
}

/// PostgreSQL's message names `pg_hba.conf`, which the proxy does not have.
pub(crate) fn no_encryption() -> Fields {
    fatal(sqlstate::INVALID_AUTHORIZATION, "the proxy requires TLS of its clients")
        .with_hint("Connect with sslmode=verify-full, or at least sslmode=require.")
}

/// Uses PostgreSQL's message, as the following errors do.
pub(crate) fn no_certificate() -> Fields {
    fatal(sqlstate::INVALID_AUTHORIZATION, "connection requires a valid client certificate")
        .with_hint("Set a certificate in the client: sslcert and sslkey in libpq.")
}

/// `name` is the certificate's name, if it has one that can be read.
pub(crate) fn another_certificate(name: Option<&str>, role: &[u8]) -> Fields {
    let role = String::from_utf8_lossy(role);
    let message = format!("certificate authentication failed for user \"{role}\"");
    let detail = match name {
        Some(name) => format!("The client's certificate is that of {}.", quote::name(name)),
        None => "The client's certificate has no name that can be compared.".to_owned(),
    };
    fatal(sqlstate::INVALID_AUTHORIZATION, &message)
        .with_detail(&detail)
        .with_hint("Connect as the role that the certificate is for, or add this role to the proxy's map of certificates.")
}

pub(crate) fn wrong_password(user: &[u8]) -> Fields {
    let user = String::from_utf8_lossy(user);
    fatal(sqlstate::INVALID_PASSWORD, &format!("password authentication failed for user \"{user}\""))
        .with_hint("The password is that of the proxy's file of users, not one of the database.")
}

pub(crate) fn too_many_attempts(wait: Duration) -> Fields {
    let seconds = wait.as_secs_f64().ceil();
    fatal(sqlstate::INVALID_AUTHORIZATION, "too many wrong passwords for this user from this address")
        .with_detail("The password was not checked.")
        .with_hint(&format!("Try again in {seconds} seconds."))
}

pub(crate) fn mechanism() -> Fields {
    fatal(sqlstate::PROTOCOL_VIOLATION, "client selected an invalid SASL authentication mechanism")
}

pub(crate) fn not_mapped(role: &[u8]) -> Fields {
    let role = String::from_utf8_lossy(role);
    let hint = "Connect as a role of the map, or map this role to a database role";
    // A quote and a backslash are escaped as in TOML.
    let example = match role.chars().any(quote::is_hidden) {
        true => String::new(),
        false => format!(": {role:?} = \"…\""),
    };
    let message = format!("the proxy's role_map has no role {}", quote::name(&role));
    fatal(sqlstate::INVALID_AUTHORIZATION, &message).with_hint(&format!("{hint}{example}."))
}

/// The target sets a role or database, and the client names another one.
pub(crate) fn name_mismatch(what: &str, named: &[u8], asked: &[u8]) -> Fields {
    let shown = |name| quote::name(&String::from_utf8_lossy(name));
    let (named, asked) = (shown(named), shown(asked));
    fatal(
        sqlstate::INVALID_AUTHORIZATION,
        &format!("the proxy serves the {what} {named}, and not {asked}"),
    )
    .with_hint(&format!(
        "Name the {what} {named} in the client; or start the proxy with --pin, which puts it in the place of the \
         client's, or without a {what}, which leaves it to the client."
    ))
}

/// No target of the listener is for this client. The SQLSTATE for an unknown database is PostgreSQL's.
pub(crate) fn no_target(start: &StartupMessage, is_by_role: bool) -> Fields {
    let shown = |name| quote::name(&String::from_utf8_lossy(name));
    let (role, database) = (shown(start.user()), shown(start.database()));
    let (code, message) = match is_by_role {
        true => (sqlstate::INVALID_AUTHORIZATION, format!("no target of the proxy is for the role {role}")),
        false => {
            let message = format!("no target of the proxy is for the database {database}");
            (sqlstate::INVALID_CATALOG_NAME, message)
        }
    };
    fatal(code, &message)
        .with_detail(&format!("The client named the role {role} and the database {database}."))
        .with_hint(
            "Targets that share an address are told apart by their settings databases, host_names and roles; a host name \
             is known of clients with TLS alone.",
        )
}

/// Why the sign-in at the server failed. A refusal of the server is forwarded with its own message.
pub(crate) fn failed(error: &ConnectError) -> Fields {
    let fields = match error.server_message() {
        Some(server) => {
            // A malformed SQLSTATE would make the whole message unreadable to some drivers.
            let code = Some(server.sqlstate()).filter(|code| is_sqlstate(code));
            let fields = fatal(code.unwrap_or(sqlstate::INVALID_AUTHORIZATION), server.message());
            match server.detail() {
                Some(detail) => fields.with_detail(detail),
                None => fields,
            }
        }
        None => {
            let fields = fatal(code(error.kind()), &error.to_string());
            match error.source() {
                Some(cause) => fields.with_detail(&chain(cause)),
                None => fields,
            }
        }
    };
    fields.with_hint(&error.hint().unwrap_or_else(|| DOCTOR.to_owned()))
}

/// The hint for errors that have none.
const DOCTOR: &str = "To find the broken link, run on the machine of the proxy: pgentra doctor";

fn code(kind: ConnectErrorKind) -> &'static str {
    match kind {
        ConnectErrorKind::Token | ConnectErrorKind::Refused(_) => sqlstate::INVALID_AUTHORIZATION,
        ConnectErrorKind::Protocol => sqlstate::CONNECTION_FAILURE,
        _ => sqlstate::UNABLE_TO_CONNECT,
    }
}

fn is_sqlstate(code: &str) -> bool {
    code.len() == SQLSTATE && code.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use pgentra_connect::Roots;

    use super::*;

    /// Invariant 8: every error has a hint.
    #[test]
    fn whoever_knows_no_better_is_sent_to_doctor() {
        let pem = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let error = Roots::from_pem(pem).unwrap_err();
        assert_eq!(error.hint(), None);
        assert!(failed(&error).hint().unwrap().contains("pgentra doctor"));
    }

    #[test]
    fn what_is_no_sqlstate_is_told_from_one() {
        for (code, is) in [("28000", true), ("57P03", true), ("", false), ("28 00", false), ("280000", false)]
        {
            assert_eq!(is_sqlstate(code), is, "{code}");
        }
    }
}

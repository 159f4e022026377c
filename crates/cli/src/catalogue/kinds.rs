//! Maps errors of the libraries to findings.

use std::error::Error;
use std::io;

use pgentra_azure::{AzureError, AzureErrorKind};
use pgentra_connect::{ConnectError, ConnectErrorKind, Refusal, TlsFailure};
use pgentra_identity::{SourceName, TokenError, TokenErrorKind};
use pgentra_system::http::{HttpError, HttpErrorKind};

use super::Finding;

impl From<&ConnectError> for Finding {
    fn from(error: &ConnectError) -> Finding {
        match error.kind() {
            ConnectErrorKind::Token => error.token_error().map_or(Finding::TokenRefused, Finding::from),
            ConnectErrorKind::Tcp if !was_refused(error) => Finding::TcpUnreachable,
            kind => of_connect(kind).unwrap_or(Finding::ThisMachine),
        }
    }
}

/// Errors of Resource Manager and Graph: their answers, or why they could not be reached.
impl From<&AzureError> for Finding {
    fn from(error: &AzureError) -> Finding {
        if let Some(answered) = of_azure(error.kind()) {
            return answered;
        }
        let cause = error.source();
        if let Some(token) = cause.and_then(|cause| cause.downcast_ref::<TokenError>()) {
            return Finding::from(token);
        }
        match cause.and_then(|cause| cause.downcast_ref::<HttpError>()).map(HttpError::kind) {
            Some(HttpErrorKind::Resolve) => Finding::NameUnresolved,
            Some(HttpErrorKind::Connect | HttpErrorKind::Proxy) => Finding::TcpUnreachable,
            Some(HttpErrorKind::Tls) => Finding::TlsUnknownIssuer,
            Some(HttpErrorKind::Timeout) => Finding::Timeout,
            _ if error.kind() == AzureErrorKind::Token => Finding::TokenRefused,
            _ => Finding::ConnectionLost,
        }
    }
}

impl From<&TokenError> for Finding {
    fn from(error: &TokenError) -> Finding {
        let http = error.source().and_then(|cause| cause.downcast_ref::<HttpError>());
        if http.is_some_and(|cause| cause.kind() == HttpErrorKind::Proxy) {
            return Finding::SourceProxyRefused;
        }
        let is_imds = error.source_name() == Some(SourceName::Imds);
        if error.code().is_some_and(|code| code.starts_with("AADSTS")) {
            return Finding::TokenRefusedByEntra;
        }
        match error.kind() {
            TokenErrorKind::Refused { status: 300..400 | 403..=407 } if is_imds => Finding::SourceIntercepted,
            TokenErrorKind::Refused { status: 400 } if is_imds && names_no_identity(error) => {
                Finding::TokenIdentityUnknown
            }
            // Only another server in place of the metadata service answers with a page.
            TokenErrorKind::BadAnswer if is_imds && error.to_string().contains("web page") => {
                Finding::SourceIntercepted
            }
            kind => of_token(kind).unwrap_or(Finding::ThisMachine),
        }
    }
}

/// The metadata service does not know the identity, or has several (Microsoft: how-to-use-vm-token,
/// "Error handling").
fn names_no_identity(error: &TokenError) -> bool {
    let text = error.to_string();
    ["Identity not found", "Multiple user assigned"].iter().any(|words| text.contains(words))
}

/// Whether the server refused the connection, in contrast to not answering.
fn was_refused(error: &ConnectError) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::ConnectionRefused)
}

/// `None` for a kind without a finding; a test checks that there is none.
fn of_connect(kind: ConnectErrorKind) -> Option<Finding> {
    Some(match kind {
        ConnectErrorKind::Config => Finding::ConnectionSettings,
        ConnectErrorKind::Token => Finding::TokenRefused,
        ConnectErrorKind::Dns => Finding::NameUnresolved,
        ConnectErrorKind::Tcp => Finding::TcpRefused,
        ConnectErrorKind::Timeout => Finding::Timeout,
        ConnectErrorKind::Tls(failure) => return of_tls(failure),
        ConnectErrorKind::Refused(refusal) => return of_refusal(refusal),
        ConnectErrorKind::Protocol => Finding::Protocol,
        _ => return None,
    })
}

fn of_tls(failure: TlsFailure) -> Option<Finding> {
    Some(match failure {
        TlsFailure::Declined => Finding::TlsDeclined,
        TlsFailure::ErrorInTheClear => Finding::TlsErrorInTheClear,
        TlsFailure::NotTls => Finding::TlsNotSpoken,
        TlsFailure::Name => Finding::TlsName,
        TlsFailure::UnknownIssuer => Finding::TlsUnknownIssuer,
        TlsFailure::Validity => Finding::TlsValidity,
        TlsFailure::Certificate => Finding::TlsCertificate,
        TlsFailure::Handshake => Finding::TlsHandshake,
        _ => return None,
    })
}

fn of_refusal(refusal: Refusal) -> Option<Finding> {
    Some(match refusal {
        Refusal::Expired => Finding::RefusedExpired,
        Refusal::Audience => Finding::RefusedAudience,
        Refusal::BadFormat => Finding::RefusedFormat,
        Refusal::Validation => Finding::RefusedValidation,
        Refusal::OidMissing => Finding::RefusedNoObjectId,
        Refusal::OidMismatch => Finding::RoleOfAnotherIdentity,
        Refusal::UserTokenForServiceRole => Finding::RoleForService,
        Refusal::AppTokenForUserRole => Finding::RoleForUser,
        Refusal::NotInGroup => Finding::RoleGroup,
        Refusal::RoleNotMapped => Finding::RoleNotMapped,
        Refusal::RoleMayNotSignIn => Finding::RoleNoLogin,
        Refusal::RoleMayNotReplicate => Finding::RoleNoReplication,
        Refusal::NoTls => Finding::RefusedNoTls,
        Refusal::Firewall => Finding::RefusedFirewall,
        Refusal::DatabaseMissing => Finding::DatabaseMissing,
        Refusal::DatabaseForbidden => Finding::DatabaseForbidden,
        Refusal::TooManyConnections => Finding::TooManyConnections,
        Refusal::NotReady => Finding::ServerNotReady,
        Refusal::PoolerLimit => Finding::PoolerLimit,
        Refusal::Other => Finding::RefusedOther,
        _ => return None,
    })
}

/// `None` if there was no answer; the cause has the reason.
fn of_azure(kind: AzureErrorKind) -> Option<Finding> {
    Some(match kind {
        AzureErrorKind::Usage => Finding::Usage,
        AzureErrorKind::NotFound => Finding::AzureNotFound,
        AzureErrorKind::Ambiguous => Finding::AzureAmbiguous,
        AzureErrorKind::Forbidden => Finding::AzureForbidden,
        AzureErrorKind::Conflict => Finding::AzureConflict,
        AzureErrorKind::Throttled => Finding::AzureThrottled,
        AzureErrorKind::StillRunning => Finding::AzureStillRunning,
        AzureErrorKind::Refused => Finding::AzureRefused,
        _ => return None,
    })
}

/// `None` for a kind without a finding; a test checks that there is none.
fn of_token(kind: TokenErrorKind) -> Option<Finding> {
    Some(match kind {
        TokenErrorKind::NoSource => Finding::SourceNone,
        TokenErrorKind::Network => Finding::SourceUnreachable,
        TokenErrorKind::Timeout => Finding::SourceTimeout,
        TokenErrorKind::Refused { status: 429 } => Finding::TokenThrottled,
        TokenErrorKind::Refused { status: 410 } => Finding::TokenSourceRestarting,
        TokenErrorKind::Refused { status: 500..600 } => Finding::TokenSourceFailing,
        TokenErrorKind::Refused { .. } => Finding::TokenRefused,
        TokenErrorKind::BadAnswer => Finding::TokenBadAnswer,
        TokenErrorKind::Audience => Finding::ClaimsAudience,
        TokenErrorKind::Expired => Finding::TokenExpired,
        TokenErrorKind::Config => Finding::SourceSettings,
        TokenErrorKind::Abandoned => Finding::TokenAbandoned,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blame::Blame;

    #[test]
    fn every_kind_is_in_the_catalogue() {
        for kind in ConnectErrorKind::all() {
            let finding = of_connect(kind).unwrap_or_else(|| panic!("{kind:?} is not in the catalogue"));
            let blame = match kind {
                ConnectErrorKind::Config => Blame::Usage,
                ConnectErrorKind::Token => Blame::Token,
                ConnectErrorKind::Refused(_) => Blame::Server,
                _ => Blame::Network,
            };
            assert_eq!(finding.blame(), blame, "{kind:?}");
        }
        for kind in TokenErrorKind::ALL {
            assert!(of_token(kind).is_some(), "{kind:?} is not in the catalogue");
        }
        for kind in AzureErrorKind::ALL {
            let unanswered = matches!(kind, AzureErrorKind::Token | AzureErrorKind::Network);
            assert_eq!(of_azure(kind).is_none(), unanswered, "{kind:?}");
        }
    }

    /// A reader could not tell two kinds with one finding apart.
    #[test]
    fn no_two_kinds_are_one_finding() {
        let connect = ConnectErrorKind::all().filter_map(of_connect);
        let token = TokenErrorKind::ALL.into_iter().filter_map(of_token);
        let azure = AzureErrorKind::ALL.into_iter().filter_map(of_azure);
        let findings: Vec<_> = connect.chain(token).chain(azure).collect();
        let twice: Vec<_> =
            findings.iter().filter(|one| findings.iter().filter(|other| other == one).count() > 1).collect();
        // A refused token is one finding for all sources.
        assert!(twice.iter().all(|finding| **finding == Finding::TokenRefused), "{twice:?}");
    }
}

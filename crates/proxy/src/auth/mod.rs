//! Client authentication: which clients may connect, and as which role. Decided before the server
//! is dialled.

mod certificate;
mod error;
mod roles;
mod scram;
mod tls;
mod users;

pub use certificate::{CertificateName, CertificateRule};
pub use error::ClientAuthError;
pub use roles::RoleMap;
pub use tls::Tls;
pub use users::Users;

use pgentra_wire::backend::{Authentication, BackendMessage, Mechanisms};
use pgentra_wire::fields::Fields;
use pgentra_wire::scram::{MECHANISM, MECHANISM_PLUS};

use super::refusal;
use crate::telemetry::ClientAccess;
use pgentra_session::attempts::Attempts;
use pgentra_session::auth_message::AuthMessage;
use pgentra_session::client::{Client, Socket};
use pgentra_session::login_error::LoginError;
use scram::{Binding, Exchange};

/// What clients must prove. The default is nothing: access is then limited by the listener's
/// address alone.
#[derive(Clone, Debug, Default)]
pub struct ClientAuth {
    /// TLS over TCP. A client that begins without it is refused (SQLSTATE 28000), except for cancel
    /// requests: libpq sends them in clear text, and PostgreSQL accepts that. Unix sockets have no
    /// TLS, as in PostgreSQL. Default: none, requests for TLS are declined.
    pub tls: Option<Tls>,
    /// The users with their password verifiers, for TCP and Unix sockets alike. Default: no
    /// password is asked for.
    pub users: Option<Users>,
    /// User ids of this machine that may use Unix sockets in addition to the process's own.
    /// Default: none.
    pub uids: Vec<u32>,
    /// Maps a client's role to a role of the database. Default: both are the same.
    pub roles: Option<RoleMap>,
    /// Whether clients of other machines may connect although
    /// [`ClientAuth::requires_authentication`] is false: every client that reaches the listener has
    /// the identity's rights then. Default: they may not.
    pub danger_admit_unauthenticated: bool,
}

impl ClientAuth {
    /// Whether a listener may be reachable from other machines: clients must authenticate, and the
    /// connection is encrypted.
    pub fn requires_authentication(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.asks_for_certificates() || self.users.is_some())
    }

    /// Whether clients of other machines may connect.
    pub(crate) fn admits_other_machines(&self) -> bool {
        self.requires_authentication() || self.danger_admit_unauthenticated
    }

    /// What a client needs to connect.
    pub(crate) fn access(&self) -> ClientAccess {
        ClientAccess {
            role: self.roles.as_ref().and_then(RoleMap::first),
            database: None,
            has_tls: self.tls.is_some(),
            asks_for_certificates: self.tls.as_ref().is_some_and(Tls::asks_for_certificates),
        }
    }

    /// The TLS configuration for this transport, if it has one.
    pub(crate) fn tls_over<S: Socket>(&self) -> Option<&Tls> {
        self.tls.as_ref().filter(|_| S::IS_NETWORK)
    }

    /// Checks the client's TLS and its certificate.
    pub(crate) fn check_channel<S: Socket>(&self, client: &Client<S>, user: &[u8]) -> Result<(), Fields> {
        let Some(tls) = self.tls_over::<S>() else {
            return Ok(());
        };
        if !client.is_encrypted() {
            return Err(refusal::no_encryption());
        }
        tls.check_certificate(client.peer_certificate().as_ref(), user)
    }

    /// Maps a client's role to the role of the database.
    pub(crate) fn role<'a>(&'a self, role: &'a [u8]) -> Result<&'a [u8], Fields> {
        match &self.roles {
            None => Ok(role),
            Some(roles) => roles.get(role).ok_or_else(|| refusal::not_mapped(role)),
        }
    }

    /// Asks for the password and checks it. `handshake` is the TLS configuration that the client was
    /// offered: the certificate may have been replaced since then. AuthenticationOk, the next message
    /// on success, is not sent here.
    ///
    /// Not cancel-safe; after a drop, the client can still get an error.
    pub(crate) async fn check_password<S: Socket>(
        &self,
        client: &mut Client<S>,
        user: &[u8],
        handshake: Option<&Tls>,
        attempts: &Attempts,
    ) -> Result<(), LoginError> {
        let Some(users) = &self.users else {
            return Ok(());
        };
        let who = (client.origin(), user);
        attempts.check(&who).map_err(refusal::too_many_attempts)?;
        let end_point = handshake.filter(|_| client.is_encrypted()).and_then(Tls::end_point);
        let offered = end_point.is_some().then_some(MECHANISM_PLUS).into_iter().chain([MECHANISM]);
        let mechanisms = Authentication::Sasl(Mechanisms::new(offered)?);
        client.send(&BackendMessage::Authentication(mechanisms)).await?;

        let answer = AuthMessage::read(client).await?;
        let initial = answer.sasl_initial()?;
        let binding = match (initial.mechanism, end_point) {
            (mechanism, Some(end_point)) if mechanism == MECHANISM_PLUS.as_bytes() => {
                Binding::EndPoint(end_point)
            }
            (mechanism, Some(_)) if mechanism == MECHANISM.as_bytes() => Binding::Declined,
            (mechanism, None) if mechanism == MECHANISM.as_bytes() => Binding::NotOffered,
            _ => return Err(refusal::mechanism().into()),
        };
        let (verifier, is_known) = users.find(user);
        let mut exchange = Exchange::new(verifier, binding)?;
        let first = exchange.first(initial.data.unwrap_or_default())?;
        client.send(&BackendMessage::Authentication(Authentication::SaslContinue(first))).await?;

        let answer = AuthMessage::read(client).await?;
        let turn =
            async { attempts.turn(&who).await.map_err(|wait| refusal::too_many_attempts(wait).into()) };
        let attempt = client.while_present(turn).await?;
        let proven = exchange.last(answer.body())?;
        // An unknown role takes the same path and the same work as a wrong password.
        match proven.filter(|_| is_known) {
            Some(last) => {
                drop(attempt);
                client.send(&BackendMessage::Authentication(Authentication::SaslFinal(last))).await
            }
            None => {
                attempt.was_wrong();
                Err(refusal::wrong_password(user).into())
            }
        }
    }
}

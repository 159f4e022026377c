//! How a login ends: with a session, or with a client that is turned away.

use pgentra_wire::fields::Fields;

use super::client::{Client, Socket};
use super::listen::Shutdown;
use super::login_error::LoginError;
use super::starting::Seat;

/// Runs a login to its end. When the shutdown begins, the login ends with the error
/// `shutting_down`. `None`: the connection is to be dropped.
pub async fn until_shutdown<T>(
    login: impl Future<Output = Result<T, LoginError>>,
    shutdown: &Shutdown,
    shutting_down: fn() -> Fields,
) -> Option<Result<T, LoginError>> {
    tokio::select! {
        biased;
        () = shutdown.kill.cancelled() => None,
        ended = login => Some(ended),
        () = shutdown.drain.cancelled() => Some(Err(shutting_down().into())),
    }
}

/// Closes the connection of a client that gets no session, after it got the error.
pub async fn turn_away<S: Socket>(client: Client<S>, seat: Seat, error: LoginError, shutdown: &Shutdown) {
    let address = client.address();
    match error {
        LoginError::Rejected(fields) => {
            // Formatted as a string field, so that line breaks from the client are escaped.
            tracing::info!(%address, reason = fields.to_string(), "a client was refused");
            if !seat.leave() {
                return client.tell_at_once(fields).await;
            }
            tokio::select! {
                () = shutdown.kill.cancelled() => {}
                () = seat.closed() => {}
                () = client.tell(fields) => {}
            }
        }
        LoginError::Unanswered(error) => {
            tracing::debug!(%address, %error, "a connection was closed without an answer: its first packet is not of the protocol");
            client.close().await;
        }
        LoginError::Disconnected(error) => {
            tracing::debug!(%address, %error, "a client left before its session began");
        }
    }
}

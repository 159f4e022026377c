//! The end of a connection whose client gets no session.

use super::client::{Client, Socket};
use super::listen::Shutdown;
use super::login_error::LoginError;
use super::starting::Seat;

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

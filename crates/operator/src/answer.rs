//! The time limit of a request to the API server: its client has none, as a watch is to wait.

use std::time::Duration;

/// How long the API server may take for an answer.
const ANSWER: Duration = Duration::from_secs(15);

/// Waits for an answer of the API server, but not for ever.
///
/// # Errors
/// Those of the request, or no answer in time. What was asked for may have been done then.
pub(crate) async fn answer<T>(asked: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    let answered = tokio::time::timeout(ANSWER, asked).await;
    answered.unwrap_or_else(|_| {
        let message = format!("no answer in {} seconds", ANSWER.as_secs());
        Err(kube::Error::Service(message.into()))
    })
}

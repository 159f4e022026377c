//! Bounded retries, with the waits that each kind of endpoint asks for.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::transient::{self, Passes};
use crate::{SourceName, TokenError, TokenErrorKind, answer};
use pgentra_system::http::{HttpClient, HttpError, HttpErrorKind, Request, Response};
use pgentra_system::span;

/// A wait is longer by up to this share of it, so that machines which failed together do not retry together.
const JITTER: f64 = 0.1;

/// The same share where the service has too many requests. Those that it refuses in one second must not come again
/// within one second: `tests/many_pods.rs` plays it.
const THROTTLED_JITTER: f64 = 1.0;

/// How often to ask again while IMDS restarts.
const GONE_WAIT: Duration = Duration::from_secs(10);

/// The waits where a port of this machine refuses the connection and the platform puts no token service there: what is meant
/// is a local cloud that has ended.
const REFUSED_HERE: &[Duration] = &[Duration::from_millis(250), Duration::from_millis(500)];

/// The waits for an identity that the metadata service does not know: it may have been assigned a moment ago.
const NOT_KNOWN_YET: &[Duration] = &[seconds(1), seconds(2), seconds(4), seconds(8)];

/// A wait at least this long is logged as a warning, so that the user knows the reason.
const LONG_WAIT: Duration = seconds(1);

/// A request is not begun with less time than this before the deadline: it could not be completed.
const LEAST_TIME: Duration = Duration::from_millis(100);

/// How a kind of endpoint is retried.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RetryPolicy {
    /// The statuses of an answer that the caller can use.
    pub(crate) wanted: fn(u16) -> bool,
    /// The waits before the second, third, … attempt.
    pub(crate) waits: &'static [Duration],
    /// Whether a response with this status is retried.
    pub(crate) again: fn(u16) -> bool,
    /// May an identity that is not known have been assigned a moment ago?
    pub(crate) is_new: bool,
    /// Does the platform put the token service on this machine? Then it may be late where nothing listens yet.
    pub(crate) is_here: bool,
    /// How long a service that answers 410 may take to come back; zero where 410 is a refusal like others.
    pub(crate) gone: Duration,
    /// How long one attempt may take.
    pub(crate) attempt: Duration,
    /// How long one connection may take to be established.
    pub(crate) connect: Duration,
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Not 206: a part of an answer, of which none was asked for (RFC 9110 section 15.3.7).
fn is_success(status: u16) -> bool {
    (200..300).contains(&status) && status != 206
}

impl RetryPolicy {
    /// IMDS: "IMDS is updating" (404), "back within 70 seconds" (410), throttled, server errors (Microsoft:
    /// how-to-use-vm-token, "Retry guidance").
    pub(crate) const IMDS: Self = Self {
        wanted: is_success,
        waits: &[seconds(1), seconds(2), seconds(4), seconds(8), seconds(16)],
        again: |status| matches!(status, 404 | 408 | 410 | 429 | 500..600),
        is_new: false,
        is_here: false,
        gone: seconds(70),
        attempt: seconds(20),
        connect: seconds(3),
    };

    /// Local token services of a platform: they can be late when the application starts. 404 as in
    /// microsoft-authentication-library-for-dotnet (`DefaultRetryPolicy`).
    pub(crate) const LOCAL: Self = Self {
        wanted: is_success,
        waits: &[Duration::from_millis(500), seconds(1), seconds(2), seconds(4)],
        again: |status| matches!(status, 404 | 408 | 429 | 500 | 502 | 503 | 504),
        is_new: false,
        is_here: true,
        gone: Duration::ZERO,
        attempt: seconds(20),
        connect: seconds(3),
    };

    /// The agent of Azure Arc refuses the first request in order to name a file; the rest is as IMDS.
    pub(crate) const ARC: Self =
        Self { wanted: |status| is_success(status) || status == 401, ..Self::ARC_WITH_KEY };

    /// The second request to the agent of Azure Arc, with the content of the file.
    pub(crate) const ARC_WITH_KEY: Self = Self { is_here: true, ..Self::IMDS };

    /// Service Fabric (Microsoft: how-to-managed-identity-service-fabric-app-code): 404 means no such identity, throttled
    /// requests wait 1, 2, 4, 8, 16 s; the service is on the node, so an attempt is short.
    pub(crate) const SERVICE_FABRIC: Self = Self {
        waits: &[seconds(1), seconds(2), seconds(4), seconds(8), seconds(16)],
        again: |status| matches!(status, 408 | 410 | 429 | 500..600),
        attempt: seconds(5),
        ..Self::LOCAL
    };

    /// The token issuers of build services.
    pub(crate) const ISSUER: Self = Self::ENTRA;

    /// Entra's token endpoint. Which of its codes are worth another attempt: [`transient`].
    pub(crate) const ENTRA: Self = Self {
        wanted: is_success,
        waits: &[seconds(1), seconds(2), seconds(4), seconds(8)],
        again: |status| matches!(status, 408 | 429 | 500..600),
        is_new: false,
        is_here: false,
        gone: Duration::ZERO,
        attempt: seconds(30),
        connect: seconds(10),
    };

    /// Sends what `request` makes until it succeeds, is refused for good, or may not be retried any more.
    ///
    /// Every retry begins with a new request, so that it carries the newest secret. The status of the returned response
    /// is in `wanted`.
    pub(crate) async fn send(
        &self,
        http: &HttpClient,
        source: SourceName,
        deadline: Instant,
        mut request: impl FnMut() -> Result<Request, TokenError>,
    ) -> Result<Response, TokenError> {
        let mut attempts = 0;
        let mut gone_since = None;
        let mut waits = self.waits.iter();
        let (mut refused_here, mut not_known_yet) = (REFUSED_HERE.iter(), NOT_KNOWN_YET.iter());
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let prepared = request()?.limit(self.attempt.min(left)).connect_limit(self.connect.min(left));
            let (endpoint, is_to_this_machine) = (prepared.endpoint(), prepared.is_to_this_machine());
            attempts += 1;
            let result = http.send(prepared).await;
            // `wait` has the share of its jitter. It is `None` where another attempt cannot help, or the waits of this kind
            // are used up.
            let (error, wait, asked_wait) = match result {
                Ok(response) if (self.wanted)(response.status()) => return Ok(response),
                Ok(response) => {
                    let status = response.status();
                    let passes = match (self.again)(status) {
                        true if status == 429 => Passes::Throttled,
                        true => Passes::Soon,
                        false => transient::passes(&response),
                    };
                    let wait = match passes {
                        // IMDS promises to be back within 70 s of its first 410, however often it was asked.
                        Passes::Soon if status == 410 && self.gone > Duration::ZERO => {
                            let since = *gone_since.get_or_insert_with(Instant::now);
                            (since.elapsed() < self.gone).then_some((GONE_WAIT, 0.0))
                        }
                        Passes::Soon => waits.next().map(|wait| (*wait, JITTER)),
                        Passes::Throttled => waits.next().map(|wait| (*wait, THROTTLED_JITTER)),
                        Passes::WhenKnown if self.is_new => not_known_yet.next().map(|wait| (*wait, JITTER)),
                        Passes::WhenKnown | Passes::Never => None,
                    };
                    // An answer in between ends that outage: the next 410 begins another one.
                    if status != 410 {
                        gone_since = None;
                    }
                    (answer::refused(source, &response), wait, retry_after(&response))
                }
                Err(cause) => {
                    // With no token service of the platform here, a refused port is a local cloud that was stopped.
                    // The long waits would only delay that message.
                    let was_refused = is_to_this_machine && !self.is_here && is_connection_refused(&cause);
                    let (error, again) = unreachable(source, cause);
                    let waits = if was_refused { &mut refused_here } else { &mut waits };
                    (error, waits.next().filter(|_| again).map(|wait| (*wait, JITTER)), None)
                }
            };
            let error = error.endpoint_is(endpoint).after(attempts);
            let Some((wait, share)) = wait else { return Err(error) };
            // The wait that the service names (`Retry-After`) is the same for all that it refused: the jitter is added to it.
            let wait = wait.max(asked_wait.unwrap_or_default()) + wait.mul_f64(share * rand::random::<f64>());
            // The last error says more than a time-out would, so the call ends now instead of at the deadline.
            let resume = Instant::now() + wait;
            if resume + LEAST_TIME > deadline {
                return Err(error);
            }
            let (attempts, of) = (u64::from(attempts), self.waits.len() as u64 + 1);
            if wait < LONG_WAIT {
                let wait_ms = wait.as_millis() as u64;
                tracing::debug!(%source, attempts, of, wait_ms, %error, "no token yet: asking again");
            } else {
                tracing::warn!(%source, attempts, of, wait = %span::shown(wait), %error, "no token yet: asking again");
            }
            sleep_until(resume).await;
        }
    }
}

fn is_connection_refused(error: &HttpError) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
    error.kind() == HttpErrorKind::Connect
        && cause.is_some_and(|cause| cause.kind() == std::io::ErrorKind::ConnectionRefused)
}

/// The wait that the answer asks for: in seconds, or until a time by its own clock.
fn retry_after(response: &Response) -> Option<Duration> {
    let asked = response.header("retry-after")?.trim();
    match asked.parse::<u32>() {
        Ok(seconds) => Some(Duration::from_secs(seconds.into())),
        Err(_) => httpdate::parse_http_date(asked).ok()?.duration_since(response.date()?).ok(),
    }
}

/// The error for a request without an answer, and whether another attempt may help.
fn unreachable(source: SourceName, cause: HttpError) -> (TokenError, bool) {
    let (kind, message, again) = match cause.kind() {
        HttpErrorKind::Unusable => (TokenErrorKind::Config, "the request cannot be made", false),
        HttpErrorKind::Tls => {
            (TokenErrorKind::Network, "its TLS certificate or protocol is not acceptable", false)
        }
        HttpErrorKind::TooLarge => (TokenErrorKind::BadAnswer, "the answer is too long", false),
        HttpErrorKind::Timeout => (TokenErrorKind::Timeout, "no answer in time", true),
        HttpErrorKind::Protocol => (TokenErrorKind::Network, "the answer was cut off or is not HTTP", true),
        HttpErrorKind::Resolve => (TokenErrorKind::Network, "its name cannot be resolved", true),
        HttpErrorKind::Proxy => (TokenErrorKind::Network, "the proxy does not let us through", true),
        HttpErrorKind::Connect => (TokenErrorKind::Network, "it cannot be reached", true),
    };
    (TokenError::new(kind, message).at(source).caused_by(cause), again)
}

//! Connections: read a request, suffer the fault that is due, answer, write it down.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Either, Full, Limited};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::header::{DATE, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cloud::{Cloud, TokenOverrides};
use crate::door::{self, Door};
use crate::endpoint::Endpoint;
use crate::exchange::{Answer, Body, Call, Parameters};
use crate::fault::Fault;
use crate::faulty_stream::{Allowance, Cuttable};
use crate::host;
use crate::journal::{JournalEntry, ResponseOutcome};
use crate::keys::on_a_blocking_thread;

/// The largest request body that is read: an assertion is a few KiB, a certificate chain in it a few more.
const BODY_LIMIT: usize = 256 * 1024;

/// The largest request head; hyper's own least is 8 KiB.
const HEAD_LIMIT: usize = 64 * 1024;

/// How many connections one socket serves at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 1024;

/// How long a peer may take over its TLS handshake, and over the head of a request.
const PATIENCE: Duration = Duration::from_secs(30);

/// From 1970 to the year 9999, in which an HTTP date has no more digits.
const END_OF_DATES: Duration = Duration::from_secs(253_370_764_800);

/// One listening socket's share of the local cloud.
#[derive(Clone)]
pub(crate) struct EndpointServer {
    pub(crate) cloud: Arc<Cloud>,
    pub(crate) door: Door,
    pub(crate) tls: Option<Arc<ServerConfig>>,
    pub(crate) stop: CancellationToken,
}

type Payload = Either<Full<Bytes>, Endless>;

impl EndpointServer {
    /// Accepts connections until the shutdown token is cancelled.
    pub(crate) async fn run(self, listener: TcpListener, tasks: TaskTracker) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let stop = self.stop.clone();
        let accept = async {
            loop {
                // A place before the accept: what is not served yet waits in the kernel and holds no memory here.
                let Ok(place) = places.clone().acquire_owned().await else { return };
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let server = self.clone();
                        tasks.spawn(async move {
                            let stop = server.stop.clone();
                            stop.run_until_cancelled(server.connection(stream)).await;
                            drop(place);
                        });
                    }
                    // Out of file handles, most likely: give running connections a moment to end.
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
            }
        };
        stop.run_until_cancelled(accept).await;
    }

    async fn connection(self, stream: TcpStream) {
        let Some(tls) = self.tls.clone() else { return self.http(stream).await };
        match tokio::time::timeout(PATIENCE, TlsAcceptor::from(tls).accept(stream)).await {
            Ok(Ok(stream)) => self.http(stream).await,
            Ok(Err(error)) => tracing::debug!(%error, door = ?self.door, "TLS handshake failed"),
            Err(_) => tracing::debug!(door = ?self.door, "TLS handshake took too long"),
        }
    }

    async fn http(self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let allowance = Allowance::unlimited();
        let io = TokioIo::new(Cuttable::new(stream, allowance.clone()));
        let service = service_fn(|request| {
            let (server, allowance) = (self.clone(), allowance.clone());
            async move { server.exchange(request, &allowance).await }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(PATIENCE)
            .max_buf_size(HEAD_LIMIT)
            .serve_connection(io, service)
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, door = ?self.door, "connection ended early");
        }
    }

    async fn exchange(
        self,
        request: Request<Incoming>,
        allowance: &Allowance,
    ) -> Result<Response<Payload>, Infallible> {
        if let Err(refusal) =
            host::check(self.door, &self.cloud.host_names, (request.uri(), request.headers()))
        {
            tracing::warn!(door = ?self.door, "refused a request for another host or from a browser");
            return Ok(response(refusal));
        }
        let call = match read(request).await {
            Ok(call) => self.door.received(call),
            Err(refusal) => return Ok(response(refusal)),
        };
        // A path that nothing answers takes no fault out of the queue: the fault waits for the request that it is for.
        let endpoint = self.door.endpoint(&call.path);
        let Some(endpoint) = endpoint else {
            let answer = self.door.nothing_here(&call);
            self.note(&call, None, ResponseOutcome::Answered(answer.status.as_u16()));
            return Ok(response(answer));
        };
        let fault = self.cloud.faults.take(endpoint);
        if fault.is_some() {
            tracing::debug!(%endpoint, "applying a fault");
        }
        let date = self.date(fault.as_ref());
        let mut response = self.suffer(endpoint, &call, fault, allowance).await;
        // hyper writes the machine's time otherwise, and a client that compares clocks would see two.
        if let Some(date) = date {
            response.headers_mut().entry(DATE).or_insert(date);
        }
        Ok(response)
    }

    /// The time in the local cloud, or of the clock that a fault set wrong.
    fn date(&self, fault: Option<&Fault>) -> Option<HeaderValue> {
        let now = self.cloud.clock.now();
        let now = match fault {
            Some(Fault::ClockAhead(by)) => now.checked_add(*by)?,
            Some(Fault::ClockBehind(by)) => now.checked_sub(*by)?,
            _ => now,
        };
        // The form has four digits for the year.
        let writable = UNIX_EPOCH..UNIX_EPOCH + END_OF_DATES;
        writable.contains(&now).then(|| HeaderValue::try_from(httpdate::fmt_http_date(now)).ok()).flatten()
    }

    async fn suffer(
        &self,
        endpoint: Endpoint,
        call: &Call,
        fault: Option<Fault>,
        allowance: &Allowance,
    ) -> Response<Payload> {
        match &fault {
            Some(Fault::Hang) => {
                self.note(call, Some(endpoint), ResponseOutcome::Hung);
                return std::future::pending().await;
            }
            Some(Fault::Slow(delay)) => tokio::time::sleep(*delay).await,
            Some(Fault::RollOver) => {
                let cloud = self.cloud.clone();
                if let Err(error) = on_a_blocking_thread(move || cloud.keys.roll_over()).await {
                    tracing::error!(%error, "cannot make a new signing key");
                }
            }
            _ => {}
        }
        let mut answer = match &fault {
            Some(Fault::Answer { status, headers, body }) => canned(*status, headers, body),
            _ => door::answer(&self.cloud, endpoint, call, &tweaks(fault.as_ref())),
        };
        let status = answer.status.as_u16();
        match fault {
            Some(Fault::Cut { after }) => {
                allowance.limit(after as u64);
                self.note(call, Some(endpoint), ResponseOutcome::Cut(status));
                return response(answer);
            }
            Some(Fault::WrongTypes) => answer.body.swap_types(),
            Some(Fault::Malformed) => answer.body = first_half(answer.body),
            Some(Fault::HugeBody { bytes }) => {
                self.note(call, Some(endpoint), ResponseOutcome::Answered(status));
                return response(answer).map(|_| Either::Right(Endless::new(bytes)));
            }
            _ => {}
        }
        self.note(call, Some(endpoint), ResponseOutcome::Answered(status));
        response(answer)
    }

    fn note(&self, call: &Call, endpoint: Option<Endpoint>, outcome: ResponseOutcome) {
        self.cloud.journal.write(JournalEntry {
            at: self.cloud.clock.now(),
            endpoint,
            method: call.method.to_string(),
            path: call.path.clone(),
            query_keys: call.query.keys().map(str::to_owned).collect(),
            header_names: call.headers.keys().map(|name| name.as_str().to_owned()).collect(),
            outcome,
        });
    }
}

/// Reads a request in full, within [`BODY_LIMIT`].
async fn read(request: Request<Incoming>) -> Result<Call, Answer> {
    let (parts, body) = request.into_parts();
    if body.size_hint().lower() > BODY_LIMIT as u64 {
        return Err(Answer::text(StatusCode::PAYLOAD_TOO_LARGE, ""));
    }
    let body = tokio::time::timeout(PATIENCE, Limited::new(body, BODY_LIMIT).collect()).await;
    let body = match body {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => return Err(Answer::text(StatusCode::PAYLOAD_TOO_LARGE, "")),
        Err(_) => return Err(Answer::text(StatusCode::REQUEST_TIMEOUT, "")),
    };
    Ok(Call {
        method: parts.method,
        path: parts.uri.path().to_owned(),
        query: Parameters::parse(parts.uri.query().unwrap_or_default().as_bytes()),
        headers: parts.headers,
        body,
        is_probe: false,
    })
}

fn response(answer: Answer) -> Response<Payload> {
    let body = Full::new(Bytes::from(answer.body.into_text()));
    let mut response = Response::new(Either::Left(body));
    *response.status_mut() = answer.status;
    for (name, value) in answer.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().append(name, value);
        }
    }
    response
}

fn canned(status: u16, headers: &[(String, String)], body: &str) -> Answer {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Answer { status, headers: headers.to_vec(), body: Body::Text(body.to_owned()) }
}

fn tweaks(fault: Option<&Fault>) -> TokenOverrides {
    let seconds = |by: &Duration| i64::try_from(by.as_secs()).unwrap_or(i64::MAX);
    match fault {
        Some(Fault::ClockAhead(by)) => TokenOverrides { skew: seconds(by), ..TokenOverrides::default() },
        Some(Fault::ClockBehind(by)) => TokenOverrides { skew: -seconds(by), ..TokenOverrides::default() },
        Some(Fault::ShortLife(life)) => TokenOverrides { lifetime: Some(*life), ..TokenOverrides::default() },
        Some(Fault::HugeToken { bytes }) => {
            TokenOverrides { least_bytes: *bytes, ..TokenOverrides::default() }
        }
        Some(Fault::SameToken) => TokenOverrides { same: true, ..TokenOverrides::default() },
        _ => TokenOverrides::default(),
    }
}

fn first_half(body: Body) -> Body {
    let mut text = body.into_text();
    let half = text.len() / 2;
    let end = (0..=half).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    text.truncate(end);
    Body::Text(text)
}

/// `{"access_token":"AAAA…`, up to a length, made up as it is sent.
#[derive(Debug)]
struct Endless {
    opening: Bytes,
    left: u64,
}

impl Endless {
    fn new(left: u64) -> Self {
        Self { opening: Bytes::from_static(br#"{"access_token":""#), left }
    }
}

static FILLING: [u8; 16 * 1024] = [b'A'; 16 * 1024];

impl hyper::body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = if self.opening.is_empty() {
            Bytes::from_static(&FILLING)
        } else {
            std::mem::take(&mut self.opening)
        };
        let part = next.slice(..next.len().min(usize::try_from(self.left).unwrap_or(usize::MAX)));
        self.left -= part.len() as u64;
        Poll::Ready((!part.is_empty()).then(|| Ok(Frame::data(part))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

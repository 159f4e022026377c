//! Answers the API server over HTTPS.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};
use pgentra_injection::{NamespaceDefaults, Review, Sidecar};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::certificate::Served;
use super::limits::{BODY_LIMIT, Memory, Seats, WebhookLimits, WebhookSeat};
use super::metrics::WebhookMetrics;

/// Where the API server asks.
const PATH: &str = "/inject";
/// The time for the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// The buffer of a connection, which the head of a question has to fit in.
const BUFFER: usize = 16 * 1024;
/// The wait after a failed accept, such as for want of file descriptors.
const AGAIN: Duration = Duration::from_millis(100);

/// What an answer needs.
#[derive(Clone)]
pub(super) struct Answering {
    namespaces: Api<Namespace>,
    sidecar: Arc<Sidecar>,
    metrics: WebhookMetrics,
    memory: Memory,
    limits: WebhookLimits,
}

/// Why a question gets no answer.
type Failed = (StatusCode, String);

impl Answering {
    pub(super) fn new(client: Client, sidecar: Sidecar, metrics: WebhookMetrics) -> Self {
        let (sidecar, memory) = (Arc::new(sidecar), Memory::default());
        Self { namespaces: Api::all(client), sidecar, metrics, memory, limits: WebhookLimits::default() }
    }

    #[cfg(test)]
    pub(super) fn with_limits(self, limits: WebhookLimits) -> Self {
        Self { limits, ..self }
    }

    async fn answer(&self, request: Request<Incoming>, seat: &WebhookSeat) -> Response<Full<Bytes>> {
        seat.asked();
        if request.uri().path() != PATH {
            return plain(StatusCode::NOT_FOUND, "no such path");
        }
        if request.method() != Method::POST {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "an API server asks with POST");
        }
        let answered = timeout(self.limits.answer, self.review(request.into_body(), seat)).await;
        let failed = match answered {
            Ok(Ok(answer)) => return answer,
            Ok(Err((status, text))) => plain(status, text),
            Err(_) => plain(StatusCode::SERVICE_UNAVAILABLE, "the answer took too long"),
        };
        self.metrics.failed();
        failed
    }

    async fn review(&self, body: Incoming, seat: &WebhookSeat) -> Result<Response<Full<Bytes>>, Failed> {
        let (body, _long) = self.read(body).await?;
        let _work = seat.work();
        let too_many = || (StatusCode::PAYLOAD_TOO_LARGE, "the question has too many values".to_owned());
        let _values = self.memory.values(&body).await.ok_or_else(too_many)?;
        let review = Review::read(&body).map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
        let defaults = self.defaults(review.namespace()).await.map_err(|error| {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                namespace = review.namespace(),
                "cannot read a namespace"
            );
            (StatusCode::SERVICE_UNAVAILABLE, format!("the namespace cannot be read: {error}"))
        })?;
        let answer = review.answer(&defaults, &self.sidecar);
        self.metrics.answered(answer.verdict);
        tracing::debug!(namespace = review.namespace(), verdict = ?answer.verdict, "answered");
        let mut response = Response::new(Full::from(answer.review.to_string()));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(response)
    }

    /// The body of a question, and what it takes of the memory.
    async fn read(&self, mut body: Incoming) -> Result<(Vec<u8>, Option<OwnedSemaphorePermit>), Failed> {
        let (mut read, mut long) = (Vec::new(), None);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
            let Ok(data) = frame.into_data() else { continue };
            let length = read.len() + data.len();
            if length > BODY_LIMIT {
                return Err((StatusCode::PAYLOAD_TOO_LARGE, "the question is too long".to_owned()));
            }
            if long.is_none() {
                long = self.memory.body(length).await;
            }
            read.extend_from_slice(&data);
        }
        Ok((read, long))
    }

    /// What a namespace says for its pods. It is asked for each time: a default counts from the moment it is written.
    async fn defaults(&self, namespace: &str) -> Result<NamespaceDefaults, kube::Error> {
        if namespace.is_empty() {
            return Ok(NamespaceDefaults::default());
        }
        let found = self.namespaces.get_opt(namespace).await?;
        let value = found.map(serde_json::to_value).transpose().map_err(kube::Error::SerdeError)?;
        Ok(value.map(|value| NamespaceDefaults::of_namespace(&value)).unwrap_or_default())
    }
}

fn plain(status: StatusCode, text: impl Into<String>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text.into() + "\n"));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// Answers until `stop` is cancelled, and then what has begun.
pub(super) async fn serve(
    listener: TcpListener,
    answering: Answering,
    served: Arc<Served>,
    stop: CancellationToken,
) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let Ok(versions) =
        rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()
    else {
        return;
    };
    let config = versions.with_no_client_auth().with_cert_resolver(served);
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let seats = Seats::new(answering.limits.connections);
    let connections = TaskTracker::new();
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(AGAIN).await;
            continue;
        };
        let Some(seat) = seats.take() else {
            tracing::debug!("a connection of the webhook was closed: there are too many");
            continue;
        };
        let (acceptor, answering, stop) = (acceptor.clone(), answering.clone(), stop.clone());
        connections.spawn(async move {
            let seat = Arc::new(seat);
            let first = answering.limits.first;
            tokio::select! {
                ended = connection(stream, &acceptor, (answering, seat.clone()), stop) => if let Err(error) = ended {
                    tracing::debug!(%error, "a connection of the webhook ended early");
                },
                () = seat.to_be_closed(first) => tracing::debug!("an idle connection of the webhook was closed"),
            }
        });
    }
    connections.close();
    connections.wait().await;
}

async fn connection(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    (answering, seat): (Answering, Arc<WebhookSeat>),
    stop: CancellationToken,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let stream = timeout(HANDSHAKE, acceptor.accept(stream)).await??;
    let limits = answering.limits;
    let service = service_fn(move |request| {
        let (answering, seat) = (answering.clone(), seat.clone());
        async move { Ok::<_, Infallible>(answering.answer(request, &seat).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.next)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        served = serving.as_mut() => return Ok(served?),
        () = stop.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    Ok(timeout(limits.answer, serving).await??)
}

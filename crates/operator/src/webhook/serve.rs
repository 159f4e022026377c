//! Answers the API server over HTTPS.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
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
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::certificate::Served;
use super::metrics::WebhookMetrics;

/// Where the API server asks.
const PATH: &str = "/inject";
/// The largest question: an API server takes objects of 3 MiB, and an update has the object twice.
const BODY_LIMIT: usize = 7 * 1024 * 1024;
/// Connections at the same time; an API server keeps a few.
const CONNECTIONS: usize = 128;
/// The time for the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// The time until the head of the next question.
const HEAD: Duration = Duration::from_secs(120);
/// The time for a question and its answer. The API server waits no longer (`timeoutSeconds`).
const PATIENCE: Duration = Duration::from_secs(10);
/// The wait after a failed accept, such as for want of file descriptors.
const AGAIN: Duration = Duration::from_millis(100);

/// What an answer needs.
#[derive(Clone)]
pub(super) struct Answering {
    namespaces: Api<Namespace>,
    sidecar: Arc<Sidecar>,
    metrics: WebhookMetrics,
}

impl Answering {
    pub(super) fn new(client: Client, sidecar: Sidecar, metrics: WebhookMetrics) -> Self {
        Self { namespaces: Api::all(client), sidecar: Arc::new(sidecar), metrics }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if request.uri().path() != PATH {
            return plain(StatusCode::NOT_FOUND, "no such path");
        }
        if request.method() != Method::POST {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "an API server asks with POST");
        }
        let answered = timeout(PATIENCE, self.review(request.into_body())).await;
        let failed = match answered {
            Ok(Ok(answer)) => return answer,
            Ok(Err((status, text))) => plain(status, text),
            Err(_) => plain(StatusCode::SERVICE_UNAVAILABLE, "the answer took too long"),
        };
        self.metrics.failed();
        failed
    }

    async fn review(&self, body: Incoming) -> Result<Response<Full<Bytes>>, (StatusCode, String)> {
        let bad = |error: &dyn std::fmt::Display| (StatusCode::BAD_REQUEST, error.to_string());
        let body = Limited::new(body, BODY_LIMIT).collect().await.map_err(|error| bad(&error))?;
        let review = Review::read(&body.to_bytes()).map_err(|error| bad(&error))?;
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
    let seats = Arc::new(Semaphore::new(CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        let accepted = stop.run_until_cancelled(async {
            let seat = seats.clone().acquire_owned().await;
            (seat, listener.accept().await)
        });
        let Some((seat, accepted)) = accepted.await else { break };
        let (Ok(seat), Ok((stream, _))) = (seat, accepted) else {
            tokio::time::sleep(AGAIN).await;
            continue;
        };
        let (acceptor, answering, stop) = (acceptor.clone(), answering.clone(), stop.clone());
        connections.spawn(async move {
            if let Err(error) = connection(stream, &acceptor, answering, stop).await {
                tracing::debug!(%error, "a connection of the webhook ended early");
            }
            drop(seat);
        });
    }
    connections.close();
    connections.wait().await;
}

async fn connection(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    answering: Answering,
    stop: CancellationToken,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let stream = timeout(HANDSHAKE, acceptor.accept(stream)).await??;
    let service = service_fn(move |request| {
        let answering = answering.clone();
        async move { Ok::<_, Infallible>(answering.answer(request).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        served = serving.as_mut() => return Ok(served?),
        () = stop.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    Ok(timeout(PATIENCE, serving).await??)
}

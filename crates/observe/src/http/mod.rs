//! HTTP server for probes and for Prometheus.
//!
//! | request | answer |
//! |---|---|
//! | `GET /startup` | 200 when every listener is up, else 503 |
//! | `GET /readiness` | 200 while clients are to be sent here, see [`Observable::readiness`]; else 503 with the reason |
//! | `GET /liveness` | 200 |
//! | `GET /metrics` | metrics as Prometheus reads them |
//! | `POST /quitquitquit` | the program drains and ends |
//!
//! The last one is on an admin listener alone, with whatever else [`Observable::admin`] answers.

mod origin;
mod page;
mod pool;
mod reply;
mod scope;

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Uri};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

pub use self::origin::is_foreign;
pub use self::page::{page, status_page};
pub use self::pool::close_pools;
pub use self::reply::{HttpReply, Observable, only_get, plain, respond};
pub use self::scope::Scope;
use pgentra_session::listen::accept;
use pgentra_session::starting::{Bounds, Starting};

/// Connections at the same time. A probe and a scrape take one each, for milliseconds; when there
/// is one more, the oldest of the address with the most is closed.
const CONNECTIONS: usize = 256;

/// The largest request head in bytes; hyper requires at least 8 KiB.
const HEAD_LIMIT: usize = 16 * 1024;

/// The most header lines in a request.
const HEADERS_LIMIT: usize = 64;

/// The time for the head of a request, from the connection on.
const HEAD: Duration = Duration::from_secs(2);

/// The time for a connection, from its beginning to the end of its one answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// An HTTP listener that shows the state of a program.
#[derive(Debug)]
pub struct HttpServer<T> {
    listener: TcpListener,
    scope: Scope,
    telemetry: T,
}

impl<T: Observable> HttpServer<T> {
    /// An HTTP server on this listener.
    ///
    /// # Errors
    ///
    /// [`Scope::Admin`] on another address than loopback (`PermissionDenied`): any client of it may
    /// end the process.
    pub fn new(listener: TcpListener, scope: Scope, telemetry: T) -> io::Result<Self> {
        if scope == Scope::Admin && !listener.local_addr()?.ip().is_loopback() {
            let message =
                "the admin listener shows who signs in and may end the proxy: loopback addresses only";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
        Ok(Self { listener, scope, telemetry })
    }

    /// Answers until `end` is cancelled, which should be after the drain, so that probes see the
    /// drain. Dropping the future does not stop answers that have begun.
    pub async fn serve(self, end: CancellationToken) {
        let Self { listener, scope, telemetry } = self;
        serve_requests(listener, Scoped { scope, telemetry }, end).await;
    }
}

/// Answers requests without a body.
pub trait HttpHandler: Clone + Send + Sync + 'static {
    /// The answer to a request.
    fn answer(
        &self,
        method: &Method,
        headers: &HeaderMap,
        uri: &Uri,
    ) -> impl Future<Output = HttpReply> + Send;
}

/// What an [`HttpServer`] answers.
#[derive(Clone)]
struct Scoped<T> {
    scope: Scope,
    telemetry: T,
}

impl<T: Observable> HttpHandler for Scoped<T> {
    async fn answer(&self, method: &Method, headers: &HeaderMap, uri: &Uri) -> HttpReply {
        reply::answer((method, headers, uri), self.scope, &self.telemetry).await
    }
}

/// Has `handler` answer on this listener until `end` is cancelled: one request on each connection,
/// within 10 seconds. Dropping the future does not stop answers that have begun.
pub async fn serve_requests(listener: TcpListener, handler: impl HttpHandler, end: CancellationToken) {
    // There are no turns here: each connection is served at once, and the oldest is closed at the
    // limit.
    let starting = Starting::new(Bounds { held: CONNECTIONS, turns: 1 });
    while let Some((stream, _, seat)) = accept(&listener, &starting, &end).await {
        let handler = handler.clone();
        tokio::spawn(async move {
            let served = tokio::time::timeout(PATIENCE, serve_one(stream, handler));
            tokio::select! {
                biased;
                () = seat.closed() => {}
                served = served => if let Ok(Err(error)) = served {
                    tracing::debug!(%error, "an HTTP connection ended early");
                },
            }
        });
    }
}

/// Serves one connection: one request, one answer.
async fn serve_one(stream: TcpStream, handler: impl HttpHandler) -> hyper::Result<()> {
    let service = service_fn(move |request: Request<Incoming>| {
        let handler = handler.clone();
        async move {
            let (method, headers, uri) = (request.method(), request.headers(), request.uri());
            Ok::<_, Infallible>(handler.answer(method, headers, uri).await)
        }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_LIMIT)
        .max_headers(HEADERS_LIMIT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::Instant;

    use super::*;
    use crate::Exposition;

    /// A program that is ready.
    #[derive(Clone, Default)]
    struct Ready(CancellationToken);

    impl Observable for Ready {
        fn has_started(&self) -> bool {
            true
        }

        async fn readiness(&self) -> Result<String, String> {
            Ok("ready".to_owned())
        }

        fn metrics(&self, _: &str) -> Exposition {
            Exposition { text: "# EOF\n".to_owned(), content_type: "text/plain" }
        }

        fn stop(&self) -> &CancellationToken {
            &self.0
        }
    }

    async fn start() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(
            HttpServer::new(listener, Scope::Health, Ready::default())
                .unwrap()
                .serve(CancellationToken::new()),
        );
        address
    }

    /// A connection that has sent this text.
    async fn connect(address: SocketAddr, sent: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        stream
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_or_never_ends_is_hung_up_on() {
        let address = start().await;
        for sent in ["", "GET /liveness HTTP/1.1\r\nHost: x\r\n"] {
            let began = Instant::now();
            let mut stream = connect(address, sent).await;
            stream.read_to_end(&mut Vec::new()).await.unwrap();
            assert!(began.elapsed() <= PATIENCE + Duration::from_secs(1), "{:?}", began.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_of_silent_ones_is_cleared_away() {
        let address = start().await;
        let mut silent = Vec::new();
        for _ in 0..2 * CONNECTIONS {
            silent.push(connect(address, "").await);
        }
        let mut stream = connect(address, "GET /liveness HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    }
}

//! The webhook over HTTPS, with an API server that knows a few namespaces.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1 as client;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use kube::Client;
use pgentra_injection::Sidecar;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::certificate::{Bundle, Served, names};
use super::limits::WebhookLimits;
use super::metrics::WebhookMetrics;
use super::serve::{Answering, serve};

const NAME: &str = "webhook.pgentra.svc";

type Tls = tokio_rustls::client::TlsStream<TcpStream>;

/// A webhook that serves.
struct Stage {
    address: SocketAddr,
    served: Arc<Served>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn bundle(before: Option<&Bundle>) -> Bundle {
    // The verifier of the client reads the real clock.
    let now = UNIX_EPOCH + Duration::from_secs(super::certificate::seconds(now()));
    Bundle::make(&names("webhook", "pgentra"), Duration::from_secs(3600), now, before).unwrap()
}

fn now() -> SystemTime {
    pgentra_system::Clock::now(&pgentra_system::SystemClock)
}

impl Stage {
    async fn start(bundle: &Bundle) -> Self {
        Self::with_limits(bundle, WebhookLimits::default()).await
    }

    /// A connection of a client that trusts these authorities; the certificate that it was shown.
    async fn connect(
        &self,
        authorities: &str,
    ) -> std::io::Result<(client::SendRequest<Full<Bytes>>, Vec<u8>)> {
        let stream = self.tls(authorities).await?;
        let shown = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
        let (sender, connection) = client::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Ok((sender, shown))
    }

    async fn tls(&self, authorities: &str) -> std::io::Result<Tls> {
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
            roots.add(authority.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap();
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let stream = TcpStream::connect(self.address).await?;
        TlsConnector::from(Arc::new(config)).connect(NAME.try_into().unwrap(), stream).await
    }
}

async fn ask(
    sender: &mut client::SendRequest<Full<Bytes>>,
    (method, path): (Method, &str),
    body: impl Into<Bytes>,
) -> (StatusCode, String) {
    let request =
        Request::builder().method(method).uri(path).header("Host", NAME).body(Full::new(body.into()));
    let response = sender.send_request(request.unwrap()).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// An API server: the namespace `shop` names a server, `broken` cannot be read, and there is no other.
async fn api_server() -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service_fn(async |request: Request<hyper::body::Incoming>| {
                let status = |code: u16, reason: &str| json!({ "kind": "Status", "status": "Failure", "message": "no", "reason": reason, "code": code });
                let (code, body) = match request.uri().path() {
                    "/api/v1/namespaces/shop" => (
                        200,
                        json!({ "metadata": { "name": "shop", "annotations": {
                            "pgentra.dev/target": "postgresql://my-app@one/app",
                        }}}),
                    ),
                    "/api/v1/namespaces/broken" => (500, status(500, "InternalError")),
                    _ => (404, status(404, "NotFound")),
                };
                let body = Full::<Bytes>::from(body.to_string());
                Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap())
            });
            tokio::spawn(server::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    let config = kube::Config::new(format!("http://{address}").parse().unwrap());
    Client::try_from(config).unwrap()
}

fn question(namespace: &str, annotations: &Value) -> String {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": { "uid": "a", "namespace": namespace, "object": {
            "apiVersion": "v1", "kind": "Pod", "metadata": { "annotations": annotations },
            "spec": { "containers": [{ "name": "app" }] },
        }},
    })
    .to_string()
}

#[tokio::test]
async fn questions_are_answered_and_others_are_refused() {
    let bundle = bundle(None);
    let stage = Stage::start(&bundle).await;
    let (mut sender, _) = stage.connect(&bundle.authorities).await.unwrap();
    let post = (Method::POST, "/inject");
    let asks = json!({ "pgentra.dev/inject": "true" });

    let (status, text) = ask(&mut sender, post.clone(), question("shop", &asks)).await;
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &answer["response"]["allowed"]), (StatusCode::OK, &json!(true)), "{text}");
    assert!(answer["response"]["patch"].is_string(), "{text}");

    // A namespace that is being made has no defaults yet.
    let (status, text) = ask(&mut sender, post.clone(), question("new", &asks)).await;
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &answer["response"]["status"]["code"]), (StatusCode::OK, &json!(400)), "{text}");

    for (request, body, expected, why) in [
        (
            post.clone(),
            question("broken", &asks),
            StatusCode::SERVICE_UNAVAILABLE,
            "the namespace cannot be read",
        ),
        (post.clone(), "no JSON".to_owned(), StatusCode::BAD_REQUEST, "no JSON"),
        (post.clone(), "{}".to_owned(), StatusCode::BAD_REQUEST, "no AdmissionReview"),
        ((Method::GET, "/inject"), String::new(), StatusCode::METHOD_NOT_ALLOWED, "POST"),
        ((Method::POST, "/"), String::new(), StatusCode::NOT_FOUND, "path"),
        (post.clone(), " ".repeat(7 * 1024 * 1024 + 1), StatusCode::PAYLOAD_TOO_LARGE, "too long"),
    ] {
        let (mut sender, _) = stage.connect(&bundle.authorities).await.unwrap();
        let (status, text) = ask(&mut sender, request, body).await;
        assert!(status == expected && text.contains(why), "{status} {text}");
    }
    stage.stop.cancel();
    stage.task.await.unwrap();
}

#[tokio::test]
async fn a_new_certificate_is_for_new_connections() {
    let first = bundle(None);
    let second = bundle(Some(&first));
    let stage = Stage::start(&first).await;
    let (mut open, shown_first) = stage.connect(&second.authorities).await.unwrap();
    stage.served.set(second.certified().unwrap());
    let (_, shown_second) = stage.connect(&second.authorities).await.unwrap();
    assert_ne!(shown_first, shown_second);
    assert!(stage.connect(&first.authorities).await.is_err(), "the authority is another one");
    let asks = json!({ "pgentra.dev/inject": "true" });
    let (status, _) = ask(&mut open, (Method::POST, "/inject"), question("shop", &asks)).await;
    assert_eq!(status, StatusCode::OK);
}

impl Stage {
    async fn with_limits(bundle: &Bundle, limits: WebhookLimits) -> Self {
        let served = Arc::new(Served::default());
        served.set(bundle.certified().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sidecar, metrics) = (Sidecar::of_image("pgentra:1"), WebhookMetrics::default());
        let answering = Answering::new(api_server().await, sidecar, metrics).with_limits(limits);
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(listener, answering, served.clone(), stop.clone()));
        Self { address, served, stop, task }
    }

    /// Asks on a new connection.
    async fn ask(&self, bundle: &Bundle, body: impl Into<Bytes>) -> (StatusCode, String) {
        let (mut sender, _) = self.connect(&bundle.authorities).await.unwrap();
        ask(&mut sender, (Method::POST, "/inject"), body).await
    }

    /// A client that sends the head of a question of a mebibyte and this much of its body.
    async fn stalls(&self, bundle: &Bundle, sent: usize) -> Tls {
        let mut stream = self.tls(&bundle.authorities).await.unwrap();
        let head = format!("POST /inject HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 1048576\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&vec![b' '; sent]).await.unwrap();
        stream.flush().await.unwrap();
        stream
    }
}

/// No time ends anything while a test runs, however slow the machine is.
fn patient() -> WebhookLimits {
    let [first, next, answer] = [Duration::from_secs(600); 3];
    WebhookLimits { first, next, answer, ..WebhookLimits::default() }
}

/// The answer of the webhook, until it closes the connection.
async fn rest(mut stream: impl AsyncRead + Unpin) -> String {
    let mut text = Vec::new();
    // A connection that is closed in the middle of a question is reset.
    let _ = timeout(Duration::from_secs(30), stream.read_to_end(&mut text)).await.expect("an end");
    String::from_utf8(text).unwrap()
}

fn asks() -> Value {
    json!({ "pgentra.dev/inject": "true" })
}

#[tokio::test]
async fn clients_that_wait_do_not_keep_a_question_from_being_answered() {
    let bundle = bundle(None);
    let stage = Stage::with_limits(&bundle, patient()).await;
    let most = patient().connections;
    let (mut first, _) = stage.connect(&bundle.authorities).await.unwrap();
    let mut waiting = Vec::new();
    for number in 0..most * 3 {
        waiting.push(match number % 3 {
            0 => Waits::Handshake(TcpStream::connect(stage.address).await.unwrap()),
            1 => Waits::Head(stage.tls(&bundle.authorities).await.unwrap()),
            _ => Waits::Body(stage.stalls(&bundle, 10).await),
        });
        if number % most == 0 {
            let (status, text) = stage.ask(&bundle, question("shop", &asks())).await;
            assert_eq!(status, StatusCode::OK, "{text}");
        }
    }
    let (status, text) = stage.ask(&bundle, question("shop", &asks())).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    // The ones that have waited for the longest time were closed, and the newest are open.
    assert!(first.ready().await.is_err());
    for (number, waiting) in waiting.into_iter().take(most).enumerate() {
        let said = match waiting {
            Waits::Handshake(stream) => rest(stream).await,
            Waits::Head(stream) | Waits::Body(stream) => rest(stream).await,
        };
        assert_eq!(said, "", "{number}");
    }
    stage.stop.cancel();
    stage.task.await.unwrap();
}

/// What a client keeps the webhook waiting for.
enum Waits {
    Handshake(TcpStream),
    Head(Tls),
    Body(Tls),
}

#[tokio::test]
async fn a_connection_without_a_question_is_closed_and_an_idle_one_stays() {
    let bundle = bundle(None);
    let limits = WebhookLimits { first: Duration::from_millis(500), ..WebhookLimits::default() };
    let stage = Stage::with_limits(&bundle, limits).await;
    let (mut has_asked, _) = stage.connect(&bundle.authorities).await.unwrap();
    let post = (Method::POST, "/inject");
    ask(&mut has_asked, post.clone(), question("shop", &asks())).await;
    let silent = stage.tls(&bundle.authorities).await.unwrap();
    assert_eq!(rest(silent).await, "");
    let (status, _) = ask(&mut has_asked, post, question("shop", &asks())).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn a_long_question_that_stalls_is_given_up_and_keeps_no_short_one_waiting() {
    let bundle = bundle(None);
    let limits = WebhookLimits { answer: Duration::from_secs(2), ..WebhookLimits::default() };
    let stage = Stage::with_limits(&bundle, limits).await;
    let stalled = stage.stalls(&bundle, 300 * 1024).await;
    let (status, text) = stage.ask(&bundle, question("shop", &asks())).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    let said = rest(stalled).await;
    assert!(said.starts_with("HTTP/1.1 503") && said.contains("the answer took too long"), "{said}");
    let long = question("shop", &json!({ "pgentra.dev/inject": "true", "a": "x".repeat(400 * 1024) }));
    let (status, text) = stage.ask(&bundle, long).await;
    assert_eq!(status, StatusCode::OK, "{text}");
}

/// Each connection of the webhook asks what takes the most memory, as `limits.memory` of the chart allows it.
#[tokio::test(flavor = "multi_thread")]
async fn questions_on_all_connections_stay_within_the_memory_of_the_chart() {
    let bundle = bundle(None);
    let stage = Stage::with_limits(&bundle, patient()).await;
    // As text: the values would be in the memory of this process too.
    let many = |count: usize| {
        let values = format!("[{{\"a\":0}}{}]", ",{\"a\":0}".repeat(count));
        question("shop", &json!({ "a": "VALUES" })).replace("\"VALUES\"", &values)
    };
    let (status, text) = stage.ask(&bundle, many(100_000)).await;
    assert!(status == StatusCode::PAYLOAD_TOO_LARGE && text.contains("too many values"), "{status} {text}");
    let [short, long] = [20_000, 22_000].map(|count| Bytes::from(many(count)));
    let padded = Bytes::from([&long[..], &vec![b' '; 1024 * 1024]].concat());
    let asked = (0..patient().connections).map(|number| {
        let body = if number % 8 == 0 { padded.clone() } else { short.clone() };
        stage.ask(&bundle, body)
    });
    for (status, text) in futures_util::future::join_all(asked).await {
        assert!(status == StatusCode::OK, "{status} {text}");
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    let peak: usize = peak.unwrap().trim().parse().unwrap();
    println!("peak: {} MiB", peak / 1024);
    assert!(peak < 256 * 1024, "{peak} KiB");
}

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
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::certificate::{Bundle, Served, names};
use super::metrics::WebhookMetrics;
use super::serve::{Answering, serve};

const NAME: &str = "webhook.pgentra.svc";

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
        let served = Arc::new(Served::default());
        served.set(bundle.certified().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answering =
            Answering::new(api_server().await, Sidecar::of_image("pgentra:1"), WebhookMetrics::default());
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(listener, answering, served.clone(), stop.clone()));
        Self { address, served, stop, task }
    }

    /// A connection of a client that trusts these authorities; the certificate that it was shown.
    async fn connect(
        &self,
        authorities: &str,
    ) -> std::io::Result<(client::SendRequest<Full<Bytes>>, Vec<u8>)> {
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
        let stream = TlsConnector::from(Arc::new(config)).connect(NAME.try_into().unwrap(), stream).await?;
        let shown = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
        let (sender, connection) = client::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Ok((sender, shown))
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
        (post.clone(), " ".repeat(7 * 1024 * 1024 + 1), StatusCode::BAD_REQUEST, "length limit exceeded"),
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

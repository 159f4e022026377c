use std::error::Error as _;
use std::net::{Ipv4Addr, SocketAddr};

use pgentra_emulator::certificates::Authority;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::*;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A TLS server with a certificate for these names, which answers every connection once.
async fn tls_server(authority: &Authority, names: &[&str]) -> SocketAddr {
    let issued = authority.issue(names).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(issued.chain, issued.key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(ANSWER).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    address
}

/// A proxy that connects every CONNECT to `target` and remembers what it was asked.
async fn proxy(target: SocketAddr) -> (SocketAddr, Arc<std::sync::Mutex<Vec<String>>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            log.lock().unwrap().push(String::from_utf8(head).unwrap());
            stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
            let mut upstream = TcpStream::connect(target).await.unwrap();
            let _ = copy_bidirectional(&mut stream, &mut upstream).await;
        }
    });
    (address, asked)
}

fn client(variables: &[(&str, &str)], files: &Files) -> HttpClient {
    HttpClient::new(&Env::from_map(variables.iter().copied()), files)
}

#[tokio::test]
async fn certificates_and_names_are_checked() {
    let authority = Authority::generate().unwrap();
    let address = tls_server(&authority, &["login.example"]).await;
    let trusting = client(&[], &Files::in_memory()).with_extra_roots(authority.pem().as_bytes()).unwrap();
    let trusting =
        trusting.with_route("login.example", 443, address).with_route("other.example", 443, address);
    assert_eq!(trusting.get("https://login.example/").await.unwrap().body(), b"ok");
    let wrong_name = trusting.get("https://other.example/").await.unwrap_err();
    assert_eq!(wrong_name.kind(), HttpErrorKind::Tls);

    let other_authority = Authority::generate().unwrap();
    let unknown =
        client(&[], &Files::in_memory()).with_extra_roots(other_authority.pem().as_bytes()).unwrap();
    let unknown =
        unknown.with_route("login.example", 443, address).get("https://login.example/").await.unwrap_err();
    assert_eq!(unknown.kind(), HttpErrorKind::Tls);
    assert!(unknown.source().unwrap().to_string().contains("certificate"), "{:?}", unknown.source());
}

#[tokio::test]
async fn the_file_that_ssl_cert_file_names_is_trusted() {
    let authority = Authority::generate().unwrap();
    let address = tls_server(&authority, &["login.example"]).await;
    let files = Files::in_memory();
    let variables = [("SSL_CERT_FILE", "/ca.pem")];
    let get = async |files: &Files| {
        let client = client(&variables, files).with_route("login.example", 443, address);
        client.get("https://login.example/").await
    };
    assert_eq!(get(&files).await.unwrap_err().kind(), HttpErrorKind::Unusable, "the file does not exist");
    files.put("/ca.pem", "not a certificate");
    assert_eq!(get(&files).await.unwrap_err().kind(), HttpErrorKind::Unusable, "the file is rubbish");
    files.put("/ca.pem", authority.pem());
    assert!(get(&files).await.unwrap().is_success());
}

#[tokio::test]
async fn https_goes_through_the_proxy_and_what_is_local_does_not() {
    let authority = Authority::generate().unwrap();
    let address = tls_server(&authority, &["login.example", "localhost"]).await;
    let (proxy, asked) = proxy(address).await;
    let url = format!("http://user:pass@{proxy}");
    let variables = [("HTTPS_PROXY", url.as_str()), ("NO_PROXY", "direct.example,10.0.0.0/8")];
    let trusting =
        client(&variables, &Files::in_memory()).with_extra_roots(authority.pem().as_bytes()).unwrap();

    assert!(trusting.get("https://login.example/").await.unwrap().is_success());
    let head = asked.lock().unwrap().pop().unwrap();
    assert!(head.starts_with("CONNECT login.example:443 HTTP/1.1\r\n"), "{head}");
    assert!(head.to_ascii_lowercase().contains("proxy-authorization: basic dxnlcjpwyxnz"), "{head}");

    let url = format!("https://localhost:{}/", address.port());
    assert!(trusting.get(&url).await.unwrap().is_success());
    assert!(asked.lock().unwrap().is_empty(), "a local host was reached through the proxy");

    let excepted = trusting.with_route("direct.example", 443, address);
    assert_eq!(excepted.get("https://direct.example/").await.unwrap_err().kind(), HttpErrorKind::Tls);
    assert!(asked.lock().unwrap().is_empty(), "an excepted host was reached through the proxy");
}

#[tokio::test]
async fn a_plain_request_builds_no_tls_configuration() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await;
        stream.write_all(ANSWER).await.unwrap();
    });
    let client = client(&[("SSL_CERT_FILE", "/missing.pem")], &Files::in_memory());
    assert_eq!(client.get(&url).await.unwrap().body(), b"ok");
    assert!(!client.dialer.tls.is_built());
}

#[tokio::test]
async fn a_proxy_of_another_kind_is_refused_and_not_passed_by() {
    for url in ["https://proxy.example:8443", "socks5://proxy.example:1080"] {
        let client = client(&[("HTTPS_PROXY", url)], &Files::in_memory());
        let error = client.get("https://login.example/").await.unwrap_err();
        assert_eq!(error.kind(), HttpErrorKind::Unusable, "{url}: {error}");
    }
}

#[test]
fn urls_that_cannot_be_meant_are_refused() {
    for url in [
        "",
        "login.microsoftonline.com",
        "ftp://login.microsoftonline.com/",
        "https://",
        "https:///path",
        "https://user:secret@host/",
        "http://host/with blank",
        &format!("http://host/{}", "a".repeat(9000)),
    ] {
        let error = Request::get(url).unwrap_err();
        assert_eq!(error.kind(), HttpErrorKind::Unusable, "{url}");
        assert!(!error.to_string().contains("secret"));
    }
}

#[test]
fn a_header_cannot_be_smuggled_in() {
    let request = Request::get("http://host/").unwrap();
    assert!(request.secret_header("x-identity-header", "a\r\nHost: b").is_err());
}

#[test]
fn debug_shows_no_query_and_no_header() {
    let request =
        Request::get("http://host/path?code=hunter2").unwrap().secret_header("secret", "hunter2").unwrap();
    let shown = format!("{request:?} {}", request.endpoint());
    assert!(shown.contains("/path") && !shown.contains("hunter2"), "{shown}");
}

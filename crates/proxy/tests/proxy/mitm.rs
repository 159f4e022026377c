//! An attacker that answers in place of the server gets no byte of a token.

use std::sync::{Arc, Mutex};

use pgentra_emulator::certificates::Authority;
use pgentra_proxy::Naming;
use pgentra_session::Limits;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::fixture::{ROLE, Running, Stage, run};

/// How the attacker answers SSLRequest.
enum Answer {
    /// `N`, and a request for the password at once.
    Declines,
    /// TLS with this certificate, and a request for the password behind it.
    Shows(Arc<ServerConfig>),
}

/// Invariant 1: no token for a server that declines TLS, has another name, or has a certificate of
/// an unknown authority.
#[test]
fn a_man_in_the_middle_gets_nothing() {
    run(async {
        let stage = Stage::shared().await;
        let token = stage.token().await;
        let trusted = Authority::generate().unwrap();
        let roots = trusted.pem().to_owned();
        for (about, answer, message) in [
            ("declines TLS", Answer::Declines, "has no TLS"),
            ("another name", shows(&trusted, "evil.example"), "is not for localhost"),
            (
                "an authority of its own",
                shows(&Authority::generate().unwrap(), "localhost"),
                "not signed by a trusted authority",
            ),
            ("itself", self_signed(), "certificate"),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let received = Arc::new(Mutex::new(Vec::new()));
            let middle = tokio::spawn(listen(listener, answer, Arc::clone(&received)));
            let connector = stage.connector_to(port, "", &roots);
            let running = Running::new(connector, Naming::Same, Limits::default()).await;
            let refusal = running.refusal(ROLE, "postgres").await;
            assert_eq!(refusal.code().code(), "08001", "{about}");
            assert!(refusal.message().contains(message), "{about}: {refusal:?}");
            assert!(refusal.hint().is_some(), "{about}");
            middle.await.unwrap();
            let received = received.lock().unwrap();
            assert!(!received.is_empty(), "{about}");
            for secret in token.split('.').chain([ROLE]) {
                let found = received.windows(secret.len()).any(|bytes| bytes == secret.as_bytes());
                assert!(!found, "{about}");
            }
        }
    });
}

fn shows(authority: &Authority, name: &str) -> Answer {
    Answer::Shows(authority.issue(&[name]).unwrap().server_config(&[b"postgresql"]).unwrap())
}

/// For the right name, and signed by its own key.
fn self_signed() -> Answer {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    Answer::Shows(Arc::new(config))
}

/// Accepts one connection and keeps the bytes it receives, in clear text and inside TLS.
async fn listen(listener: TcpListener, answer: Answer, received: Arc<Mutex<Vec<u8>>>) {
    const WANTS_PASSWORD: &[u8] = b"R\0\0\0\x08\0\0\0\x03";
    let keep = |bytes: &[u8]| received.lock().unwrap().extend_from_slice(bytes);
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut request = [0; 8];
    stream.read_exact(&mut request).await.unwrap();
    keep(&request);
    let mut rest = Vec::new();
    match answer {
        Answer::Declines => {
            stream.write_all(b"N").await.unwrap();
            // The client may have hung up already.
            let _ = stream.write_all(WANTS_PASSWORD).await;
            let _ = stream.read_to_end(&mut rest).await;
        }
        Answer::Shows(config) => {
            stream.write_all(b"S").await.unwrap();
            if let Ok(mut stream) = TlsAcceptor::from(config).accept(stream).await {
                let _ = stream.write_all(WANTS_PASSWORD).await;
                let _ = stream.read_to_end(&mut rest).await;
            }
        }
    }
    keep(&rest);
}

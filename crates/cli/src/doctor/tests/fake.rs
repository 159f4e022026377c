//! Servers that fail at one step.

use std::path::PathBuf;
use std::sync::Arc;

use pgentra_emulator::certificates::Authority;
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;

/// AuthenticationCleartextPassword.
pub(super) const CLEARTEXT: &[u8] = b"R\0\0\0\x08\0\0\0\x03";
/// AuthenticationMD5Password with a salt.
pub(super) const MD5: &[u8] = b"R\0\0\0\x0c\0\0\0\x05salt";
/// AuthenticationSASL with one mechanism.
pub(super) const SCRAM: &[u8] = b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0";
/// AuthenticationOk, a cancel key, ReadyForQuery.
pub(super) const READY: &[u8] = b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\0\x01\0\0\0\x02Z\0\0\0\x05I";

/// A server on loopback; it answers as long as the runtime lives.
pub(super) struct Fake {
    pub(super) port: u16,
    /// A connection that stays in the accept queue.
    _queued: Option<TcpStream>,
}

/// The answers of a server behind TLS to each message of the client, beginning with the start-up
/// packet; then it hangs up, or stays silent.
#[derive(Clone)]
pub(super) struct Script {
    pub(super) says: Vec<Vec<u8>>,
    pub(super) stays: bool,
}

impl Script {
    /// Asks for the token and then refuses it.
    pub(super) fn refuses(sqlstate: &str, message: &str) -> Script {
        Script { says: vec![CLEARTEXT.to_vec(), error(sqlstate, message)], stays: false }
    }

    /// Sends these bytes at once.
    pub(super) fn says(bytes: &[u8]) -> Script {
        Script { says: vec![bytes.to_vec()], stays: false }
    }
}

impl Fake {
    /// Sends these bytes after an SSLRequest.
    pub(super) async fn in_the_clear(answer: &'static [u8], stays: bool) -> Fake {
        Fake::start(move |mut stream: TcpStream| async move {
            let mut request = [0; 8];
            stream.read_exact(&mut request).await.ok()?;
            stream.write_all(answer).await.ok()?;
            if stays {
                let _hung_up = stream.read(&mut request).await;
            }
            Some(())
        })
        .await
    }

    /// Answers every HTTP request with these bytes.
    pub(super) async fn over_http(answer: &'static [u8]) -> Fake {
        Fake::start(move |mut stream: TcpStream| async move {
            let mut request = [0; 1024];
            let _length = stream.read(&mut request).await.ok()?;
            stream.write_all(answer).await.ok()
        })
        .await
    }

    /// Negotiates TLS with this certificate and then follows the script.
    pub(super) async fn behind_tls(config: Arc<ServerConfig>, script: Script) -> Fake {
        let acceptor = TlsAcceptor::from(config);
        Fake::start(move |mut stream: TcpStream| {
            let (acceptor, script) = (acceptor.clone(), script.clone());
            async move {
                let mut request = [0; 8];
                stream.read_exact(&mut request).await.ok()?;
                stream.write_all(b"S").await.ok()?;
                play(acceptor.accept(stream).await.ok()?, script).await
            }
        })
        .await
    }

    /// Never accepts: further connections get no answer, as from a firewall that drops packets.
    pub(super) async fn black_hole() -> Fake {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let queued = TcpStream::connect(address).await.unwrap();
        // The listener must stay open without accepting.
        tokio::spawn(async move {
            let _kept = listener;
            std::future::pending::<()>().await
        });
        Fake { port: address.port(), _queued: Some(queued) }
    }

    async fn start<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Fake
    where
        F: Future<Output = Option<()>> + Send + 'static,
    {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
        Fake { port, _queued: None }
    }
}

async fn play(mut stream: impl AsyncRead + AsyncWrite + Unpin, script: Script) -> Option<()> {
    for (number, answer) in script.says.iter().enumerate() {
        if number > 0 {
            let _tag = stream.read_u8().await.ok()?;
        }
        let length = stream.read_u32().await.ok()?;
        let mut body = vec![0; usize::try_from(length).ok()? - 4];
        stream.read_exact(&mut body).await.ok()?;
        stream.write_all(answer).await.ok()?;
        stream.flush().await.ok()?;
    }
    if script.stays {
        let mut rest = Vec::new();
        let _hung_up = stream.read_to_end(&mut rest).await;
    }
    let _closed = stream.shutdown().await;
    Some(())
}

/// An ErrorResponse.
pub(super) fn error(sqlstate: &str, message: &str) -> Vec<u8> {
    let fields = format!("SFATAL\0VFATAL\0C{sqlstate}\0M{message}\0\0");
    let length = u32::try_from(fields.len() + 4).unwrap();
    [b"E", &length.to_be_bytes()[..], fields.as_bytes()].concat()
}

/// A certificate authority, in a file, and what it signs.
pub(super) struct Trust {
    authority: Authority,
    pub(super) file: PathBuf,
}

impl Trust {
    pub(super) fn new(folder: &std::path::Path) -> Trust {
        let authority = Authority::named("Test Root").unwrap();
        let file = folder.join("root.pem");
        std::fs::write(&file, authority.pem()).unwrap();
        Trust { authority, file }
    }

    pub(super) fn for_names(&self, names: &[&str]) -> Arc<ServerConfig> {
        self.authority.issue(names).unwrap().server_config(&[b"postgresql"]).unwrap()
    }
}

/// An expired certificate for `localhost`, with its authority in a file.
pub(super) fn outdated(folder: &std::path::Path) -> (PathBuf, Arc<ServerConfig>) {
    let mut root = rcgen::CertificateParams::new(Vec::new()).unwrap();
    root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    let root = rcgen::CertifiedIssuer::self_signed(root, rcgen::KeyPair::generate().unwrap()).unwrap();
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2001, 1, 1);
    params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &root).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let file = folder.join("outdated.pem");
    std::fs::write(&file, root.pem()).unwrap();
    (file, Arc::new(config))
}

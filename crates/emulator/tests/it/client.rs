//! A plain HTTP client, and a local cloud whose clock stands still.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use pgentra_emulator::{Clock, Ids, LocalAzure, Options};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

pub(crate) const POSTGRESQL: &str = "https://ossrdbms-aad.database.windows.net";

/// Where every clock of these tests starts.
pub(crate) const START: i64 = 1_900_000_000;

pub(crate) fn start_time() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(START.unsigned_abs())
}

pub(crate) fn options() -> Options {
    let mut options = Options::new(Clock::fixed(start_time()));
    options.ids = Ids::derived("tests");
    options
}

pub(crate) async fn start() -> LocalAzure {
    LocalAzure::start(options()).await.unwrap()
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    #[track_caller]
    pub(crate) fn token(&self) -> String {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()["access_token"].as_str().unwrap().to_owned()
    }
}

/// One request on a connection of its own.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    method: &'static str,
    url: String,
    headers: Vec<(String, String)>,
    body: String,
    roots: Option<String>,
}

impl Ask {
    pub(crate) fn get(url: impl Into<String>) -> Self {
        Self { method: "GET", url: url.into(), headers: Vec::new(), body: String::new(), roots: None }
    }

    pub(crate) fn post(url: impl Into<String>, form: &[(&str, &str)]) -> Self {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        Self { method: "POST", body, ..Self::get(url) }
            .header("content-type", "application/x-www-form-urlencoded")
    }

    pub(crate) fn method(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<String>) -> Self {
        self.body = body.into();
        self
    }

    /// Trusts this authority's certificate alone.
    pub(crate) fn trusting(mut self, pem: &str) -> Self {
        self.roots = Some(pem.to_owned());
        self
    }

    pub(crate) async fn send(self) -> Result<Reply, Box<dyn Error + Send + Sync>> {
        let (scheme, rest) = self.url.split_once("://").unwrap();
        let (authority, _) = rest.split_once('/').unwrap_or((rest, ""));
        let stream = TcpStream::connect(authority).await?;
        if scheme == "http" {
            return self.over(stream, authority).await;
        }
        let host = authority.rsplit_once(':').unwrap().0.trim_matches(['[', ']']);
        let connector = TlsConnector::from(tls(self.roots.as_deref().unwrap_or_default()));
        let stream = connector.connect(ServerName::try_from(host.to_owned())?, stream).await?;
        self.over(stream, authority).await
    }

    pub(crate) async fn over(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        host: &str,
    ) -> Result<Reply, Box<dyn Error + Send + Sync>> {
        let path = self.url.splitn(4, '/').nth(3).unwrap_or_default();
        let mut request = Request::builder().method(self.method).uri(format!("/{path}")).header("host", host);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(Bytes::from(self.body.clone())))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let (parts, body) = sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes().to_vec();
        connection.abort();
        Ok(Reply { status: parts.status.as_u16(), headers: parts.headers, body })
    }
}

pub(crate) fn tls(pem: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

/// A virtual machine's token request, with further parameters.
pub(crate) fn imds(azure: &LocalAzure, more: &str) -> Ask {
    let url = azure.metadata_url();
    let resource = encode(POSTGRESQL);
    Ask::get(format!("{url}/metadata/identity/oauth2/token?api-version=2018-02-01&resource={resource}{more}"))
        .header("Metadata", "true")
}

pub(crate) fn encode(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

//! A local cloud for each flavour, shared by all tests of this program; a gateway for each test.

use std::future::Future;
use std::net::Ipv4Addr;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use pgentra_emulator::{Clock, Draft, LocalAzure};
use pgentra_gateway::{Config, Flavour, ServiceAccount, UpstreamAddress};
use pgentra_local::{LocalCloud, RunningGateway};
use pgentra_wire::startup::{ALPN, encode_ssl_request};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use secrecy::ExposeSecret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub(crate) use pgentra_local::SERVER_NAME;

pub(crate) const RESOURCE: &str = "https://ossrdbms-aad.database.windows.net";

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    crate::logs::keep();
    Runtime::new().unwrap()
});
static FLEXIBLE: OnceCell<Stage> = OnceCell::const_new();
static SINGLE: OnceCell<Stage> = OnceCell::const_new();

/// Runs a test on the runtime that the shared servers live on.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    RUNTIME.block_on(test)
}

/// The tenant of the Flexible Server. Its clock stands still.
pub(crate) async fn azure() -> &'static LocalAzure {
    Stage::flexible().await.azure()
}

/// A token of the tenant of the Flexible Server.
pub(crate) async fn token(draft: &Draft) -> String {
    Stage::flexible().await.token(draft)
}

/// A token of the virtual machine, for the Flexible Server.
pub(crate) async fn vm_token() -> String {
    Stage::flexible().await.vm_token()
}

/// A local cloud whose directory has one name twice.
pub(crate) struct Stage {
    cloud: LocalCloud,
}

impl Stage {
    pub(crate) async fn flexible() -> &'static Self {
        FLEXIBLE.get_or_init(|| Self::new(Flavour::Flexible)).await
    }

    pub(crate) async fn single() -> &'static Self {
        SINGLE.get_or_init(|| Self::new(Flavour::Single)).await
    }

    async fn new(flavour: Flavour) -> Self {
        let clock = Clock::fixed(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let cloud = LocalCloud::builder().flavour(flavour).clock(clock).tenant(|azure| {
            azure.new_identity("twin");
            azure.new_identity("twin");
        });
        Self { cloud: cloud.start().await.unwrap() }
    }

    /// Prepares the server again.
    pub(crate) async fn init(&self) {
        let setup = self.cloud.gateway_setup();
        pgentra_gateway::init(&self.upstream(), &self.service(), setup).await.unwrap();
    }

    pub(crate) fn azure(&self) -> &LocalAzure {
        self.cloud.azure()
    }

    pub(crate) fn token(&self, draft: &Draft) -> String {
        self.azure().mint(draft).unwrap().expose_secret().to_owned()
    }

    pub(crate) fn vm_token(&self) -> String {
        self.token(&Draft::of_identity(self.azure().vm(), RESOURCE))
    }

    pub(crate) fn upstream(&self) -> UpstreamAddress {
        self.cloud.gateway_config().upstream
    }

    pub(crate) fn service(&self) -> ServiceAccount {
        self.cloud.gateway_config().service
    }

    /// A superuser session without the gateway.
    pub(crate) async fn superuser(&self) -> Client {
        self.cloud.superuser("postgres").await.unwrap()
    }

    pub(crate) async fn gateway(&self) -> Running {
        self.gateway_with(|_| {}).await
    }

    pub(crate) async fn gateway_with(&self, change: impl FnOnce(&mut Config)) -> Running {
        let mut config = self.cloud.gateway_config();
        change(&mut config);
        Running::new(RunningGateway::start(config, 0).await.unwrap(), self.azure().ca_pem())
    }

    /// Signs in as the Entra administrator.
    pub(crate) async fn administrator(&self, gateway: &Running) -> Client {
        let administrator = self.azure().administrator();
        let token = self.token(&Draft::of_user(administrator, RESOURCE));
        gateway.connect(administrator.user_principal_name(), "postgres", &token).await.unwrap()
    }
}

pub(crate) struct Running {
    pub(crate) gateway: RunningGateway,
    roots: String,
}

impl Running {
    /// A gateway whose certificate one of the authorities in the PEM text `roots` has issued.
    pub(crate) fn new(gateway: RunningGateway, roots: &str) -> Self {
        Self { gateway, roots: roots.to_owned() }
    }

    pub(crate) async fn dial(&self) -> TcpStream {
        TcpStream::connect(self.gateway.address).await.unwrap()
    }

    /// TLS after an SSLRequest.
    pub(crate) async fn dial_tls(&self) -> TlsStream<TcpStream> {
        self.request_tls(self.dial().await).await
    }

    /// The same from this loopback address.
    pub(crate) async fn dial_tls_from(&self, address: Ipv4Addr) -> TlsStream<TcpStream> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((address, 0).into()).unwrap();
        self.request_tls(socket.connect(self.gateway.address).await.unwrap()).await
    }

    async fn request_tls(&self, mut stream: TcpStream) -> TlsStream<TcpStream> {
        let mut request = BytesMut::new();
        encode_ssl_request(&mut request);
        stream.write_all(&request).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'S');
        self.handshake(stream, &[]).await.unwrap()
    }

    /// TLS at once.
    pub(crate) async fn dial_direct(&self) -> TlsStream<TcpStream> {
        self.handshake(self.dial().await, &[ALPN]).await.unwrap()
    }

    pub(crate) async fn handshake(
        &self,
        stream: TcpStream,
        alpn: &[&[u8]],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.roots.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream).await
    }

    /// Logs in with the driver; each password request is answered with `password`.
    pub(crate) async fn connect(
        &self,
        user: &str,
        database: &str,
        password: &str,
    ) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::Config::new()
            .user(user)
            .dbname(database)
            .password(password)
            .connect_raw(self.dial_tls().await, NoTls)
            .await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// The error of a refused log-in: SQLSTATE, message, hint.
    pub(crate) async fn refusal(
        &self,
        user: &str,
        database: &str,
        password: &str,
    ) -> (String, String, String) {
        match self.connect(user, database, password).await {
            Ok(_) => panic!("{user} was let in"),
            Err(error) => {
                let error = error.as_db_error().expect("an ErrorResponse");
                let hint = error.hint().unwrap_or_default().to_owned();
                (error.code().code().to_owned(), error.message().to_owned(), hint)
            }
        }
    }

    /// Stops the gateway and waits for its end.
    pub(crate) async fn stop(self) {
        self.gateway.shutdown.cancel();
        self.gateway.served.await.unwrap();
    }
}

/// SQLSTATE and message of a failed statement.
pub(crate) fn failure<T>(result: Result<T, tokio_postgres::Error>) -> (String, String) {
    let error = result.err().expect("a failure");
    let error = error.as_db_error().expect("an ErrorResponse");
    (error.code().code().to_owned(), error.message().to_owned())
}

/// The only column of the only row.
pub(crate) async fn one(client: &Client, sql: &str) -> String {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

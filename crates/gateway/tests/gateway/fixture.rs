//! One local Azure and one PostgreSQL for each flavour, shared by all tests of this program; a gateway for each test.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use pgentra_emulator::{Clock, Draft, LocalAzure, Options};
use pgentra_gateway::{
    Config, Flavour, Gateway, Principal, PrincipalKind, ServiceAccount, Setup, UpstreamAddress,
};
use pgentra_localdb::{Installation, LocalDb};
use pgentra_session::Limits;
use pgentra_verify::{BoxFuture, FetchError, KeySource, Policy, Verifier};
use pgentra_wire::startup::{ALPN, encode_ssl_request};
use secrecy::ExposeSecret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

pub(crate) const RESOURCE: &str = "https://ossrdbms-aad.database.windows.net";
pub(crate) const SERVER_NAME: &str = "mydemoserver";

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    crate::logs::keep();
    Runtime::new().unwrap()
});
static AZURE: OnceCell<LocalAzure> = OnceCell::const_new();
static FLEXIBLE: OnceCell<Stage> = OnceCell::const_new();
static SINGLE: OnceCell<Stage> = OnceCell::const_new();

/// Runs a test on the runtime that the shared servers live on.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    RUNTIME.block_on(test)
}

/// The local Azure. Its clock stands still.
pub(crate) async fn azure() -> &'static LocalAzure {
    AZURE
        .get_or_init(|| async {
            let clock = Clock::fixed(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
            LocalAzure::start(Options::new(clock)).await.unwrap()
        })
        .await
}

/// A PostgreSQL that is prepared for a flavour.
pub(crate) struct Stage {
    pub(crate) flavour: Flavour,
    db: LocalDb,
}

impl Stage {
    pub(crate) async fn flexible() -> &'static Self {
        FLEXIBLE.get_or_init(|| Self::new(Flavour::Flexible)).await
    }

    pub(crate) async fn single() -> &'static Self {
        SINGLE.get_or_init(|| Self::new(Flavour::Single)).await
    }

    async fn new(flavour: Flavour) -> Self {
        let folder = std::env::temp_dir().join(format!("pgentra-proxy-{}-{flavour}", std::process::id()));
        let db = pgentra_localdb::start(pgentra_localdb::Options { folder, server: Installation::Embedded });
        let stage = Self { flavour, db: db.await.unwrap() };
        stage.init().await;
        stage
    }

    /// Prepares the server: the administrator, and a directory in which one name occurs twice.
    pub(crate) async fn init(&self) {
        let azure = azure().await;
        let principal = |name: &str, object_id, kind| Principal { name: name.to_owned(), object_id, kind };
        let administrator = azure.administrator();
        let upn = administrator.user_principal_name();
        let setup = Setup {
            flavour: self.flavour,
            tenant: azure.tenant(),
            administrators: vec![principal(upn, administrator.object_id(), PrincipalKind::User)],
            directory: vec![
                principal(upn, administrator.object_id(), PrincipalKind::User),
                principal(azure.group().name(), azure.group().object_id(), PrincipalKind::Group),
                principal(azure.vm().name(), azure.vm().object_id(), PrincipalKind::Service),
                principal("twin", azure.user_assigned().object_id(), PrincipalKind::Service),
                principal("twin", azure.application().object_id(), PrincipalKind::Service),
            ],
        };
        pgentra_gateway::init(&self.upstream(), &self.service(), &setup).await.unwrap();
    }

    pub(crate) fn upstream(&self) -> UpstreamAddress {
        UpstreamAddress::Unix { dir: self.db.socket_dir().to_owned(), port: self.db.port() }
    }

    pub(crate) fn service(&self) -> ServiceAccount {
        ServiceAccount { name: self.db.superuser().to_owned(), password: self.db.password().clone() }
    }

    /// A superuser session without the gateway.
    pub(crate) async fn superuser(&self) -> Client {
        let mut config = tokio_postgres::Config::new();
        config
            .host_path(self.db.socket_dir())
            .port(self.db.port())
            .user(self.db.superuser())
            .password(self.db.password().expose_secret())
            .dbname("postgres");
        let (client, connection) = config.connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    pub(crate) async fn gateway(&self) -> Running {
        self.gateway_with(|_| {}).await
    }

    pub(crate) async fn gateway_with(&self, change: impl FnOnce(&mut Config)) -> Running {
        let azure = azure().await;
        let issued = azure.certificates().issue(&["localhost"]).unwrap();
        let policy = Policy::builder(azure.tenant()).audience(RESOURCE).build().unwrap();
        let mut config = Config {
            tls: issued.server_config(&[]).unwrap(),
            upstream: self.upstream(),
            service: self.service(),
            flavour: self.flavour,
            server_name: SERVER_NAME.to_owned(),
            verifier: Arc::new(Verifier::new(policy, Published(azure))),
            clock: Arc::new(|| azure.clock().now()),
            limits: Limits::default(),
        };
        change(&mut config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let gateway = Arc::new(Gateway::new(config));
        let served = tokio::spawn(gateway.serve(listener, shutdown.clone()));
        Running { address, shutdown, served, roots: issued.chain.last().unwrap().clone() }
    }

    /// Signs in as the Entra administrator.
    pub(crate) async fn administrator(&self, gateway: &Running) -> Client {
        let administrator = azure().await.administrator();
        let token = token(&Draft::of_user(administrator, RESOURCE)).await;
        gateway.connect(administrator.user_principal_name(), "postgres", &token).await.unwrap()
    }
}

struct Published(&'static LocalAzure);

impl KeySource for Published {
    fn fetch(&self) -> BoxFuture<'_, Result<Vec<u8>, FetchError>> {
        Box::pin(async { Ok(self.0.keys()) })
    }
}

pub(crate) async fn token(draft: &Draft) -> String {
    azure().await.mint(draft).unwrap().expose_secret().to_owned()
}

pub(crate) async fn vm_token() -> String {
    token(&Draft::of_identity(azure().await.vm(), RESOURCE)).await
}

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) shutdown: CancellationToken,
    pub(crate) served: JoinHandle<()>,
    roots: rustls::pki_types::CertificateDer<'static>,
}

impl Running {
    pub(crate) async fn dial(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// TLS after an SSLRequest.
    pub(crate) async fn dial_tls(&self) -> TlsStream<TcpStream> {
        let mut stream = self.dial().await;
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
        roots.add(self.roots.clone()).unwrap();
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
        self.shutdown.cancel();
        self.served.await.unwrap();
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

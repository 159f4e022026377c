//! The responder behind a real PostgreSQL, and alone with clients that PostgreSQL would never be.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test, whose helpers stand outside of test functions"
)]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use eventually::{DEADLINE, eventually};
use pgentra_emulator::Draft;
use pgentra_gateway::{Config, Gateway, UpstreamAddress};
use pgentra_ldap::{LdapResponder, Options, ServeError};
use pgentra_local::LocalCloud;
use pgentra_verify::{BoxFuture, FetchError, KeySource, Policy, Verifier};
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::NoTls;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

const RESOURCE: &str = "https://ossrdbms-aad.database.windows.net";

/// A responder on a free port; it ends with this value.
struct Served {
    address: SocketAddr,
    _shutdown: DropGuard,
}

async fn serve(config: Config, options: Options) -> Served {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let responder = Arc::new(LdapResponder::new(Arc::new(Gateway::new(config)), options));
    let stop = shutdown.clone();
    tokio::spawn(async move { responder.serve(listener, stop).await.unwrap() });
    Served { address, _shutdown: shutdown.drop_guard() }
}

/// `resultCode` of RFC 4511 section 4.1.9.
mod code {
    pub(super) const SUCCESS: u8 = 0;
    pub(super) const PROTOCOL_ERROR: u8 = 2;
    pub(super) const AUTH_METHOD_NOT_SUPPORTED: u8 = 7;
    pub(super) const INVALID_DN_SYNTAX: u8 = 34;
    pub(super) const INVALID_CREDENTIALS: u8 = 49;
    pub(super) const UNAVAILABLE: u8 = 52;
    pub(super) const UNWILLING_TO_PERFORM: u8 = 53;
}

/// An element of BER with a length of four bytes, as libldap writes it.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&[tag, 0x84][..], &length, content].concat()
}

/// A message: SEQUENCE of the id 1 and an operation.
fn message(operation: &[u8]) -> Vec<u8> {
    element(0x30, &[&b"\x02\x01\x01"[..], operation].concat())
}

/// `BindRequest`: APPLICATION 0 of version, name and the choice of authentication.
fn bind_request(version: u8, name: &str, authentication: &[u8]) -> Vec<u8> {
    element(0x60, &[&[2, 1, version][..], &element(0x04, name.as_bytes()), authentication].concat())
}

/// The choice `simple`.
fn simple(password: &str) -> Vec<u8> {
    element(0x80, password.as_bytes())
}

/// A client that says what the test says.
struct Client(TcpStream);

impl Client {
    async fn dial(served: &Served) -> Client {
        Client(TcpStream::connect(served.address).await.unwrap())
    }

    async fn send(&mut self, operation: &[u8]) {
        self.0.write_all(&message(operation)).await.unwrap();
    }

    /// Code and text of the next answer, which is one to a bind; `None` at the end.
    async fn read(&mut self) -> Option<(u8, String)> {
        let mut head = [0; 2];
        if self.0.read_exact(&mut head).await.is_err() {
            return None;
        }
        let length = match head {
            [0x30, short @ ..=0x7f] => short.into(),
            [0x30, 0x81] => self.0.read_u8().await.unwrap().into(),
            [0x30, 0x82] => self.0.read_u16().await.unwrap().into(),
            other => panic!("{other:x?} instead of a message"),
        };
        let mut content = vec![0; length];
        self.0.read_exact(&mut content).await.unwrap();
        // The id, the head of the operation, the code, no name, the text.
        let (operation, result) = content.strip_prefix(b"\x02\x01\x01").unwrap().split_first().unwrap();
        assert_eq!(*operation, 0x61, "the answer to a bind");
        let result = &result[if result[0] > 0x7f { 1 + usize::from(result[0] & 0x7f) } else { 1 }..];
        let [0x0a, 1, code, 4, 0, 4, text @ ..] = result else { panic!("{result:x?} instead of a result") };
        let text = &text[if text[0] > 0x7f { 1 + usize::from(text[0] & 0x7f) } else { 1 }..];
        Some((*code, String::from_utf8(text.to_vec()).unwrap()))
    }

    /// A simple bind, and its answer: code and text.
    async fn bind(&mut self, name: &str, password: &str) -> (u8, String) {
        self.send(&bind_request(3, name, &simple(password))).await;
        self.bound().await
    }

    async fn bound(&mut self) -> (u8, String) {
        self.read().await.unwrap()
    }
}

async fn bind(served: &Served, name: &str, password: &str) -> (u8, String) {
    Client::dial(served).await.bind(name, password).await
}

/// A session that may map roles: the functions ask for the Entra administrator.
async fn administrator(cloud: &LocalCloud) -> tokio_postgres::Client {
    let client = cloud.superuser("postgres").await.unwrap();
    let name = cloud.azure().administrator().user_principal_name();
    client.batch_execute(&format!("SET SESSION AUTHORIZATION \"{name}\"")).await.unwrap();
    client
}

async fn map(cloud: &LocalCloud, role: &str, oid: Uuid, kind: &str) {
    let sql =
        format!("SELECT pgaadauth_create_principal_with_oid('{role}', '{oid}', '{kind}', false, false)");
    administrator(cloud).await.batch_execute(&sql).await.unwrap();
}

/// Roles of each kind, in a local cloud.
async fn roles(cloud: &LocalCloud) {
    let azure = cloud.azure();
    map(cloud, "l_service", azure.vm().object_id(), "service").await;
    map(cloud, "l_user", azure.administrator().object_id(), "user").await;
    map(cloud, "l_group", azure.group().object_id(), "group").await;
    map(cloud, "l_other", Uuid::from_u128(7), "service").await;
    let superuser = cloud.superuser("postgres").await.unwrap();
    superuser.batch_execute("CREATE ROLE l_unmapped LOGIN").await.unwrap();
}

fn vm_token(cloud: &LocalCloud) -> String {
    let draft = Draft::of_identity(cloud.azure().vm(), RESOURCE);
    cloud.azure().mint(&draft).unwrap().expose_secret().to_owned()
}

fn user_token(cloud: &LocalCloud) -> String {
    let draft = Draft::of_user(cloud.azure().administrator(), RESOURCE);
    cloud.azure().mint(&draft).unwrap().expose_secret().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn binds() {
    let cloud = LocalCloud::builder().start().await.unwrap();
    roles(&cloud).await;
    let (vm, user) = (vm_token(&cloud), user_token(&cloud));
    let served = serve(cloud.gateway_config(), Options::default()).await;
    let ok = (code::SUCCESS, String::new());
    for (role, token) in [("l_service", &vm), ("l_user", &user), ("l_group", &user)] {
        assert_eq!(bind(&served, role, token).await, ok, "{role}");
    }
    for (role, token, code, said) in [
        ("l_other", &*vm, code::INVALID_CREDENTIALS, "Service principal oid mismatch"),
        ("l_user", &vm, code::INVALID_CREDENTIALS, "is neither an AAD_AUTH_TOKENTYPE_APP_USER"),
        ("l_group", &vm, code::INVALID_CREDENTIALS, "does not contain group ID"),
        ("l_unmapped", &vm, code::INVALID_CREDENTIALS, "is not mapped"),
        ("l_missing", &vm, code::INVALID_CREDENTIALS, "is not mapped"),
        ("l_service", "a password", code::INVALID_CREDENTIALS, "The access token has invalid format"),
        ("l_service", "", code::UNWILLING_TO_PERFORM, "the password is empty"),
        ("", &vm, code::INVALID_DN_SYNTAX, "the name is not a role"),
    ] {
        let (found, text) = bind(&served, role, token).await;
        assert_eq!(found, code, "{role}: {text}");
        assert!(text.contains(said) && !text.contains(&vm), "{role}: {text}");
    }
    // Names as pg_hba.conf may write them.
    let options = Options { prefix: "cn=".into(), suffix: ",dc=example".into(), ..Options::default() };
    let served = serve(cloud.gateway_config(), options).await;
    assert_eq!(bind(&served, "cn=l_service,dc=example", &vm).await, ok);
    for name in ["l_service", "cn=l_service", "cn=,dc=example", "CN=l_service,dc=example"] {
        assert_eq!(bind(&served, name, &vm).await.0, code::INVALID_DN_SYNTAX, "{name}");
    }
    assert_eq!(bind(&served, "cn=l_service,dc=x,dc=example", &vm).await.0, code::INVALID_CREDENTIALS);
    // A PostgreSQL that is not there says nothing of the token.
    let mut config = cloud.gateway_config();
    config.upstream = UpstreamAddress::Unix { dir: "/nowhere".into(), port: 1 };
    let served = serve(config, Options::default()).await;
    assert_eq!(bind(&served, "l_service", &vm).await.0, code::UNAVAILABLE);
}

/// The published table, as for the gateway.
#[tokio::test(flavor = "multi_thread")]
async fn each_hostile_token_is_refused() {
    #[derive(Deserialize)]
    struct Table {
        now: u64,
        tenant: Uuid,
        issuers: Vec<String>,
        keys: serde_json::Value,
        tokens: Vec<Row>,
    }
    #[derive(Deserialize)]
    struct Row {
        why: String,
        message: Option<String>,
        token: String,
    }
    struct Keys(Vec<u8>);
    impl KeySource for Keys {
        fn fetch(&self) -> BoxFuture<'_, Result<Vec<u8>, FetchError>> {
            Box::pin(async { Ok(self.0.clone()) })
        }
    }
    let table: Table = serde_json::from_str(include_str!("../../verify/tests/hostile-tokens.json")).unwrap();
    let cloud = LocalCloud::builder().start().await.unwrap();
    map(&cloud, "l_hostile", Uuid::from_u128(0xbbbbbbbb_0000_4000_8000_000000000002), "service").await;
    let mut config = cloud.gateway_config();
    let policy =
        table.issuers.iter().fold(Policy::builder(table.tenant), |policy, issuer| policy.issuer(issuer));
    let keys = Keys(table.keys.to_string().into_bytes());
    config.verifiers = vec![Arc::new(Verifier::new(policy.build().unwrap(), keys))];
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(table.now);
    config.clock = Arc::new(move || now);
    let served = serve(config, Options::default()).await;
    let mut refused = 0;
    let begin = tokio::time::Instant::now();
    for row in &table.tokens {
        let (code, text) = bind(&served, "l_hostile", &row.token).await;
        match &row.message {
            None => assert_eq!(code, code::SUCCESS, "{}: {text}", row.why),
            Some(_) if row.token.is_empty() => {
                assert_eq!(code, code::UNWILLING_TO_PERFORM, "{}", row.why)
            }
            Some(message) => {
                assert_eq!((code, &text), (code::INVALID_CREDENTIALS, message), "{}", row.why);
                refused += 1;
            }
        }
    }
    assert!(refused >= 120, "{refused}");
    assert!(begin.elapsed() < DEADLINE, "{:?}", begin.elapsed());
    // The longest token in segments of one byte.
    let token = format!("{}.e30.AAAA", "x".repeat(65_521));
    let message = message(&bind_request(3, "l_hostile", &simple(&token)));
    let mut client = Client::dial(&served).await;
    client.0.set_nodelay(true).unwrap();
    for byte in message.chunks(1) {
        client.0.write_all(byte).await.unwrap();
    }
    assert_eq!(client.bound().await.0, code::INVALID_CREDENTIALS);
}

/// What is no bind is refused, and what is no LDAP ends the connection; the next client is served.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_bind() {
    let cloud = LocalCloud::builder().start().await.unwrap();
    roles(&cloud).await;
    let served = serve(cloud.gateway_config(), Options::default()).await;
    let vm = vm_token(&cloud);
    let mut client = Client::dial(&served).await;
    let sasl = element(0xa3, b"\x04\x05PLAIN");
    client.send(&bind_request(3, "l_service", &sasl)).await;
    assert_eq!(client.bound().await.0, code::AUTH_METHOD_NOT_SUPPORTED);
    client.send(&bind_request(2, "l_service", &simple(&vm))).await;
    assert_eq!(client.bound().await.0, code::PROTOCOL_ERROR);
    // The same connection may still bind as it should.
    assert_eq!(client.bind("l_service", &vm).await.0, code::SUCCESS);

    let start_tls = element(0x77, &element(0x80, b"1.3.6.1.4.1.1466.20037"));
    let mut client = Client::dial(&served).await;
    client.send(&start_tls).await;
    assert_eq!(client.read().await, None, "StartTLS");
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00",
        b"\x30\x84\xff\xff\xff\xff",
        b"\x30\x80",
        b"\x30\x05\x02\x01\x01\x04\x00",
    ] {
        let mut client = Client::dial(&served).await;
        client.0.write_all(garbage).await.unwrap();
        assert_eq!(client.read().await, None, "{garbage:x?}");
    }
    let mut chatty = Client::dial(&served).await;
    for _ in 0..8 {
        chatty.bind("l_service", "no token").await;
    }
    assert_eq!(chatty.read().await, None, "a connection is for one sign-in");
    assert_eq!(bind(&served, "l_service", &vm).await.0, code::SUCCESS);
}

/// A client that says nothing, or half a message, does not keep its place.
#[tokio::test(flavor = "multi_thread")]
async fn silent_clients_give_up_their_place() {
    let cloud = LocalCloud::builder().start().await.unwrap();
    roles(&cloud).await;
    let options = Options { connections: 2, patience: Duration::from_millis(200), ..Options::default() };
    let served = serve(cloud.gateway_config(), options).await;
    let mut silent = Client::dial(&served).await;
    let mut half = Client::dial(&served).await;
    half.0.write_all(b"\x30\x84\0\0\x01").await.unwrap();
    // It waits until one of them has left.
    let (code, _) = bind(&served, "l_service", &vm_token(&cloud)).await;
    assert_eq!(code, code::SUCCESS);
    assert_eq!((silent.read().await, half.read().await), (None, None));
}

#[tokio::test]
async fn only_loopback() {
    let cloud = LocalCloud::builder().start().await.unwrap();
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
    let gateway = Arc::new(Gateway::new(cloud.gateway_config()));
    let responder = Arc::new(LdapResponder::new(gateway, Options::default()));
    let served = responder.serve(listener, CancellationToken::new()).await;
    assert!(matches!(served, Err(ServeError::NotLoopback(_))), "{served:?}");
}

/// An installed PostgreSQL that can authenticate by LDAP, as Debian's can.
fn installed() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    folders.map(|folder| folder.path()).find(|folder| {
        let configured = std::process::Command::new(folder.join("bin/pg_config")).arg("--configure").output();
        folder.join("bin/initdb").is_file()
            && configured.is_ok_and(|said| String::from_utf8_lossy(&said.stdout).contains("--with-ldap"))
    })
}

/// One line of pg_hba.conf, and no gateway in the path of the data.
#[tokio::test(flavor = "multi_thread")]
async fn a_stock_postgresql_takes_tokens() {
    let Some(folder) = installed() else {
        eprintln!("skipped: no PostgreSQL with LDAP below /usr/lib/postgresql");
        return;
    };
    let cloud = LocalCloud::builder().postgres(Some(folder)).start().await.unwrap();
    roles(&cloud).await;
    let served = serve(cloud.gateway_config(), Options::default()).await;
    let UpstreamAddress::Unix { dir, port } = cloud.gateway_config().upstream else { panic!("no socket") };
    let admin = cloud.superuser("postgres").await.unwrap();
    let file: String = admin.query_one("SHOW hba_file", &[]).await.unwrap().get(0);
    let lines = std::fs::read_to_string(&file).unwrap();
    let line = format!(
        "local all l_service,l_user,l_group,l_other,l_unmapped ldap ldapserver=127.0.0.1 ldapport={} ldapprefix=\"\" ldapsuffix=\"\"\n",
        served.address.port()
    );
    std::fs::write(&file, line + &lines).unwrap();
    let wrong =
        admin.query("SELECT error FROM pg_hba_file_rules WHERE error IS NOT NULL", &[]).await.unwrap();
    assert!(wrong.is_empty(), "{:?}", wrong.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>());
    admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let connect = async |role: &str, password: &str| {
        let mut config = tokio_postgres::Config::new();
        let config = config.host_path(&dir).port(port).user(role).dbname("postgres").password(password);
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok::<_, tokio_postgres::Error>(client)
    };
    let (vm, user) = (vm_token(&cloud), user_token(&cloud));
    eventually(DEADLINE, "the new line of pg_hba.conf", async || connect("l_service", &vm).await.is_ok())
        .await;
    for (role, token) in [("l_service", &vm), ("l_user", &user), ("l_group", &user)] {
        let client = connect(role, token).await.unwrap();
        let who: String = client.query_one("SELECT current_user::text", &[]).await.unwrap().get(0);
        assert_eq!(who, role);
    }
    let old = Draft::of_identity(cloud.azure().vm(), RESOURCE)
        .issued(cloud.azure().clock().now() - Duration::from_secs(7200))
        .lifetime(Duration::from_secs(60));
    let old = cloud.azure().mint(&old).unwrap().expose_secret().to_owned();
    for (role, token) in [
        ("l_service", &*old),
        ("l_service", "a password"),
        ("l_user", &vm),
        ("l_group", &vm),
        ("l_other", &vm),
        ("l_unmapped", &vm),
    ] {
        let error = connect(role, token).await.unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code().code(), "28000");
        assert_eq!(error.message(), format!("LDAP authentication failed for user \"{role}\""));
    }
    // A token of 64 KiB is no longer than PostgreSQL takes.
    let long = Draft::of_identity(cloud.azure().vm(), RESOURCE).claim("z", "z".repeat(46_000));
    let long = cloud.azure().mint(&long).unwrap().expose_secret().to_owned();
    assert!(long.len() > 60_000);
    connect("l_service", &long).await.unwrap();
}

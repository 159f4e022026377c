//! The published table of hostile tokens, through both ways of asking, over real sockets: each is refused with Azure's
//! words, and PostgreSQL never sees the client.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use eventually::DEADLINE;
use pgentra_gateway::UpstreamAddress;
use pgentra_verify::{BoxFuture, FetchError, KeySource, Policy, Verifier};
use pgentra_wire::backend::{Authentication, BackendMessage};
use pgentra_wire::frontend::{SaslInitialResponse, encode_password};
use pgentra_wire::limits;
use pgentra_wire::oauthbearer::DISMISSAL;
use serde::Deserialize;
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::sync::OnceCell;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;
use uuid::Uuid;

use crate::fixture::{Running, Stage, run};
use crate::raw::Raw;
use crate::start_up::start;

const ROLE: &str = "h_service";
const OBJECT: &str = "bbbbbbbb-0000-4000-8000-000000000002";

#[derive(Deserialize)]
struct Table {
    now: u64,
    tenant: Uuid,
    issuers: Vec<String>,
    audiences: Vec<String>,
    keys: serde_json::Value,
    tokens: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    why: String,
    message: Option<String>,
    token: String,
}

/// The keys of the table, and how often they were fetched.
struct Keys(Vec<u8>, Arc<AtomicUsize>);

impl KeySource for Keys {
    fn fetch(&self) -> BoxFuture<'_, Result<Vec<u8>, FetchError>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Ok(self.0.clone()) })
    }
}

/// A gateway that believes in the table's issuer, before a PostgreSQL whose connections are counted.
struct Place {
    gateway: Running,
    connections: Arc<AtomicUsize>,
    fetches: Arc<AtomicUsize>,
    clients: AtomicUsize,
    table: Table,
    _folder: tempfile::TempDir,
}

impl Place {
    async fn new() -> Place {
        static MADE: OnceCell<()> = OnceCell::const_new();
        let stage = Stage::flexible().await;
        // Once: the tests of this file run at the same time.
        MADE.get_or_init(|| async {
            let admin = stage.administrator(&stage.gateway().await).await;
            let sql = format!(
                "SELECT pgaadauth_create_principal_with_oid('{ROLE}', '{OBJECT}', 'service', false, false)"
            );
            admin.batch_execute(&sql).await.unwrap();
        })
        .await;
        let table: Table =
            serde_json::from_str(include_str!("../../../verify/tests/hostile-tokens.json")).unwrap();
        let (folder, connections) = counted(&stage.upstream());
        let policy = Policy::builder(table.tenant);
        let policy = table.issuers.iter().fold(policy, |policy, issuer| policy.issuer(issuer));
        let policy = table.audiences.iter().fold(policy, |policy, audience| policy.audience(audience));
        let fetches = Arc::new(AtomicUsize::new(0));
        let keys = Keys(table.keys.to_string().into_bytes(), fetches.clone());
        let verifier = Arc::new(Verifier::new(policy.build().unwrap(), keys));
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(table.now);
        let gateway = stage
            .gateway_with(|config| {
                config.upstream = UpstreamAddress::Unix { dir: folder.path().to_owned(), port: 1 };
                config.verifiers = vec![verifier];
                config.clock = Arc::new(move || now);
            })
            .await;
        Place { gateway, connections, fetches, clients: AtomicUsize::new(0), table, _folder: folder }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// A client at an address of its own: refused tokens of one address slow it down.
    async fn asked(&self, options: &str) -> Raw<TlsStream<TcpStream>> {
        let number = self.clients.fetch_add(1, Ordering::Relaxed) + 2;
        let address = Ipv4Addr::from_bits(0x7f00_0000 | u32::try_from(number).unwrap());
        let mut raw = Raw::new(self.gateway.dial_tls_from(address).await);
        raw.start(&start(ROLE).with("options", options).unwrap()).await;
        assert!(matches!(raw.read().await, Some(BackendMessage::Authentication(_))));
        raw
    }

    /// What a token gets as a cleartext password: SQLSTATE and message, or `None` for a session.
    async fn cleartext(&self, token: &str) -> Option<(String, String)> {
        let mut raw = self.asked("-c pgentra.auth=password").await;
        raw.send(&password(token)).await;
        ended(&mut raw).await
    }

    /// What it gets by OAUTHBEARER.
    async fn oauthbearer(&self, token: &str) -> Option<(String, String)> {
        let mut raw = self.asked("-c pgentra.auth=oauth").await;
        let data = format!("n,,\x01auth=Bearer {token}\x01\x01");
        let mut out = BytesMut::new();
        let initial = SaslInitialResponse { mechanism: b"OAUTHBEARER", data: Some(data.as_bytes()) };
        if initial.encode(&mut out).is_err() {
            // As a client would write it that does not know the limit.
            out = too_long(&[b"OAUTHBEARER\0\0\x01\0\0", data.as_bytes()].concat());
        }
        raw.send(&out).await;
        ended(&mut raw).await
    }
}

fn password(token: &str) -> BytesMut {
    let mut out = BytesMut::new();
    match encode_password(token.as_bytes(), &mut out) {
        Ok(()) => out,
        Err(_) => too_long(&[token.as_bytes(), b"\0"].concat()),
    }
}

fn too_long(body: &[u8]) -> BytesMut {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    BytesMut::from(&[b"p", &length[..], body].concat()[..])
}

async fn ended(raw: &mut Raw<TlsStream<TcpStream>>) -> Option<(String, String)> {
    loop {
        match raw.read().await {
            Some(BackendMessage::Authentication(Authentication::SaslContinue(_))) => {
                let mut out = BytesMut::new();
                pgentra_wire::frontend::encode_sasl_response(DISMISSAL, &mut out).unwrap();
                raw.send(&out).await;
            }
            Some(BackendMessage::ReadyForQuery(_)) => return None,
            Some(BackendMessage::ErrorResponse(fields)) => {
                assert_eq!(raw.read().await, None, "the connection is closed");
                return Some((fields.sqlstate().into_owned(), fields.message().into_owned()));
            }
            Some(_) => {}
            None => panic!("no answer"),
        }
    }
}

/// A socket before the real one, and the number of its connections.
fn counted(real: &UpstreamAddress) -> (tempfile::TempDir, Arc<AtomicUsize>) {
    let UpstreamAddress::Unix { dir, port } = real else { panic!("the local PostgreSQL has a socket") };
    let real = dir.join(format!(".s.PGSQL.{port}"));
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join(".s.PGSQL.1")).unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            let real = real.clone();
            tokio::spawn(async move {
                let mut server = UnixStream::connect(real).await.unwrap();
                tokio::io::copy_bidirectional(&mut client, &mut server).await.ok();
            });
        }
    });
    (folder, connections)
}

/// `b64token` of RFC 6750, and short enough for the message.
fn is_bearer(token: &str) -> bool {
    let body = token.trim_end_matches('=');
    let is_of_it = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    !body.is_empty() && body.bytes().all(is_of_it)
}

#[test]
fn each_hostile_token_is_refused_before_postgresql() {
    run(async {
        let place = Place::new().await;
        // The mapping is read over one connection, which stays open.
        let first = place.cleartext("no token").await;
        assert_eq!(first.unwrap().0, "28000");
        assert_eq!(place.connections(), 1);
        let (mut refused, mut accepted) = (0, 0);
        let begin = Instant::now();
        for row in &place.table.tokens {
            let before = place.connections();
            let (cleartext, oauth) = (place.cleartext(&row.token).await, place.oauthbearer(&row.token).await);
            let Some(message) = &row.message else {
                assert_eq!((cleartext, oauth), (None, None), "{}", row.why);
                accepted += 1;
                continue;
            };
            let words = || Some(("28000".to_owned(), message.clone()));
            if row.token.len() > limits::PASSWORD {
                assert_eq!(cleartext.unwrap().0, "08P01", "{}", row.why);
            } else {
                assert_eq!(cleartext, words(), "{}", row.why);
            }
            if row.token.starts_with(' ') {
                // Blanks behind `Bearer` are not of the token (RFC 7235 section 2.1).
                assert_eq!(oauth, None, "{}", row.why);
                refused += 1;
                continue;
            }
            if row.token.is_empty() {
                // An empty `auth` asks for the issuer; `Bearer` with nothing behind it is malformed.
                assert_eq!(oauth.unwrap().0, "08P01", "{}", row.why);
            } else if is_bearer(&row.token) && row.token.len() <= limits::BEARER_TOKEN {
                assert_eq!(oauth, words(), "{}", row.why);
            } else {
                assert_eq!(oauth.unwrap().0, "08P01", "{}", row.why);
            }
            assert_eq!(place.connections(), before, "{}: PostgreSQL was reached", row.why);
            refused += 1;
        }
        assert!(refused >= 120 && accepted >= 5, "{refused} refused, {accepted} accepted");
        assert!(begin.elapsed() < DEADLINE, "{:?}", begin.elapsed());
        // A made-up key id costs no fetch within the interval, however many come.
        assert_eq!(place.fetches.load(Ordering::Relaxed), 1);
    });
}

/// Beyond ten refused tokens in a row, an address waits for each more, and at last is not answered; others are.
#[test]
fn an_address_with_refused_tokens_is_slowed_down_alone() {
    run(async {
        let place = Arc::new(Place::new().await);
        let turned_away = "too many refused tokens for this user from this address";
        let mut is_slowed = false;
        // Each token of a round takes a second of what the address may use up. A machine that is too slow for the first
        // round has the others.
        for _ in 0..5 {
            let mut clients = tokio::task::JoinSet::new();
            for _ in 0..40 {
                let place = place.clone();
                clients.spawn(async move { bad_token(&place).await });
            }
            is_slowed |= clients.join_all().await.iter().any(|message| message == turned_away);
            if is_slowed {
                break;
            }
        }
        assert!(is_slowed, "no client was turned away");
        let good = place.table.tokens.iter().find(|row| row.message.is_none()).unwrap();
        assert_eq!(place.cleartext(&good.token).await, None, "another address signs in");
    });
}

async fn bad_token(place: &Place) -> String {
    let mut raw = Raw::new(place.gateway.dial_tls_from(Ipv4Addr::new(127, 9, 9, 9)).await);
    raw.start(&start(ROLE)).await;
    match raw.read().await {
        Some(BackendMessage::Authentication(_)) => raw.send(&password("no token")).await,
        Some(BackendMessage::ErrorResponse(fields)) => return fields.message().into_owned(),
        other => panic!("{other:?}"),
    }
    ended(&mut raw).await.unwrap().1
}

/// The longest token, a byte in each TLS record.
#[test]
fn the_longest_token_in_segments_of_one_byte() {
    run(async {
        let place = Place::new().await;
        let token = format!("{}.e30.AAAA", "x".repeat(limits::PASSWORD - 9));
        let mut raw = place.asked("-c pgentra.auth=password").await;
        let message = password(&token);
        assert_eq!(message.len(), limits::AUTH_MESSAGE + 1);
        for byte in message.chunks(1) {
            raw.send(byte).await;
        }
        let expected = "The access token has invalid format. Please ensure the token is passed exactly as returned \
            by the authentication endpoint and retry.";
        assert_eq!(ended(&mut raw).await, Some(("28000".to_owned(), expected.to_owned())));
        assert_eq!(place.connections(), 1, "the connection that reads the mapping");
    });
}

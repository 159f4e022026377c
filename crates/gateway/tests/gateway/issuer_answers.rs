//! What an issuer may answer in place of its signing keys, over HTTP: no client gets in, each is told
//! to try again, and keys that were fetched before stay in use.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use eventually::DEADLINE;
use pgentra_emulator::{Draft, LocalAzure, Options};
use pgentra_gateway::JwksUrl;
use pgentra_system::http::HttpClient;
use pgentra_system::{Env, Files};
use pgentra_verify::{JWKS_LIMIT, Policy, REFRESH_AFTER, RETRY_AFTER, Verifier};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::fixture::{RESOURCE, Running, Stage, run};

const ROLE: &str = "i_service";
const PLACE_OF_KEYS: &str =
    "The access token can't be validated, because the signing keys of the tenant are not available.";

/// An HTTP server that answers every request with the same bytes, and the number of requests.
struct Issuer {
    url: String,
    answer: Arc<Mutex<Vec<u8>>>,
    fetches: Arc<AtomicUsize>,
}

impl Issuer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let answer = Arc::new(Mutex::new(Vec::new()));
        let fetches = Arc::new(AtomicUsize::new(0));
        let (said, count) = (answer.clone(), fetches.clone());
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                // The request is short, so its beginning is all of it.
                let Ok(1..) = client.read(&mut [0; 4096]).await else { continue };
                let bytes: Vec<u8> = said.lock().unwrap().clone();
                // A client that has read enough closes the connection.
                client.write_all(&bytes).await.ok();
                client.shutdown().await.ok();
            }
        });
        Self { url, answer, fetches }
    }

    fn answers(&self, status: &str, kind: &str, body: &[u8]) {
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        *self.answer.lock().unwrap() = [head.as_bytes(), body].concat();
    }

    fn answers_keys(&self, keys: &Value) {
        self.answers("200 OK", "application/json", json!({ "keys": keys }).to_string().as_bytes());
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::Relaxed)
    }
}

/// A gateway for the tokens of a tenant that fetches its keys from `issuer`, with a clock that the test sets.
async fn gateway(issuer: &Issuer, azure: &LocalAzure) -> (Running, Arc<Mutex<SystemTime>>) {
    let now = Arc::new(Mutex::new(azure.clock().now()));
    let policy = Policy::builder(azure.tenant()).audience(RESOURCE).issuer(azure.issuer());
    let http = HttpClient::new(&Env::from_map::<String, String>([]), &Files::in_memory());
    let verifier = Arc::new(Verifier::new(policy.build().unwrap(), JwksUrl::new(http, &*issuer.url)));
    let clock = now.clone();
    let gateway = Stage::flexible()
        .await
        .gateway_with(|config| {
            config.verifiers = vec![verifier];
            config.clock = Arc::new(move || *clock.lock().unwrap());
        })
        .await;
    (gateway, now)
}

#[test]
fn no_answer_of_an_issuer_lets_a_client_in_or_throws_good_keys_away() {
    run(async {
        let stage = Stage::flexible().await;
        let admin = stage.administrator(&stage.gateway().await).await;
        let oid = stage.azure().vm().object_id();
        let map =
            format!("SELECT pgaadauth_create_principal_with_oid('{ROLE}', '{oid}', 'service', false, false)");
        admin.batch_execute(&map).await.unwrap();
        let good: Value = serde_json::from_slice(&stage.azure().keys()).unwrap();
        let key = good["keys"][0].clone();
        let changed = |name: &str, value: &str| {
            let mut key = key.clone();
            key[name] = value.into();
            key
        };
        // 1024 bits, all of them ones: too short to be used, whatever it verifies.
        let weak = "_".repeat(170) + "w";
        let foreign = "https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0";
        let bad: [(&str, &str, &str, Vec<u8>); 9] = [
            ("a web page", "200 OK", "text/html", b"<!doctype html><title>Sign in</title>".to_vec()),
            ("a web page as JSON", "200 OK", "application/json", b"<html></html>".to_vec()),
            ("10 MB", "200 OK", "application/json", padded(&good, 10_000_000)),
            ("a byte too many", "200 OK", "application/json", padded(&good, JWKS_LIMIT + 1)),
            ("an error", "503 Service Unavailable", "application/json", good.to_string().into_bytes()),
            (
                "a redirect",
                "302 Found\r\nLocation: /other",
                "application/json",
                good.to_string().into_bytes(),
            ),
            ("a weak key", "200 OK", "application/json", keys(&json!([changed("n", &weak)]))),
            ("a foreign key", "200 OK", "application/json", keys(&json!([changed("issuer", foreign)]))),
            ("no key", "200 OK", "application/json", keys(&json!([]))),
        ];
        let issuer = Issuer::start().await;
        let (gateway, now) = gateway(&issuer, stage.azure()).await;
        let token = stage.vm_token();
        let begin = Instant::now();
        for (what, status, kind, body) in &bad {
            issuer.answers(status, kind, body);
            let before = issuer.fetches();
            let (code, message, _) = gateway.refusal(ROLE, "postgres", &token).await;
            assert_eq!((&*code, &*message), ("57P03", PLACE_OF_KEYS), "{what}");
            assert!(issuer.fetches() > before, "{what}");
            *now.lock().unwrap() += RETRY_AFTER;
        }
        // Good keys, among those that are not for this tenant, doubled and weak.
        issuer.answers_keys(&json!([
            changed("issuer", foreign),
            changed("n", &weak),
            key,
            key,
            changed("kid", "another")
        ]));
        gateway.connect(ROLE, "postgres", &token).await.unwrap();
        // Each answer in turn at the daily renewal; then the right one, so that the next is asked for.
        for (what, status, kind, body) in &bad {
            for is_bad in [true, false] {
                *now.lock().unwrap() += if is_bad { REFRESH_AFTER } else { Duration::from_secs(3600) };
                let time = *now.lock().unwrap();
                match is_bad {
                    true => issuer.answers(status, kind, body),
                    false => issuer.answers_keys(&good["keys"]),
                }
                let before = issuer.fetches();
                let draft = Draft::of_identity(stage.azure().vm(), RESOURCE).issued(time);
                let fresh = stage.token(&draft);
                let signed_in = gateway.connect(ROLE, "postgres", &fresh).await;
                signed_in.unwrap_or_else(|error| panic!("{what}: {error}"));
                assert!(issuer.fetches() > before, "{what}");
            }
        }
        assert!(begin.elapsed() < DEADLINE, "{:?}", begin.elapsed());
    });
}

/// A day without the issuer, a rollover of its keys, and a clock that jumps.
#[test]
fn an_issuer_that_is_gone_for_a_day_and_comes_back_with_other_keys() {
    const OTHER: &str = "i_rollover";
    run(async {
        let stage = Stage::flexible().await;
        let admin = stage.administrator(&stage.gateway().await).await;
        // A tenant of its own: other tests use the keys of the shared one.
        let azure = LocalAzure::start(Options::new(stage.azure().clock().clone())).await.unwrap();
        let oid = azure.vm().object_id();
        let map = format!(
            "SELECT pgaadauth_create_principal_with_oid('{OTHER}', '{oid}', 'service', false, false)"
        );
        admin.batch_execute(&map).await.unwrap();
        let issuer = Issuer::start().await;
        let published = || {
            let keys: Value = serde_json::from_slice(&azure.keys()).unwrap();
            issuer.answers_keys(&keys["keys"]);
        };
        published();
        let (gateway, now) = gateway(&issuer, &azure).await;
        let token = || {
            let draft = Draft::of_identity(azure.vm(), RESOURCE).issued(*now.lock().unwrap());
            azure.mint(&draft).unwrap().expose_secret().to_owned()
        };
        let session = gateway.connect(OTHER, "postgres", &token()).await.unwrap();
        issuer.answers("503 Service Unavailable", "text/plain", b"maintenance");
        for _ in 0..30 {
            *now.lock().unwrap() += Duration::from_secs(3600);
            gateway.connect(OTHER, "postgres", &token()).await.unwrap();
        }
        // It signs with another key and does not publish it: such a token cannot be verified, and the client is told that
        // this is not the fault of its token.
        let before = token();
        azure.roll_over_keys().await.unwrap();
        *now.lock().unwrap() += Duration::from_secs(3600);
        let (code, message, _) = gateway.refusal(OTHER, "postgres", &token()).await;
        assert_eq!((&*code, &*message), ("57P03", PLACE_OF_KEYS));
        gateway.connect(OTHER, "postgres", &before).await.unwrap();
        // It is back: the next token with the new key has the keys fetched again.
        published();
        *now.lock().unwrap() += Duration::from_secs(3600);
        gateway.connect(OTHER, "postgres", &token()).await.unwrap();
        gateway.connect(OTHER, "postgres", &before).await.unwrap();

        // The clock jumps a year back, a year ahead, and to where it was.
        let good = token();
        let year = Duration::from_secs(365 * 86_400);
        *now.lock().unwrap() -= year;
        let (code, ..) = gateway.refusal(OTHER, "postgres", &good).await;
        assert_eq!(code, "28000");
        *now.lock().unwrap() += 2 * year;
        let (code, message, _) = gateway.refusal(OTHER, "postgres", &good).await;
        assert!(code == "28000" && message.contains("has expired"), "{code} {message}");
        *now.lock().unwrap() -= year;
        gateway.connect(OTHER, "postgres", &good).await.unwrap();
        // None of it has touched a session.
        session.simple_query("SELECT 1").await.unwrap();
    });
}

fn keys(keys: &Value) -> Vec<u8> {
    json!({ "keys": keys }).to_string().into_bytes()
}

fn padded(document: &Value, length: usize) -> Vec<u8> {
    let mut document = document.to_string().into_bytes();
    document.resize(length, b' ');
    document
}

//! Any bytes as a token, as a key set or as an issuer's metadata: no panic, no unsigned token is accepted, and the second
//! result is the same.

#![no_main]

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::FutureExt as _;
use libfuzzer_sys::fuzz_target;
use pgentra_verify::{BoxFuture, Discovery, FetchError, KeySource, Policy, Principal, Rejection, Verifier};
use uuid::Uuid;

const TENANT: Uuid = Uuid::from_u128(1);
const GOOD_HEADER: &str = r#"{"alg":"RS256","kid":"k"}"#;

static KEY: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate(KeySize::Rsa2048).expect("a key"));
static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| verifier(key_document()));

struct Document(Vec<u8>);

impl KeySource for Document {
    fn fetch(&self) -> BoxFuture<'_, Result<Vec<u8>, FetchError>> {
        Box::pin(async { Ok(self.0.clone()) })
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((mode, data)) = data.split_first() else { return };
    match mode % 6 {
        0 => {
            let Ok(token) = std::str::from_utf8(data) else { return };
            assert!(verify(token).is_err(), "an unsigned token was accepted");
        }
        1 => {
            let unsigned = format!("{}.e30.AAAA", URL_SAFE_NO_PAD.encode(data));
            assert!(verify(&unsigned).is_err(), "an unsigned token was accepted");
        }
        2 => {
            let token = sign(data);
            if let Ok(principal) = verify(&token) {
                assert_eq!(principal.tenant(), Some(TENANT));
                assert!(principal.expires_on() + Duration::from_secs(300) > now());
            }
        }
        3 => {
            let _ = verifier(data.to_vec()).warm(now()).now_or_never().expect("nothing to wait for");
        }
        4 => {
            let policy = Policy::of_issuer("https://i").audience("a").build().expect("a policy");
            let verifier = Verifier::new(policy, Document(data.to_vec()));
            let _ = verifier.warm(now()).now_or_never().expect("nothing to wait for");
        }
        _ => {
            if let Ok(metadata) = Discovery::read(data, "https://i") {
                assert!(metadata.jwks_uri().to_ascii_lowercase().starts_with("https://"));
            }
        }
    }
});

fn verify(token: &str) -> Result<Principal, Rejection> {
    let ask = || VERIFIER.verify(token, now()).now_or_never().expect("nothing to wait for");
    let (first, second) = (ask(), ask());
    assert_eq!(format!("{first:?}"), format!("{second:?}"));
    first
}

fn verifier(document: Vec<u8>) -> Verifier {
    Verifier::new(Policy::builder(TENANT).build().expect("a policy"), Document(document))
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000)
}

fn sign(payload: &[u8]) -> String {
    let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(GOOD_HEADER), URL_SAFE_NO_PAD.encode(payload));
    let mut signature = vec![0; KEY.public_modulus_len()];
    KEY.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), input.as_bytes(), &mut signature).expect("a signature");
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// The modulus stands behind nine bytes of framing in the PKCS #1 form of a 2,048-bit key.
fn key_document() -> Vec<u8> {
    let modulus = URL_SAFE_NO_PAD.encode(&KEY.public_key().as_ref()[9..265]);
    format!(r#"{{"keys":[{{"kty":"RSA","kid":"k","n":"{modulus}","e":"AQAB"}}]}}"#).into_bytes()
}

//! Tokens verified in this process: new ones, and one again and again.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::FutureExt as _;
use pgentra_verify::{BoxFuture, FetchError, KeySource, Policy, Verifier};
use uuid::Uuid;

use crate::{Row, median};

/// Tokens of one round. More than the verifier remembers, so that each is new to it.
const NEW: usize = 4096;

const TENANT: Uuid = Uuid::from_u128(0xaaaaaaaa_0000_4000_8000_000000000001);

/// Seconds since 1970 at which the tokens are judged.
const NOW: u64 = 1_800_000_000;

/// Signed tokens of one issuer, with the claims of a managed identity.
pub struct Tokens {
    document: Vec<u8>,
    public: ParsedPublicKey,
    tokens: Vec<Token>,
}

struct Token {
    text: String,
    signature: Vec<u8>,
    /// Bytes of the text that are signed.
    signed: usize,
}

struct Keys(Vec<u8>);

impl KeySource for Keys {
    fn fetch(&self) -> BoxFuture<'_, Result<Vec<u8>, FetchError>> {
        Box::pin(async { Ok(self.0.clone()) })
    }
}

impl Tokens {
    pub fn new() -> Self {
        let pair = KeyPair::generate(KeySize::Rsa2048).expect("the crypto library makes a key");
        // The modulus stands behind nine bytes of framing in the PKCS #1 form of a 2,048-bit key.
        let pkcs1 = pair.public_key().as_ref();
        let modulus = URL_SAFE_NO_PAD.encode(&pkcs1[9..265]);
        let document =
            format!(r#"{{"keys":[{{"kty":"RSA","use":"sig","kid":"bench","n":"{modulus}","e":"AQAB"}}]}}"#);
        let public = ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pkcs1).expect("its own public key");
        let tokens = (0..NEW).map(|number| Token::sign(&pair, number)).collect();
        Self { document: document.into_bytes(), public, tokens }
    }

    fn verifier(&self) -> Result<Verifier> {
        let policy = Policy::builder(TENANT).build()?;
        let verifier = Verifier::new(policy, Keys(self.document.clone()));
        verifier.warm(now()).now_or_never().context("the keys are here")??;
        Ok(verifier)
    }

    /// New tokens on one core, and the bare check of their signatures.
    pub fn verified(&self, rounds: usize, time: Duration) -> Result<Vec<Row>> {
        let (mut bare, mut ours, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        let verifier = self.verifier()?;
        for _ in 0..rounds {
            let checked = rate(time, NEW, |at| {
                let token = &self.tokens[at];
                let signed = &token.text.as_bytes()[..token.signed];
                self.public.verify_sig(signed, &token.signature).is_ok()
            })?;
            // In turn, a token is forgotten before it comes again: the verifier remembers half as many.
            let judged = rate(time, NEW, |at| judge(&verifier, &self.tokens[at].text))?;
            bare.push(checked);
            ours.push(judged);
            ratios.push(judged / checked);
        }
        Ok(vec![
            Row {
                what: "bare RSA-2048 check of the crypto library, one core".into(),
                a_second: median(bare),
                ratio: None,
            },
            Row {
                what: "new tokens verified, one core".into(),
                a_second: median(ours),
                ratio: Some((median(ratios), "the bare check")),
            },
        ])
    }

    /// One token again and again, on one core and on all.
    pub fn repeated(&self, rounds: usize, time: Duration, cores: usize) -> Result<Vec<Row>> {
        let verifier = Arc::new(self.verifier()?);
        let mut rows = Vec::new();
        for threads in if cores > 1 { vec![1, cores] } else { vec![1] } {
            let mut all = Vec::new();
            for _ in 0..rounds {
                let workers: Vec<_> = (0..threads)
                    .map(|number| {
                        let (verifier, text) = (verifier.clone(), self.tokens[number].text.clone());
                        thread::spawn(move || rate(time, 1, |_| judge(&verifier, &text)))
                    })
                    .collect();
                let mut sum = 0.0;
                for worker in workers {
                    sum += worker.join().ok().context("a thread ended early")??;
                }
                all.push(sum);
            }
            let what = format!("a token that was verified before, {threads} core(s)");
            rows.push(Row { what, a_second: median(all), ratio: None });
        }
        Ok(rows)
    }
}

impl Token {
    fn sign(pair: &KeyPair, number: usize) -> Self {
        let object = Uuid::from_u128(number as u128 + 1);
        let header = r#"{"typ":"JWT","alg":"RS256","x5t":"bench","kid":"bench"}"#;
        let claims = format!(
            r#"{{"aud":"https://ossrdbms-aad.database.windows.net","iss":"https://sts.windows.net/{TENANT}/","iat":{at},"nbf":{at},"exp":{end},"aio":"k2RgYGg6GZJ5LsE0Y1LZvVfPXvDyAQ==","appid":"{object}","appidacr":"2","idp":"https://sts.windows.net/{TENANT}/","idtyp":"app","oid":"{object}","rh":"1.AAAAqqqqqgAAQACAAAAAAAAAAVDYPBLf2b1AlNXJ8Htb3oMBAAA.","sub":"{object}","tid":"{TENANT}","uti":"x4nYlrh5fUqVQ6wz3a0UAA","ver":"1.0","xms_mirid":"/subscriptions/{object}/resourcegroups/myResourceGroup/providers/Microsoft.Compute/virtualMachines/myVm"}}"#,
            at = NOW - 60,
            end = NOW + 86_340,
        );
        let mut text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signed = text.len();
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature)
            .expect("the crypto library signs");
        text.push('.');
        text.push_str(&URL_SAFE_NO_PAD.encode(&signature));
        Self { text, signature, signed }
    }
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)
}

fn judge(verifier: &Verifier, token: &str) -> bool {
    matches!(verifier.verify(token, now()).now_or_never(), Some(Ok(_)))
}

/// How often `work` is done in a second, with the numbers below `count` in turn. It must succeed each time.
fn rate(time: Duration, count: usize, work: impl Fn(usize) -> bool) -> Result<f64> {
    let start = Instant::now();
    let mut done = 0_u64;
    while start.elapsed() < time {
        // The clock is read once in a while only.
        for _ in 0..64 {
            let at = usize::try_from(done)? % count;
            ensure!(work(at), "a good token was refused");
            done += 1;
        }
    }
    Ok(done as f64 / start.elapsed().as_secs_f64())
}

//! Keys made at run time and tokens signed with them: everything the crate itself cannot do.

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, SystemTime};

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
    RsaEncoding,
};
use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use pgentra_verify::{BoxFuture, FetchError, KeySource, Policy, Verifier};
use serde_json::{Value, json};
use uuid::Uuid;

pub(crate) const TENANT: Uuid = Uuid::from_u128(0xaaaaaaaa_0000_4000_8000_000000000001);
pub(crate) const OBJECT: &str = "bbbbbbbb-0000-4000-8000-000000000002";
pub(crate) const CLIENT: &str = "cccccccc-0000-4000-8000-000000000003";
pub(crate) const AUDIENCE: &str = "https://ossrdbms-aad.database.windows.net";
pub(crate) const NOW_SECONDS: u64 = 1_790_000_000;

pub(crate) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOW_SECONDS)
}

pub(crate) struct Signer {
    pub(crate) id: String,
    pub(crate) pair: KeyPair,
}

/// The tenant's key, and one that the tenant never published.
pub(crate) static TENANT_KEY: LazyLock<Signer> = LazyLock::new(|| Signer::generate("tenant-key"));
pub(crate) static UNPUBLISHED_KEY: LazyLock<Signer> = LazyLock::new(|| Signer::generate("unpublished-key"));

impl Signer {
    pub(crate) fn generate(id: &str) -> Signer {
        Signer { id: id.to_owned(), pair: KeyPair::generate(KeySize::Rsa2048).unwrap() }
    }

    pub(crate) fn jwk(&self) -> Value {
        // PKCS #1 of a 2,048-bit key: nine bytes of framing and sign, the modulus, two bytes of framing, 65,537.
        let public = self.pair.public_key().as_ref();
        assert_eq!((public.len(), &public[265..]), (270, &[2, 3, 1, 0, 1][..]));
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        json!({
            "kty": "RSA", "use": "sig", "kid": self.id, "x5t": self.id,
            "n": part(&public[9..265]),
            "e": part(&public[267..]),
            "issuer": "https://login.microsoftonline.com/{tenantid}/v2.0",
        })
    }

    pub(crate) fn public_der(&self) -> Vec<u8> {
        self.pair.public_key().as_der().unwrap().as_ref().to_vec()
    }

    pub(crate) fn public_pem(&self) -> String {
        let text = STANDARD.encode(self.public_der());
        let lines: Vec<&str> =
            text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    }

    pub(crate) fn sign(&self, input: &str) -> Vec<u8> {
        self.sign_with(&RSA_PKCS1_SHA256, input)
    }

    pub(crate) fn sign_with(&self, padding: &'static dyn RsaEncoding, input: &str) -> Vec<u8> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair.sign(padding, &rand::SystemRandom::new(), input.as_bytes(), &mut signature).unwrap();
        signature
    }

    pub(crate) fn token(&self, header: &str, payload: &str) -> String {
        let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let signature = URL_SAFE_NO_PAD.encode(self.sign(&input));
        format!("{input}.{signature}")
    }

    pub(crate) fn header(&self) -> Value {
        json!({ "typ": "JWT", "alg": "RS256", "kid": self.id, "x5t": self.id })
    }
}

/// A key on P-256, and tokens signed with it.
pub(crate) struct EcSigner {
    id: String,
    pair: EcdsaKeyPair,
}

impl EcSigner {
    pub(crate) fn generate(id: &str) -> EcSigner {
        EcSigner {
            id: id.to_owned(),
            pair: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
        }
    }

    pub(crate) fn jwk(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        assert_eq!((point.len(), point[0]), (65, 4));
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        json!({ "kty": "EC", "crv": "P-256", "kid": self.id, "x": part(&point[1..33]), "y": part(&point[33..]) })
    }

    pub(crate) fn token(&self, header: &Value, claims: &Value) -> String {
        let input = signing_input(header, claims);
        let signature = self.pair.sign(&rand::SystemRandom::new(), input.as_bytes()).unwrap();
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn signing_input(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

/// A token with an RSA-PSS signature, whatever its header says.
pub(crate) fn pss_token(signer: &Signer, header: &Value, claims: &Value) -> String {
    let input = signing_input(header, claims);
    let signature = signer.sign_with(&RSA_PSS_SHA256, &input);
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

pub(crate) fn hmac_token(header: &str, payload: &str, secret: &[u8]) -> String {
    let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), input.as_bytes());
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(tag))
}

/// What a managed identity's token says.
pub(crate) fn app_claims() -> Value {
    json!({
        "aud": AUDIENCE,
        "iss": format!("https://sts.windows.net/{TENANT}/"),
        "iat": NOW_SECONDS - 60, "nbf": NOW_SECONDS - 60, "exp": NOW_SECONDS + 86_340,
        "aio": "E2RgYHj4", "appid": CLIENT, "appidacr": "2",
        "idp": format!("https://sts.windows.net/{TENANT}/"),
        "idtyp": "app", "oid": OBJECT, "rh": "1.AAAA", "sub": OBJECT, "tid": TENANT.to_string(),
        "uti": "uti", "ver": "1.0", "xms_mirid": "/subscriptions/s/resourcegroups/g/providers/Microsoft.Compute/virtualMachines/myVm",
    })
}

/// What a person's token says, by way of the Azure command line.
pub(crate) fn user_claims() -> Value {
    json!({
        "aud": AUDIENCE,
        "iss": format!("https://sts.windows.net/{TENANT}/"),
        "iat": NOW_SECONDS - 60, "nbf": NOW_SECONDS - 60, "exp": NOW_SECONDS + 4_000,
        "acr": "1", "amr": ["pwd", "mfa"], "appid": "04b07795-8ddb-461a-bbee-02f9e1bf7b46", "appidacr": "0",
        "groups": ["dddddddd-0000-4000-8000-000000000004", "dddddddd-0000-4000-8000-000000000005"],
        "name": "Ada", "oid": OBJECT, "scp": "user_impersonation", "sub": "pairwise-subject",
        "tid": TENANT.to_string(), "unique_name": "ada@example.com", "upn": "ada@example.com", "ver": "1.0",
    })
}

/// Merges `changes` into `target`: `null` removes, `{"$now": n}` is the time of the test plus n seconds.
pub(crate) fn merge(target: &mut Value, changes: &Value) {
    for (name, change) in changes.as_object().unwrap() {
        let target = target.as_object_mut().unwrap();
        match change {
            Value::Null => {
                target.remove(name);
            }
            Value::Object(object) if object.contains_key("$now") => {
                let seconds = NOW_SECONDS.checked_add_signed(object["$now"].as_i64().unwrap()).unwrap();
                target.insert(name.clone(), seconds.into());
            }
            other => {
                target.insert(name.clone(), other.clone());
            }
        }
    }
}

pub(crate) fn sign(claims: &Value) -> String {
    TENANT_KEY.token(&TENANT_KEY.header().to_string(), &claims.to_string())
}

pub(crate) fn document(keys: &[&Signer]) -> Vec<u8> {
    json!({ "keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>() }).to_string().into_bytes()
}

/// A source that answers from a queue and counts. The last answer stays. `None` means: never answer.
#[derive(Clone)]
pub(crate) struct Script(Arc<Mutex<(VecDeque<Answer>, usize)>>);

/// A document, an error, or silence.
pub(crate) type Answer = Option<Result<Vec<u8>, String>>;

impl Script {
    pub(crate) fn new(answers: impl IntoIterator<Item = Answer>) -> Script {
        Script(Arc::new(Mutex::new((answers.into_iter().collect(), 0))))
    }

    pub(crate) fn always(document: Vec<u8>) -> Script {
        Script::new([Some(Ok(document))])
    }

    pub(crate) fn fetches(&self) -> usize {
        self.0.lock().unwrap().1
    }
}

impl KeySource for Script {
    fn fetch(&self) -> BoxFuture<'_, Result<Vec<u8>, FetchError>> {
        let answer = {
            let mut script = self.0.lock().unwrap();
            script.1 += 1;
            if script.0.len() > 1 { script.0.pop_front().unwrap() } else { script.0[0].clone() }
        };
        Box::pin(async move {
            // One rest, so that those who come meanwhile find a fetch under way.
            tokio::task::yield_now().await;
            match answer {
                Some(answer) => answer.map_err(FetchError::new),
                None => std::future::pending().await,
            }
        })
    }
}

pub(crate) fn policy() -> Policy {
    Policy::builder(TENANT).build().unwrap()
}

pub(crate) fn verifier() -> Verifier {
    Verifier::new(policy(), Script::always(document(&[&TENANT_KEY])))
}

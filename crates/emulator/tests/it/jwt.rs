//! Takes tokens apart and verifies them with the published keys, in code that shares nothing with the emulator.

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pgentra_emulator::LocalAzure;
use serde_json::Value;

use crate::client::Ask;

/// Header and claims of a token that any key of `set` signed.
pub(crate) fn verified(token: &str, set: &Value) -> Option<(Value, Value)> {
    let (message, signature) = token.rsplit_once('.')?;
    let (header, claims) = message.split_once('.')?;
    let parse = |part| serde_json::from_slice::<Value>(&decode(part)).unwrap();
    let (header, claims) = (parse(header), parse(claims));
    let key = set["keys"].as_array()?.iter().find(|key| key["kid"] == header["kid"])?;
    let text = |name: &str| decode(key[name].as_str().unwrap());
    RsaPublicKeyComponents { n: text("n"), e: text("e") }
        .verify(&RSA_PKCS1_2048_8192_SHA256, message.as_bytes(), &decode(signature))
        .ok()?;
    Some((header, claims))
}

/// The key set, fetched as a server would.
pub(crate) async fn published(azure: &LocalAzure) -> Value {
    Ask::get(azure.keys_url()).trusting(azure.ca_pem()).send().await.unwrap().json()
}

/// The claims of a token that the tenant signed.
pub(crate) async fn claims(azure: &LocalAzure, token: &str) -> Value {
    verified(token, &published(azure).await).unwrap().1
}

fn decode(part: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(part).unwrap()
}

//! The keys over time: rollover, outages, and clients who would make us fetch.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use pgentra_verify::{
    DEFAULT_REFETCH_INTERVAL, JWKS_LIMIT, KEYS_LIMIT, MAX_STALE, REFRESH_AFTER, RETRY_AFTER, Rejection,
    Verifier,
};
use serde_json::{Value, json};

use crate::mint::{
    Answer, Script, Signer, TENANT, TENANT_KEY, UNPUBLISHED_KEY, app_claims, document, now, policy,
};

const SECOND: Duration = Duration::from_secs(1);

fn verifier(answers: impl IntoIterator<Item = Answer>) -> (Verifier, Script) {
    let script = Script::new(answers);
    (Verifier::new(policy(), script.clone()), script)
}

fn keys(keys: &[&Signer]) -> Answer {
    Some(Ok(document(keys)))
}

fn failure() -> Answer {
    Some(Err("the authority is down".to_owned()))
}

/// A token of this signer that is valid for weeks.
fn token(signer: &Signer) -> String {
    let mut claims = app_claims();
    claims["exp"] = (crate::mint::NOW_SECONDS + 60 * 86_400).into();
    signer.token(&signer.header().to_string(), &claims.to_string())
}

#[tokio::test]
async fn rollover_needs_one_fetch() {
    let (verifier, script) = verifier([keys(&[&TENANT_KEY]), keys(&[&TENANT_KEY, &UNPUBLISHED_KEY])]);
    verifier.verify(&token(&TENANT_KEY), now()).await.unwrap();
    assert_eq!(script.fetches(), 1);
    verifier.verify(&token(&UNPUBLISHED_KEY), now() + DEFAULT_REFETCH_INTERVAL).await.unwrap();
    verifier.verify(&token(&TENANT_KEY), now() + DEFAULT_REFETCH_INTERVAL).await.unwrap();
    assert_eq!(script.fetches(), 2);
}

#[tokio::test]
async fn a_key_withdrawn_takes_its_remembered_tokens_with_it() {
    let (verifier, script) = verifier([keys(&[&TENANT_KEY]), keys(&[&UNPUBLISHED_KEY])]);
    let old = token(&TENANT_KEY);
    verifier.verify(&old, now()).await.unwrap();
    verifier.verify(&old, now() + REFRESH_AFTER - SECOND).await.unwrap();
    assert_eq!(script.fetches(), 1);
    assert!(matches!(verifier.verify(&old, now() + REFRESH_AFTER).await, Err(Rejection::UnknownKey)));
    assert_eq!(script.fetches(), 2);
}

#[tokio::test]
async fn hostile_key_ids_cause_one_fetch_per_interval() {
    let (verifier, script) = verifier([keys(&[&TENANT_KEY])]);
    for second in 0..=300 {
        for kid in 0..5 {
            let header = json!({ "alg": "RS256", "kid": format!("{second}-{kid}") }).to_string();
            let hostile = format!("{}.e30.AAAA", base64(&header));
            let answer = verifier.verify(&hostile, now() + SECOND * second).await;
            assert!(matches!(answer, Err(Rejection::UnknownKey)), "{answer:?}");
        }
    }
    let intervals = 300 / usize::try_from(DEFAULT_REFETCH_INTERVAL.as_secs()).unwrap();
    assert_eq!(script.fetches(), 1 + intervals);
}

#[tokio::test]
async fn garbage_causes_no_fetch() {
    let (verifier, script) = verifier([keys(&[&TENANT_KEY])]);
    for garbage in
        ["", "password", "a.b.c", "e30.e30.AAAA", &format!("{}.e30.AAAA", base64(r#"{"alg":"none"}"#))]
    {
        verifier.verify(garbage, now()).await.unwrap_err();
    }
    assert_eq!(script.fetches(), 0);
}

#[tokio::test]
async fn many_wait_for_one_fetch() {
    let (verifier, script) = verifier([keys(&[&TENANT_KEY])]);
    let verifier = Arc::new(verifier);
    let token = Arc::new(token(&TENANT_KEY));
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let (verifier, token) = (Arc::clone(&verifier), Arc::clone(&token));
            tokio::spawn(async move {
                verifier.verify(&token, now()).await.map(|principal| principal.object_id())
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(script.fetches(), 1);
}

#[tokio::test]
async fn without_keys_the_error_is_told_and_the_next_try_is_soon() {
    let (verifier, script) = verifier([failure(), keys(&[&TENANT_KEY])]);
    for later in [Duration::ZERO, RETRY_AFTER - SECOND] {
        let answer = verifier.verify(&token(&TENANT_KEY), now() + later).await;
        let Err(Rejection::KeysUnavailable(error)) = answer else { panic!("{answer:?}") };
        assert_eq!(error.to_string(), "the authority is down");
    }
    assert_eq!(script.fetches(), 1);
    verifier.verify(&token(&TENANT_KEY), now() + RETRY_AFTER).await.unwrap();
    assert_eq!(script.fetches(), 2);
}

#[tokio::test]
async fn an_outage_is_bridged_for_a_bounded_time() {
    let (verifier, script) = verifier([keys(&[&TENANT_KEY]), failure()]);
    let token = token(&TENANT_KEY);
    verifier.verify(&token, now()).await.unwrap();
    verifier.verify(&token, now() + REFRESH_AFTER).await.unwrap();
    assert_eq!(script.fetches(), 2);
    verifier.verify(&token, now() + REFRESH_AFTER + DEFAULT_REFETCH_INTERVAL - SECOND).await.unwrap();
    assert_eq!(script.fetches(), 2);
    verifier.verify(&token, now() + MAX_STALE - SECOND).await.unwrap();
    let answer = verifier.verify(&token, now() + MAX_STALE).await;
    assert!(matches!(answer, Err(Rejection::KeysUnavailable(_))), "{answer:?}");
}

#[tokio::test]
async fn during_an_outage_an_unknown_key_is_not_called_unknown() {
    let (verifier, _) = verifier([keys(&[&TENANT_KEY]), failure()]);
    verifier.verify(&token(&TENANT_KEY), now()).await.unwrap();
    let answer = verifier.verify(&token(&UNPUBLISHED_KEY), now() + DEFAULT_REFETCH_INTERVAL).await;
    assert!(matches!(answer, Err(Rejection::KeysUnavailable(_))), "{answer:?}");
}

#[tokio::test]
async fn a_fetch_that_hangs_holds_up_one_caller_only() {
    let (verifier, script) = verifier([keys(&[&TENANT_KEY]), None]);
    let token = token(&TENANT_KEY);
    verifier.verify(&token, now()).await.unwrap();
    let later = now() + REFRESH_AFTER;
    let mut waiting = Box::pin(verifier.verify(&token, later));
    assert!((&mut waiting).now_or_never().is_none());
    verifier.verify(&token, later).now_or_never().unwrap().unwrap();
    assert_eq!(script.fetches(), 2);
}

#[tokio::test]
async fn clients_who_hang_up_cannot_stop_a_rollover() {
    let (verifier, script) = verifier([keys(&[&TENANT_KEY]), keys(&[&UNPUBLISHED_KEY])]);
    verifier.verify(&token(&TENANT_KEY), now()).await.unwrap();
    let later = now() + DEFAULT_REFETCH_INTERVAL;
    // Polled once, then dropped: the fetch has begun and no caller waits for it.
    assert!(verifier.verify(&token(&UNPUBLISHED_KEY), later).now_or_never().is_none());
    verifier.verify(&token(&UNPUBLISHED_KEY), later).await.unwrap();
    assert_eq!(script.fetches(), 2);
}

#[tokio::test]
async fn a_clock_set_back_stops_nothing() {
    let (verifier, script) = verifier([keys(&[&TENANT_KEY]), keys(&[&UNPUBLISHED_KEY])]);
    verifier.verify(&token(&TENANT_KEY), now() + REFRESH_AFTER).await.unwrap();
    verifier.verify(&token(&UNPUBLISHED_KEY), now()).await.unwrap();
    assert_eq!(script.fetches(), 2);
}

#[tokio::test]
async fn remembered_tokens_expire_all_the_same() {
    let (verifier, _) = verifier([keys(&[&TENANT_KEY])]);
    let token = crate::mint::sign(&app_claims());
    let first = verifier.verify(&token, now()).await.unwrap();
    let second = verifier.verify(&token, now() + SECOND).await.unwrap();
    assert_eq!(first.object_id(), second.object_id());
    let end = first.expires_on() + policy().leeway();
    verifier.verify(&token, end - SECOND).await.unwrap();
    assert!(matches!(verifier.verify(&token, end).await, Err(Rejection::Expired)));
    let early = first.not_before() - policy().leeway() - SECOND;
    assert!(matches!(verifier.verify(&token, early).await, Err(Rejection::NotYetValid)));
}

#[tokio::test]
async fn warming_fetches_once() {
    let (verifier, script) = verifier([keys(&[&TENANT_KEY, &UNPUBLISHED_KEY])]);
    assert_eq!(verifier.warm(now()).await.unwrap(), 2);
    verifier.verify(&token(&TENANT_KEY), now()).await.unwrap();
    assert_eq!(script.fetches(), 1);
}

#[tokio::test]
async fn foreign_keys_are_skipped() {
    let changed = |changes: Value| {
        let mut jwk = TENANT_KEY.jwk();
        crate::mint::merge(&mut jwk, &changes);
        jwk
    };
    let foreign = [
        json!("not an object"),
        json!({}),
        json!({ "kty": "EC", "crv": "P-256", "kid": "tenant-key", "x": "AA", "y": "AA" }),
        json!({ "kty": "oct", "kid": "tenant-key", "k": "AAAA" }),
        json!({ "kty": 7, "kid": [] }),
        changed(json!({"use": "enc"})),
        changed(json!({"alg": "RS512"})),
        changed(json!({"alg": null, "use": 1})),
        changed(json!({"kid": null})),
        changed(json!({"kid": ""})),
        changed(json!({"n": "AQAB"})),
        changed(json!({"n": null})),
        changed(json!({"n": "not base64!"})),
        changed(json!({"e": ""})),
        changed(json!({"e": "AQAB="})),
        changed(
            json!({"issuer": "https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0"}),
        ),
    ];
    for key in &foreign {
        let (alone, _) = verifier([Some(Ok(json!({ "keys": [key] }).to_string().into_bytes()))]);
        let answer = alone.verify(&token(&TENANT_KEY), now()).await;
        assert!(matches!(answer, Err(Rejection::KeysUnavailable(_))), "{key}: {answer:?}");
    }
    for issuer in [Value::Null, json!(format!("https://login.microsoftonline.com/{TENANT}/v2.0")), json!(5)] {
        let mut keys = foreign.to_vec();
        keys.push(changed(json!({"issuer": issuer, "alg": "RS256", "use": null})));
        let (mixed, _) = verifier([Some(Ok(json!({ "keys": keys, "more": true }).to_string().into_bytes()))]);
        assert_eq!(mixed.warm(now()).await.unwrap(), 1);
        mixed.verify(&token(&TENANT_KEY), now()).await.unwrap();
    }
}

/// Invariant 5: no length is trusted before it is bounded.
#[tokio::test]
async fn documents_are_bounded_and_checked() {
    let good = document(&[&TENANT_KEY]);
    let mut padded = good.clone();
    padded.resize(JWKS_LIMIT, b' ');
    let mut too_long = good.clone();
    too_long.resize(JWKS_LIMIT + 1, b' ');
    let of = |count| json!({ "keys": vec![TENANT_KEY.jwk(); count] }).to_string().into_bytes();
    for (document, works) in [
        (good, true),
        (padded, true),
        (too_long, false),
        (of(KEYS_LIMIT), true),
        (of(KEYS_LIMIT + 1), false),
        (Vec::new(), false),
        (b"<html>".to_vec(), false),
        (b"[]".to_vec(), false),
        (br#"{"keys":{}}"#.to_vec(), false),
        (br#"{"keys":[]}"#.to_vec(), false),
        ("[".repeat(100_000).into_bytes(), false),
    ] {
        let (verifier, _) = verifier([Some(Ok(document))]);
        assert_eq!(verifier.warm(now()).await.is_ok(), works);
    }
}

#[tokio::test]
async fn a_bad_document_does_not_replace_a_good_one() {
    let (verifier, script) = verifier([keys(&[&TENANT_KEY]), Some(Ok(br#"{"keys":[]}"#.to_vec()))]);
    let token = token(&TENANT_KEY);
    verifier.verify(&token, now()).await.unwrap();
    verifier.verify(&token, now() + REFRESH_AFTER).await.unwrap();
    assert_eq!(script.fetches(), 2);
}

fn base64(text: &str) -> String {
    use ::base64::Engine as _;
    ::base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
}

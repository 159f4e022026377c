//! Other issuers than Entra, other algorithms than RS256, and several issuers at once.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use pgentra_verify::{
    Algorithm, Groups, JWKS_LIMIT, KeySource, Policy, Principal, REFRESH_AFTER, REFRESH_AHEAD, Rejection,
    SubjectKind, Verifier, VerifierError,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::mint::{
    EcSigner, NOW_SECONDS, Script, Signer, TENANT_KEY, UNPUBLISHED_KEY, app_claims, document, merge, now,
    policy, pss_token,
};

const ISSUER: &str = "https://idp.example/realms/data";
const AUDIENCE: &str = "postgres";

static EC: LazyLock<EcSigner> = LazyLock::new(|| EcSigner::generate("curve"));
static OTHER_EC: LazyLock<EcSigner> = LazyLock::new(|| EcSigner::generate("curve"));

fn other_policy() -> Policy {
    Policy::of_issuer(ISSUER).audience(AUDIENCE).build().unwrap()
}

/// What Keycloak and its like put into an access token.
fn claims(changes: Value) -> Value {
    let mut claims = json!({
        "iss": ISSUER, "aud": ["account", AUDIENCE], "sub": "f5d3a1b0", "azp": "reports",
        "iat": NOW_SECONDS - 60, "exp": NOW_SECONDS + 300, "typ": "Bearer",
        "preferred_username": "ada", "groups": ["/readers", "dddddddd-0000-4000-8000-000000000004"],
        "roles": ["reader"],
    });
    merge(&mut claims, &changes);
    claims
}

fn key_set(keys: &[Value]) -> Vec<u8> {
    json!({ "keys": keys }).to_string().into_bytes()
}

fn verifier(keys: &[Value]) -> Verifier {
    Verifier::new(other_policy(), Script::always(key_set(keys)))
}

fn header(alg: &str, kid: &str) -> Value {
    json!({ "alg": alg, "kid": kid, "typ": "at+jwt" })
}

async fn judged(changes: Value) -> Result<Principal, Rejection> {
    let token = EC.token(&header("ES256", "curve"), &claims(changes));
    verifier(&[EC.jwk()]).verify(&token, now()).await
}

#[tokio::test]
async fn whose_token_it_is() {
    let ada = judged(json!({})).await.unwrap();
    assert_eq!((ada.issuer(), ada.subject(), ada.audience()), (ISSUER, "f5d3a1b0", AUDIENCE));
    assert_eq!((ada.tenant(), ada.client(), ada.app_id()), (None, Some("reports"), None));
    assert_eq!((ada.kind(), ada.user_principal_name()), (SubjectKind::User, Some("ada")));
    assert_eq!(ada.group_names(), ["/readers", "dddddddd-0000-4000-8000-000000000004"]);
    assert_eq!(ada.groups(), &Groups::Listed(vec![Uuid::from_u128(0xdddddddd_0000_4000_8000_000000000004)]));
    assert_eq!(ada.app_roles(), ["reader"]);
    assert_eq!(ada.object_id().get_version_num(), 8);
    // The id belongs to issuer and subject, whatever else changes, and an `oid` of the issuer's own is not one of Entra's.
    let again =
        judged(json!({ "azp": "other", "oid": "bbbbbbbb-0000-4000-8000-000000000002" })).await.unwrap();
    assert_eq!(again.object_id(), ada.object_id());
    let grace = judged(json!({ "sub": "f5d3a1b1" })).await.unwrap();
    assert_ne!(grace.object_id(), ada.object_id());
    let service = judged(json!({ "sub": "reports", "client_id": "reports", "groups": null })).await.unwrap();
    assert_eq!((service.kind(), service.groups()), (SubjectKind::App, &Groups::Absent));
}

#[tokio::test]
async fn what_is_refused() {
    for (changes, expected) in [
        (json!({ "exp": null }), "MissingClaim(\"exp\")"),
        (json!({ "exp": { "$now": -300 } }), "Expired"),
        (json!({ "nbf": { "$now": 301 } }), "NotYetValid"),
        (json!({ "iat": { "$now": 301 } }), "NotYetValid"),
        (json!({ "iat": "soon" }), "BadClaim(\"iat\")"),
        (json!({ "aud": null }), "MissingClaim(\"aud\")"),
        (json!({ "aud": [] }), "BadClaim(\"aud\")"),
        (json!({ "aud": [AUDIENCE, 1] }), "BadClaim(\"aud\")"),
        (json!({ "aud": ["account", "Postgres"] }), "Audience { found: \"account\" }"),
        (json!({ "iss": "https://idp.example/realms/data/" }), "Issuer"),
        (json!({ "iss": null }), "MissingClaim(\"iss\")"),
        (json!({ "sub": null }), "MissingClaim(\"sub\")"),
        (json!({ "sub": 7 }), "BadClaim(\"sub\")"),
        (json!({ "client_id": "another" }), "BadClaim(\"azp\")"),
        (json!({ "roles": "reader" }), "BadClaim(\"roles\")"),
    ] {
        let answer = judged(changes.clone()).await;
        assert_eq!(
            answer.map_err(|rejection| format!("{rejection:?}")).err().as_deref(),
            Some(expected),
            "{changes}"
        );
    }
    judged(json!({ "iat": null })).await.unwrap();
    judged(json!({ "aud": AUDIENCE })).await.unwrap();
}

/// The key decides what it is used for: no header makes another use of it.
#[tokio::test]
async fn algorithms() {
    let rsa = &*TENANT_KEY;
    let with = |name: &str, value: Value| {
        let mut jwk = rsa.jwk();
        jwk[name] = value;
        jwk
    };
    let plain = claims(json!({}));
    let rs256 = |alg: &str| rsa.token(&header(alg, &rsa.id).to_string(), &plain.to_string());
    let ps256 = |alg: &str| pss_token(rsa, &header(alg, &rsa.id), &plain);
    let es256 = |alg: &str| EC.token(&header(alg, "curve"), &plain);
    let ok = Ok(());
    for (about, keys, token, expected) in [
        ("RSA with PKCS #1", rsa.jwk(), rs256("RS256"), ok),
        ("RSA with PSS, the same key", rsa.jwk(), ps256("PS256"), ok),
        ("a curve", EC.jwk(), es256("ES256"), ok),
        ("a PKCS #1 signature called PSS", rsa.jwk(), rs256("PS256"), Err("Signature")),
        ("a PSS signature called PKCS #1", rsa.jwk(), ps256("RS256"), Err("Signature")),
        ("a key for PSS alone", with("alg", json!("PS256")), rs256("RS256"), Err("Algorithm")),
        ("a key for PKCS #1 alone", with("alg", json!("RS256")), ps256("PS256"), Err("Algorithm")),
        ("a curve's signature called RSA", EC.jwk(), es256("RS256"), Err("Algorithm")),
        ("an RSA signature called a curve's", rsa.jwk(), rs256("ES256"), Err("Algorithm")),
        ("another curve", EC.jwk(), es256("ES384"), Err("Algorithm")),
        ("another digest", rsa.jwk(), rs256("RS512"), Err("Algorithm")),
        ("EdDSA", rsa.jwk(), rs256("EdDSA"), Err("Algorithm")),
        ("none", rsa.jwk(), rs256("none"), Err("Algorithm")),
        ("another key of that name", OTHER_EC.jwk(), es256("ES256"), Err("Signature")),
        ("a key that encrypts", with("use", json!("enc")), rs256("RS256"), Err("KeysUnavailable")),
        (
            "a key that signs and does not verify",
            with("key_ops", json!(["sign"])),
            rs256("RS256"),
            Err("KeysUnavailable"),
        ),
        ("a key that verifies", with("key_ops", json!(["sign", "verify"])), rs256("RS256"), ok),
    ] {
        let answer = verifier(&[keys]).verify(&token, now()).await;
        let answer = answer.map(drop).map_err(|rejection| format!("{rejection:?}"));
        let name = answer.as_ref().map_err(|said| said.split(['(', ' ']).next().unwrap_or_default());
        assert_eq!(name.copied(), expected, "{about}: {answer:?}");
    }
    // A policy may allow less. Entra's allows one.
    assert_eq!(policy().algorithms(), [Algorithm::Rs256]);
    let only = Policy::of_issuer(ISSUER).audience(AUDIENCE).algorithm(Algorithm::Es256).build().unwrap();
    let verifier = Verifier::new(only, Script::always(key_set(&[rsa.jwk(), EC.jwk()])));
    assert!(matches!(verifier.verify(&rs256("RS256"), now()).await, Err(Rejection::Algorithm)));
    verifier.verify(&es256("ES256"), now()).await.unwrap();
}

#[tokio::test]
async fn weak_foreign_and_doubled_keys_are_ignored() {
    let rsa = TENANT_KEY.jwk();
    let changed = |key: &Value, name: &str, value: Value| {
        let mut key = key.clone();
        key[name] = value;
        key
    };
    let short = "A".repeat(171);
    for (about, weak) in [
        ("1,024 bits", changed(&rsa, "n", json!(short))),
        ("8,200 bits", changed(&rsa, "n", json!("A".repeat(1368)))),
        ("exponent 1", changed(&rsa, "e", json!("AQ"))),
        ("exponent 3", changed(&rsa, "e", json!("Aw"))),
        ("exponent 3 in three bytes", changed(&rsa, "e", json!("AAAD"))),
        ("an even exponent", changed(&rsa, "e", json!("AQAC"))),
        ("a modulus that is no base64", changed(&rsa, "n", json!("+/"))),
        ("no id", changed(&rsa, "kid", json!(""))),
        ("a symmetric key", json!({ "kty": "oct", "kid": "tenant-key", "k": "c2VjcmV0" })),
        ("a point that is not on the curve", changed(&EC.jwk(), "x", json!("A".repeat(43)))),
        ("half a point", changed(&EC.jwk(), "y", json!(null))),
        ("a short coordinate", changed(&EC.jwk(), "x", json!("AA"))),
        ("another curve", changed(&EC.jwk(), "crv", json!("P-384"))),
        ("no object", json!("key")),
    ] {
        let alone = verifier(std::slice::from_ref(&weak)).warm(now()).await;
        assert!(alone.is_err(), "{about}");
        assert_eq!(verifier(&[weak, rsa.clone()]).warm(now()).await.unwrap(), 1, "{about}");
    }
    assert_eq!(verifier(&vec![rsa.clone(); 64]).warm(now()).await.unwrap(), 1, "one key 64 times");
    // Many keys of one id do not make one signature cost many checks.
    let alike: Vec<_> = (0..4).map(|_| Signer::generate("tenant-key").jwk()).collect();
    assert_eq!(verifier(&alike).warm(now()).await.unwrap(), 2);
    // Two of one id are both the issuer's.
    let token = TENANT_KEY.token(&header("RS256", "tenant-key").to_string(), &claims(json!({})).to_string());
    verifier(&[alike[0].clone(), rsa]).verify(&token, now()).await.unwrap();
}

#[tokio::test]
async fn a_document_of_ten_megabytes_is_refused_and_the_keys_stay() {
    let mut huge = key_set(&[UNPUBLISHED_KEY.jwk()]);
    huge.resize(10 * 1024 * 1024, b' ');
    assert!(huge.len() > JWKS_LIMIT);
    let html = b"<html>502 Bad Gateway</html>".to_vec();
    let good = document(&[&TENANT_KEY]);
    let script = Script::new([Some(Ok(good)), Some(Ok(huge)), Some(Ok(html)), Some(Err("down".to_owned()))]);
    let verifier = Verifier::new(policy(), script.clone());
    let mut long = app_claims();
    long["exp"] = (NOW_SECONDS + 60 * 86_400).into();
    let token = crate::mint::sign(&long);
    for day in 0..4 {
        verifier.verify(&token, now() + REFRESH_AFTER * day).await.unwrap();
    }
    assert_eq!(script.fetches(), 4);
}

#[tokio::test]
async fn keys_are_renewed_before_a_login_waits_for_it() {
    let script = Script::new([Some(Ok(document(&[&TENANT_KEY]))), Some(Err("down".to_owned()))]);
    let verifier = Verifier::new(policy(), script.clone());
    verifier.refresh(now()).await.unwrap();
    assert_eq!(script.fetches(), 0, "nothing was needed yet");
    verifier.warm(now()).await.unwrap();
    verifier.refresh(now() + REFRESH_AHEAD - Duration::from_secs(1)).await.unwrap();
    assert_eq!(script.fetches(), 1);
    let later = now() + REFRESH_AHEAD;
    assert!(verifier.refresh(later).await.is_err());
    assert_eq!(script.fetches(), 2);
    assert!(
        verifier.refresh(later + Duration::from_secs(1)).await.is_err(),
        "the error is told until it has passed"
    );
    assert_eq!(script.fetches(), 2, "an issuer that is down is not asked at once again");
    verifier.verify(&crate::mint::sign(&app_claims()), later).await.unwrap();
    assert_eq!(script.fetches(), 2, "no login waited");
}

#[tokio::test]
async fn several_issuers_keep_apart() {
    let (entra, other) = (Script::always(document(&[&TENANT_KEY])), Script::always(key_set(&[EC.jwk()])));
    let sources: [(Policy, Arc<dyn KeySource>); 2] =
        [(policy(), Arc::new(entra.clone())), (other_policy(), Arc::new(other.clone()))];
    let verifier = Verifier::of_several(sources).unwrap();
    assert_eq!(verifier.policies().count(), 2);
    let of_entra = crate::mint::sign(&app_claims());
    let of_other = EC.token(&header("ES256", "curve"), &claims(json!({})));
    for attempt in 1..=2 {
        assert!(verifier.verify(&of_entra, now()).await.unwrap().tenant().is_some(), "{attempt}");
        assert!(verifier.verify(&of_other, now()).await.unwrap().tenant().is_none(), "{attempt}");
    }
    assert_eq!((entra.fetches(), other.fetches()), (1, 1));
    // The other issuer's key signs what Entra would say, under its own id and under the tenant's.
    let forged = EC.token(&header("ES256", "curve"), &app_claims());
    assert!(matches!(verifier.verify(&forged, now()).await, Err(Rejection::Algorithm)));
    let header = TENANT_KEY.header().to_string();
    let forged = TENANT_KEY.token(&header, &claims(json!({})).to_string());
    assert!(matches!(verifier.verify(&forged, now()).await, Err(Rejection::UnknownKey)));
    let unknown = TENANT_KEY.token(&header, &claims(json!({ "iss": "https://evil.example" })).to_string());
    assert!(matches!(verifier.verify(&unknown, now()).await, Err(Rejection::Issuer)));
    assert!(matches!(verifier.verify("e30.e30.AAAA", now()).await, Err(Rejection::MissingClaim("iss"))));
    assert_eq!(verifier.warm(now()).await.unwrap(), 2);

    let twice: [(Policy, Arc<dyn KeySource>); 2] =
        [(policy(), Arc::new(entra.clone())), (policy(), Arc::new(entra.clone()))];
    assert_eq!(Verifier::of_several(twice).unwrap_err(), VerifierError::SameIssuer);
    let none: [(Policy, Arc<dyn KeySource>); 0] = [];
    assert_eq!(Verifier::of_several(none).unwrap_err(), VerifierError::NoIssuer);
    let many = (0..17).map(|number| {
        let policy = Policy::of_issuer(format!("https://{number}")).audience(AUDIENCE).build().unwrap();
        (policy, Arc::new(entra.clone()) as Arc<dyn KeySource>)
    });
    assert_eq!(Verifier::of_several(many).unwrap_err(), VerifierError::TooMany);
}

#[test]
fn algorithms_are_written_as_they_are_read() {
    for algorithm in Algorithm::ALL {
        assert_eq!(algorithm.to_string().parse(), Ok(algorithm));
    }
    for other in ["rs256", "RS384", "none", "HS256", ""] {
        assert!(other.parse::<Algorithm>().is_err(), "{other}");
    }
}

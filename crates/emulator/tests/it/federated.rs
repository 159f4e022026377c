use std::time::Duration;

use pgentra_emulator::{EXCHANGE_AUDIENCE, LocalAzure};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::client::{Ask, Reply, start};
use crate::jwt;

const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A token request that proves itself with an assertion.
pub(crate) fn exchange_form<'a>(client: &'a str, assertion: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("grant_type", "client_credentials"),
        ("client_id", client),
        ("scope", "https://ossrdbms-aad.database.windows.net/.default"),
        ("client_assertion_type", JWT_BEARER),
        ("client_assertion", assertion),
    ]
}

pub(crate) fn codes(reply: &Reply) -> Value {
    reply.json()["error_codes"].clone()
}

async fn exchange(azure: &LocalAzure, client: impl ToString, assertion: &str, kind: &str) -> Reply {
    let client = client.to_string();
    let mut form = exchange_form(&client, assertion);
    form.retain(|(name, _)| *name != "client_assertion_type");
    form.push(("client_assertion_type", kind));
    let url = format!("{}{}/oauth2/v2.0/token", azure.authority_host(), azure.tenant());
    Ask::post(url, &form).trusting(azure.ca_pem()).send().await.unwrap()
}

#[tokio::test]
async fn a_service_account_becomes_the_identity_or_the_application() {
    let azure = start().await;
    let assertion = azure.federation().service_account_token().unwrap();
    let assertion = assertion.expose_secret();

    let identity = azure.user_assigned();
    let reply = exchange(&azure, identity.client_id(), assertion, JWT_BEARER).await;
    assert_eq!(reply.json()["expires_in"], json!(86_400));
    let claims = jwt::claims(&azure, &reply.token()).await;
    assert_eq!(claims["oid"], json!(identity.object_id()));
    assert_eq!(claims["xms_mirid"], json!(identity.resource_id()));

    let application = azure.application();
    let reply = exchange(&azure, application.client_id(), assertion, JWT_BEARER).await;
    assert_eq!(reply.json()["expires_in"], json!(4500));
    let claims = jwt::claims(&azure, &reply.token()).await;
    assert_eq!((&claims["appid"], &claims["appidacr"]), (&json!(application.client_id()), &json!("2")));
}

#[tokio::test]
async fn anybody_can_verify_a_service_account_token() {
    let azure = start().await;
    let issuer = azure.federation().kubernetes_issuer();
    assert!(issuer.ends_with('/'));
    let get = |url: String| Ask::get(url).trusting(azure.ca_pem()).send();
    let configuration = get(format!("{issuer}.well-known/openid-configuration")).await.unwrap().json();
    assert_eq!(configuration["issuer"], json!(issuer));
    let keys = get(configuration["jwks_uri"].as_str().unwrap().to_owned()).await.unwrap().json();
    let token = azure.federation().service_account_token().unwrap();
    let (_, claims) = jwt::verified(token.expose_secret(), &keys).unwrap();
    let credential = azure.federation().credential();
    assert_eq!((&claims["iss"], &claims["sub"]), (&json!(credential.issuer), &json!(credential.subject)));
    assert_eq!(claims["aud"], json!([EXCHANGE_AUDIENCE]));
    assert_eq!(credential.subject, "system:serviceaccount:default:my-service-account");
    assert_eq!(claims["kubernetes.io"]["serviceaccount"]["name"], "my-service-account");
}

#[tokio::test]
async fn an_assertion_that_does_not_fit_is_refused() {
    let azure = start().await;
    let federation = azure.federation();
    let client = azure.user_assigned().client_id();
    let good = federation.service_account_token().unwrap().expose_secret().to_owned();
    let other_subject = federation.token_of("default", "other", EXCHANGE_AUDIENCE).unwrap();
    let other_audience = federation.token_of("default", "my-service-account", "api://other").unwrap();
    let entra_token =
        azure.mint(&pgentra_emulator::Draft::of_identity(azure.vm(), EXCHANGE_AUDIENCE)).unwrap();
    // The claims of one token under the signature of another.
    let (_, other_signature) = other_subject.expose_secret().rsplit_once('.').unwrap();
    let (signed_part, _) = good.rsplit_once('.').unwrap();
    let forged = format!("{signed_part}.{other_signature}");
    let unsigned = format!("{signed_part}.");

    for (assertion, kind, status, number) in [
        (other_subject.expose_secret(), JWT_BEARER, 401, 700_213),
        (other_audience.expose_secret(), JWT_BEARER, 401, 700_212),
        (entra_token.expose_secret(), JWT_BEARER, 401, 700_211),
        (&*forged, JWT_BEARER, 401, 700_027),
        (&*unsigned, JWT_BEARER, 401, 700_027),
        ("nonsense", JWT_BEARER, 400, 50027),
        ("a.b.c", JWT_BEARER, 400, 50027),
        (&*good, "urn:other", 400, 90023),
        (&*good, "", 400, 900_144),
    ] {
        let reply = exchange(&azure, client, assertion, kind).await;
        assert_eq!((reply.status, codes(&reply)), (status, json!([number])), "{assertion}");
        assert!(!reply.text().contains(assertion), "the assertion is in the answer");
    }
    for end in (1..good.len()).step_by(41) {
        let reply = exchange(&azure, client, &good[..end], JWT_BEARER).await;
        assert!(
            ["50027", "700027"].contains(&&*codes(&reply)[0].to_string()),
            "cut at {end}: {}",
            reply.text()
        );
    }
    assert_eq!(exchange(&azure, client, &good, JWT_BEARER).await.status, 200);

    azure.clock().advance(Duration::from_secs(3600 + 300));
    assert_eq!(exchange(&azure, client, &good, JWT_BEARER).await.status, 200);
    azure.clock().advance(Duration::from_secs(1));
    let late = exchange(&azure, client, &good, JWT_BEARER).await;
    assert_eq!(codes(&late), json!([700_024]));
    assert!(late.text().contains(
        "assertion valid from 2030-03-17 17:46:40Z, expiry time of assertion 2030-03-17 18:46:40Z"
    ));
}

//! Tokens for the assertions of other issuers, and of the application itself.

use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pgentra_emulator::certificates::{Authority, Issued};
use pgentra_emulator::{EXCHANGE_AUDIENCE, LocalAzure};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::client::{Ask, Reply, START, encode, start, tls};
use crate::federated::{codes, exchange_form};
use crate::jwt;

async fn exchange(azure: &LocalAzure, client: impl ToString, assertion: &str) -> Reply {
    let url = format!("{}{}/oauth2/v2.0/token", azure.authority_host(), azure.tenant());
    let client = client.to_string();
    let form = exchange_form(&client, assertion);
    Ask::post(url, &form).trusting(azure.ca_pem()).send().await.unwrap()
}

#[tokio::test]
async fn a_workflow_at_github_gets_a_token_that_entra_takes() {
    let azure = start().await;
    let host = azure.github();
    let url = format!("{}&audience={}", host.request_url, encode(EXCHANGE_AUDIENCE));
    let ask = Ask::get(&url).trusting(azure.ca_pem());
    for refused in [ask.clone(), ask.clone().header("authorization", "bearer guess")] {
        assert_eq!(refused.send().await.unwrap().status, 401);
    }
    let authorization = format!("bearer {}", host.request_token.expose_secret());
    let answer = ask.header("authorization", &authorization).send().await.unwrap().json();
    let assertion = answer["value"].as_str().unwrap();

    let credential = azure.federation().github_credential();
    let get = |url: String| Ask::get(url).trusting(azure.ca_pem()).send();
    let discovery =
        get(format!("{}/.well-known/openid-configuration", credential.issuer)).await.unwrap().json();
    let keys = get(discovery["jwks_uri"].as_str().unwrap().to_owned()).await.unwrap().json();
    let (_, claims) = jwt::verified(assertion, &keys).unwrap();
    assert_eq!((&claims["iss"], &claims["sub"]), (&json!(credential.issuer), &json!(credential.subject)));
    assert_eq!((&claims["aud"], &claims["exp"]), (&json!(EXCHANGE_AUDIENCE), &json!(START + 300)));

    let client = azure.application().client_id();
    assert_eq!(exchange(&azure, client, assertion).await.status, 200);
    azure.clock().advance(Duration::from_secs(601));
    assert_eq!(codes(&exchange(&azure, client, assertion).await), json!([700_024]));

    let other = Ask::get(&host.request_url).trusting(azure.ca_pem()).header("authorization", authorization);
    let answer = other.send().await.unwrap().json();
    let unfit = exchange(&azure, client, answer["value"].as_str().unwrap()).await;
    assert_eq!(codes(&unfit), json!([700_212]));
}

#[tokio::test]
async fn a_job_at_azure_pipelines_gets_a_token_that_entra_takes() {
    let azure = start().await;
    let host = azure.pipelines();
    let ask =
        |query: String| Ask::post(format!("{}?{query}", host.request_uri), &[]).trusting(azure.ca_pem());
    let good = format!("api-version=7.1&serviceConnectionId={}", host.service_connection);
    let bearer = format!("Bearer {}", host.access_token.expose_secret());

    let page = ask(good.clone()).send().await.unwrap();
    assert_eq!(page.status, 302);
    let plain = ask(good.clone()).header("X-TFS-FedAuthRedirect", "Suppress").send().await.unwrap();
    assert_eq!(plain.status, 401);
    for (query, status) in [
        (format!("serviceConnectionId={}", host.service_connection), 400),
        (format!("api-version=7.1&serviceConnectionId={}", azure.tenant()), 404),
    ] {
        assert_eq!(ask(query).header("authorization", &bearer).send().await.unwrap().status, status);
    }
    let reply = ask(good).header("authorization", &bearer).send().await.unwrap();
    for header in ["x-vss-e2eid", "x-msedge-ref"] {
        assert!(reply.headers.contains_key(header), "{header}");
    }
    let assertion = reply.json()["oidcToken"].as_str().unwrap().to_owned();
    let reply = exchange(&azure, azure.user_assigned().client_id(), &assertion).await;
    let claims = jwt::claims(&azure, &reply.token()).await;
    assert_eq!(claims["oid"], json!(azure.user_assigned().object_id()));
}

/// A client assertion, signed as `alg` says.
pub(crate) fn assertion(issued: &Issued, mut header: Value, claims: &Value) -> String {
    let pair = RsaKeyPair::from_pkcs8(issued.key.secret_der()).unwrap();
    header["typ"] = json!("JWT");
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", encode(&header), encode(claims));
    let padding: &dyn signature::RsaEncoding =
        if header["alg"] == "PS256" { &signature::RSA_PSS_SHA256 } else { &signature::RSA_PKCS1_SHA256 };
    let mut signed = vec![0; pair.public_modulus_len()];
    pair.sign(padding, &SystemRandom::new(), message.as_bytes(), &mut signed).unwrap();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signed))
}

fn thumbprint(issued: &Issued, algorithm: &'static digest::Algorithm) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(algorithm, &issued.chain[0]))
}

#[tokio::test]
async fn an_application_proves_itself_with_its_certificate() {
    let azure = start().await;
    let own = azure.new_client_certificate().await.unwrap();
    assert!(own.pem().expose_secret().starts_with("-----BEGIN CERTIFICATE-----\n"));
    let client = azure.application().client_id();
    let x5t = thumbprint(&own, &digest::SHA1_FOR_LEGACY_USE_ONLY);
    let x5t_sha256 = thumbprint(&own, &digest::SHA256);
    let host = azure.authority_host();
    let audience = format!("{host}{}/oauth2/v2.0/token", azure.tenant());
    let claims = |name: &str, value: Value| {
        let mut claims = json!({
            "aud": audience, "iss": client, "sub": client, "jti": "1", "nbf": START, "exp": START + 600,
        });
        claims[name] = value;
        claims
    };
    let good = claims("jti", json!("2"));
    let rs256 = json!({"alg": "RS256", "x5t": x5t});
    for (header, claims) in [
        (rs256.clone(), good.clone()),
        (json!({"alg": "PS256", "x5t#S256": x5t_sha256}), good.clone()),
        (json!({"alg": "RS256", "x5t": format!("{x5t}=")}), good.clone()),
        (json!({"alg": "PS256", "x5t#S256": x5t_sha256, "x5t": "ignored"}), good.clone()),
        (rs256.clone(), claims("aud", json!(format!("{host}{}/v2.0", azure.tenant())))),
        (rs256.clone(), claims("aud", json!([azure.issuer()]))),
        (rs256.clone(), claims("exp", json!(1_900_000_600.25))),
    ] {
        let reply = exchange(&azure, client, &assertion(&own, header.clone(), &claims)).await;
        let claims = jwt::claims(&azure, &reply.token()).await;
        assert_eq!((&claims["appid"], &claims["appidacr"]), (&json!(client), &json!("2")), "{header}");
    }

    let unregistered = azure_like_certificate();
    for (signer, header, claims, number) in [
        (&own, json!({"alg": "RS256", "x5t": "AAAA"}), good.clone(), 700_027),
        (&own, json!({"alg": "RS256"}), good.clone(), 700_027),
        (&own, json!({"alg": "RS256", "x5t#S256": x5t}), good.clone(), 700_027),
        // The padding of one algorithm under the name of the other, and a foreign key.
        (&own, json!({"alg": "RS512", "x5t": x5t}), good.clone(), 50027),
        (&unregistered, rs256.clone(), good.clone(), 700_027),
        (&own, rs256.clone(), claims("sub", json!("other")), 700_021),
        (&own, rs256.clone(), claims("aud", json!("https://login.microsoftonline.com/x/v2.0")), 700_023),
        (&own, rs256.clone(), claims("aud", json!(format!("{host}other/v2.0"))), 700_023),
        (&own, rs256.clone(), claims("exp", json!(START - 301)), 700_024),
        (&own, rs256.clone(), claims("exp", json!(-1e300)), 700_024),
        (&own, rs256.clone(), claims("exp", json!("soon")), 50027),
        (&own, rs256.clone(), claims("nbf", json!(START + 301)), 700_024),
        (&own, rs256.clone(), claims("iss", json!("other")), 700_211),
    ] {
        let reply = exchange(&azure, client, &assertion(signer, header.clone(), &claims)).await;
        assert_eq!(codes(&reply), json!([number]), "{header} {claims}");
    }
    // A managed identity has no certificate.
    let managed = azure.user_assigned().client_id();
    let mut claims = good;
    claims["iss"] = json!(managed);
    claims["sub"] = json!(managed);
    assert_eq!(codes(&exchange(&azure, managed, &assertion(&own, rs256, &claims)).await), json!([700_211]));
}

/// An RSA key that no application has registered.
fn azure_like_certificate() -> Issued {
    let key = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["x".to_owned()]).unwrap().self_signed(&key).unwrap();
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    Issued { chain: vec![certificate.der().clone()], key }
}

#[tokio::test]
async fn any_rsa_certificate_can_be_registered_and_rubbish_cannot() {
    let azure = start().await;
    assert!(azure.register_certificate(&vec![1, 2, 3].into()).is_err());
    let own = azure_like_certificate();
    azure.register_certificate(&own.chain[0]).unwrap();
    let client = azure.application().client_id();
    let claims = json!({
        "aud": format!("{}{}/oauth2/token", azure.authority_host(), azure.tenant()),
        "iss": client, "sub": client, "exp": START + 600,
    });
    let header = json!({"alg": "RS256", "x5t#S256": thumbprint(&own, &digest::SHA256)});
    let assertion = assertion(&own, header, &claims);
    assert_eq!(exchange(&azure, client, &assertion).await.status, 200);
    // The async credential of the SDK for Python pads each part.
    assert_eq!(exchange(&azure, client, &format!("{assertion}==")).await.status, 200);
    // A key that cannot sign with RSA registers, as Entra lets it, and verifies nothing.
    let elliptic = Authority::generate().unwrap().issue(&["localhost"]).unwrap();
    azure.register_certificate(&elliptic.chain[0]).unwrap();
}

#[tokio::test]
async fn the_token_proxy_has_a_name_an_authority_and_an_audience_of_its_own() {
    let azure = start().await;
    let proxy = azure.token_proxy();
    let bound = azure.federation().bound_service_account_token().unwrap();
    let client = azure.user_assigned().client_id();
    let name = client.to_string();
    let form = exchange_form(&name, bound.expose_secret());
    let url = format!("{}/{}/oauth2/v2.0/token", proxy.url, azure.tenant());
    let ask = Ask::post(&url, &form);

    let reply = through(&ask, &proxy.url, &proxy.sni_name, &proxy.ca_pem).await.unwrap();
    assert_eq!(jwt::claims(&azure, &reply.token()).await["oid"], json!(azure.user_assigned().object_id()));
    let direct = exchange(&azure, client, bound.expose_secret()).await;
    assert_eq!(codes(&direct), json!([700_212]));

    // It takes no application's own credential.
    let application = azure.application();
    let name = application.client_id().to_string();
    let scope = form[2];
    let form =
        [form[0], ("client_id", &*name), scope, ("client_secret", application.secret().expose_secret())];
    let refused = through(&Ask::post(&url, &form), &proxy.url, &proxy.sni_name, &proxy.ca_pem).await.unwrap();
    assert_eq!(codes(&refused), json!([7_000_215]));

    // Neither another name nor the other authority will do.
    assert!(through(&ask, &proxy.url, "localhost", &proxy.ca_pem).await.is_err());
    assert!(through(&ask, &proxy.url, &proxy.sni_name, azure.ca_pem()).await.is_err());
    let configuration =
        Ask::get(format!("{}/{}/v2.0/.well-known/openid-configuration", proxy.url, azure.tenant()));
    let reply = through(&configuration, &proxy.url, &proxy.sni_name, &proxy.ca_pem).await.unwrap();
    assert_eq!(reply.status, 200);
    let elsewhere = Ask::get(format!("{}/common/discovery/keys", proxy.url));
    assert_eq!(through(&elsewhere, &proxy.url, &proxy.sni_name, &proxy.ca_pem).await.unwrap().status, 404);
}

/// Sends `ask` to the server of `url`, asking for the certificate of `name`.
async fn through(
    ask: &Ask,
    url: &str,
    name: &str,
    pem: &str,
) -> Result<Reply, Box<dyn std::error::Error + Send + Sync>> {
    let address = url.trim_start_matches("https://").split('/').next().unwrap();
    let stream = TcpStream::connect(address).await?;
    let name = rustls_pki_types::ServerName::try_from(name.to_owned())?;
    let stream = TlsConnector::from(tls(pem)).connect(name, stream).await?;
    ask.over(stream, address).await
}

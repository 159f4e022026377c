use pgentra_emulator::{Draft, LocalAzure, options::TokenVersion};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use std::time::Duration;

use crate::client::{Ask, POSTGRESQL, START, options, start};
use crate::jwt;

async fn get(azure: &LocalAzure, path: &str) -> Value {
    let url = format!("{}{path}", azure.authority_host());
    Ask::get(url).trusting(azure.ca_pem()).send().await.unwrap().json()
}

fn token(azure: &LocalAzure, path: &str, form: &[(&str, &str)]) -> Ask {
    Ask::post(format!("{}{path}", azure.authority_host()), form).trusting(azure.ca_pem())
}

#[tokio::test]
async fn discovery_leads_to_the_keys_and_the_token_endpoint() {
    let azure = start().await;
    let (host, tenant) = (azure.authority_host(), azure.tenant());
    let endpoint = format!("{host}{tenant}/oauth2/v2.0/authorize");
    let instance =
        get(&azure, &format!("common/discovery/instance?api-version=1.1&authorization_endpoint={endpoint}"))
            .await;
    let discovery = instance["tenant_discovery_endpoint"].as_str().unwrap();
    assert_eq!(discovery, format!("{host}{tenant}/v2.0/.well-known/openid-configuration"));
    let alias = host.trim_start_matches("https://").trim_end_matches('/');
    assert_eq!(instance["metadata"][0]["aliases"], json!([alias]));

    let v2 = get(&azure, &format!("{tenant}/v2.0/.well-known/openid-configuration")).await;
    assert_eq!(v2["issuer"], json!(format!("{host}{tenant}/v2.0")));
    assert_eq!(v2["token_endpoint"], json!(format!("{host}{tenant}/oauth2/v2.0/token")));
    assert_eq!(v2["jwks_uri"], json!(azure.keys_url()));
    let v1 = get(&azure, &format!("{tenant}/.well-known/openid-configuration")).await;
    assert_eq!(v1["issuer"], json!(azure.issuer()));
    let common = get(&azure, "common/.well-known/openid-configuration").await;
    assert_eq!(common["jwks_uri"], v1["jwks_uri"]);

    let paths = [
        "common/discovery/keys".to_owned(),
        "common/discovery/v2.0/keys".to_owned(),
        format!("{tenant}/discovery/keys"),
        format!("{tenant}/discovery/v2.0/keys"),
        "discovery/keys".to_owned(),
    ];
    for path in paths {
        let keys = get(&azure, &path).await;
        let key = &keys["keys"][0];
        assert_eq!(
            (&key["kty"], &key["use"], &key["e"]),
            (&json!("RSA"), &json!("sig"), &json!("AQAB")),
            "{path}"
        );
        assert_eq!(key["kid"], key["x5t"]);
        assert_eq!(key["issuer"].is_string(), path.contains("v2.0"), "{path}");
    }
    let without_a_connection: Value = serde_json::from_slice(&azure.keys()).unwrap();
    assert_eq!(without_a_connection, jwt::published(&azure).await);
}

#[tokio::test]
async fn an_unknown_instance_tenant_or_path_is_refused() {
    let azure = start().await;
    let other = get(&azure, "common/discovery/instance?authorization_endpoint=https://evil.example/x/").await;
    assert_eq!(other["error"], "invalid_instance");
    for path in [
        "unknown/v2.0/.well-known/openid-configuration",
        "unknown/discovery/keys",
        "unknown/oauth2/v2.0/token",
    ] {
        let ask = if path.ends_with("token") {
            token(&azure, path, &[])
        } else {
            Ask::get(format!("{}{path}", azure.authority_host())).trusting(azure.ca_pem())
        };
        let body = ask.send().await.unwrap().json();
        assert_eq!(body["error_codes"], json!([90002]), "{path}");
    }
    let nothing = Ask::get(format!("{}x/y", azure.authority_host())).trusting(azure.ca_pem());
    assert_eq!(nothing.send().await.unwrap().status, 404);
}

#[tokio::test]
async fn a_secret_buys_a_token_in_both_forms() {
    let azure = start().await;
    let application = azure.application();
    let client = application.client_id().to_string();
    let secret = application.secret().expose_secret();
    let common = [("grant_type", "client_credentials"), ("client_id", &*client), ("client_secret", secret)];
    let scope = format!("{POSTGRESQL}/.default");

    let v2 = token(
        &azure,
        &format!("{}/oauth2/v2.0/token", azure.tenant()),
        &[&common[..], &[("scope", &scope)]].concat(),
    );
    let reply = v2.send().await.unwrap();
    let body = reply.json();
    assert_eq!((&body["token_type"], &body["expires_in"]), (&json!("Bearer"), &json!(4500)));
    assert!(body.get("expires_on").is_none() && body.get("refresh_in").is_none());
    let claims = jwt::claims(&azure, &reply.token()).await;
    assert_eq!(claims["appid"], json!(application.client_id()));
    assert_eq!(claims["oid"], json!(application.object_id()));
    assert_eq!(claims["appidacr"], "1");
    assert!(claims.get("xms_mirid").is_none());

    let slashed = format!("{POSTGRESQL}//.default");
    let form = [&common[..], &[("scope", &slashed)]].concat();
    let reply = token(&azure, &format!("{}/oauth2/v2.0/token", azure.tenant()), &form).send().await.unwrap();
    assert_eq!(jwt::claims(&azure, &reply.token()).await["aud"], json!(format!("{POSTGRESQL}/")));

    let domain = azure.administrator().user_principal_name().rsplit_once('@').unwrap().1.to_owned();
    let v1 = token(
        &azure,
        &format!("{domain}/oauth2/token"),
        &[&common[..], &[("resource", POSTGRESQL)]].concat(),
    );
    let body = v1.send().await.unwrap().json();
    assert_eq!(body["expires_in"], "4500");
    assert_eq!(body["expires_on"], json!((START + 4500).to_string()));
    assert_eq!(body["resource"], POSTGRESQL);
}

#[tokio::test]
async fn a_bad_request_gets_its_aadsts_number() {
    let azure = start().await;
    let client = azure.application().client_id().to_string();
    let managed = azure.user_assigned().client_id().to_string();
    let secret = azure.application().secret().expose_secret();
    let scope = format!("{POSTGRESQL}/.default");
    let good = [
        ("grant_type", "client_credentials"),
        ("client_id", &*client),
        ("client_secret", secret),
        ("scope", &*scope),
    ];
    // Each row changes one parameter of a good request.
    for (name, value, status, error, number) in [
        ("grant_type", "", 400, "invalid_request", 900_144),
        ("grant_type", "implicit", 400, "unsupported_grant_type", 70003),
        ("grant_type", "password", 400, "invalid_request", 900_144),
        ("client_id", "", 400, "invalid_request", 900_144),
        ("client_id", "00000000-0000-0000-0000-000000000001", 400, "unauthorized_client", 700_016),
        ("client_id", &managed, 401, "invalid_client", 7_000_215),
        ("client_secret", "", 401, "invalid_client", 7_000_218),
        ("client_secret", "guess", 401, "invalid_client", 7_000_215),
        ("scope", "", 400, "invalid_request", 900_144),
        ("scope", POSTGRESQL, 400, "invalid_scope", 1_002_012),
        ("scope", "urn:no/.default", 400, "invalid_resource", 500_011),
    ] {
        let form: Vec<_> =
            good.iter().map(|&(key, good)| (key, if key == name { value } else { good })).collect();
        let ask = token(&azure, &format!("{}/oauth2/v2.0/token", azure.tenant()), &form);
        let id = "6f1a1b5e-3b0c-4a56-9d59-64f3c0f0a001";
        let reply = ask.header("client-request-id", id).send().await.unwrap();
        let body = reply.json();
        assert_eq!(reply.status, status, "{name}={value}: {body}");
        assert_eq!(
            (&body["error"], &body["error_codes"]),
            (&json!(error), &json!([number])),
            "{name}={value}"
        );
        assert_eq!(body["correlation_id"], id);
        assert_eq!(body["timestamp"], "2030-03-17 17:46:40Z");
        let description = body["error_description"].as_str().unwrap();
        assert!(description.starts_with(&format!("AADSTS{number}: ")), "{description}");
        assert!(description.contains(&format!("Correlation ID: {id} Timestamp: 2030-03-17 17:46:40Z")));
        assert!(!description.contains(secret));
    }
    let get = Ask::get(format!("{}{}/oauth2/v2.0/token", azure.authority_host(), azure.tenant()));
    let body = get.trusting(azure.ca_pem()).send().await.unwrap().json();
    assert_eq!(body["error_codes"], json!([900_561]));
}

#[tokio::test]
async fn tokens_of_version_two_name_the_application() {
    let mut options = options();
    for resource in &mut options.resources {
        resource.version = TokenVersion::V2;
    }
    options.lifetimes.refresh_in = Some(Duration::from_secs(1800));
    let azure = LocalAzure::start(options).await.unwrap();
    let mut seen = Vec::new();
    for draft in [
        Draft::of_identity(azure.vm(), POSTGRESQL),
        Draft::of_user(azure.administrator(), POSTGRESQL),
        Draft::of_application(azure.application(), POSTGRESQL),
    ] {
        let token = azure.mint(&draft).unwrap();
        let (header, claims) = jwt::verified(token.expose_secret(), &jwt::published(&azure).await).unwrap();
        assert_eq!(claims["aud"], "123cd850-d9df-40bd-94d5-c9f07b7fa203");
        assert_eq!(claims["iss"], json!(format!("{}{}/v2.0", azure.authority_host(), azure.tenant())));
        assert_eq!(claims["ver"], "2.0");
        assert!(header.get("x5t").is_none() && claims.get("appid").is_none());
        assert!(claims["azp"].is_string());
        seen.push(claims["preferred_username"].is_string());
    }
    assert_eq!(seen, [false, true, false]);

    let application = azure.application();
    let (client, scope) = (application.client_id().to_string(), format!("{POSTGRESQL}/.default"));
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", &*client),
        ("client_secret", application.secret().expose_secret()),
        ("scope", &*scope),
    ];
    let body =
        token(&azure, &format!("{}/oauth2/v2.0/token", azure.tenant()), &form).send().await.unwrap().json();
    assert_eq!(body["refresh_in"], 1800);
}

#[tokio::test]
async fn a_draft_can_say_what_entra_would_not() {
    let azure = start().await;
    let draft = Draft::of_identity(azure.vm(), "urn:anything")
        .issued(crate::client::start_time() - Duration::from_secs(7200))
        .lifetime(Duration::from_secs(3600))
        .claim("tid", "elsewhere")
        .claim("groups", json!([1, 2]))
        .without("oid");
    let claims = jwt::claims(&azure, azure.mint(&draft).unwrap().expose_secret()).await;
    assert_eq!(claims["exp"], json!(START - 3600));
    assert_eq!((&claims["tid"], &claims["groups"]), (&json!("elsewhere"), &json!([1, 2])));
    assert!(claims.get("oid").is_none());
    assert_eq!(claims["aud"], "urn:anything");
}

#[tokio::test]
async fn rolled_keys_stay_published_until_they_are_forgotten() {
    let azure = start().await;
    let draft = Draft::of_identity(azure.vm(), POSTGRESQL);
    let old = azure.mint(&draft).unwrap();
    azure.roll_over_keys().await.unwrap();
    let new = azure.mint(&draft).unwrap();
    let both = jwt::published(&azure).await;
    assert!(jwt::verified(old.expose_secret(), &both).is_some());
    assert!(jwt::verified(new.expose_secret(), &both).is_some());
    azure.forget_old_keys();
    let one = jwt::published(&azure).await;
    assert!(jwt::verified(old.expose_secret(), &one).is_none());
    assert!(jwt::verified(new.expose_secret(), &one).is_some());
}

/// RFC 8628, as libpq 18 goes through it.
#[tokio::test]
async fn a_device_code_is_pending_until_the_user_confirms_it() {
    let azure = start().await;
    let (host, tenant) = (azure.authority_host(), azure.tenant());
    let v2 = get(&azure, &format!("{tenant}/v2.0/.well-known/openid-configuration")).await;
    let endpoint = format!("{host}{tenant}/oauth2/v2.0/devicecode");
    assert_eq!(v2["device_authorization_endpoint"], json!(endpoint));
    let scope = format!("{POSTGRESQL}/.default");
    let form = [("client_id", "psql"), ("scope", &*scope)];
    let ask = token(&azure, &format!("{tenant}/oauth2/v2.0/devicecode"), &form);
    let code = ask.send().await.unwrap().json();
    let device = code["device_code"].as_str().unwrap();
    let answered = async |client: &str, device: &str| {
        let form = [
            ("client_id", client),
            ("device_code", device),
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
        ];
        token(&azure, &format!("{tenant}/oauth2/v2.0/token"), &form).send().await.unwrap().json()
    };
    let redeem = async |client: &str, device: &str| {
        let body = answered(client, device).await;
        (body["error"].clone(), body["error_codes"].clone())
    };
    let pending = (json!("authorization_pending"), json!([70016]));
    let unknown = (json!("bad_verification_code"), json!([70018]));
    assert_eq!(redeem("psql", device).await, pending);
    let confirm = async |url: &str| Ask::get(url).trusting(azure.ca_pem()).send().await.unwrap().text();
    let address = code["verification_uri"].as_str().unwrap();
    assert!(confirm(&format!("{address}?user_code=NOSUCH")).await.contains("no such code"));
    assert_eq!(redeem("psql", device).await, pending);
    let said = confirm(code["verification_uri_complete"].as_str().unwrap()).await;
    assert!(said.contains(azure.administrator().user_principal_name()), "{said}");
    assert_eq!(redeem("other", device).await, unknown);
    let body = answered("psql", device).await;
    let claims = jwt::claims(&azure, body["access_token"].as_str().unwrap()).await;
    assert_eq!(claims["oid"], json!(azure.administrator().object_id()));
    assert_eq!((&claims["aud"], &body["token_type"]), (&json!(POSTGRESQL), &json!("Bearer")));
    assert_eq!(redeem("psql", device).await, unknown, "a code is used once");

    let code = token(&azure, &format!("{tenant}/oauth2/v2.0/devicecode"), &form).send().await.unwrap().json();
    azure.clock().advance(Duration::from_secs(900));
    let device = code["device_code"].as_str().unwrap();
    assert_eq!(redeem("psql", device).await, (json!("expired_token"), json!([70020])));
    for (form, error) in [
        (vec![("scope", &*scope)], "invalid_request"),
        (vec![("client_id", "psql")], "invalid_request"),
        (vec![("client_id", "psql"), ("scope", "https://unknown.example/.default")], "invalid_resource"),
    ] {
        let ask = token(&azure, &format!("{tenant}/oauth2/v2.0/devicecode"), &form);
        assert_eq!(ask.send().await.unwrap().json()["error"], error, "{form:?}");
    }
}

/// Where the page to sign in leads, and what it says of bad requests.
#[tokio::test]
async fn a_person_is_sent_back_to_this_machine_alone() {
    let azure = start().await;
    let client = azure.application().client_id();
    let challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
    let page = async |more: &str| {
        let scope = format!("{POSTGRESQL}/.default+offline_access");
        let address = format!(
            "{}{}/oauth2/v2.0/authorize?client_id={client}&scope={scope}&response_type=code{more}",
            azure.authority_host(),
            azure.tenant()
        );
        Ask::get(&address).trusting(azure.ca_pem()).send().await.unwrap()
    };
    let redirect = "&redirect_uri=http%3A%2F%2Flocalhost%3A8400%2Fback";
    let good = format!("{redirect}&code_challenge={challenge}&code_challenge_method=S256&state=%22%3Cx%3E");
    let shown = page(&good).await;
    let name = azure.administrator().user_principal_name();
    assert!(shown.status == 200 && shown.text().contains(name), "{}", shown.text());
    assert!(!shown.text().contains("<x>"), "{}", shown.text());
    for (more, number) in [
        ("&redirect_uri=https%3A%2F%2Fevil.example", "AADSTS50011"),
        ("", "AADSTS900144"),
        (&format!("{redirect}&response_mode=web_message"), "AADSTS90023"),
        (&format!("{redirect}&code_challenge=x&code_challenge_method=plain"), "AADSTS501491"),
    ] {
        let refused = page(more).await;
        assert!(refused.status == 400 && refused.text().contains(number), "{more}: {}", refused.text());
        assert!(!refused.headers.contains_key("location"));
    }

    let id = azure.administrator().object_id();
    let sent = page(&format!("{good}&signed_in_user={id}")).await;
    let location = sent.headers["location"].to_str().unwrap();
    let (address, query) = location.split_once('?').unwrap();
    assert_eq!((sent.status, address), (302, "http://localhost:8400/back"));
    assert!(query.ends_with("&state=%22%3Cx%3E"), "{query}");
    let code = query.strip_prefix("code=").unwrap().split('&').next().unwrap();
    azure.set_account_enabled(id, false);
    let refused = page(&format!("{good}&signed_in_user={id}")).await;
    assert!(refused.headers["location"].to_str().unwrap().contains("error=access_denied"));
    azure.set_account_enabled(id, true);

    // An application that offers a secret has to have the right one; the verifier is that of RFC 7636, appendix B.
    let client = client.to_string();
    let secret = azure.application().secret().expose_secret().to_owned();
    let redeem = async |secret: &str, grant: &[(&str, &str)]| {
        let mut form = vec![("client_id", &*client), ("client_secret", secret)];
        form.extend(grant);
        let path = format!("{}/oauth2/v2.0/token", azure.tenant());
        token(&azure, &path, &form).send().await.unwrap().json()
    };
    let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let grant = [
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", "http://localhost:8400/back"),
        ("code_verifier", verifier),
    ];
    assert_eq!(redeem("wrong", &grant).await["error_codes"], json!([7_000_215]));
    let body = redeem(&secret, &grant).await;
    let claims = jwt::claims(&azure, body["access_token"].as_str().unwrap()).await;
    assert_eq!([&claims["appid"], &claims["appidacr"]], [&json!(client), &json!("1")]);
    assert!(body.get("id_token").is_none(), "openid was not asked for");

    let refresh_token = body["refresh_token"].as_str().unwrap().to_owned();
    let scope = format!("{POSTGRESQL}/.default");
    let refresh = async |token: &str| {
        let grant = [("grant_type", "refresh_token"), ("refresh_token", token), ("scope", &*scope)];
        redeem(&secret, &grant).await
    };
    assert!(refresh(&refresh_token).await["access_token"].is_string());
    assert_eq!(refresh("unknown").await["error_codes"], json!([9_002_313]));
    azure.set_account_enabled(id, false);
    assert_eq!(refresh(&refresh_token).await["error_codes"], json!([50057]));
    azure.set_account_enabled(id, true);
    azure.clock().advance(Duration::from_secs(90 * 24 * 3600));
    assert_eq!(refresh(&refresh_token).await["error_codes"], json!([700_082]));
    azure.delete_principal(id);
    assert_eq!(refresh(&refresh_token).await["error"], "invalid_grant");
}

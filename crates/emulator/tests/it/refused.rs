//! Who gets no token: principals that are disabled or deleted, and clients that do not prove themselves.

use pgentra_emulator::{Draft, EXCHANGE_AUDIENCE, LocalAzure};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::client::{Ask, POSTGRESQL, START, imds, start};
use crate::federated::{codes, exchange_form};
use crate::graph::{created, graph};

const KIND: (&str, &str) =
    ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");

async fn posted(azure: &LocalAzure, endpoint: &str, form: &[(&str, &str)]) -> Value {
    let url = format!("{}{}/oauth2/v2.0/{endpoint}", azure.authority_host(), azure.tenant());
    Ask::post(url, form).trusting(azure.ca_pem()).send().await.unwrap().json()
}

async fn by_secret(azure: &LocalAzure, client: &str, secret: &str, more: &[(&str, &str)]) -> Value {
    let scope = format!("{POSTGRESQL}/.default");
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", client),
        ("client_secret", secret),
        ("scope", &*scope),
    ];
    posted(azure, "token", &[&form[..], more].concat()).await
}

/// A code for a device, and the address that confirms it.
async fn device_code(azure: &LocalAzure, client: &str) -> (String, String) {
    let scope = format!("{POSTGRESQL}/.default offline_access");
    let code = posted(azure, "devicecode", &[("client_id", client), ("scope", &*scope)]).await;
    let text = |member: &str| code[member].as_str().unwrap().to_owned();
    (text("device_code"), text("verification_uri_complete"))
}

async fn confirmed(azure: &LocalAzure, address: &str) -> (u16, String) {
    let reply = Ask::get(address).trusting(azure.ca_pem()).send().await.unwrap();
    (reply.status, reply.text())
}

fn of_device<'a>(client: &'a str, device: &'a str) -> [(&'a str, &'a str); 3] {
    let grant = "urn:ietf:params:oauth:grant-type:device_code";
    [("grant_type", grant), ("client_id", client), ("device_code", device)]
}

#[tokio::test]
async fn a_disabled_service_principal_gets_no_token() {
    let azure = start().await;
    let application = azure.application();
    let (client, secret) = (application.client_id().to_string(), application.secret().expose_secret());
    let account = azure.federation().service_account_token().unwrap();
    let identity = azure.user_assigned();
    let url = format!("{}{}/oauth2/v2.0/token", azure.authority_host(), azure.tenant());
    let exchange = async || {
        let client = identity.client_id().to_string();
        let form = exchange_form(&client, account.expose_secret());
        Ask::post(&url, &form).trusting(azure.ca_pem()).send().await.unwrap()
    };
    let named = format!("&client_id={}", identity.client_id());
    assert_eq!((exchange().await.status, imds(&azure, &named).send().await.unwrap().status), (200, 200));
    for object_id in [application.object_id(), identity.object_id(), azure.vm().object_id()] {
        let path = format!("servicePrincipals/{object_id}");
        let reply = graph(&azure, "PATCH", &path, json!({"accountEnabled": false})).await;
        assert_eq!(reply.status, 204, "{}", reply.text());
    }
    assert_eq!(by_secret(&azure, &client, secret, &[]).await["error_codes"], json!([7_000_112]));
    assert_eq!(codes(&exchange().await), json!([7_000_112]));
    // The wrong secret says nothing of the account.
    assert_eq!(by_secret(&azure, &client, "x", &[]).await["error_codes"], json!([7_000_215]));
    for more in ["", &named] {
        let reply = imds(&azure, more).send().await.unwrap();
        assert_eq!((reply.status, &reply.json()["error_description"]), (400, &json!("Identity not found")));
    }
    azure.set_account_enabled(identity.object_id(), true);
    assert_eq!((exchange().await.status, imds(&azure, &named).send().await.unwrap().status), (200, 200));
}

#[tokio::test]
async fn an_administrator_who_may_not_sign_in_gets_no_token() {
    let azure = start().await;
    let id = azure.administrator().object_id();
    let cloud_shell = Ask::post(azure.cloud_shell(), &[("resource", POSTGRESQL)]).header("Metadata", "true");
    let said = |reply: Value| reply["error"]["message"].as_str().unwrap_or_default().to_owned();

    let (early, address) = device_code(&azure, "psql").await;
    assert_eq!(confirmed(&azure, &address).await.0, 200);
    let (late, unconfirmed) = device_code(&azure, "psql").await;
    azure.set_account_enabled(id, false);
    assert_eq!(posted(&azure, "token", &of_device("psql", &early)).await["error_codes"], json!([50057]));
    let (status, text) = confirmed(&azure, &unconfirmed).await;
    assert!(status == 403 && text.contains("AADSTS50057"), "{status} {text}");
    assert_eq!(posted(&azure, "token", &of_device("psql", &late)).await["error_codes"], json!([70016]));
    let refused = cloud_shell.clone().send().await.unwrap();
    assert!(refused.status == 400 && said(refused.json()).contains("AADSTS50057"), "{}", refused.text());

    azure.set_account_enabled(id, true);
    let domain = azure.administrator().user_principal_name().split_once('@').unwrap().1.to_owned();
    let path = format!("users/{id}");
    let other = json!({"userPrincipalName": format!("root@{domain}")});
    assert_eq!(graph(&azure, "PATCH", &path, other).await.status, 204);
    let (_, text) = confirmed(&azure, &unconfirmed).await;
    assert!(text.contains("root@"), "{text}");
    azure.delete_principal(id);
    assert_eq!(posted(&azure, "token", &of_device("psql", &late)).await["error_codes"], json!([50034]));
    let refused = cloud_shell.send().await.unwrap();
    assert!(refused.status == 400 && said(refused.json()).contains("AADSTS50034"), "{}", refused.text());
}

#[tokio::test]
async fn of_the_tokens_of_the_tenant_a_managed_identitys_alone_is_an_assertion() {
    let azure = start().await;
    let app = created(&azure, "applications", json!({"displayName": "app"})).await;
    let (id, client) = (app["id"].as_str().unwrap(), app["appId"].as_str().unwrap());
    created(&azure, "servicePrincipals", json!({"appId": client})).await;
    let issuer = format!("{}{}/v2.0", azure.authority_host(), azure.tenant());
    let trust = |name: &str, subject: Value| {
        let audiences = [EXCHANGE_AUDIENCE];
        json!({"name": name, "issuer": issuer, "subject": subject, "audiences": audiences})
    };
    let url = format!("{}{}/oauth2/v2.0/token", azure.authority_host(), azure.tenant());
    let exchange = async |client: &str, draft: &Draft| {
        let token = azure.mint(draft).unwrap();
        let form = exchange_form(client, token.expose_secret());
        Ask::post(&url, &form).trusting(azure.ca_pem()).send().await.unwrap()
    };
    let own = |draft: Draft| draft.claim("iss", issuer.clone());
    let user = own(Draft::of_user(azure.administrator(), EXCHANGE_AUDIENCE));
    let user = user.claim("sub", azure.administrator().object_id().to_string());
    let identity = own(Draft::of_identity(azure.user_assigned(), EXCHANGE_AUDIENCE));
    let machine = own(Draft::of_identity(azure.vm(), EXCHANGE_AUDIENCE));
    let application = own(Draft::of_application(azure.application(), EXCHANGE_AUDIENCE));
    let credentials = format!("applications/{id}/federatedIdentityCredentials");
    for (name, subject, draft, expected) in [
        ("identity", azure.user_assigned().object_id(), &identity, Value::Null),
        ("user", azure.administrator().object_id(), &user, json!([700_222])),
        ("machine", azure.vm().object_id(), &machine, json!([700_222])),
        ("application", azure.application().object_id(), &application, json!([700_222])),
    ] {
        created(&azure, &credentials, trust(name, json!(subject))).await;
        assert_eq!(codes(&exchange(client, draft).await), expected, "{name}");
    }
    // A managed identity cannot stand behind another one.
    let second = azure.new_identity("second");
    let path = format!("{}/federatedIdentityCredentials/one?api-version=2023-01-31", second.resource_id());
    let subject = azure.user_assigned().object_id();
    let body =
        json!({"properties": {"issuer": issuer, "subject": subject, "audiences": [EXCHANGE_AUDIENCE]}});
    let reply = crate::management::ask(&azure, "PUT", &path, body).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    let second = second.client_id().to_string();
    assert_eq!(codes(&exchange(&second, &identity).await), json!([700_222]));
}

/// A new application with a secret and a service principal: its object id, client id and secret.
async fn application(azure: &LocalAzure, body: Value) -> [String; 3] {
    let app = created(azure, "applications", body).await;
    let [id, client] = ["id", "appId"].map(|member| app[member].as_str().unwrap().to_owned());
    created(azure, "servicePrincipals", json!({"appId": client})).await;
    let added = graph(azure, "POST", &format!("applications/{id}/addPassword"), json!({})).await.json();
    let secret = added["secretText"].as_str().unwrap().to_owned();
    [id, client, secret]
}

#[tokio::test]
async fn an_application_that_can_prove_itself_has_to() {
    let azure = start().await;
    let [id, client, secret] = application(&azure, json!({"displayName": "web"})).await;
    let (device, address) = device_code(&azure, &client).await;
    confirmed(&azure, &address).await;
    let form = of_device(&client, &device);
    assert_eq!(posted(&azure, "token", &form).await["error_codes"], json!([7_000_218]));
    let proven = [&form[..], &[("client_secret", &*secret)]].concat();
    let given = posted(&azure, "token", &proven).await;
    let token = given["refresh_token"].as_str().unwrap();
    let scope = format!("{POSTGRESQL}/.default");
    let refresh = [
        ("grant_type", "refresh_token"),
        ("client_id", &*client),
        ("refresh_token", token),
        ("scope", &*scope),
    ];
    assert_eq!(posted(&azure, "token", &refresh).await["error_codes"], json!([7_000_218]));
    // A public client cannot keep a secret.
    let path = format!("applications/{id}");
    assert_eq!(graph(&azure, "PATCH", &path, json!({"isFallbackPublicClient": true})).await.status, 204);
    assert!(posted(&azure, "token", &refresh).await["access_token"].is_string());

    let (waiting, address) = device_code(&azure, &client).await;
    confirmed(&azure, &address).await;
    assert_eq!(graph(&azure, "DELETE", &path, Value::Null).await.status, 204);
    for form in [&refresh[..], &of_device(&client, &waiting)] {
        assert_eq!(posted(&azure, "token", form).await["error_codes"], json!([700_016]));
    }
    let code = [("grant_type", "authorization_code"), ("client_id", &*client), ("code", "x")];
    assert_eq!(posted(&azure, "token", &code).await["error_codes"], json!([700_016]));
}

#[tokio::test]
async fn a_secret_counts_between_its_start_and_its_end() {
    let azure = start().await;
    let [id, client, _] = application(&azure, json!({"displayName": "later"})).await;
    let starts = jiff::Timestamp::from_second(START + 60).unwrap().to_string();
    let body = json!({"passwordCredential": {"startDateTime": starts}});
    let added = graph(&azure, "POST", &format!("applications/{id}/addPassword"), body).await.json();
    let secret = added["secretText"].as_str().unwrap();
    assert_eq!(by_secret(&azure, &client, secret, &[]).await["error_codes"], json!([7_000_215]));
    azure.clock().advance(std::time::Duration::from_secs(60));
    assert!(by_secret(&azure, &client, secret, &[]).await["access_token"].is_string());
}

#[tokio::test]
async fn an_agent_identity_needs_its_blueprint() {
    let azure = start().await;
    let kind = json!({"@odata.type": "Microsoft.Graph.AgentIdentityBlueprint", "displayName": "helpers"});
    let [id, client, secret] = application(&azure, kind).await;
    let body = json!({"displayName": "one", "agentIdentityBlueprintId": client});
    let agent = created(&azure, "servicePrincipals/Microsoft.Graph.AgentIdentity", body).await;
    let agent = agent["appId"].as_str().unwrap();
    let more = [("scope", "api://AzureADTokenExchange/.default"), ("fmi_path", agent)];
    let form = [("grant_type", "client_credentials"), ("client_id", &*client), ("client_secret", &*secret)];
    let exchanged = posted(&azure, "token", &[&form[..], &more].concat()).await;
    let exchanged = exchanged["access_token"].as_str().unwrap();
    let sign_in = async |kind| {
        let scope = format!("{POSTGRESQL}/.default");
        let form = [("grant_type", "client_credentials"), ("client_id", agent), ("scope", &*scope)];
        posted(&azure, "token", &[&form[..], &[kind, ("client_assertion", exchanged)]].concat()).await
    };
    assert!(sign_in(KIND).await["access_token"].is_string());
    assert_eq!(sign_in((KIND.0, "saml")).await["error_codes"], json!([90023]));
    let path = format!("servicePrincipals(appId='{client}')");
    assert_eq!(graph(&azure, "PATCH", &path, json!({"accountEnabled": false})).await.status, 204);
    assert_eq!(sign_in(KIND).await["error_codes"], json!([7_000_112]));
    assert_eq!(graph(&azure, "DELETE", &format!("applications/{id}"), Value::Null).await.status, 204);
    assert_eq!(sign_in(KIND).await["error_codes"], json!([700_016]));
}

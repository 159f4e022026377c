//! A tenant that begins with the state of an earlier one.

use std::time::Duration;

use pgentra_emulator::{Draft, LocalAzure, SavedAzure};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::client::{Ask, POSTGRESQL, options, start};
use crate::jwt;

async fn posted(azure: &LocalAzure, path: &str, form: &[(&str, &str)]) -> Value {
    let url = format!("{}{}{path}", azure.authority_host(), azure.tenant());
    Ask::post(url, form).trusting(azure.ca_pem()).send().await.unwrap().json()
}

/// Signs the administrator in by device code, and returns the refresh token.
async fn refresh_token(azure: &LocalAzure) -> String {
    let scope = format!("{POSTGRESQL}/.default offline_access");
    let code =
        posted(azure, "/oauth2/v2.0/devicecode", &[("client_id", "psql"), ("scope", scope.as_str())]).await;
    let address = code["verification_uri_complete"].as_str().or(code["verification_uri"].as_str()).unwrap();
    Ask::get(address).trusting(azure.ca_pem()).send().await.unwrap();
    let form = [
        ("client_id", "psql"),
        ("device_code", code["device_code"].as_str().unwrap()),
        ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
    ];
    let answer = posted(azure, "/oauth2/v2.0/token", &form).await;
    answer["refresh_token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

/// The state as a file has it.
fn written(azure: &LocalAzure) -> String {
    serde_json::to_string(&azure.save().unwrap()).unwrap()
}

async fn restored(text: &str) -> LocalAzure {
    let mut options = options();
    options.ids = pgentra_emulator::Ids::random();
    LocalAzure::start_saved(options, serde_json::from_str::<SavedAzure>(text).unwrap()).await.unwrap()
}

#[tokio::test]
async fn everything_of_the_tenant_is_there_again() {
    let azure = start().await;
    let identity = azure.new_identity("my-api");
    azure.machine().assign(identity.clone());
    azure.machine().unassign(&azure.user_assigned().clone());
    let (user, group) = (azure.new_user("Ada Lovelace"), azure.new_group("developers"));
    azure.join_group(user.object_id(), group.object_id());
    azure.join_group(identity.object_id(), group.object_id());
    azure.set_account_enabled(user.object_id(), false);
    azure.delete_principal(azure.group().object_id());
    azure.clock().advance(Duration::from_secs(25 * 3600));
    azure.roll_over_keys().await.unwrap();
    let old = azure.mint(&Draft::of_identity(&identity, POSTGRESQL)).unwrap();
    let refresh = refresh_token(&azure).await;
    let text = written(&azure);
    let secrets = |azure: &LocalAzure| {
        [
            azure.app_service().header,
            azure.service_fabric().header,
            azure.machine_learning().secret,
            azure.github().request_token,
            azure.pipelines().access_token,
            azure.application().secret().clone(),
        ]
        .map(|secret| secret.expose_secret().to_owned())
    };

    let again = restored(&text).await;
    assert_eq!((again.tenant(), again.subscription()), (azure.tenant(), azure.subscription()));
    assert_eq!(again.principals(), azure.principals());
    assert_eq!(again.memberships(), azure.memberships());
    assert_eq!(again.administrators(), azure.administrators());
    assert_eq!(again.machine().identities(), azure.machine().identities());
    assert_eq!(again.clock().ahead(), azure.clock().ahead());
    assert_eq!(secrets(&again), secrets(&azure));
    assert_eq!(again.pipelines().service_connection, azure.pipelines().service_connection);

    // A token from before is worth what it was worth.
    let claims = jwt::claims(&again, old.expose_secret()).await;
    assert_eq!(claims["oid"], json!(identity.object_id()));
    let scope = format!("{POSTGRESQL}/.default");
    let form = [
        ("client_id", "psql"),
        ("grant_type", "refresh_token"),
        ("refresh_token", refresh.as_str()),
        ("scope", &scope),
    ];
    let answer = posted(&again, "/oauth2/v2.0/token", &form).await;
    assert!(answer["access_token"].is_string(), "{answer}");

    // What was signed outside counts where the issuers are now.
    let token = again.federation().service_account_token().unwrap();
    let client = again.user_assigned().client_id().to_string();
    let form = [
        ("client_id", client.as_str()),
        ("client_assertion", token.expose_secret()),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("grant_type", "client_credentials"),
        ("scope", &scope),
    ];
    let answer = posted(&again, "/oauth2/v2.0/token", &form).await;
    assert!(answer["access_token"].is_string(), "{answer}");

    // And once more: nothing is lost or added on the way.
    let federation = |text: &str| {
        let mut value: Value = serde_json::from_str(text).unwrap();
        let address = value["federation"].take();
        let text = value.to_string().replace(address.as_str().unwrap(), "");
        let mut value: Value = serde_json::from_str(&text).unwrap();
        for part in ["authority", "refresh_tokens"] {
            value[part].take();
        }
        value
    };
    let (now, before) = (federation(&written(&again)), federation(&text));
    for (part, value) in before.as_object().unwrap() {
        // The parts are secrets: a failure names one and does not show it.
        assert!(now[part] == *value, "{part} is another");
    }
}

#[tokio::test]
async fn a_damaged_key_is_refused_and_a_clock_has_an_end() {
    let azure = start().await;
    let mut value: Value = serde_json::from_str(&written(&azure)).unwrap();
    value["ahead"] = json!(u64::MAX);
    let far = restored(&value.to_string()).await;
    assert!(far.clock().now() > azure.clock().now());
    assert!(far.mint(&Draft::of_identity(far.vm(), POSTGRESQL)).is_ok());
    value["keys"][0]["pkcs8"] = json!("AAAA");
    let saved = serde_json::from_value(value).unwrap();
    let refused = LocalAzure::start_saved(options(), saved).await.unwrap_err();
    let source = std::error::Error::source(&refused).map(ToString::to_string);
    assert!(format!("{refused}: {source:?}").contains("read a saved signing key"), "{refused}: {source:?}");
}

#[tokio::test]
async fn a_state_shows_no_secret() {
    let azure = start().await;
    let state = azure.save().unwrap();
    let shown = format!("{state:?}");
    assert!(!shown.contains(azure.application().secret().expose_secret()) && shown.len() < 100, "{shown}");
}

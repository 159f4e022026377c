use std::time::Duration;

use serde_json::json;

use crate::client::{Ask, POSTGRESQL, START, start};
use crate::jwt;

#[tokio::test]
async fn the_token_is_the_administrators() {
    let azure = start().await;
    let ask = Ask::post(azure.cloud_shell(), &[("resource", POSTGRESQL)]).header("Metadata", "true");
    let reply = ask.clone().send().await.unwrap();
    assert_eq!(reply.json()["expires_in"], "4500");
    assert_eq!(reply.json()["expires_on"], json!((START + 4500).to_string()));
    let claims = jwt::claims(&azure, &reply.token()).await;
    let user = azure.administrator();
    for (name, value) in [
        ("aud", json!(POSTGRESQL)),
        ("oid", json!(user.object_id())),
        ("upn", json!(user.user_principal_name())),
        ("unique_name", json!(user.user_principal_name())),
        ("name", json!("Local Administrator")),
        ("scp", json!("user_impersonation")),
        ("groups", json!([azure.group().object_id()])),
        ("amr", json!(["pwd", "mfa"])),
        ("appidacr", json!("0")),
        ("ver", json!("1.0")),
    ] {
        assert_eq!(claims[name], value, "{name}");
    }
    assert_ne!(claims["sub"], claims["oid"]);
    assert!(claims.get("xms_mirid").is_none());
    assert!(user.user_principal_name().starts_with("admin@"));
    assert!(user.user_principal_name().ends_with(".onmicrosoft.com"));

    azure.clock().advance(Duration::from_secs(1));
    assert_ne!(ask.clone().send().await.unwrap().token(), reply.token());

    // The groups are those of now.
    let group = azure.new_group("developers").object_id();
    azure.join_group(user.object_id(), group);
    azure.leave_group(user.object_id(), azure.group().object_id());
    let claims = jwt::claims(&azure, &ask.send().await.unwrap().token()).await;
    assert_eq!(claims["groups"], json!([group]));
}

#[tokio::test]
async fn a_bad_request_is_refused_with_a_code() {
    let azure = start().await;
    let url = azure.cloud_shell();
    let form = [("resource", POSTGRESQL)];
    for (ask, status, code) in [
        (Ask::post(url, &form), 400, "BadRequest"),
        (Ask::post(url, &[]).header("metadata", "true"), 400, "BadRequest"),
        (Ask::post(url, &[("resource", "urn:no")]).header("metadata", "true"), 400, "AudienceNotSupported"),
        (Ask::get(url).method("PUT").header("metadata", "true"), 405, "MethodNotAllowed"),
    ] {
        let about = format!("{ask:?}");
        let reply = ask.send().await.unwrap();
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (status, &json!(code)), "{about}");
    }
}

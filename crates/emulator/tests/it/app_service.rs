use secrecy::ExposeSecret as _;
use serde_json::json;

use crate::client::{Ask, POSTGRESQL, START, encode, start};
use crate::jwt;
use pgentra_emulator::LocalAzure;

fn ask(azure: &LocalAzure, more: &str) -> Ask {
    let service = azure.app_service();
    let resource = encode(POSTGRESQL);
    Ask::get(format!("{}?api-version=2019-08-01&resource={resource}{more}", service.endpoint))
        .header("X-IDENTITY-HEADER", service.header.expose_secret())
}

#[tokio::test]
async fn the_answer_has_no_expires_in_and_text_for_a_number() {
    let azure = start().await;
    let reply = ask(&azure, "").send().await.unwrap();
    let token = reply.token();
    let expected = format!(
        r#"{{"access_token":"{token}","expires_on":"{}","resource":"{POSTGRESQL}","token_type":"Bearer","client_id":"{}"}}"#,
        START + 86_400,
        azure.vm().client_id(),
    );
    assert_eq!(reply.text(), expected);
    assert_eq!(jwt::claims(&azure, &token).await["oid"], json!(azure.vm().object_id()));
}

#[tokio::test]
async fn a_selector_names_a_user_assigned_identity() {
    let azure = start().await;
    let named = azure.user_assigned();
    for more in [
        format!("&client_id={}", named.client_id()),
        format!("&principal_id={}", named.object_id()),
        format!("&object_id={}", named.object_id()),
        format!("&mi_res_id={}", encode(named.resource_id())),
    ] {
        let reply = ask(&azure, &more).send().await.unwrap();
        assert_eq!(reply.json()["client_id"], json!(named.client_id()), "{more}");
    }
    // The metadata service's spelling means nothing here.
    let foreign = ask(&azure, &format!("&msi_res_id={}", encode(named.resource_id())));
    assert_eq!(foreign.send().await.unwrap().json()["client_id"], json!(azure.vm().client_id()));
}

#[tokio::test]
async fn a_bad_request_is_refused_with_a_number_a_message_and_a_correlation_id() {
    let azure = start().await;
    let endpoint = azure.app_service().endpoint;
    let secret = azure.app_service().header.expose_secret().to_owned();
    let get = |query: &str| Ask::get(format!("{endpoint}?{query}")).header("x-identity-header", &*secret);
    let both = format!("&client_id={0}&principal_id={0}", azure.user_assigned().client_id());
    for (ask, status, message) in [
        (Ask::get(format!("{endpoint}?api-version=2019-08-01&resource=x")), 401, "X-IDENTITY-HEADER"),
        (Ask::get(&endpoint).header("x-identity-header", "wrong"), 401, "X-IDENTITY-HEADER"),
        (get("api-version=2018-02-01&resource=x"), 400, "api-version"),
        (get("api-version=2019-08-01"), 400, "resource"),
        (get("api-version=2019-08-01&resource=urn:no"), 500, "unexpected error"),
        (ask(&azure, "").method("POST"), 405, "method"),
        (ask(&azure, &both), 400, "Only one of"),
        (
            ask(&azure, &format!("&client_id={}", azure.tenant())),
            400,
            "No User Assigned or Delegated Managed Identity found for specified ClientId/ResourceId/PrincipalId.",
        ),
    ] {
        let about = format!("{ask:?}");
        let reply = ask.send().await.unwrap();
        assert_eq!(reply.status, status, "{about}");
        let body = reply.json();
        assert_eq!(body["statusCode"], json!(status), "{about}");
        assert!(body["message"].as_str().unwrap().contains(message), "{about}: {body}");
        assert!(body["correlationId"].is_string());
    }
}

#[tokio::test]
async fn without_a_system_assigned_identity_one_must_be_named() {
    let azure = start().await;
    azure.machine().unassign(azure.vm());
    let reply = ask(&azure, "").send().await.unwrap();
    assert_eq!(reply.status, 400);
    assert_eq!(reply.json()["message"], "Unable to load the proper Managed Identity.");
    let named = ask(&azure, &format!("&client_id={}", azure.user_assigned().client_id()));
    assert_eq!(named.send().await.unwrap().status, 200);
}

use std::time::Duration;

use pgentra_emulator::Endpoint;
use serde_json::json;

use crate::client::{Ask, POSTGRESQL, START, encode, imds, start};
use crate::jwt;

#[tokio::test]
async fn the_token_of_the_machine_has_the_documented_form() {
    let azure = start().await;
    let reply = imds(&azure, "").send().await.unwrap();
    assert_eq!(reply.headers["content-type"], "application/json; charset=utf-8");
    assert!(reply.headers["server"].to_str().unwrap().starts_with("IMDS/"));
    let token = reply.token();
    let vm = azure.vm();
    let expected = format!(
        r#"{{"access_token":"{token}","client_id":"{}","expires_in":"86400","expires_on":"{}","ext_expires_in":"86400","not_before":"{}","resource":"{POSTGRESQL}","token_type":"Bearer"}}"#,
        vm.client_id(),
        START + 86_400,
        START - 300,
    );
    assert_eq!(reply.text(), expected);

    let (header, claims) = jwt::verified(&token, &jwt::published(&azure).await).unwrap();
    assert_eq!(header["alg"], "RS256");
    assert_eq!(header["typ"], "JWT");
    assert_eq!(header["x5t"], header["kid"]);
    let object = json!(vm.object_id());
    for (name, value) in [
        ("aud", json!(POSTGRESQL)),
        ("iss", json!(format!("https://sts.windows.net/{}/", azure.tenant()))),
        ("idp", json!(azure.issuer())),
        ("iat", json!(START - 300)),
        ("nbf", json!(START - 300)),
        ("exp", json!(START + 86_400)),
        ("appid", json!(vm.client_id())),
        ("appidacr", json!("2")),
        ("idtyp", json!("app")),
        ("oid", object.clone()),
        ("sub", object),
        ("tid", json!(azure.tenant())),
        ("ver", json!("1.0")),
        ("xms_mirid", json!(vm.resource_id())),
    ] {
        assert_eq!(claims[name], value, "{name}");
    }
    assert!(vm.resource_id().ends_with("/Microsoft.Compute/virtualMachines/myVm"));
}

#[tokio::test]
async fn a_selector_names_one_identity() {
    let azure = start().await;
    let (vm, named) = (azure.vm(), azure.user_assigned());
    for (more, expected) in [
        (String::new(), vm),
        (format!("&client_id={}", vm.client_id()), vm),
        (format!("&client_id={}", named.client_id()), named),
        (format!("&object_id={}", named.object_id()), named),
        (format!("&msi_res_id={}", encode(named.resource_id())), named),
        (format!("&mi_res_id={}", encode(&named.resource_id().to_uppercase())), named),
        ("&client_id=".to_owned(), vm),
    ] {
        let reply = imds(&azure, &more).send().await.unwrap();
        assert_eq!(reply.json()["client_id"], json!(expected.client_id()), "{more}");
        let claims = jwt::claims(&azure, &reply.token()).await;
        assert_eq!(claims["xms_mirid"], json!(expected.resource_id()), "{more}");
    }
}

#[tokio::test]
async fn a_bad_request_is_refused_in_the_words_of_the_service() {
    let azure = start().await;
    let url = azure.metadata_url();
    let path = format!("{url}/metadata/identity/oauth2/token");
    let get = |query: &str| Ask::get(format!("{path}?{query}")).header("metadata", "True");
    let version = "api-version=2018-02-01";
    let both = format!("&client_id={0}&object_id={0}", azure.vm().client_id());
    let unknown = "&client_id=00000000-0000-0000-0000-000000000001";
    for (ask, status, error, description) in [
        (Ask::get(&path), 400, "bad_request_102", "Required metadata header not specified"),
        (Ask::get(&path).header("metadata", "false"), 400, "bad_request_102", "Required metadata header"),
        (get(version), 400, "invalid_request", "Required query variable 'resource' is missing"),
        (
            get("resource=https%3A%2F%2Fgraph.microsoft.com"),
            400,
            "invalid_request",
            "'api-version' is missing",
        ),
        (get("api-version=1&resource=x"), 400, "invalid_request", "'api-version' is not supported"),
        (
            get(&format!("{version}&resource=urn:no")),
            400,
            "invalid_resource",
            "AADSTS500011: The resource principal named urn:no",
        ),
        (imds(&azure, unknown), 400, "invalid_request", "Identity not found"),
        (imds(&azure, &both), 400, "invalid_request", "Only one of"),
        (imds(&azure, "").method("POST"), 405, "method_not_allowed", "not allowed"),
        (imds(&azure, "").header("x-forwarded-for", "10.0.0.1"), 400, "bad_request", "X-Forwarded-For"),
        (
            Ask::get(format!("{url}/metadata/elsewhere")),
            401,
            "unknown_source",
            "Unknown Source /metadata/elsewhere",
        ),
    ] {
        let about = format!("{ask:?}");
        let reply = ask.send().await.unwrap();
        assert_eq!(reply.status, status, "{about}");
        assert_eq!(reply.json()["error"], error, "{about}");
        let said = reply.json()["error_description"].as_str().unwrap().to_owned();
        assert!(said.contains(description), "{about}: {said}");
    }
}

#[tokio::test]
async fn the_default_identity_follows_what_is_assigned() {
    let azure = start().await;
    azure.machine().unassign(azure.vm());
    let only = imds(&azure, "").send().await.unwrap();
    assert_eq!(only.json()["client_id"], json!(azure.user_assigned().client_id()));

    azure.machine().assign(azure.new_identity("another"));
    let several = imds(&azure, "").send().await.unwrap();
    assert_eq!(several.status, 400);
    assert!(several.text().contains("Multiple user assigned identities exist, please specify the clientId"));

    for identity in azure.machine().identities() {
        azure.machine().unassign(&identity);
    }
    let none = imds(&azure, "").send().await.unwrap();
    assert_eq!(none.text(), r#"{"error":"invalid_request","error_description":"Identity not found"}"#);
}

#[tokio::test]
async fn the_platform_gives_out_the_same_token_until_it_is_near_its_end() {
    let azure = start().await;
    let token = async |more: &str| imds(&azure, more).send().await.unwrap().token();
    let first = token("").await;
    azure.clock().advance(Duration::from_secs(23 * 3600));
    let later = imds(&azure, "").send().await.unwrap();
    assert_eq!(later.token(), first);
    assert_eq!(later.json()["expires_in"], "3600");
    assert_ne!(token("&bypass_cache=true").await, first);

    azure.clock().advance(Duration::from_secs(24 * 3600));
    assert_ne!(token("").await, first);
}

#[tokio::test]
async fn a_crowd_gets_one_token() {
    let azure = start().await;
    let asked: Vec<_> = (0..50).map(|_| tokio::spawn(imds(&azure, "").send())).collect();
    let mut tokens = std::collections::BTreeSet::new();
    for reply in asked {
        tokens.insert(reply.await.unwrap().unwrap().token());
    }
    assert_eq!(tokens.len(), 1);
}

#[tokio::test]
async fn the_audience_is_the_resource_as_it_was_asked_for() {
    let azure = start().await;
    for resource in [format!("{POSTGRESQL}/"), "https://management.azure.com/".to_owned()] {
        let url = azure.metadata_url();
        let query = format!("api-version=2018-02-01&resource={}", encode(&resource));
        let ask =
            Ask::get(format!("{url}/metadata/identity/oauth2/token?{query}")).header("Metadata", "true");
        let token = ask.send().await.unwrap().token();
        assert_eq!(jwt::claims(&azure, &token).await["aud"], json!(resource));
    }
}

#[tokio::test]
async fn the_machine_tells_its_tenant_and_name() {
    let azure = start().await;
    let get = |path: &str| Ask::get(format!("{}{path}", azure.metadata_url()));
    let info = get("/metadata/identity/info?api-version=2018-02-01");
    assert_eq!(info.clone().send().await.unwrap().status, 400);
    let info = info.header("Metadata", "true").send().await.unwrap();
    assert_eq!(info.text(), format!(r#"{{"tenantId":"{}"}}"#, azure.tenant()));

    let instance =
        get("/metadata/instance?api-version=2021-02-01").header("Metadata", "true").send().await.unwrap();
    let compute = instance.json()["compute"].clone();
    assert_eq!(compute["name"], "myVm");
    assert_eq!(compute["subscriptionId"], json!(azure.subscription()));
    assert_eq!(compute["resourceId"], json!(azure.vm().resource_id()));
    let unversioned = get("/metadata/instance").header("Metadata", "true").send().await.unwrap();
    assert!(unversioned.json()["newest-versions"].is_array());
    let bare = get("/metadata/instance").send().await.unwrap();
    assert_eq!(bare.json()["error"], "Bad request. Required metadata header not specified");
    assert_eq!(azure.journal().count(Endpoint::ImdsInstance), 3);
}

//! The token engine against the local Azure, over real HTTP and TLS.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pgentra_emulator::{Clock as CloudClock, Endpoint, Fault, LocalAzure, Options};
use pgentra_identity::{
    AccessToken, Clock, Cloud, Credential, Env, Files, Refreshed, Resource, Selector, SourceName,
    SystemClock, TokenErrorKind, World,
};
use secrecy::ExposeSecret as _;

async fn cloud() -> LocalAzure {
    LocalAzure::start(Options::new(CloudClock::following(|| SystemClock.now()))).await.unwrap()
}

fn resource() -> Resource {
    Cloud::Public.postgres_resource()
}

fn world(variables: &[(&str, &str)], files: Files) -> World {
    World::builder().env(Env::from_map(variables.iter().copied())).files(files).build()
}

/// The claims of a token, unverified.
fn claims(token: &AccessToken) -> serde_json::Value {
    use base64::Engine as _;
    let payload = token.expose_secret().split('.').nth(1).unwrap();
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap())
        .unwrap()
}

/// The token says the same end as the answer of the service did.
fn check(token: &AccessToken, source: SourceName, object_id: impl ToString) {
    let claims = claims(token);
    assert_eq!(token.source(), source);
    assert_eq!(claims["oid"], object_id.to_string());
    assert_eq!(claims["aud"], resource().as_str());
    assert_eq!(token.expires_on(), UNIX_EPOCH + Duration::from_secs(claims["exp"].as_u64().unwrap()));
}

#[tokio::test]
async fn a_virtual_machine() {
    let azure = cloud().await;
    let address =
        azure.metadata_url().strip_prefix("http://").unwrap().trim_end_matches('/').parse().unwrap();
    // Found by the probe, at its true address.
    let world = World::builder().route("169.254.169.254", 80, address).build();
    let credential = Credential::builder(world.clone()).build().unwrap();
    let first = credential.token(&resource()).await.unwrap();
    check(&first, SourceName::Imds, azure.vm().object_id());
    // The platform keeps its token: asking for another one brings the same.
    let second = credential.refresh(&resource(), &first).await.unwrap();
    assert!(matches!(second, Refreshed::Same(token) if token.same_secret(&first)));

    let identity = azure.user_assigned();
    for selector in [
        Selector::ClientId(identity.client_id()),
        Selector::ObjectId(identity.object_id()),
        Selector::ResourceId(identity.resource_id().to_owned()),
    ] {
        let credential = Credential::builder(world.clone()).selector(selector).build().unwrap();
        check(&credential.token(&resource()).await.unwrap(), SourceName::Imds, identity.object_id());
    }
    let unknown = Selector::ClientId(azure.tenant());
    let credential = Credential::builder(world).selector(unknown).build().unwrap();
    let error = credential.token(&resource()).await.unwrap_err();
    assert_eq!(error.status(), Some(400), "{error}");
    azure.stop().await;
}

#[tokio::test]
async fn an_app_service() {
    let azure = cloud().await;
    let app = azure.app_service();
    let variables =
        [("IDENTITY_ENDPOINT", app.endpoint.as_str()), ("IDENTITY_HEADER", app.header.expose_secret())];
    let world = world(&variables, Files::in_memory());
    let credential = Credential::builder(world.clone()).build().unwrap();
    check(&credential.token(&resource()).await.unwrap(), SourceName::AppService, azure.vm().object_id());
    let identity = azure.user_assigned();
    for selector in [
        Selector::ClientId(identity.client_id()),
        Selector::ObjectId(identity.object_id()),
        Selector::ResourceId(identity.resource_id().to_owned()),
    ] {
        let credential = Credential::builder(world.clone()).selector(selector).build().unwrap();
        check(&credential.token(&resource()).await.unwrap(), SourceName::AppService, identity.object_id());
    }
    azure.stop().await;
}

#[tokio::test]
async fn a_cloud_shell() {
    let azure = cloud().await;
    let credential = Credential::builder(world(&[("MSI_ENDPOINT", azure.cloud_shell())], Files::in_memory()));
    let token = credential.build().unwrap().token(&resource()).await.unwrap();
    check(&token, SourceName::CloudShell, azure.administrator().object_id());
    assert_eq!(claims(&token)["upn"], azure.administrator().user_principal_name());
    azure.stop().await;
}

#[tokio::test]
async fn a_pod() {
    let azure = cloud().await;
    let files = Files::in_memory();
    files.put("/ca.pem", azure.ca_pem());
    files.put("/token", azure.federation().service_account_token().unwrap().expose_secret());
    let client_id = azure.application().client_id().to_string();
    let tenant = azure.tenant().to_string();
    let variables = [
        ("AZURE_CLIENT_ID", client_id.as_str()),
        ("AZURE_TENANT_ID", &tenant),
        ("AZURE_FEDERATED_TOKEN_FILE", "/token"),
        ("AZURE_AUTHORITY_HOST", azure.authority_host()),
        ("SSL_CERT_FILE", "/ca.pem"),
    ];
    let credential = Credential::builder(world(&variables, files.clone())).build().unwrap();
    let token = credential.token(&resource()).await.unwrap();
    check(&token, SourceName::WorkloadIdentity, azure.application().object_id());

    // The kubelet has replaced the file by the token of another account: it is read anew, and refused.
    let other = azure.federation().token_of("default", "stranger", "api://AzureADTokenExchange").unwrap();
    files.put("/token", other.expose_secret());
    let short = Credential::builder(world(&variables, files.clone())).deadline(Duration::from_secs(1));
    let error = short.build().unwrap().token(&resource()).await.unwrap_err();
    assert!(error.code().is_some_and(|code| code.starts_with("AADSTS7")), "{error:?}");
    assert!(error.hint().unwrap().contains("subject"), "{:?}", error.hint());

    // Without the local authority the connection is not trusted.
    let untrusted =
        variables.iter().copied().filter(|(name, _)| *name != "SSL_CERT_FILE").collect::<Vec<_>>();
    let credential = Credential::builder(world(&untrusted, files)).build().unwrap();
    let error = credential.token(&resource()).await.unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (TokenErrorKind::Network, 1), "{error}");
    azure.stop().await;
}

#[tokio::test]
async fn faults_are_overcome_or_named() {
    let azure = cloud().await;
    let variables = [("AZURE_POD_IDENTITY_AUTHORITY_HOST", azure.metadata_url())];
    let ask = async || {
        let credential =
            Credential::builder(world(&variables, Files::in_memory())).deadline(Duration::from_secs(3));
        credential.build().unwrap().token(&resource()).await
    };
    azure.faults().push(Endpoint::ImdsToken, Fault::throttled(Duration::from_secs(60)));
    assert_eq!(ask().await.unwrap_err().status(), Some(429));
    azure.faults().push(Endpoint::ImdsToken, Fault::captive_portal());
    assert_eq!(ask().await.unwrap_err().kind(), TokenErrorKind::BadAnswer);
    azure.faults().push(Endpoint::ImdsToken, Fault::redirect("http://127.0.0.1:1/"));
    assert_eq!(ask().await.unwrap_err().status(), Some(302));
    assert!(ask().await.is_ok(), "the faults are over");
    assert_eq!(azure.faults().pending(), 0);
    let _: SystemTime = azure.clock().now();
    azure.stop().await;
}

//! The token engine against the local Azure, over real HTTP and TLS.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::str::FromStr as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pgentra_emulator::options::{AzureArcAgent, DateText};
use pgentra_emulator::{Clock as CloudClock, Endpoint, Fault, LocalAzure, Options};
use pgentra_identity::{
    AccessToken, AssertionSignature, Cloud, Credential, Refreshed, Resource, Selector, SourceName,
    TokenErrorKind,
};
use pgentra_system::{Clock, Env, Files, System, SystemClock};
use secrecy::ExposeSecret as _;

async fn cloud() -> LocalAzure {
    LocalAzure::start(Options::new(CloudClock::following(|| SystemClock.now()))).await.unwrap()
}

fn resource() -> Resource {
    Cloud::Public.postgres_resource()
}

fn system(variables: &[(&str, &str)], files: Files) -> System {
    System::builder().env(Env::from_map(variables.iter().copied())).files(files).build()
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
    let mut options = Options::new(CloudClock::following(|| SystemClock.now()));
    options.host_names = vec!["169.254.169.254".to_owned()];
    let azure = LocalAzure::start(options).await.unwrap();
    let address =
        azure.metadata_url().strip_prefix("http://").unwrap().trim_end_matches('/').parse().unwrap();
    // Found by the probe, at its true address.
    let system = System::builder().route("169.254.169.254", 80, address).build();
    let credential = Credential::builder(system.clone()).build().unwrap();
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
        let credential = Credential::builder(system.clone()).selector(selector).build().unwrap();
        check(&credential.token(&resource()).await.unwrap(), SourceName::Imds, identity.object_id());
    }
    let unknown = Selector::ClientId(azure.tenant());
    let builder = Credential::builder(system).selector(unknown).deadline(Duration::from_secs(1));
    let credential = builder.build().unwrap();
    let error = credential.token(&resource()).await.unwrap_err();
    assert_eq!(error.status(), Some(400), "{error}");
    azure.stop().await;
}

/// A clock that is wrong shows in the source's own time.
#[tokio::test]
async fn the_time_of_the_source() {
    let azure = cloud().await;
    let system = system(&[("AZURE_POD_IDENTITY_AUTHORITY_HOST", azure.metadata_url())], Files::in_memory());
    let hour = Duration::from_secs(3600);
    for (fault, ahead) in [(None, Duration::ZERO), (Some(Fault::ClockAhead(hour)), hour)] {
        if let Some(fault) = fault {
            azure.faults().push(Endpoint::ImdsToken, fault);
        }
        let credential = Credential::builder(system.clone()).build().unwrap();
        let token = credential.token(&resource()).await.unwrap();
        // The date has no fractions of a second.
        let difference = token.source_time().unwrap() + Duration::from_secs(1);
        let difference = difference.duration_since(token.received_on()).unwrap();
        assert!((ahead..ahead + Duration::from_secs(60)).contains(&difference), "{difference:?}");
    }
    azure.faults().push(Endpoint::ImdsToken, Fault::ClockBehind(48 * hour));
    let error = Credential::builder(system).build().unwrap().token(&resource()).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Expired);
    assert!(error.hint().unwrap().contains("min ahead of the token source's"), "{:?}", error.hint());
    azure.stop().await;
}

#[tokio::test]
async fn an_app_service() {
    let azure = cloud().await;
    let app = azure.app_service();
    let variables =
        [("IDENTITY_ENDPOINT", app.endpoint.as_str()), ("IDENTITY_HEADER", app.header.expose_secret())];
    let system = system(&variables, Files::in_memory());
    let credential = Credential::builder(system.clone()).build().unwrap();
    check(&credential.token(&resource()).await.unwrap(), SourceName::AppService, azure.vm().object_id());
    let identity = azure.user_assigned();
    for selector in [
        Selector::ClientId(identity.client_id()),
        Selector::ObjectId(identity.object_id()),
        Selector::ResourceId(identity.resource_id().to_owned()),
    ] {
        let credential = Credential::builder(system.clone()).selector(selector).build().unwrap();
        check(&credential.token(&resource()).await.unwrap(), SourceName::AppService, identity.object_id());
    }
    azure.stop().await;
}

#[tokio::test]
async fn a_cloud_shell() {
    let azure = cloud().await;
    let credential =
        Credential::builder(system(&[("MSI_ENDPOINT", azure.cloud_shell())], Files::in_memory()));
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
    let credential = Credential::builder(system(&variables, files.clone())).build().unwrap();
    let token = credential.token(&resource()).await.unwrap();
    check(&token, SourceName::WorkloadIdentity, azure.application().object_id());

    // The kubelet has replaced the file by the token of another account: it is read anew, and refused.
    let other = azure.federation().token_of("default", "unregistered", "api://AzureADTokenExchange").unwrap();
    files.put("/token", other.expose_secret());
    let short = Credential::builder(system(&variables, files.clone())).deadline(Duration::from_secs(1));
    let error = short.build().unwrap().token(&resource()).await.unwrap_err();
    assert!(error.code().is_some_and(|code| code.starts_with("AADSTS7")), "{error:?}");
    assert!(error.hint().unwrap().contains("subject"), "{:?}", error.hint());

    // Without the local authority the connection is not trusted.
    let untrusted =
        variables.iter().copied().filter(|(name, _)| *name != "SSL_CERT_FILE").collect::<Vec<_>>();
    let credential = Credential::builder(system(&untrusted, files)).build().unwrap();
    let error = credential.token(&resource()).await.unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (TokenErrorKind::Network, 1), "{error}");
    azure.stop().await;
}

/// The variables that every application at Entra needs here, and those of this host.
fn application<'a>(ids: &'a [String; 3], of_the_host: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let [client_id, tenant, authority] = ids;
    let always = [
        ("AZURE_CLIENT_ID", client_id.as_str()),
        ("AZURE_TENANT_ID", tenant),
        ("AZURE_AUTHORITY_HOST", authority),
        ("SSL_CERT_FILE", "/ca.pem"),
    ];
    always.into_iter().chain(of_the_host.iter().copied()).collect()
}

fn ids(azure: &LocalAzure) -> [String; 3] {
    let client_id = azure.application().client_id().to_string();
    [client_id, azure.tenant().to_string(), azure.authority_host().to_owned()]
}

fn files(azure: &LocalAzure) -> Files {
    let files = Files::in_memory();
    files.put("/ca.pem", azure.ca_pem());
    files
}

#[tokio::test]
async fn an_application_with_a_secret() {
    let azure = cloud().await;
    let (ids, secret) = (ids(&azure), azure.application().secret().expose_secret());
    let variables = application(&ids, &[("AZURE_CLIENT_SECRET", secret)]);
    let credential = Credential::builder(system(&variables, files(&azure))).build().unwrap();
    let token = credential.token(&resource()).await.unwrap();
    check(&token, SourceName::ClientSecret, azure.application().object_id());
    azure.stop().await;
}

#[tokio::test]
async fn an_application_with_a_certificate() {
    let azure = cloud().await;
    let (ids, files) = (ids(&azure), files(&azure));
    let variables = application(&ids, &[("AZURE_CLIENT_CERTIFICATE_PATH", "/cert")]);
    let certificate = azure.new_client_certificate().await.unwrap();
    files.put("/cert", certificate.pem().expose_secret());
    for signature in [AssertionSignature::Ps256, AssertionSignature::Rs256] {
        let builder = Credential::builder(system(&variables, files.clone())).assertion_signature(signature);
        let token = builder.build().unwrap().token(&resource()).await.unwrap();
        check(&token, SourceName::ClientCertificate, azure.application().object_id());
    }
    #[cfg(feature = "pkcs12")]
    {
        use p12_keystore::{Certificate, KeyStore, KeyStoreEntry, PrivateKey, PrivateKeyChain};
        let chain =
            certificate.chain.iter().map(|one| Certificate::from_der(one).unwrap()).collect::<Vec<_>>();
        let key = PrivateKey::from_der(certificate.key.secret_der()).unwrap();
        let mut store = KeyStore::new();
        store.add_entry(
            "me",
            KeyStoreEntry::PrivateKeyChain(PrivateKeyChain::new([1u8].as_slice(), key, chain)),
        );
        files.put("/cert", store.writer("hunter2").write().unwrap());
        let ask = async |password| {
            let password = [("AZURE_CLIENT_CERTIFICATE_PASSWORD", password)];
            let variables = variables.iter().copied().chain(password).collect::<Vec<_>>();
            Credential::builder(system(&variables, files.clone())).build().unwrap().token(&resource()).await
        };
        check(&ask("hunter2").await.unwrap(), SourceName::ClientCertificate, azure.application().object_id());
        let error = ask("hunter3").await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Config, "{error}");
        assert!(!format!("{error:?}").contains("hunter"), "{error:?}");
    }
    #[cfg(not(feature = "pkcs12"))]
    {
        files.put("/cert", b"\x30\x82".as_slice());
        let error = Credential::builder(system(&variables, files))
            .build()
            .unwrap()
            .token(&resource())
            .await
            .unwrap_err();
        assert!(error.hint().unwrap().contains("openssl pkcs12"), "{error:?}");
    }
    azure.stop().await;
}

#[tokio::test]
async fn a_service_fabric_node() {
    let azure = cloud().await;
    let node = azure.service_fabric();
    let other = "00112233445566778899aabbccddeeff00112233";
    for (thumbprint, trusted) in [(node.thumbprint.as_str(), true), (other, false)] {
        let variables = [
            ("IDENTITY_ENDPOINT", node.endpoint.as_str()),
            ("IDENTITY_HEADER", node.header.expose_secret()),
            ("IDENTITY_SERVER_THUMBPRINT", thumbprint),
        ];
        let credential = Credential::builder(system(&variables, Files::in_memory())).build().unwrap();
        let result = credential.token(&resource()).await;
        match result {
            Ok(token) if trusted => check(&token, SourceName::ServiceFabric, azure.vm().object_id()),
            Err(error) if !trusted => {
                assert_eq!((error.kind(), error.attempts()), (TokenErrorKind::Network, 1))
            }
            other => panic!("{other:?}"),
        }
    }
    azure.stop().await;
}

#[tokio::test]
async fn a_machine_learning_compute() {
    let azure = cloud().await;
    let compute = azure.machine_learning();
    let client_id = compute.default_client_id.to_string();
    let variables = [
        ("MSI_ENDPOINT", compute.endpoint.as_str()),
        ("MSI_SECRET", compute.secret.expose_secret()),
        ("DEFAULT_IDENTITY_CLIENT_ID", &client_id),
    ];
    let system = system(&variables, Files::in_memory());
    let credential = Credential::builder(system.clone()).build().unwrap();
    check(&credential.token(&resource()).await.unwrap(), SourceName::AzureMl, azure.vm().object_id());
    let identity = azure.user_assigned();
    let credential =
        Credential::builder(system).selector(Selector::ClientId(identity.client_id())).build().unwrap();
    check(&credential.token(&resource()).await.unwrap(), SourceName::AzureMl, identity.object_id());
    azure.stop().await;
}

#[tokio::test]
async fn an_app_service_of_2017() {
    for dates in [DateText::Linux, DateText::Windows, DateText::Unpadded] {
        let mut options = Options::new(CloudClock::following(|| SystemClock.now()));
        options.legacy_dates = dates;
        let azure = LocalAzure::start(options).await.unwrap();
        let app = azure.app_service();
        let variables = [
            ("MSI_ENDPOINT", app.endpoint.as_str()),
            ("MSI_SECRET", app.header.expose_secret()),
            ("WEBSITE_SITE_NAME", "site"),
        ];
        let credential = Credential::builder(system(&variables, Files::in_memory())).build().unwrap();
        let token = credential.token(&resource()).await.unwrap();
        check(&token, SourceName::AppService2017, azure.vm().object_id());
        azure.stop().await;
    }
}

#[tokio::test]
async fn jobs_of_build_services() {
    let azure = cloud().await;
    let (ids, github, pipelines) = (ids(&azure), azure.github(), azure.pipelines());
    let connection = pipelines.service_connection.to_string();
    let hosts = [
        (
            SourceName::GitHubActions,
            vec![
                ("ACTIONS_ID_TOKEN_REQUEST_URL", github.request_url.as_str()),
                ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", github.request_token.expose_secret()),
            ],
        ),
        (
            SourceName::AzurePipelines,
            vec![
                ("SYSTEM_OIDCREQUESTURI", pipelines.request_uri.as_str()),
                ("SYSTEM_ACCESSTOKEN", pipelines.access_token.expose_secret()),
                ("AZURESUBSCRIPTION_SERVICE_CONNECTION_ID", &connection),
                ("AZURESUBSCRIPTION_CLIENT_ID", &ids[0]),
                ("AZURESUBSCRIPTION_TENANT_ID", &ids[1]),
            ],
        ),
    ];
    for (source, variables) in hosts {
        let variables = application(&ids, &variables);
        let credential = Credential::builder(system(&variables, files(&azure))).build().unwrap();
        let token = credential.token(&resource()).await.unwrap();
        check(&token, source, azure.application().object_id());
    }
    azure.stop().await;
}

#[tokio::test]
async fn a_pod_with_an_identity_binding() {
    let azure = cloud().await;
    let (ids, files, proxy) = (ids(&azure), files(&azure), azure.token_proxy());
    files.put("/token", azure.federation().bound_service_account_token().unwrap().expose_secret());
    files.put("/proxy-ca.pem", proxy.ca_pem.as_str());
    let variables = application(
        &ids,
        &[
            ("AZURE_FEDERATED_TOKEN_FILE", "/token"),
            ("AZURE_KUBERNETES_TOKEN_PROXY", &proxy.url),
            ("AZURE_KUBERNETES_SNI_NAME", &proxy.sni_name),
            ("AZURE_KUBERNETES_CA_FILE", "/proxy-ca.pem"),
        ],
    );
    let credential = Credential::builder(system(&variables, files.clone())).build().unwrap();
    let token = credential.token(&resource()).await.unwrap();
    check(&token, SourceName::WorkloadIdentity, azure.application().object_id());
    // While the file is being replaced it is empty for a moment: the authority read before is still trusted.
    files.put("/proxy-ca.pem", "");
    assert!(credential.refresh(&resource(), &token).await.is_ok());
    // Entra's authority is not the proxy's.
    files.put("/proxy-ca.pem", azure.ca_pem());
    let error =
        credential.token(&Resource::from_str("https://management.azure.com").unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Network, "{error}");
    azure.stop().await;
}

/// The agent of the local cloud writes its keys into a folder of its own, which is not the one of a real agent.
#[tokio::test]
async fn an_arc_agent_that_names_a_file_elsewhere() {
    let keys = tempfile::tempdir().unwrap();
    let mut options = Options::new(CloudClock::following(|| SystemClock.now()));
    options.arc = Some(AzureArcAgent::new(keys.path()));
    let azure = LocalAzure::start(options).await.unwrap();
    let agent = azure.arc().unwrap();
    let variables =
        [("IDENTITY_ENDPOINT", agent.identity_endpoint.as_str()), ("IMDS_ENDPOINT", &agent.imds_endpoint)];
    let credential = Credential::builder(system(&variables, Files::real())).build().unwrap();
    let error = credential.token(&resource()).await.unwrap_err();
    assert_eq!((error.kind(), error.source_name()), (TokenErrorKind::BadAnswer, Some(SourceName::AzureArc)));
    assert!(error.to_string().contains("not in the agent's folder"), "{error}");
    azure.stop().await;
}

#[tokio::test]
async fn faults_are_overcome_or_named() {
    let azure = cloud().await;
    let variables = [("AZURE_POD_IDENTITY_AUTHORITY_HOST", azure.metadata_url())];
    let ask = async || {
        let credential =
            Credential::builder(system(&variables, Files::in_memory())).deadline(Duration::from_secs(3));
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

//! Only a token for what was asked for is handed out, and only one listener is asked for it. Over real HTTP on loopback.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod stage;

use std::time::Duration;

use pgentra_identity::{
    AccessToken, Cloud, Credential, Resource, Selector, SourceName, TokenError, TokenErrorKind,
};
use pgentra_system::{Finished, Processes};
use tokio::net::{TcpListener, TcpSocket};

use crate::stage::{Answer, POSTGRESQL, Service, jwt, system};

const MANAGEMENT: &str = "https://management.azure.com";
const CLIENT: &str = "853b9a84-5bfa-4b22-a3f3-0b9a43d9ad8a";

/// What a metadata service answers with for a token with this `aud`, and what it states as `resource`.
fn answer(aud: Option<&str>, stated: Option<&str>) -> String {
    let token = match aud {
        Some(aud) => jwt(&format!(r#"{{"exp":1800003600,"aud":{aud}}}"#)),
        None => "opaque-token".to_owned(),
    };
    let stated = stated.map(|stated| format!(r#","resource":"{stated}""#)).unwrap_or_default();
    format!(r#"{{"access_token":"{token}","expires_in":"3600"{stated}}}"#)
}

async fn ask(credential: &Credential, resource: &str) -> Result<AccessToken, TokenError> {
    credential.token(&resource.parse().unwrap()).await
}

#[tokio::test]
async fn a_token_for_something_else_is_refused() {
    let pg = format!("\"{POSTGRESQL}\"");
    let pg = Some(pg.as_str());
    let china = Cloud::China.postgres_resource().to_string();
    for (asked, aud, stated, is_right) in [
        (POSTGRESQL, pg, Some(POSTGRESQL), true),
        (POSTGRESQL, pg, None, true),
        (POSTGRESQL, None, Some(POSTGRESQL), true),
        (POSTGRESQL, None, None, true),
        (POSTGRESQL, Some("\"https://management.azure.com\""), Some(POSTGRESQL), false),
        (POSTGRESQL, Some("\"https://management.azure.com\""), None, false),
        (POSTGRESQL, None, Some(MANAGEMENT), false),
        // What the token says is what a server reads; what is stated beside it counts where the token cannot be read.
        (POSTGRESQL, pg, Some("r"), true),
        // One slash at its end is the same API; the server decides whether it takes it.
        (POSTGRESQL, Some("\"https://ossrdbms-aad.database.windows.net/\""), None, true),
        ("https://ossrdbms-aad.database.windows.net/", pg, None, true),
        (MANAGEMENT, None, Some("https://management.azure.com/"), true),
        // The application's id, in version 2.0.
        (POSTGRESQL, Some("\"123cd850-d9df-40bd-94d5-c9f07b7fa203\""), None, true),
        (&china, Some("\"123cd850-d9df-40bd-94d5-c9f07b7fa203\""), None, true),
        (POSTGRESQL, Some("\"797f4846-ba00-4fd7-ba43-dac1f8f63013\""), None, false),
        ("123cd850-d9df-40bd-94d5-c9f07b7fa203", pg, None, true),
        ("api://my-api", Some("\"853b9a84-5bfa-4b22-a3f3-0b9a43d9ad8a\""), None, true),
        (
            "api://853b9a84-5bfa-4b22-a3f3-0b9a43d9ad8a",
            Some("\"853b9a84-5bfa-4b22-a3f3-0b9a43d9ad8a\""),
            None,
            true,
        ),
        ("api://my-api", Some("\"00000003-0000-0000-c000-000000000000\""), None, false),
        ("api://my-api", Some("\"api://other-api\""), None, false),
        // Another cloud's resource is another resource.
        (POSTGRESQL, Some("\"https://ossrdbms-aad.database.chinacloudapi.cn\""), None, false),
        // RFC 7519 allows several; one that is no text is none.
        (POSTGRESQL, Some("[\"a\",\"https://ossrdbms-aad.database.windows.net\"]"), None, true),
        (POSTGRESQL, Some("[\"a\",\"b\"]"), None, false),
        (POSTGRESQL, Some("[]"), None, false),
        (POSTGRESQL, Some("5"), Some(POSTGRESQL), false),
    ] {
        let service = Service::start(&[Answer::new(200, answer(aud, stated))]).await;
        let url = service.url();
        let system = system(&[("AZURE_POD_IDENTITY_AUTHORITY_HOST", url.as_str())]).build();
        let credential = Credential::builder(system).build().unwrap();
        let case = format!("asked {asked}, aud {aud:?}, stated {stated:?}");
        match ask(&credential, asked).await {
            Ok(_) => assert!(is_right, "{case}: it was handed out"),
            Err(error) => {
                assert!(!is_right, "{case}: {error}");
                assert_eq!((error.kind(), error.attempts()), (TokenErrorKind::Audience, 0), "{case}");
                assert!(error.to_string().contains(asked) && error.endpoint().is_some(), "{error}");
                assert!(!format!("{error:?}").contains("c2ln"), "{error:?}");
                let resource: Resource = asked.parse().unwrap();
                assert!(credential.with_cached(&resource, |_| ()).is_none(), "{case}: it was kept");
            }
        }
    }
}

#[tokio::test]
async fn every_source_is_held_to_it() {
    let wrong = answer(Some("\"https://vault.azure.net\""), None);
    let service = Service::start(&[Answer::new(200, wrong.clone())]).await;
    let (url, endpoint) = (service.url(), format!("{}/msi/token", service.url()));
    let application =
        [("AZURE_CLIENT_ID", CLIENT), ("AZURE_TENANT_ID", "contoso.example"), ("AZURE_AUTHORITY_HOST", &url)];
    let with = |more: &[(&'static str, &'static str)]| [&application[..], more].concat();
    for (source, variables) in [
        (SourceName::Imds, vec![("AZURE_POD_IDENTITY_AUTHORITY_HOST", url.as_str())]),
        (SourceName::AppService, vec![("IDENTITY_ENDPOINT", &endpoint), ("IDENTITY_HEADER", "h")]),
        (
            SourceName::AppService2017,
            vec![("MSI_ENDPOINT", endpoint.as_str()), ("MSI_SECRET", "s"), ("WEBSITE_SITE_NAME", "w")],
        ),
        (
            SourceName::AzureMl,
            vec![("MSI_ENDPOINT", &endpoint), ("MSI_SECRET", "s"), ("DEFAULT_IDENTITY_CLIENT_ID", CLIENT)],
        ),
        (SourceName::CloudShell, vec![("MSI_ENDPOINT", endpoint.as_str())]),
        (SourceName::AzureArc, vec![("IDENTITY_ENDPOINT", endpoint.as_str()), ("IMDS_ENDPOINT", &url)]),
        (SourceName::ClientSecret, with(&[("AZURE_CLIENT_SECRET", "s")])),
        (SourceName::WorkloadIdentity, with(&[("AZURE_FEDERATED_TOKEN_FILE", "/token")])),
    ] {
        let credential = Credential::builder(system(&variables).build()).source(source).build().unwrap();
        let error = ask(&credential, POSTGRESQL).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Audience, "{source}: {error}");
        assert!(error.to_string().contains("https://vault.azure.net"), "{source}: {error}");
    }
    for source in [SourceName::AzureCli, SourceName::AzureDeveloperCli, SourceName::Exec] {
        let output = wrong.clone().into_bytes();
        let processes = Processes::scripted(move |_| {
            Ok(Finished { code: Some(0), stdout: output.clone().into(), stderr: Vec::new() })
        });
        let builder = Credential::builder(system(&[]).processes(processes).build()).command(["give-token"]);
        let error = ask(&builder.source(source).build().unwrap(), POSTGRESQL).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Audience, "{source}: {error}");
        let hint = error.hint().unwrap();
        assert!(hint.ends_with(&format!("az account get-access-token --resource {POSTGRESQL}")), "{hint}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrong_token_does_not_replace_a_right_one() {
    let right = answer(Some(&format!("\"{POSTGRESQL}\"")), None);
    let wrong = answer(Some("\"https://vault.azure.net\""), None);
    let service = Service::start(&[Answer::new(200, right), Answer::new(200, wrong)]).await;
    let url = service.url();
    let system = system(&[("AZURE_POD_IDENTITY_AUTHORITY_HOST", url.as_str())]).build();
    let credential = Credential::builder(system).build().unwrap();
    let token = ask(&credential, POSTGRESQL).await.unwrap();
    let resource = POSTGRESQL.parse().unwrap();
    let error = credential.refresh(&resource, &token).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Audience);
    assert!(ask(&credential, POSTGRESQL).await.unwrap().same_secret(&token));
    assert_eq!(credential.health(&resource).failures, 1);
}

/// Listens on a port of ::1 that is bound on 127.0.0.1 too, where nothing listens.
async fn other_users_listener() -> (TcpListener, TcpSocket) {
    loop {
        let listener = TcpListener::bind("[::1]:0").await.unwrap();
        let twin = TcpSocket::new_v4().unwrap();
        if twin.bind(([127, 0, 0, 1], listener.local_addr().unwrap().port()).into()).is_ok() {
            return (listener, twin);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn localhost_is_one_listener() {
    for host in ["localhost", "LOCALHOST", "msi.localhost"] {
        let (listener, _twin) = other_users_listener().await;
        let port = listener.local_addr().unwrap().port();
        let service = Service::on(listener, &[Answer::token()]);
        let endpoint = format!("http://{host}:{port}/msi/token");
        for variables in [
            [("IDENTITY_ENDPOINT", endpoint.as_str()), ("IDENTITY_HEADER", "secret-header")],
            [("MSI_ENDPOINT", endpoint.as_str()), ("MSI_SECRET", "secret-header")],
        ] {
            let builder = Credential::builder(system(&variables).build()).deadline(Duration::from_secs(3));
            let identity = Selector::ClientId(CLIENT.parse().unwrap());
            let credential = builder.selector(identity).build().unwrap();
            let error = ask(&credential, POSTGRESQL).await.unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::Network, "{host}: {error}");
        }
        assert_eq!(service.requests(), 0, "{host}: the secret went to another listener");
        // Written out, it is asked.
        let endpoint = format!("http://[::1]:{port}/msi/token");
        let variables = [("IDENTITY_ENDPOINT", endpoint.as_str()), ("IDENTITY_HEADER", "secret-header")];
        ask(&Credential::builder(system(&variables).build()).build().unwrap(), POSTGRESQL).await.unwrap();
    }
}

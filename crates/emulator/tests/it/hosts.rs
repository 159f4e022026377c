//! The identity endpoints of the less usual hosts.

use std::path::Path;
use std::time::Duration;

use pgentra_emulator::options::{AzureArcAgent, DateText};
use pgentra_emulator::{Endpoint, Fault, LocalAzure};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::client::{Ask, POSTGRESQL, Reply, START, encode, options, start};
use crate::jwt;

fn resource() -> String {
    encode(POSTGRESQL)
}

#[tokio::test]
async fn the_protocol_of_2017_has_dates_for_expiries() {
    for (form, text) in [
        (DateText::Linux, "03/18/2030 17:46:40 +00:00"),
        (DateText::Windows, "3/18/2030 5:46:40 PM +00:00"),
        (DateText::Unpadded, "3/18/2030 5:46:40 PM +00:00"),
    ] {
        let mut options = options();
        options.legacy_dates = form;
        let azure = LocalAzure::start(options).await.unwrap();
        let service = azure.app_service();
        let url = format!("{}?api-version=2017-09-01&resource={}", service.endpoint, resource());
        let ask =
            |more: &str| Ask::get(format!("{url}{more}")).header("secret", service.header.expose_secret());
        let reply = ask("").send().await.unwrap();
        let token = reply.token();
        assert_eq!(
            reply.text(),
            format!(
                r#"{{"access_token":"{token}","expires_on":"{text}","resource":"{POSTGRESQL}","token_type":"Bearer"}}"#
            )
        );
        assert_eq!(jwt::claims(&azure, &token).await["oid"], json!(azure.vm().object_id()));
        let named = azure.user_assigned();
        let token = ask(&format!("&clientid={}", named.client_id())).send().await.unwrap().token();
        assert_eq!(jwt::claims(&azure, &token).await["oid"], json!(named.object_id()));
        assert_eq!(Ask::get(&url).header("x-identity-header", "x").send().await.unwrap().status, 401);
    }
}

#[tokio::test]
async fn machine_learning_wants_a_client_id_and_answers_with_a_number() {
    let azure = start().await;
    let host = azure.machine_learning();
    let ask = |query: String| {
        Ask::get(format!("{}?{query}", host.endpoint)).header("secret", host.secret.expose_secret())
    };
    let good = format!("api-version=2017-09-01&resource={}&clientid=", resource());
    let reply = ask(format!("{good}{}", host.default_client_id)).send().await.unwrap();
    assert_eq!(reply.json()["expires_on"], json!(START + 86_400));
    assert_eq!(jwt::claims(&azure, &reply.token()).await["oid"], json!(azure.vm().object_id()));
    let named = ask(format!("{good}{}", azure.user_assigned().client_id())).send().await.unwrap();
    assert_eq!(jwt::claims(&azure, &named.token()).await["oid"], json!(azure.user_assigned().object_id()));

    let client = host.default_client_id;
    for (ask, status) in [
        (ask(good.clone()), 400),
        (ask(format!("{good}{}", azure.tenant())), 400),
        (ask(format!("api-version=2019-08-01&resource=x&clientid={client}")), 400),
        (ask(format!("api-version=2017-09-01&resource=urn:no&clientid={client}")), 500),
        (ask(format!("{good}{client}")).method("POST"), 405),
        (Ask::get(format!("{}?{good}{client}", host.endpoint)).header("secret", "guess"), 401),
    ] {
        let about = format!("{ask:?}");
        let reply = ask.send().await.unwrap();
        assert_eq!(reply.status, status, "{about}");
        assert!(reply.json()["error"].is_string() && reply.json()["message"].is_string(), "{about}");
    }
}

#[tokio::test]
async fn a_service_fabric_node_shows_the_certificate_that_is_pinned() {
    let azure = start().await;
    let host = azure.service_fabric();
    jwt::pinned(&host.endpoint, &host.thumbprint).await;
    // Clients that do not pin it trust it by its authority.
    let node = azure.ca_pem().to_owned();
    let ask = |version: &str, more: &str| {
        Ask::get(format!("{}?api-version={version}{more}", host.endpoint))
            .trusting(&node)
            .header("Secret", host.header.expose_secret())
    };
    let more = format!("&resource={}", resource());
    let reply = ask("2019-07-01-preview", &more).send().await.unwrap();
    let token = reply.token();
    let expected = format!(
        r#"{{"token_type":"Bearer","access_token":"{token}","expires_on":{},"resource":"{POSTGRESQL}"}}"#,
        START + 86_400
    );
    assert_eq!(reply.text(), expected);
    assert_eq!(ask("2020-05-01", &more).send().await.unwrap().status, 200);

    let bare = Ask::get(format!("{}?api-version=2020-05-01{more}", host.endpoint)).trusting(&node);
    for (ask, status, code) in [
        (bare.clone(), 400, "SecretHeaderNotFound"),
        (bare.header("secret", "guess"), 404, "ManagedIdentityNotFound"),
        (ask("2018-02-01", &more), 400, "InvalidApiVersion"),
        (ask("2020-05-01", ""), 400, "ArgumentNullOrEmpty"),
        (ask("2020-05-01", "&resource=urn:no"), 500, "InternalServerError"),
        (ask("2020-05-01", &more).method("POST"), 405, "MethodNotAllowed"),
    ] {
        let reply = ask.send().await.unwrap();
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (status, &json!(code)));
        assert!(reply.json()["error"]["correlationId"].is_string());
    }
    azure.machine().unassign(azure.vm());
    let none = ask("2020-05-01", &more).send().await.unwrap();
    assert_eq!(none.json()["error"]["code"], "ManagedIdentityNotFound");
}

/// A local cloud with an Arc agent, and the folder of its challenge files.
async fn start_arc(user_assigned: bool) -> (LocalAzure, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options();
    let mut agent = AzureArcAgent::new(folder.path());
    agent.user_assigned = user_assigned;
    options.arc = Some(agent);
    (LocalAzure::start(options).await.unwrap(), folder)
}

fn ask_arc(azure: &LocalAzure, more: &str) -> Ask {
    let host = azure.arc().unwrap();
    Ask::get(format!("{}?api-version=2020-06-01&resource={}{more}", host.identity_endpoint, resource()))
        .header("Metadata", "true")
}

/// The file that an answer points to.
fn challenge(reply: &Reply) -> std::path::PathBuf {
    assert_eq!(reply.status, 401);
    let header = reply.headers["www-authenticate"].to_str().unwrap();
    header.strip_prefix("Basic realm=").unwrap().into()
}

async fn redeem(azure: &LocalAzure, more: &str) -> Reply {
    let file = challenge(&ask_arc(azure, more).send().await.unwrap());
    let key = std::fs::read_to_string(file).unwrap();
    ask_arc(azure, more).header("Authorization", format!("Basic {key}")).send().await.unwrap()
}

fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[tokio::test]
async fn arc_gives_a_token_to_who_can_read_its_file() {
    let (azure, folder) = start_arc(true).await;
    let first = ask_arc(&azure, "").send().await.unwrap();
    let file = challenge(&first);
    assert_eq!(file.parent().unwrap(), folder.path());
    assert_eq!(file.extension().unwrap(), "key");
    let key = std::fs::read_to_string(&file).unwrap();
    let authorized = ask_arc(&azure, "").header("Authorization", format!("Basic {key}"));
    let reply = authorized.clone().send().await.unwrap();
    assert_eq!(reply.json()["expires_on"], json!((START + 86_400).to_string()));
    assert_eq!(jwt::claims(&azure, &reply.token()).await["oid"], json!(azure.vm().object_id()));

    // A key counts once, and a wrong one not at all.
    assert!(!file.exists());
    challenge(&authorized.send().await.unwrap());
    challenge(&ask_arc(&azure, "").header("Authorization", "Basic guess").send().await.unwrap());
    assert_eq!(ask_arc(&azure, "").header("x-forwarded-for", "x").send().await.unwrap().status, 400);
    assert_eq!(Ask::get(azure.arc().unwrap().identity_endpoint).send().await.unwrap().status, 400);

    assert_eq!(files(folder.path()), 2);
    for _ in 0..40 {
        challenge(&ask_arc(&azure, "").send().await.unwrap());
    }
    assert_eq!(files(folder.path()), 32);
    azure.stop().await;
    assert_eq!(files(folder.path()), 0);
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_can_read_a_challenge_file() {
    use std::os::unix::fs::PermissionsExt as _;
    let (azure, _folder) = start_arc(true).await;
    let file = challenge(&ask_arc(&azure, "").send().await.unwrap());
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_current_arc_agent_confirms_the_identity_and_an_old_one_ignores_the_question() {
    let (current, _folder) = start_arc(true).await;
    let named = current.user_assigned();
    for (name, value) in [
        ("client_id", named.client_id().to_string()),
        ("object_id", named.object_id().to_string()),
        ("msi_res_id", named.resource_id().to_owned()),
    ] {
        let reply = redeem(&current, &format!("&{name}={}", encode(&value))).await;
        assert_eq!(reply.json()[name], json!(value));
        assert_eq!(jwt::claims(&current, &reply.token()).await["oid"], json!(named.object_id()));
    }
    // A spelling that the agent does not know.
    let other = redeem(&current, &format!("&mi_res_id={}", encode(named.resource_id()))).await;
    assert_eq!(jwt::claims(&current, &other.token()).await["oid"], json!(current.vm().object_id()));
    let unknown = redeem(&current, &format!("&client_id={}", current.tenant())).await;
    assert_eq!(unknown.json()["error_description"], "Identity not found");

    let (old, _folder) = start_arc(false).await;
    let named = old.user_assigned();
    let reply = redeem(&old, &format!("&msi_res_id={}", encode(named.resource_id()))).await;
    assert!(reply.json().get("msi_res_id").is_none());
    assert_eq!(jwt::claims(&old, &reply.token()).await["oid"], json!(old.vm().object_id()));
}

#[tokio::test]
async fn an_arc_agent_without_its_folder_says_so() {
    let (azure, folder) = start_arc(true).await;
    drop(folder);
    let reply = ask_arc(&azure, "").send().await.unwrap();
    assert_eq!((reply.status, &reply.json()["error"]), (500, &json!("server_error")));
    assert!(start().await.arc().is_none());
}

#[tokio::test]
async fn no_host_answers_for_a_disabled_identity() {
    let (azure, _folder) = start_arc(true).await;
    let (fabric, learning, service) = (azure.service_fabric(), azure.machine_learning(), azure.app_service());
    let resource = resource();
    let client = azure.user_assigned().client_id();
    let ask_fabric = Ask::get(format!("{}?api-version=2020-05-01&resource={resource}", fabric.endpoint))
        .trusting(azure.ca_pem())
        .header("Secret", fabric.header.expose_secret());
    let url = format!("{}?api-version=2017-09-01&resource={resource}&clientid={client}", learning.endpoint);
    let ask_learning = Ask::get(url).header("secret", learning.secret.expose_secret());
    let ask_service = |more: &str| {
        Ask::get(format!("{}?api-version=2019-08-01&resource={resource}{more}", service.endpoint))
            .header("X-IDENTITY-HEADER", service.header.expose_secret())
    };
    let (named, own) = (ask_service(&format!("&client_id={client}")), ask_service(""));
    let statuses = async || {
        let mut statuses = vec![redeem(&azure, "").await.status];
        for ask in [&ask_fabric, &ask_learning, &named, &own] {
            statuses.push(ask.clone().send().await.unwrap().status);
        }
        statuses
    };
    assert_eq!(statuses().await, [200; 5]);
    azure.set_account_enabled(azure.vm().object_id(), false);
    azure.set_account_enabled(azure.user_assigned().object_id(), false);
    assert_eq!(statuses().await, [400, 404, 400, 400, 400]);
}

#[tokio::test]
async fn every_host_suffers_its_faults() {
    let (azure, _folder) = start_arc(true).await;
    let fabric = azure.service_fabric();
    let node = azure.ca_pem();
    for (endpoint, ask) in [
        (Endpoint::Arc, ask_arc(&azure, "")),
        (Endpoint::MachineLearning, Ask::get(azure.machine_learning().endpoint)),
        (Endpoint::ServiceFabric, Ask::get(&fabric.endpoint).trusting(node)),
        (Endpoint::GitHub, Ask::get(azure.github().request_url).trusting(azure.ca_pem())),
        (Endpoint::Pipelines, Ask::post(azure.pipelines().request_uri, &[]).trusting(azure.ca_pem())),
    ] {
        azure.faults().push(endpoint, Fault::throttled(Duration::from_secs(1)));
        assert_eq!(ask.clone().send().await.unwrap().status, 429, "{endpoint}");
        azure.faults().push(endpoint, Fault::Cut { after: 20 });
        assert!(ask.clone().send().await.is_err(), "{endpoint}");
        azure.faults().push(endpoint, Fault::status(200, "null"));
        assert_eq!(ask.send().await.unwrap().json(), Value::Null, "{endpoint}");
        assert_eq!(azure.journal().count(endpoint), 3, "{endpoint}");
    }
}

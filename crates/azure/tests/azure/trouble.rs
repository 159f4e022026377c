use std::error::Error as _;
use std::time::Duration;

use pgentra_azure::arm::{AzureHostType, ResourceManager, Wanted};
use pgentra_azure::graph::Search;
use pgentra_azure::{AzureError, AzureErrorKind, Endpoints};
use pgentra_emulator::{Endpoint, Fault};
use pgentra_identity::Cloud;

use crate::{Setting, administrator, machine};

/// A fault that is none: the request of its turn is answered as ever.
const PASS: Fault = Fault::Slow(Duration::ZERO);

/// An assignment whose third request about the machine, the patch, suffers `fault`.
async fn assign(setting: &Setting, fault: Fault) -> Result<(), AzureError> {
    setting.azure.machine().unassign(setting.azure.vm());
    let manager = setting.manager().await;
    let vm = manager.host(AzureHostType::VirtualMachine, None, "myVm").await?;
    for fault in [PASS, fault] {
        setting.azure.faults().push(Endpoint::VirtualMachine, fault);
    }
    manager.assign(&vm, &Wanted::SystemAssigned).await.map(drop)
}

#[tokio::test]
async fn throttling_for_longer_than_anybody_waits_is_told_at_once() {
    let setting = administrator().await;
    let error = assign(&setting, Fault::throttled(Duration::from_secs(100_000))).await.unwrap_err();
    assert_eq!((error.kind(), setting.count("PATCH")), (AzureErrorKind::Throttled, 1));
    assert!(error.hint().unwrap().contains("later"));
}

#[tokio::test]
async fn what_may_have_been_carried_out_is_not_sent_again() {
    let setting = administrator().await;
    let error = assign(&setting, Fault::status(500, "{}")).await.unwrap_err();
    assert_eq!((error.kind(), setting.count("PATCH")), (AzureErrorKind::Refused, 1));
    let error = assign(&setting, Fault::Cut { after: 10 }).await.unwrap_err();
    assert_eq!((error.kind(), setting.count("PATCH")), (AzureErrorKind::Network, 2));
    assert!(error.hint().unwrap().contains("may have been carried out"), "{error}");
}

#[tokio::test]
async fn an_operation_that_fails_says_why() {
    let setting = administrator().await;
    let body = r#"{"status":"Failed","error":{"code":"InternalExecutionError","message":"An internal error occurred."}}"#;
    setting.azure.faults().push(Endpoint::Operation, Fault::status(200, body));
    let error = assign(&setting, PASS).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (AzureErrorKind::Refused, Some("InternalExecutionError")));
    assert!(error.to_string().contains("An internal error occurred"), "{error}");
}

/// Invariant 1: a token leaves the process only to the service it is for.
#[tokio::test]
async fn an_operation_elsewhere_gets_no_token() {
    let setting = administrator().await;
    let elsewhere = format!("{}/operation", setting.azure.authority_host().trim_end_matches('/'));
    let headers =
        vec![("Azure-AsyncOperation".to_owned(), elsewhere), ("Retry-After".to_owned(), "1".to_owned())];
    let before = setting.azure.journal().entries().len();
    let error =
        assign(&setting, Fault::Answer { status: 202, headers, body: String::new() }).await.unwrap_err();
    assert_eq!(error.kind(), AzureErrorKind::Network);
    assert!(error.to_string().contains("another host"), "{error}");
    let asked = setting.azure.journal().entries();
    assert!(asked[before..].iter().all(|entry| entry.path != "/operation"));
}

#[tokio::test]
async fn who_has_no_role_is_told_which_one_is_missing() {
    let setting = machine().await;
    let id = setting.azure.subscription().to_string();
    let named = ResourceManager::new(&setting.system, &setting.credential, &setting.endpoints, Some(&id))
        .await
        .unwrap();
    let error = named.host(AzureHostType::VirtualMachine, Some("myResourceGroup"), "myVm").await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (AzureErrorKind::Forbidden, Some("AuthorizationFailed")));
    let hint = error.hint().unwrap();
    let object_id = setting.azure.vm().object_id();
    assert!(
        hint.starts_with(&format!(
            "az role assignment create --assignee {object_id} --role 'Reader' --scope /subscriptions/"
        )),
        "{hint}"
    );
    let none = ResourceManager::new(&setting.system, &setting.credential, &setting.endpoints, None)
        .await
        .unwrap_err();
    assert_eq!(none.kind(), AzureErrorKind::NotFound);
    let odd =
        ResourceManager::new(&setting.system, &setting.credential, &setting.endpoints, Some("mine")).await;
    assert_eq!(odd.unwrap_err().kind(), AzureErrorKind::Usage);
    // to change something takes another role
    let setting = administrator().await;
    let body = r#"{"error":{"code":"AuthorizationFailed","message":"no"}}"#;
    let error = assign(&setting, Fault::status(403, body)).await.unwrap_err();
    assert!(error.hint().unwrap().contains("--role 'Virtual Machine Contributor'"), "{error:?}");
}

#[tokio::test]
async fn a_token_that_is_refused_is_replaced_once() {
    let setting = administrator().await;
    let manager = setting.manager().await;
    manager.host(AzureHostType::VirtualMachine, None, "myVm").await.unwrap();
    setting.azure.roll_over_keys().await.unwrap();
    setting.azure.forget_old_keys();
    manager.host(AzureHostType::VirtualMachine, None, "myVm").await.unwrap();
    setting.azure.faults().push_lasting(Endpoint::VirtualMachine, Fault::status(401, "{}"));
    let error = manager.host(AzureHostType::VirtualMachine, None, "myVm").await.unwrap_err();
    assert_eq!(error.kind(), AzureErrorKind::Forbidden);
}

#[tokio::test]
async fn nonsense_is_told_as_such() {
    let setting = administrator().await;
    let manager = setting.manager().await;
    for (fault, words) in [
        (Fault::captive_portal(), "not JSON"),
        (Fault::Malformed, "not JSON"),
        (Fault::status(200, "{}"), "has no list"),
        (Fault::HugeBody { bytes: 100_000_000 }, "cannot read"),
    ] {
        setting.azure.faults().push(Endpoint::VirtualMachine, fault);
        let error = manager.host(AzureHostType::VirtualMachine, None, "myVm").await.unwrap_err();
        assert_eq!(error.kind(), AzureErrorKind::Network, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
    // this system does not trust the local authority
    let system = pgentra_system::System::builder().build();
    let endpoints = Endpoints::of(Cloud::Public).unwrap().with_graph(setting.azure.graph()).unwrap();
    let distrustful = pgentra_azure::graph::Graph::new(&system, &setting.credential, &endpoints);
    let error = distrustful.find(Search::Users, "x", false).await.unwrap_err();
    assert_eq!(error.kind(), AzureErrorKind::Network);
    assert!(error.source().is_some() && error.hint().unwrap().contains("SSL_CERT_FILE"), "{error:?}");
}

use pgentra_azure::AzureErrorKind;
use pgentra_azure::arm::FederatedIdentityCredential;
use pgentra_identity::Cloud;

use crate::{administrator, machine};

const GITHUB: &str = "https://token.actions.githubusercontent.com";

fn new(subject: &str) -> FederatedIdentityCredential {
    let audience = Cloud::Public.federation_audience();
    FederatedIdentityCredential::named(&["pgentra", "github", "owner", "repo"], GITHUB, subject, audience)
}

#[tokio::test]
async fn a_credential_is_added_once_and_removed() {
    let setting = administrator().await;
    let manager = setting.manager().await;
    setting.azure.new_identity("other");
    let identity = manager.identity(None, "other").await.unwrap();
    assert_eq!(manager.federated(&identity).await.unwrap(), []);

    let first = manager.federate(&identity, &new("repo:owner/repo:environment:prod")).await.unwrap();
    assert_eq!(first.name, "pgentra-github-owner-repo");
    let same = FederatedIdentityCredential { name: "another-name".to_owned(), ..first.clone() };
    assert_eq!(manager.federate(&identity, &same).await.unwrap(), first);
    assert_eq!(setting.count("PUT"), 1, "it is there already");
    // Another subject does not take the place of the first, although it has the same name.
    let second = manager.federate(&identity, &new("repo:owner/repo:environment:test")).await.unwrap();
    assert_eq!(second.name, "pgentra-github-owner-repo-2");
    assert_eq!(manager.federated(&identity).await.unwrap(), [first.clone(), second.clone()]);

    manager.unfederate(&identity, &first.name).await.unwrap();
    manager.unfederate(&identity, &first.name).await.unwrap();
    assert_eq!(manager.federated(&identity).await.unwrap(), [second]);
}

#[tokio::test]
async fn an_identity_has_twenty_credentials_at_most() {
    let setting = administrator().await;
    let manager = setting.manager().await;
    setting.azure.new_identity("other");
    let identity = manager.identity(None, "other").await.unwrap();
    for number in 0..20 {
        manager.federate(&identity, &new(&number.to_string())).await.unwrap();
    }
    let error = manager.federate(&identity, &new("one more")).await.unwrap_err();
    assert_eq!(error.kind(), AzureErrorKind::Refused, "{error}");
}

#[tokio::test]
async fn the_issuer_of_a_cluster_is_its_own() {
    let setting = administrator().await;
    let manager = setting.manager().await;
    let issuer = manager.cluster_issuer(None, "mycluster").await.unwrap();
    assert_eq!(issuer, setting.azure.federation().kubernetes_issuer());
    let error = manager.cluster_issuer(None, "another").await.unwrap_err();
    assert_eq!(error.kind(), AzureErrorKind::NotFound);
    assert!(error.to_string().contains("there is: myCluster"), "{error}");
    // Who may not is told which role it takes.
    let setting = machine().await;
    let manager = setting.manager_of(&setting.azure.subscription().to_string()).await;
    let error = manager.cluster_issuer(Some("myResourceGroup"), "myCluster").await.unwrap_err();
    assert!(error.hint().unwrap().contains("--role 'Reader'"), "{:?}", error.hint());
}

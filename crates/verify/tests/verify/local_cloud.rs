//! Tokens of a local Entra tenant, which shares no code with this crate: both must agree on what a token is.

use std::time::Duration;

use pgentra_emulator::{Clock, Draft, LocalAzure, Options};
use pgentra_verify::{Policy, Principal, Rejection, SubjectKind, Verifier};
use secrecy::ExposeSecret as _;

use crate::mint::{AUDIENCE, Script, now};

async fn cloud() -> LocalAzure {
    LocalAzure::start(Options::new(Clock::fixed(now()))).await.unwrap()
}

async fn verify(azure: &LocalAzure, draft: &Draft) -> Result<Principal, Rejection> {
    let policy = Policy::builder(azure.tenant()).build().unwrap();
    let verifier = Verifier::new(policy, Script::always(azure.keys()));
    verifier.verify(azure.mint(draft).unwrap().expose_secret(), azure.clock().now()).await
}

#[tokio::test]
async fn its_identities_and_people_are_recognized() {
    let azure = cloud().await;
    for identity in [azure.vm(), azure.user_assigned()] {
        let principal = verify(&azure, &Draft::of_identity(identity, AUDIENCE)).await.unwrap();
        assert_eq!((principal.kind(), principal.object_id()), (SubjectKind::App, identity.object_id()));
        assert_eq!(principal.app_id(), Some(identity.client_id()));
    }
    let ada = azure.administrator();
    let principal = verify(&azure, &Draft::of_user(ada, AUDIENCE)).await.unwrap();
    assert_eq!((principal.kind(), principal.object_id()), (SubjectKind::User, ada.object_id()));
    assert_eq!(principal.user_principal_name(), Some(ada.user_principal_name()));
    for group in ada.groups() {
        assert!(principal.groups().contains(*group));
    }
    azure.stop().await;
}

#[tokio::test]
async fn its_tokens_end_and_its_keys_are_its_own() {
    let (azure, other) = (cloud().await, cloud().await);
    let draft = Draft::of_identity(azure.vm(), AUDIENCE).lifetime(Duration::from_secs(600));
    let token = azure.mint(&draft).unwrap();
    let policy = || Policy::builder(azure.tenant()).build().unwrap();
    let verifier = Verifier::new(policy(), Script::always(azure.keys()));
    verifier.verify(token.expose_secret(), azure.clock().now()).await.unwrap();
    azure.clock().advance(Duration::from_secs(600) + policy().leeway());
    let answer = verifier.verify(token.expose_secret(), azure.clock().now()).await;
    assert!(matches!(answer, Err(Rejection::Expired)), "{answer:?}");

    // Each key says which tenant it is for, so those of another are no keys at all.
    let foreign = Verifier::new(policy(), Script::always(other.keys()));
    let answer = foreign.verify(token.expose_secret(), now()).await;
    assert!(matches!(answer, Err(Rejection::KeysUnavailable(_))), "{answer:?}");
    let answer = verify(&azure, &Draft::of_identity(azure.vm(), "https://graph.microsoft.com")).await;
    assert!(matches!(answer, Err(Rejection::Audience { .. })), "{answer:?}");
    azure.stop().await;
    other.stop().await;
}

use std::time::Duration;

use eventually::{DEADLINE, eventually, holds};
use pgentra_azure::arm::{AzureHostType, Wanted};
use pgentra_azure::{AzureErrorKind, graph::Search};

use pgentra_emulator::{Endpoint, Fault};

use crate::administrator;

#[tokio::test]
async fn an_assignment_keeps_what_was_there_and_is_not_made_twice() {
    let setting = administrator().await;
    let manager = setting.manager().await;
    let vm = manager.host(AzureHostType::VirtualMachine, None, "myvm").await.unwrap();
    assert_eq!((vm.name.as_str(), vm.resource_group()), ("myVm", "myResourceGroup"));
    assert_eq!(vm.system_assigned.unwrap().object_id, setting.azure.vm().object_id());
    let other = setting.azure.new_identity("other");
    let identity = manager.identity(Some("myResourceGroup"), "other").await.unwrap();
    assert_eq!((identity.object_id, identity.client_id), (other.object_id(), other.client_id()));
    assert_eq!(manager.identity(None, &identity.id.to_uppercase()).await.unwrap().id, identity.id);

    let wanted = Wanted::UserAssigned(identity);
    let after = manager.assign(&vm, &wanted).await.unwrap();
    assert_eq!(after.user_assigned.len(), 2);
    assert_eq!(after.system_assigned, vm.system_assigned);
    assert_eq!(setting.azure.machine().identities().len(), 3);
    assert_eq!(setting.count("PATCH"), 1);
    assert_eq!(manager.assign(&vm, &wanted).await.unwrap(), after);
    assert_eq!(setting.count("PATCH"), 1, "it had it already");
}

#[tokio::test]
async fn the_own_identity_comes_beside_the_others() {
    let setting = administrator().await;
    setting.azure.machine().unassign(setting.azure.vm());
    let manager = setting.manager().await;
    let vm = manager.host(AzureHostType::VirtualMachine, Some("myResourceGroup"), "myVm").await.unwrap();
    assert_eq!((vm.system_assigned, vm.user_assigned.len()), (None, 1));
    let after = manager.assign(&vm, &Wanted::SystemAssigned).await.unwrap();
    assert_eq!(after.user_assigned, vm.user_assigned);
    // the tenant knows its client id, as `az ad sp list` does
    let found = setting.graph().one(Search::ServicePrincipals, "myVm").await.unwrap();
    assert_eq!(found.object_id, after.system_assigned.unwrap().object_id);

    setting.azure.machine().unassign(setting.azure.user_assigned());
    setting.azure.machine().identities().iter().for_each(|one| setting.azure.machine().unassign(one));
    let bare = manager.host(AzureHostType::VirtualMachine, None, "myVm").await.unwrap();
    assert_eq!((bare.system_assigned, bare.user_assigned.len()), (None, 0));
    let after = manager.assign(&bare, &Wanted::SystemAssigned).await.unwrap();
    assert!(after.system_assigned.is_some());
}

#[tokio::test]
async fn what_cannot_be_found_is_told_before_anything_changes() {
    let setting = administrator().await;
    let manager = setting.manager().await;
    for (group, name, kind) in [
        (None, "unknown", AzureErrorKind::NotFound),
        (Some("myResourceGroup"), "unknown", AzureErrorKind::NotFound),
        (Some("nowhere"), "myVm", AzureErrorKind::NotFound),
        (Some("my/group"), "myVm", AzureErrorKind::Usage),
        (None, "../myVm", AzureErrorKind::Usage),
    ] {
        let error = manager.host(AzureHostType::VirtualMachine, group, name).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.hint().is_some(), "{error}");
    }
    for id in ["/subscriptions/x/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/v", "/x", "a b"]
    {
        assert_eq!(manager.identity(None, id).await.unwrap_err().kind(), AzureErrorKind::Usage, "{id}");
    }
    // two of one name, in two groups
    let twin = setting.azure.user_assigned().resource_id().replace("myResourceGroup", "other");
    let elsewhere = manager.identity(None, &twin).await.unwrap_err();
    assert_eq!(elsewhere.kind(), AzureErrorKind::NotFound);
    setting.azure.new_identity("twin");
    setting.azure.new_identity("twin");
    let error = manager.identity(None, "twin").await.unwrap_err();
    assert_eq!(error.kind(), AzureErrorKind::Ambiguous, "{error}");
    assert_eq!(setting.count("PATCH"), 0);
}

#[tokio::test]
async fn what_others_assign_meanwhile_is_not_taken_away() {
    let setting = administrator().await;
    let (azure, manager) = (&setting.azure, setting.manager().await);
    azure.machine().unassign(azure.vm());
    let vm = manager.host(AzureHostType::VirtualMachine, None, "myVm").await.unwrap();
    azure.new_identity("other");
    let wanted = Wanted::UserAssigned(manager.identity(None, "other").await.unwrap());
    // the machine is read, and the patch comes late
    for late in [Duration::ZERO, Duration::from_millis(200)] {
        azure.faults().push(Endpoint::VirtualMachine, Fault::Slow(late));
    }
    let meanwhile = async {
        let pending = async || holds(azure.faults().pending(), |pending| *pending == 0);
        eventually(DEADLINE, "the request to change the machine has come", pending).await;
        azure.machine().assign(azure.vm().clone());
    };
    let (refused, ()) = tokio::join!(manager.assign(&vm, &wanted), meanwhile);
    let refused = refused.unwrap_err();
    assert_eq!((refused.kind(), refused.code()), (AzureErrorKind::Conflict, Some("PreconditionFailed")));
    let vm = manager.assign(&vm, &wanted).await.unwrap();
    assert!(vm.system_assigned.is_some() && vm.user_assigned.len() == 2, "{vm:?}");
}

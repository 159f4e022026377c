use pgentra_azure::AzureErrorKind;
use pgentra_azure::arm::{AzureHostType, Wanted};

use crate::administrator;

/// Each type of host, with the one that the local Azure has.
const HOSTS: [(AzureHostType, &str); 5] = [
    (AzureHostType::VirtualMachine, "myVm"),
    (AzureHostType::ScaleSet, "myScaleSet"),
    (AzureHostType::WebApp, "myWebApp"),
    (AzureHostType::FunctionApp, "myFunctionApp"),
    (AzureHostType::ContainerApp, "myContainerApp"),
];

#[tokio::test]
async fn every_host_gets_identities_and_loses_them_one_by_one() {
    let setting = administrator().await;
    let manager = setting.manager().await;
    let named = Wanted::UserAssigned(manager.identity(None, "myIdentity").await.unwrap());
    for (kind, name) in HOSTS {
        let host = manager.host(kind, None, &name.to_uppercase()).await.unwrap();
        assert_eq!((host.kind, host.name.as_str(), host.resource_group()), (kind, name, "myResourceGroup"));
        let both = manager.assign(&host, &Wanted::SystemAssigned).await.unwrap();
        let both = manager.assign(&both, &named).await.unwrap();
        assert!(both.has(&Wanted::SystemAssigned) && both.has(&named), "{both:?}");
        let requests = setting.count("PATCH");
        assert_eq!(manager.assign(&host, &named).await.unwrap(), both);
        assert_eq!(setting.count("PATCH"), requests, "it had it already");
        // The tenant knows its own identity under its name.
        let own = both.system_assigned.unwrap().object_id;
        assert_eq!(setting.graph().by_object_id(own).await.unwrap().unwrap().name, name);

        let one = manager.unassign(&both, &named).await.unwrap();
        assert!(one.has(&Wanted::SystemAssigned) && !one.has(&named), "{one:?}");
        assert_eq!(manager.unassign(&both, &named).await.unwrap(), one);
        let both = manager.assign(&one, &named).await.unwrap();
        let one = manager.unassign(&both, &Wanted::SystemAssigned).await.unwrap();
        assert!(!one.has(&Wanted::SystemAssigned) && one.has(&named), "{one:?}");
        let none = manager.unassign(&one, &named).await.unwrap();
        assert!(!none.has(&Wanted::SystemAssigned) && none.user_assigned.is_empty(), "{none:?}");
        assert_eq!(setting.graph().by_object_id(own).await.unwrap(), None, "it was deleted");
    }
    let scale_set = manager.host(AzureHostType::ScaleSet, None, "myScaleSet").await.unwrap();
    assert!(scale_set.is_updated_by_hand);
}

/// Of several user-assigned identities one goes.
#[tokio::test]
async fn the_others_stay() {
    let setting = administrator().await;
    let manager = setting.manager().await;
    setting.azure.new_identity("other");
    let mut host = manager.host(AzureHostType::ContainerApp, None, "myContainerApp").await.unwrap();
    let mut identities = Vec::new();
    for name in ["myIdentity", "other"] {
        let wanted = Wanted::UserAssigned(manager.identity(None, name).await.unwrap());
        host = manager.assign(&host, &wanted).await.unwrap();
        identities.push(wanted);
    }
    let after = manager.unassign(&host, &identities[0]).await.unwrap();
    assert!(!after.has(&identities[0]) && after.has(&identities[1]), "{after:?}");
}

#[tokio::test]
async fn an_arc_server_has_the_identity_of_its_agent() {
    let setting = administrator().await;
    let manager = setting.manager().await;
    let server = manager.host(AzureHostType::ArcServer, None, "branchServer").await.unwrap();
    assert_eq!(manager.assign(&server, &Wanted::SystemAssigned).await.unwrap(), server);
    let named = Wanted::UserAssigned(manager.identity(None, "myIdentity").await.unwrap());
    for refused in
        [manager.assign(&server, &named).await, manager.unassign(&server, &Wanted::SystemAssigned).await]
    {
        let refused = refused.unwrap_err();
        assert_eq!(refused.kind(), AzureErrorKind::Usage);
        assert!(refused.hint().unwrap().contains("azcmagent"), "{refused}");
    }
    assert_eq!(setting.count("PATCH"), 0);
}

#[tokio::test]
async fn an_app_of_the_other_kind_is_not_meant() {
    let setting = administrator().await;
    let manager = setting.manager().await;
    for (kind, name, hint) in [
        (AzureHostType::WebApp, "myFunctionApp", "functionapp/myFunctionApp"),
        (AzureHostType::FunctionApp, "myWebApp", "webapp/myWebApp"),
    ] {
        let error = manager.host(kind, None, name).await.unwrap_err();
        assert!(error.hint().unwrap().contains(hint), "{error}");
    }
}

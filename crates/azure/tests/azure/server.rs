use std::time::Duration;

use pgentra_azure::AzureErrorKind;
use pgentra_azure::arm::{Administrator, AdministratorKind};
use pgentra_emulator::{Endpoint, Fault};

use crate::administrator;

#[tokio::test]
async fn an_administrator_comes_and_goes() {
    let setting = administrator().await;
    let manager = setting.manager().await;
    let server = manager.server(None, "mydemoserver").await.unwrap();
    assert_eq!(server.host, "mydemoserver.postgres.database.azure.com");
    assert_eq!((server.takes_tokens, server.tenant_id), (true, Some(setting.azure.tenant())));
    let first = manager.administrators(&server).await.unwrap();
    assert_eq!(first[0].object_id, setting.azure.administrator().object_id());
    assert_eq!(first[0].kind, AdministratorKind::User);
    let group = setting.azure.group();
    let new = Administrator {
        object_id: group.object_id(),
        name: group.name().to_owned(),
        kind: AdministratorKind::Group,
    };
    assert!(manager.add_administrator(&server, &new).await.unwrap());
    assert!(!manager.add_administrator(&server, &new).await.unwrap());
    assert_eq!(setting.count("PUT"), 1, "it was one already");
    assert_eq!(manager.administrators(&server).await.unwrap().len(), 2);
    assert!(manager.remove_administrator(&server, new.object_id).await.unwrap());
    assert!(!manager.remove_administrator(&server, new.object_id).await.unwrap());
    let error = manager.remove_administrator(&server, first[0].object_id).await.unwrap_err();
    assert_eq!(error.kind(), AzureErrorKind::Usage, "the last one stays: {error}");
    assert_eq!(setting.count("DELETE"), 1);
}

#[tokio::test]
async fn a_server_that_is_busy_says_so() {
    let setting = administrator().await;
    let manager = setting.manager().await;
    let server = manager.server(Some("myResourceGroup"), "mydemoserver").await.unwrap();
    let user = setting.azure.new_user("Ada");
    let new = Administrator {
        object_id: user.object_id(),
        name: user.user_principal_name().to_owned(),
        kind: AdministratorKind::User,
    };
    let body =
        r#"{"error":{"code":"ServerIsBusy","message":"Cannot complete operation while server is busy"}}"#;
    // the list of administrators is read, and then the request is made
    for fault in [Fault::Slow(Duration::ZERO), Fault::status(409, body)] {
        setting.azure.faults().push(Endpoint::FlexibleServer, fault);
    }
    let refused = manager.add_administrator(&server, &new).await.unwrap_err();
    assert_eq!((refused.kind(), refused.code()), (AzureErrorKind::Conflict, Some("ServerIsBusy")));
    assert!(refused.hint().unwrap().contains("try again"));
}

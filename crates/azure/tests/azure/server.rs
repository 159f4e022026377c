use std::time::Duration;

use pgentra_azure::AzureErrorKind;
use pgentra_azure::arm::{Administrator, AdministratorKind, AzureServerType};
use pgentra_emulator::{Endpoint, Fault};

use crate::administrator;

#[tokio::test]
async fn an_administrator_comes_and_goes() {
    let setting = administrator().await;
    let manager = setting.manager().await;
    let server = manager.server(AzureServerType::FlexibleServer, None, "mydemoserver").await.unwrap();
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
    let server = manager
        .server(AzureServerType::FlexibleServer, Some("myResourceGroup"), "mydemoserver")
        .await
        .unwrap();
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

/// An elastic cluster is a flexible server with several nodes: what is read of it and where its administrators are is the
/// same.
#[tokio::test]
async fn an_elastic_cluster_is_a_flexible_server() {
    let setting = administrator().await;
    let manager = setting.manager().await;
    let id = format!(
        "/subscriptions/{}/resourceGroups/myResourceGroup/providers/Microsoft.DBforPostgreSQL/flexibleServers/mydemoserver",
        manager.subscription()
    );
    let body = serde_json::json!({
        "id": id,
        "name": "mydemoserver",
        "properties": {
            "authConfig": { "activeDirectoryAuth": "Enabled", "tenantId": setting.azure.tenant() },
            "cluster": { "clusterSize": 4, "defaultDatabaseName": "postgres" },
            "fullyQualifiedDomainName": "c-mydemoserver.postgres.database.azure.com",
        },
    });
    setting.azure.faults().push(Endpoint::FlexibleServer, Fault::status(200, body.to_string()));
    let kind = AzureServerType::FlexibleServer;
    let server = manager.server(kind, Some("myResourceGroup"), "mydemoserver").await.unwrap();
    assert_eq!(server.host, "c-mydemoserver.postgres.database.azure.com");
    assert!(server.takes_tokens);
    assert_eq!(manager.administrators(&server).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_horizondb_cluster_has_administrators_of_its_own_api() {
    let setting = administrator().await;
    let manager = setting.manager().await;
    let kind = AzureServerType::HorizonDb;
    let server = manager.server(kind, None, "my-horizondb").await.unwrap();
    assert_eq!(server.host, "mydemoserver.postgres.database.azure.com", "not that of a pool");
    assert_eq!((server.takes_tokens, server.tenant_id), (true, None));
    let group = setting.azure.group();
    let new = Administrator {
        object_id: group.object_id(),
        name: group.name().to_owned(),
        kind: AdministratorKind::Group,
    };
    assert!(manager.add_administrator(&server, &new).await.unwrap());
    assert!(!manager.add_administrator(&server, &new).await.unwrap());
    assert_eq!(setting.count("PUT"), 1, "it was one already");
    assert!(manager.administrators(&server).await.unwrap().contains(&new));
    assert!(manager.remove_administrator(&server, new.object_id).await.unwrap());
    assert!(!manager.remove_administrator(&server, new.object_id).await.unwrap());
    let missing = manager.server(kind, None, "other").await.unwrap_err();
    assert!(missing.to_string().contains("no HorizonDB cluster \"other\""), "{missing}");
    assert!(missing.to_string().contains("there is: my-horizondb"), "{missing}");
}

/// Nothing is asked to be changed where Entra is not enabled, and the command that enables it is told.
#[tokio::test]
async fn a_horizondb_cluster_without_entra_says_how_it_is_enabled() {
    let setting = administrator().await;
    let manager = setting.manager().await;
    let disabled = r#"{"properties":{"state":"Disabled"}}"#;
    // the cluster, its endpoints, and then the method
    for fault in [Fault::Slow(Duration::ZERO), Fault::Slow(Duration::ZERO), Fault::status(200, disabled)] {
        setting.azure.faults().push(Endpoint::HorizonDb, fault);
    }
    let server = manager.server(AzureServerType::HorizonDb, Some("myResourceGroup"), "my-horizondb");
    let server = server.await.unwrap();
    assert!(!server.takes_tokens);
    let group = setting.azure.group();
    let new = Administrator {
        object_id: group.object_id(),
        name: group.name().to_owned(),
        kind: AdministratorKind::Group,
    };
    let refused = manager.add_administrator(&server, &new).await.unwrap_err();
    assert_eq!(refused.kind(), AzureErrorKind::Usage);
    let hint = refused.hint().unwrap();
    assert!(hint.starts_with("az rest --method patch --url "), "{hint}");
    assert!(hint.contains("/clusters/my-horizondb/authentications/microsoftEntra?api-version="), "{hint}");
    assert_eq!(setting.count("PUT"), 0);
}

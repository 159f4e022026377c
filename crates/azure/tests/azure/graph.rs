use std::collections::BTreeSet;

use pgentra_azure::AzureErrorKind;
use pgentra_azure::graph::{PrincipalKind, Search};
use pgentra_roles::directory::Directory;
use uuid::Uuid;

use crate::{administrator, machine};

#[tokio::test]
async fn a_name_finds_its_principal() {
    let setting = administrator().await;
    let (azure, graph) = (&setting.azure, setting.graph());
    let vm = graph.one(Search::ServicePrincipals, "myVm").await.unwrap();
    assert_eq!((vm.object_id, vm.client_id), (azure.vm().object_id(), Some(azure.vm().client_id())));
    assert_eq!(
        (vm.kind, vm.resource_id.as_deref()),
        (PrincipalKind::ManagedIdentity, Some(azure.vm().resource_id()))
    );
    let application = graph.one(Search::ServicePrincipals, "myApp").await.unwrap();
    assert_eq!((application.kind, application.resource_id), (PrincipalKind::Application, None));
    let quoted = azure.new_group("O'Brien's & Söhne 🙂");
    let found = graph.one(Search::Groups, quoted.name()).await.unwrap();
    assert_eq!((found.object_id, found.kind), (quoted.object_id(), PrincipalKind::Group));
    let user = azure.new_user("Ada Lovelace");
    for name in [user.name(), user.user_principal_name()] {
        let found = graph.one(Search::Users, name).await.unwrap();
        assert_eq!((found.object_id, found.name.as_str()), (user.object_id(), user.user_principal_name()));
    }
    assert_eq!(graph.by_object_id(user.object_id()).await.unwrap().unwrap().kind, PrincipalKind::User);
    assert_eq!(graph.by_object_id(Uuid::new_v4()).await.unwrap(), None);
    let error = graph.one(Search::ServicePrincipals, "my").await.unwrap_err();
    assert_eq!(error.kind(), AzureErrorKind::NotFound, "a prefix is no name");
    assert_eq!(graph.find(Search::ServicePrincipals, "my", true).await.unwrap().len(), 3);
}

#[tokio::test]
async fn several_of_one_name_are_told_apart_and_never_guessed() {
    let setting = administrator().await;
    let twin = setting.azure.new_identity("myIdentity");
    let error = setting.graph().one(Search::ServicePrincipals, "myIdentity").await.unwrap_err();
    assert_eq!(error.kind(), AzureErrorKind::Ambiguous);
    let message = error.to_string();
    for id in [twin.object_id(), setting.azure.user_assigned().object_id()] {
        assert!(message.contains(&id.to_string()), "{message}");
    }
    assert!(error.hint().unwrap().contains("object id"));
}

#[tokio::test]
async fn a_list_of_many_pages_is_read_to_its_end_and_no_further() {
    let setting = administrator().await;
    for number in 0..250 {
        setting.azure.new_group(&format!("team {number}"));
    }
    assert_eq!(setting.graph().find(Search::Groups, "team", true).await.unwrap().len(), 250);
    for number in 250..1_001 {
        setting.azure.new_group(&format!("team {number}"));
    }
    let error = setting.graph().find(Search::Groups, "team", true).await.unwrap_err();
    assert_eq!(error.kind(), AzureErrorKind::Usage, "{error}");
}

#[tokio::test]
async fn the_directory_of_roles_is_this_tenant() {
    let setting = administrator().await;
    let graph = setting.graph();
    let directory: &dyn Directory = &graph;
    let identity = setting.azure.user_assigned();
    let found = directory.service_principal(identity.client_id()).await.unwrap().unwrap();
    assert_eq!((found.object_id, found.name.as_str()), (identity.object_id(), "myIdentity"));
    assert_eq!(directory.service_principal(Uuid::new_v4()).await.unwrap(), None);
    let user = setting.azure.new_user("Gone Soon");
    let ids = [identity.object_id(), user.object_id(), Uuid::new_v4()];
    assert_eq!(directory.existing(&ids).await.unwrap(), BTreeSet::from([ids[0], ids[1]]));
    setting.azure.delete_principal(user.object_id());
    let mut many = vec![ids[0]; 1];
    many.extend((0..1_500).map(|_| Uuid::new_v4()));
    assert_eq!(directory.existing(&many).await.unwrap(), BTreeSet::from([ids[0]]));
    assert_eq!(directory.existing(&[]).await.unwrap(), BTreeSet::new());
}

#[tokio::test]
async fn who_may_not_read_the_directory_is_told_what_is_missing() {
    let setting = machine().await;
    let error = setting.graph().find(Search::Users, "x", false).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (AzureErrorKind::Forbidden, Some("Authorization_RequestDenied"))
    );
    let hint = error.hint().unwrap();
    assert!(
        hint.contains("Directory Readers") && hint.contains(&setting.azure.vm().object_id().to_string()),
        "{hint}"
    );
}

#[tokio::test]
async fn membership_and_accounts_are_looked_up() {
    let setting = administrator().await;
    let (azure, graph) = (&setting.azure, setting.graph());
    let user = azure.new_user("In Many Groups");
    let identity = azure.user_assigned();
    let groups: Vec<Uuid> =
        (0..45).map(|number| azure.new_group(&format!("g{number}")).object_id()).collect();
    for member in [user.object_id(), identity.object_id()] {
        assert_eq!(graph.member_of(member, &groups).await.unwrap(), Vec::<Uuid>::new());
        for group in [groups[0], groups[44]] {
            azure.join_group(member, group);
        }
        assert_eq!(graph.member_of(member, &groups).await.unwrap(), [groups[0], groups[44]]);
    }
    assert_eq!(graph.member_of(Uuid::new_v4(), &groups).await.unwrap(), Vec::<Uuid>::new());

    for (search, id) in [(Search::Users, user.object_id()), (Search::ServicePrincipals, identity.object_id())]
    {
        assert_eq!(graph.is_enabled(search, id).await.unwrap(), Some(true));
        azure.set_account_enabled(id, false);
        assert_eq!(graph.is_enabled(search, id).await.unwrap(), Some(false));
        azure.delete_principal(id);
        assert_eq!(graph.is_enabled(search, id).await.unwrap(), None);
    }
}

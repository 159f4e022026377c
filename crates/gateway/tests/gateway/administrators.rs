//! Administrators that Resource Manager makes and removes, and the directory's principals.

use pgentra_emulator::Draft;
use pgentra_gateway::{ChangeError, Principal, PrincipalKind};
use uuid::Uuid;

use crate::fixture::{RESOURCE, Stage, azure, failure, one, run, token, vm_token};

const TAKEN: &str =
    "Updating an existing principal isn't supported. Drop and recreate the Microsoft Entra principal.";

fn principal(name: &str, object_id: Uuid, kind: PrincipalKind) -> Principal {
    Principal { name: name.to_owned(), object_id, kind }
}

async fn add(stage: &Stage, new: &Principal) -> Result<(), String> {
    match pgentra_gateway::add_administrator(&stage.upstream(), &stage.service(), new).await {
        Err(ChangeError::Refused(words)) => Err(words),
        other => {
            other.unwrap();
            Ok(())
        }
    }
}

async fn remove(stage: &Stage, object_id: Uuid) {
    pgentra_gateway::remove_administrator(&stage.upstream(), &stage.service(), object_id).await.unwrap();
}

fn count(role: &str) -> String {
    format!("SELECT count(*)::text FROM pg_roles WHERE rolname = '{role}'")
}

#[test]
fn a_principal_with_a_role_is_not_made_an_administrator() {
    run(async {
        let (stage, azure) = (Stage::flexible().await, azure().await);
        let gateway = stage.gateway().await;
        let admin = stage.administrator(&gateway).await;
        let id = azure.vm().object_id();
        let create = |name: &str, id: Uuid| {
            format!("SELECT pgaadauth_create_principal_with_oid('{name}', '{id}', 'service', false, false)")
        };
        admin.batch_execute(&create("app-rw", id)).await.unwrap();
        admin.batch_execute("CREATE ROLE plain").await.unwrap();
        let service = |name: &str, id| principal(name, id, PrincipalKind::Service);
        // Its own role's name, another one, and a name that is taken by a role without a principal.
        for new in [service("app-rw", id), service("other", id), service("plain", Uuid::new_v4())] {
            assert_eq!(add(stage, &new).await, Err(TAKEN.to_owned()), "{new:?}");
        }
        assert_eq!(one(&admin, &count("other")).await, "0");
        remove(stage, id).await;
        assert_eq!(one(&admin, &count("app-rw")).await, "1", "a refused change made it an administrator");
        gateway.connect("app-rw", "postgres", &vm_token().await).await.unwrap();
        admin.batch_execute("DROP ROLE plain; DROP ROLE \"app-rw\"").await.unwrap();
    });
}

#[test]
fn an_administrator_comes_twice_and_goes_once() {
    run(async {
        let (stage, azure) = (Stage::flexible().await, azure().await);
        let gateway = stage.gateway().await;
        let user = azure.new_user("second");
        let new = principal(user.user_principal_name(), user.object_id(), PrincipalKind::User);
        let draft = token(&Draft::of_user(&user, RESOURCE)).await;
        for _ in 0..2 {
            assert_eq!(add(stage, &new).await, Ok(()));
        }
        let renamed = principal("another name", user.object_id(), PrincipalKind::User);
        assert_eq!(add(stage, &renamed).await, Err(TAKEN.to_owned()));
        let second = gateway.connect(&new.name, "postgres", &draft).await.unwrap();
        second.batch_execute("SELECT pgaadauth_list_principals(true)").await.unwrap();

        remove(stage, user.object_id()).await;
        let admin = stage.administrator(&gateway).await;
        assert_eq!(one(&admin, &count(&new.name)).await, "0");
        gateway.refusal(&new.name, "postgres", &draft).await;
        // The open session is not an administrator's any more.
        let listed = second.batch_execute("SELECT pgaadauth_list_principals(true)").await;
        assert!(listed.is_err());
        remove(stage, user.object_id()).await;
    });
}

#[test]
fn an_administrator_that_owns_something_signs_in_no_more() {
    run(async {
        let (stage, azure) = (Stage::flexible().await, azure().await);
        let gateway = stage.gateway().await;
        let user = azure.new_user("owner");
        let new = principal(user.user_principal_name(), user.object_id(), PrincipalKind::User);
        let draft = token(&Draft::of_user(&user, RESOURCE)).await;
        add(stage, &new).await.unwrap();
        let owner = gateway.connect(&new.name, "postgres", &draft).await.unwrap();
        owner.batch_execute("CREATE TABLE public.owned (a int)").await.unwrap();
        remove(stage, user.object_id()).await;
        assert_eq!(gateway.refusal(&new.name, "postgres", &draft).await.0, "28P01");
        let admin = stage.administrator(&gateway).await;
        let rights = format!(
            "SELECT concat(rolcanlogin, rolcreaterole, rolreplication, pg_has_role(oid, 'azure_pg_admin', 'MEMBER'))
             FROM pg_roles WHERE rolname = '{}'",
            new.name
        );
        assert_eq!(one(&admin, &rights).await, "ffff");
        assert_eq!(failure(owner.batch_execute("SELECT pgaadauth_list_principals(true)").await).0, "42501");
        // Another administrator handles the objects that it owned.
        let name = &new.name;
        let tidy = format!(
            "GRANT \"{name}\" TO CURRENT_USER WITH INHERIT TRUE; DROP TABLE public.owned; DROP ROLE \"{name}\""
        );
        admin.batch_execute(&tidy).await.unwrap();
    });
}

#[test]
fn a_group_is_an_administrator_for_its_members_until_it_is_removed() {
    run(async {
        let (stage, azure) = (Stage::flexible().await, azure().await);
        let gateway = stage.gateway().await;
        let group = azure.group();
        let new = principal("DB admins", group.object_id(), PrincipalKind::Group);
        add(stage, &new).await.unwrap();
        let member = token(&Draft::of_user(azure.administrator(), RESOURCE)).await;
        let session = gateway.connect("DB admins", "postgres", &member).await.unwrap();
        session.batch_execute("SELECT pgaadauth_list_principals(true)").await.unwrap();
        remove(stage, group.object_id()).await;
        gateway.refusal("DB admins", "postgres", &member).await;
    });
}

#[test]
fn a_principal_has_the_kind_that_the_directory_says() {
    run(async {
        let (stage, azure) = (Stage::flexible().await, azure().await);
        let gateway = stage.gateway().await;
        let admin = stage.administrator(&gateway).await;
        let wrong = |given: &str, actual: &str| {
            format!(
                "incorrect object type provided for principal, given object type: '{given}', actual object type: '{actual}'"
            )
        };
        let (vm, person, group) =
            (azure.vm().object_id(), azure.administrator().object_id(), azure.group().object_id());
        admin.batch_execute("CREATE ROLE known LOGIN").await.unwrap();
        for (id, given, actual) in [
            (vm, "user", "service"),
            (vm, "group", "service"),
            (person, "service", "user"),
            (group, "user", "group"),
        ] {
            for call in [
                format!("pgaadauth_create_principal_with_oid('new', '{id}', '{given}', false, false)"),
                format!("pgaadauth_update_principal_with_oid('known', '{id}', '{given}', false, false)"),
            ] {
                let refused = failure(admin.batch_execute(&format!("SELECT {call}")).await);
                assert_eq!(refused, ("XX000".to_owned(), wrong(given, actual)), "{call}");
            }
        }
        assert_eq!(
            add(stage, &principal("new", vm, PrincipalKind::User)).await,
            Err(wrong("user", "service"))
        );
        assert_eq!(one(&admin, &count("new")).await, "0");
        admin.batch_execute("DROP ROLE known").await.unwrap();
    });
}

#[test]
fn an_administrator_gives_and_takes_replication() {
    run(async {
        let (stage, azure) = (Stage::flexible().await, azure().await);
        let gateway = stage.gateway().await;
        let admin = stage.administrator(&gateway).await;
        let id = azure.vm().object_id();
        let sql =
            format!("SELECT pgaadauth_create_principal_with_oid('sender', '{id}', 'service', false, false)");
        admin.batch_execute(&sql).await.unwrap();
        let has = "SELECT rolreplication::text FROM pg_roles WHERE rolname = 'sender'";
        assert_eq!(one(&admin, has).await, "false");
        admin.batch_execute("ALTER ROLE sender REPLICATION").await.unwrap();
        // A new binding keeps the privileges that an administrator granted.
        admin.batch_execute(&sql.replace("create", "update")).await.unwrap();
        assert_eq!(one(&admin, has).await, "true");
        admin.batch_execute("ALTER ROLE sender NOREPLICATION; DROP ROLE sender").await.unwrap();
    });
}

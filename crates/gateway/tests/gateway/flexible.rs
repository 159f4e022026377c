//! Roles mapped by the `pgaadauth` functions.

use pgentra_emulator::Draft;
use pgentra_gateway::{Flavour, InitError, ServiceAccount, Setup};

use crate::fixture::{RESOURCE, Stage, azure, failure, one, run, token, vm_token};

pub(crate) fn create(name: &str, oid: impl ToString, kind: &str) -> String {
    let oid = oid.to_string();
    format!("SELECT * FROM pgaadauth_create_principal_with_oid('{name}', '{oid}', '{kind}', false, false)")
}

#[test]
fn an_administrator_creates_a_role_and_its_identity_signs_in() {
    run(async {
        let (stage, azure) = (Stage::flexible().await, azure().await);
        let gateway = stage.gateway().await;
        let admin = stage.administrator(&gateway).await;
        let created = one(&admin, &create("myuser", azure.vm().object_id(), "service")).await;
        assert_eq!(created, "Created role for \"myuser\"");

        let client = gateway.connect("myuser", "postgres", &vm_token().await).await.unwrap();
        assert!(one(&client, "SELECT version()").await.starts_with("PostgreSQL "));
        assert_eq!(one(&client, "SELECT current_user::text").await, "myuser");
        gateway.stop().await;
    });
}

#[test]
fn either_id_of_a_service_will_do() {
    run(async {
        let (stage, azure) = (Stage::flexible().await, azure().await);
        let gateway = stage.gateway().await;
        let admin = stage.administrator(&gateway).await;
        admin.batch_execute(&create("by_client_id", azure.vm().client_id(), "service")).await.unwrap();
        gateway.connect("by_client_id", "postgres", &vm_token().await).await.unwrap();
    });
}

#[test]
fn a_member_signs_in_as_the_group() {
    run(async {
        let (stage, azure) = (Stage::flexible().await, azure().await);
        let gateway = stage.gateway().await;
        let admin = stage.administrator(&gateway).await;
        admin.batch_execute(&create("the group", azure.group().object_id(), "group")).await.unwrap();
        let member = token(&Draft::of_user(azure.administrator(), RESOURCE)).await;
        let client = gateway.connect("the group", "postgres", &member).await.unwrap();
        assert_eq!(one(&client, "SELECT current_user::text").await, "the group");
    });
}

#[test]
fn a_role_is_made_by_name_where_the_directory_knows_it() {
    run(async {
        let (stage, azure) = (Stage::flexible().await, azure().await);
        let gateway = stage.gateway().await;
        let admin = stage.administrator(&gateway).await;
        let sql = |name: &str| format!("SELECT * FROM pgaadauth_create_principal('{name}', false, false)");
        let vm = azure.vm().name();
        assert_eq!(one(&admin, &sql(vm)).await, format!("Created role for \"{vm}\""));
        gateway.connect(vm, "postgres", &vm_token().await).await.unwrap();

        let (code, message) = failure(admin.query(&sql("unknown"), &[]).await);
        assert_eq!(code, "XX000");
        assert_eq!(
            message,
            "Could not validate AAD user unknown because its name is not found in the tenant."
        );
        let (_, message) = failure(admin.query(&sql("twin"), &[]).await);
        assert_eq!(
            message,
            "Cannot validate Microsoft Entra ID user \"twin\" because its name isn't unique in the tenant.\nMake sure it's correct and retry."
        );
    });
}

#[test]
fn principals_are_listed() {
    run(async {
        let (stage, azure) = (Stage::flexible().await, azure().await);
        let gateway = stage.gateway().await;
        let admin = stage.administrator(&gateway).await;
        let (oid, tenant) = (azure.vm().object_id().to_string(), azure.tenant().to_string());
        admin
            .batch_execute(&format!(
                "SELECT pgaadauth_create_principal_with_oid('listed', '{oid}', 'service', false, true)"
            ))
            .await
            .unwrap();
        let rows = admin
            .query("SELECT * FROM pgaadauth_list_principals(false) WHERE rolname = 'listed'", &[])
            .await
            .unwrap();
        let [row] = &rows[..] else { panic!("one row") };
        let names: Vec<_> = row.columns().iter().map(|column| column.name()).collect();
        assert_eq!(names, ["rolname", "principaltype", "objectid", "tenantid", "ismfa", "isadmin"]);
        assert_eq!(
            [row.get::<_, &str>(0), row.get(1), row.get(2), row.get(3)],
            ["listed", "service", &oid, &tenant]
        );
        assert_eq!((row.get::<_, i32>(4), row.get::<_, i32>(5)), (1, 0));
        let admins = admin.query("SELECT * FROM pgaadauth_list_principals(true)", &[]).await.unwrap();
        assert!(admins.iter().all(|row| row.get::<_, i32>(5) == 1));
        assert!(
            admins.iter().any(|row| row.get::<_, &str>(0) == azure.administrator().user_principal_name())
        );
    });
}

#[test]
fn a_role_can_be_bound_anew_and_made_administrator() {
    run(async {
        let (stage, azure) = (Stage::flexible().await, azure().await);
        let gateway = stage.gateway().await;
        let admin = stage.administrator(&gateway).await;
        // A role made by plain SQL, with a password of its own.
        admin.batch_execute("CREATE ROLE rebound LOGIN PASSWORD 'of its own'").await.unwrap();
        gateway.connect("rebound", "postgres", "of its own").await.unwrap();
        let update = |oid: String, is_admin: bool| {
            format!(
                "SELECT pgaadauth_update_principal_with_oid('rebound', '{oid}', 'service', {is_admin}, false)"
            )
        };
        let vm = azure.vm().object_id().to_string();
        assert_eq!(one(&admin, &update(vm.clone(), false)).await, "Updated role for \"rebound\"");
        let client = gateway.connect("rebound", "postgres", &vm_token().await).await.unwrap();
        let (code, _) = failure(client.batch_execute("CREATE ROLE not_yet").await);
        assert_eq!(code, "42501");

        // There and back: an administrator may create Entra roles, and drop them.
        one(&admin, &update(vm.clone(), true)).await;
        let client = gateway.connect("rebound", "postgres", &vm_token().await).await.unwrap();
        client.batch_execute(&create("made_by_rebound", azure.vm().object_id(), "service")).await.unwrap();
        client.batch_execute("DROP ROLE made_by_rebound").await.unwrap();
        one(&admin, &update(vm, false)).await;
        let (code, _) =
            failure(client.batch_execute(&create("too_late", azure.vm().object_id(), "service")).await);
        assert_eq!(code, "42501");
        let other = azure.user_assigned().object_id().to_string();
        one(&admin, &update(other, false)).await;
        let (code, ..) = gateway.refusal("rebound", "postgres", &vm_token().await).await;
        assert_eq!(code, "28000");
    });
}

#[test]
fn a_role_that_is_made_again_is_not_mapped() {
    run(async {
        let (stage, azure) = (Stage::flexible().await, azure().await);
        let gateway = stage.gateway().await;
        let admin = stage.administrator(&gateway).await;
        admin.batch_execute(&create("reborn", azure.vm().object_id(), "service")).await.unwrap();
        gateway.connect("reborn", "postgres", &vm_token().await).await.unwrap();
        admin.batch_execute("DROP ROLE reborn; CREATE ROLE reborn LOGIN PASSWORD 'x'").await.unwrap();
        let (code, message, _) = gateway.refusal("reborn", "postgres", &vm_token().await).await;
        assert_eq!((&*code, &*message), ("28P01", "password authentication failed for user \"reborn\""));

        // Even with the oid of the old role: the test moves the row of the mapping to the new one.
        let superuser = stage.superuser().await;
        superuser
            .batch_execute(
                "UPDATE pgentra.principal SET role = 'reborn'::regrole
                 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE oid = role)",
            )
            .await
            .unwrap();
        let (code, ..) = gateway.refusal("reborn", "postgres", &vm_token().await).await;
        assert_eq!(code, "28P01");
        gateway.connect("reborn", "postgres", "x").await.unwrap();
        superuser.batch_execute("DROP ROLE reborn; DELETE FROM pgentra.principal p WHERE NOT EXISTS (SELECT FROM pg_roles WHERE oid = p.role)").await.unwrap();
    });
}

#[test]
fn a_principal_is_dropped_if_it_exists() {
    run(async {
        let (stage, azure) = (Stage::flexible().await, azure().await);
        let gateway = stage.gateway().await;
        let admin = stage.administrator(&gateway).await;
        admin.batch_execute(&create("dropped", azure.vm().object_id(), "service")).await.unwrap();
        let drop = "SELECT pgaadauth_drop_principal_if_exists('dropped')";
        assert_eq!(one(&admin, drop).await, "Dropped role for \"dropped\"");
        assert_eq!(one(&admin, drop).await, "No role for \"dropped\"");
        let exists = "SELECT count(*)::text FROM pg_roles WHERE rolname = 'dropped'";
        assert_eq!(one(&admin, exists).await, "0");
        // Only roles that are mapped: the superuser is not.
        assert_eq!(
            one(&admin, "SELECT pgaadauth_drop_principal_if_exists('azuresu')").await,
            "No role for \"azuresu\""
        );
    });
}

#[test]
fn only_entra_administrators_manage_entra_roles() {
    run(async {
        let (stage, azure) = (Stage::flexible().await, azure().await);
        let gateway = stage.gateway().await;
        let admin = stage.administrator(&gateway).await;
        admin.batch_execute(&create("ordinary", azure.vm().object_id(), "service")).await.unwrap();
        let calls = [
            create("x", azure.vm().object_id(), "service"),
            "SELECT pgaadauth_create_principal('myVm', false, false)".to_owned(),
            "SELECT pgaadauth_update_principal_with_oid('ordinary', gen_random_uuid()::text, 'user', true, false)".to_owned(),
            "SELECT pgaadauth_drop_principal_if_exists('ordinary')".to_owned(),
            "SELECT pgaadauth_list_principals(false)".to_owned(),
            "SELECT * FROM pgentra.principal".to_owned(),
            "SELECT password FROM pgentra.gateway".to_owned(),
            "SELECT pgentra.bind('ordinary', gen_random_uuid()::text, 'user', true, false)".to_owned(),
        ];
        let client = gateway.connect("ordinary", "postgres", &vm_token().await).await.unwrap();
        for call in &calls {
            assert_eq!(failure(client.batch_execute(call).await).0, "42501", "{call}");
        }
        // A password administrator is not an Entra administrator, and the table is not for administrators either.
        let superuser = stage.superuser().await;
        superuser
            .batch_execute(
                "CREATE ROLE local_admin LOGIN CREATEROLE PASSWORD 'x'; GRANT azure_pg_admin TO local_admin",
            )
            .await
            .unwrap();
        let client = gateway.connect("local_admin", "postgres", "x").await.unwrap();
        for call in &calls {
            assert_eq!(failure(client.batch_execute(call).await).0, "42501", "{call}");
        }
        for call in &calls[5..] {
            assert_eq!(failure(admin.batch_execute(call).await).0, "42501", "{call}");
        }
    });
}

#[test]
fn no_mapping_makes_a_role_more_than_an_administrator() {
    run(async {
        let (stage, azure) = (Stage::flexible().await, azure().await);
        let gateway = stage.gateway().await;
        let admin = stage.administrator(&gateway).await;
        stage
            .superuser()
            .await
            .batch_execute(
                "CREATE ROLE other_super SUPERUSER LOGIN; CREATE ROLE of_super LOGIN; GRANT other_super TO of_super;
                 CREATE ROLE program LOGIN; GRANT pg_execute_server_program TO program;
                 CREATE ROLE reader LOGIN; GRANT pg_read_all_data TO reader",
            )
            .await
            .unwrap();
        for role in [
            "azuresu",
            "other_super",
            "of_super",
            "program",
            "reader",
            "azure_pg_admin",
            "pgentra_principal",
            "pg_monitor",
        ] {
            let oid = azure.vm().object_id();
            let sql = format!(
                "SELECT pgaadauth_update_principal_with_oid('{role}', '{oid}', 'service', false, false)"
            );
            assert_eq!(failure(admin.batch_execute(&sql).await).0, "42501", "{role}");
        }
        let (code, _) =
            failure(admin.batch_execute(&create("azuresu", azure.vm().object_id(), "service")).await);
        assert_eq!(code, "42710");
    });
}

#[test]
fn arguments_are_checked() {
    run(async {
        let stage = Stage::flexible().await;
        let gateway = stage.gateway().await;
        let admin = stage.administrator(&gateway).await;
        let oid = azure().await.vm().object_id().to_string();
        let call = |name: &str, oid: &str, kind: &str| {
            format!("SELECT pgaadauth_create_principal_with_oid({name}, {oid}, {kind}, false, false)")
        };
        let quoted = |text: &str| format!("'{text}'");
        for (sql, expected) in [
            (call(&quoted(&"x".repeat(64)), &quoted(&oid), "'service'"), "42622"),
            (call("''", &quoted(&oid), "'service'"), "22023"),
            (call("NULL", &quoted(&oid), "'service'"), "22023"),
            (call("'a'", "'no guid'", "'service'"), "22023"),
            (call("'a'", "NULL", "'service'"), "22023"),
            (call("'a'", &quoted(&oid), "'Service'"), "22023"),
            (call("'a'", &quoted(&oid), "NULL"), "22023"),
            (call("'pg_mine'", &quoted(&oid), "'service'"), "42939"),
        ] {
            assert_eq!(failure(admin.batch_execute(&sql).await).0, expected, "{sql}");
        }
        // As on Azure, the error does not show how the function works.
        for sql in [call("'a'", "'no guid'", "'service'"), call("''", &quoted(&oid), "'service'")] {
            let error = admin.batch_execute(&sql).await.unwrap_err();
            let context = error.as_db_error().unwrap().where_().unwrap_or_default().to_owned();
            assert!(!context.contains("pgentra") && context.lines().count() <= 1, "{context}");
        }
        // A name of quotes and 63 bytes is a name like any other.
        let name = format!("{}\"", "é".repeat(31));
        admin.batch_execute(&create(&name, &oid, "service")).await.unwrap();
        gateway.connect(&name, "postgres", &vm_token().await).await.unwrap();
    });
}

#[test]
fn the_mapping_survives_a_password_that_somebody_sets() {
    run(async {
        let (stage, azure) = (Stage::flexible().await, azure().await);
        let gateway = stage.gateway().await;
        let admin = stage.administrator(&gateway).await;
        admin.batch_execute(&create("meddled", azure.vm().object_id(), "service")).await.unwrap();
        admin.batch_execute("ALTER ROLE meddled PASSWORD 'known'").await.unwrap();
        // The gateway does not accept the role's password, but still accepts the token.
        assert_eq!(gateway.refusal("meddled", "postgres", "known").await.0, "28000");
        gateway.connect("meddled", "postgres", &vm_token().await).await.unwrap();
    });
}

#[test]
fn an_administrator_owns_the_database_and_its_own_roles() {
    run(async {
        let stage = Stage::flexible().await;
        let gateway = stage.gateway().await;
        let admin = stage.administrator(&gateway).await;
        admin.batch_execute("CREATE DATABASE mine").await.unwrap();
        admin
            .batch_execute(
                "CREATE TABLE public.kept (a int); CREATE ROLE of_mine LOGIN PASSWORD 'x';
                 GRANT SELECT ON kept TO of_mine; DROP TABLE kept; DROP ROLE of_mine",
            )
            .await
            .unwrap();
    });
}

#[test]
fn preparing_again_keeps_what_is_there() {
    run(async {
        let (stage, azure) = (Stage::flexible().await, azure().await);
        let gateway = stage.gateway().await;
        let admin = stage.administrator(&gateway).await;
        admin.batch_execute(&create("kept_role", azure.vm().object_id(), "service")).await.unwrap();
        stage.init().await;
        gateway.connect("kept_role", "postgres", &vm_token().await).await.unwrap();
        stage.administrator(&gateway).await;
    });
}

#[test]
fn preparing_takes_a_superuser() {
    run(async {
        let stage = Stage::flexible().await;
        stage.superuser().await.batch_execute("CREATE ROLE no_super LOGIN PASSWORD 'x'").await.unwrap();
        let service = ServiceAccount { name: "no_super".to_owned(), password: "x".into() };
        let setup = Setup {
            flavour: Flavour::Flexible,
            tenant: azure().await.tenant(),
            administrators: Vec::new(),
            directory: Vec::new(),
            memberships: Vec::new(),
        };
        let refused = pgentra_gateway::init(&stage.upstream(), &service, &setup).await;
        assert!(matches!(refused, Err(InitError::NotSuperuser(name)) if name == "no_super"));
    });
}

//! Plans and their errors; planning changes nothing.

use pgentra_local::Flavour;
use pgentra_roles::{Note, Options, RolesError};
use uuid::Uuid;

use crate::fixture::{OBJECT, Stage, lines, run};

#[test]
fn a_plan_says_what_would_be_done() {
    run(async {
        let stage = Stage::flexible().await;
        stage
            .database("plan_app", "CREATE SCHEMA s; CREATE TABLE s.\"Order\" (); CREATE TABLE s.item ()")
            .await;
        let id = Uuid::new_v4();
        let text = format!(
            "[[role]]
             name = 'plan #EXT# \"x\" 🦀'
             object_id = '{id}'
             member_of = ['pg_read_all_stats']
             [[role.grant]]
             privileges = ['TEMP']
             [[role.grant]]
             schema = 's'
             privileges = ['USAGE']
             [[role.grant]]
             schema = 's'
             tables = '*'
             privileges = ['SELECT']
             [[role.default]]
             schema = 's'
             on = 'tables'
             privileges = ['SELECT']"
        );
        let plan = stage.plan("plan_app", &text).await.unwrap();
        let role = "\"plan #EXT# \"\"x\"\" 🦀\"";
        let admin = stage.azure.administrator().user_principal_name();
        assert_eq!(
            lines(plan.changes()),
            [
                format!("+ role {role}: service, object id {id}"),
                format!("+ role {role} is a member of pg_read_all_stats"),
                format!("+ TEMPORARY for {role} on database plan_app"),
                format!("+ USAGE for {role} on schema s in database plan_app"),
                format!("+ SELECT for {role} on tables s.\"Order\", s.item in database plan_app"),
                format!("+ SELECT for {role} on new tables of \"{admin}\" in schema s in database plan_app"),
            ]
        );
        let script = plan.script().unwrap();
        assert!(script.starts_with("\\set ON_ERROR_STOP on\n\\encoding UTF8\n\\connect -reuse-previous=on \"dbname='postgres'\"\n"), "{script}");
        assert!(
            script.contains(
                "\nCOMMIT;\n\\connect -reuse-previous=on \"dbname='plan_app'\"\n\\encoding UTF8\nBEGIN;\n"
            ),
            "{script}"
        );
        assert!(
            stage
                .texts("postgres", "SELECT rolname::text FROM pg_roles WHERE rolname LIKE 'plan%'")
                .await
                .is_empty()
        );
    });
}

/// A function that writes replaces the one that the plan calls: the server refuses to run it.
#[test]
fn a_plan_cannot_write() {
    run(async {
        let stage = Stage::fresh(Flavour::Flexible).await;
        let trap = "CREATE TABLE public.trap ();
            CREATE OR REPLACE FUNCTION pg_catalog.pgaadauth_list_principals(isadminvalue boolean)
            RETURNS TABLE (rolname name, principaltype text, objectid text, tenantid text, ismfa integer, isadmin integer)
            LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN INSERT INTO public.trap DEFAULT VALUES; END $$";
        stage.superuser("postgres").await.batch_execute(trap).await.unwrap();
        let error = stage.plan("postgres", "[[role]]\nname = 'myVm'").await.unwrap_err();
        assert_eq!(error.sqlstate(), Some("25006"), "{error:?}");
    });
}

#[test]
fn all_that_does_not_fit_the_server_is_told_at_once() {
    run(async {
        let stage = Stage::flexible().await;
        stage.database("misfit", "CREATE SCHEMA s").await;
        stage.admin("postgres", "CREATE ROLE misfit_plain").await;
        stage.superuser("postgres").await.batch_execute("CREATE ROLE misfit_super BYPASSRLS").await.unwrap();
        let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
        for name in ["misfit_a", "misfit_b"] {
            let sql = format!(
                "SELECT pgaadauth_create_principal_with_oid('{name}', '{one}', 'service', false, false)"
            );
            stage.admin("postgres", &sql).await;
        }
        let sql = format!(
            "SELECT pgaadauth_create_principal_with_oid('misfit_c', '{two}', 'service', false, false)"
        );
        stage.admin("postgres", &sql).await;
        let text = format!(
            "[[role]]
name = 'misfit'
member_of = ['misfit_nobody']
[[role.grant]]
database = 'misfit_nowhere'
privileges = ['CONNECT']
[[role.grant]]
schema = 's'
tables = ['misfit_t']
privileges = ['SELECT']
[[role.grant]]
schema = 'misfit_s'
functions = ['f']
privileges = ['EXECUTE']
[[role.default]]
owner = 'misfit_owner'
schema = 'misfit_s'
on = 'tables'
privileges = ['SELECT']
[[role]]
name = 'misfit_d'
object_id = '{one}'
[[role]]
name = 'misfit_plain'
[[role]]
name = 'misfit_super'
object_id = '{}'
[[role]]
name = 'misfit_b'
object_id = '{two}'
",
            Uuid::new_v4()
        );
        let told = stage.faults("misfit", &text).await;
        for expected in [
            "line 1: \"misfit\" is to be a member of \"misfit_nobody\", and there is no such role",
            "line 4: there is no database \"misfit_nowhere\"",
            "line 7: there is no table \"s\".\"misfit_t\" in the database \"misfit\"",
            "line 11: there is no schema \"misfit_s\"",
            "line 15: there is no role \"misfit_owner\"",
            "line 15: there is no schema \"misfit_s\"",
            "line 20: the principal of \"misfit_d\" has several roles: \"misfit_a\", \"misfit_b\"",
            "line 23: the role \"misfit_plain\" is there and not mapped: it takes an object_id",
            "line 28: the principal of \"misfit_b\" has the role \"misfit_c\" already, and another role is called",
        ] {
            assert!(told.iter().any(|fault| fault.starts_with(expected)), "{expected}: {told:#?}");
        }
        assert!(told.iter().any(|fault| fault.contains("may do what a superuser may")), "{told:#?}");
    });
}

#[test]
fn roles_whose_principal_is_gone_are_told() {
    run(async {
        let stage = Stage::fresh(Flavour::Flexible).await;
        let gone = Uuid::new_v4();
        let text = format!(
            "[[role]]\nname = 'here'\nobject_id = '{OBJECT}'\n[[role]]\nname = 'gone'\nobject_id = '{gone}'"
        );
        let options = Options { orphans: true, ..Options::default() };
        let plan = stage.plan_with("postgres", &text, options).await.unwrap();
        assert!(plan.notes().contains(&Note::Orphan("gone".to_owned())), "{:?}", plan.notes());
        assert!(!plan.notes().contains(&Note::Orphan("here".to_owned())), "{:?}", plan.notes());
    });
}

#[test]
fn who_is_no_administrator_is_told_so() {
    run(async {
        let stage = Stage::fresh(Flavour::Flexible).await;
        let sql = format!(
            "SELECT pgaadauth_create_principal_with_oid('plain_vm', '{}', 'service', false, false)",
            stage.azure.vm().object_id()
        );
        stage.admin("postgres", &sql).await;
        let session = stage.vm("plain_vm", "postgres").await.unwrap();
        // Every role can read labels, where there are some.
        let read = pgentra_roles::Roles::read(session.client()).await.unwrap();
        assert!(read.entra().iter().any(|role| role.name == "plain_vm"));
        stage.superuser("postgres").await.batch_execute("DELETE FROM pg_shseclabel").await.unwrap();
        let error = pgentra_roles::Roles::read(session.client()).await.unwrap_err();
        assert!(matches!(&error, RolesError::NotAdministrator(name) if name == "plain_vm"), "{error:?}");
        assert!(error.hint().unwrap().contains("administrator"));
    });
}

#[test]
fn a_server_without_entra_is_told_so() {
    run(async {
        let stage = Stage::fresh(Flavour::Flexible).await;
        // Nothing of it is in another database, as on Azure.
        let client = stage.superuser("template1").await;
        client.batch_execute("CREATE DATABASE bare").await.unwrap();
        let bare = stage.superuser("bare").await;
        // Labels are of the whole server.
        bare.batch_execute("DELETE FROM pg_shseclabel").await.unwrap();
        let error = pgentra_roles::Roles::read(&bare).await.unwrap_err();
        assert!(matches!(error, RolesError::NotEntra), "{error:?}");
    });
}

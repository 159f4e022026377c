//! A file from what a server has: a plan for it is empty.

use pgentra_local::Flavour;
use pgentra_roles::{Import, Plan, RolesFile};
use uuid::Uuid;

use crate::fixture::{Stage, Tenant, run};

/// Imports, and checks that a plan for the file is empty.
async fn round_trip(stage: &Stage) -> String {
    let import = Import::read(&stage.server("postgres")).await.unwrap();
    let text = import.to_toml();
    let file = RolesFile::parse(&text, "postgres").unwrap_or_else(|faults| panic!("{faults}\n{text}"));
    let server = stage.server("postgres");
    let plan = Plan::make(&server, &file, pgentra_roles::Options::default(), Some(&Tenant)).await;
    let plan = plan.unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(plan.changes(), [], "{text}");
    assert_eq!(plan.notes(), [], "{text}");
    text
}

#[test]
fn what_a_server_has_is_a_file() {
    run(async {
        let stage = Stage::fresh(Flavour::Flexible).await;
        round_trip(&stage).await;
        let id = Uuid::new_v4();
        stage.database("import_app", MADE).await;
        let text = format!(
            "[[role]]
name = 'import \"1\" 🦀'
object_id = '{id}'
kind = 'group'
mfa = true
member_of = ['import_group', {{ role = 'import_owner', admin = true }}]
[[role.grant]]
privileges = ['CONNECT', 'CREATE']
[[role.grant]]
schema = 's'
tables = '*'
privileges = 'SELECT'
[[role.grant]]
schema = 's'
tables = ['a']
privileges = 'INSERT'
[[role.grant]]
schema = 's'
functions = ['f(integer)', 'g']
privileges = 'EXECUTE'
[[role.grant]]
schema = 's'
types = ['pair', 'small']
privileges = 'USAGE'
[[role.default]]
owner = ['import_group', 'import_owner']
on = 'functions'
privileges = 'EXECUTE'
[[role.default]]
schema = 's'
owner = 'import_owner'
on = 'types'
privileges = 'USAGE'
[[role]]
name = 'import_group'
login = false
[[role]]
name = 'import_owner'
login = false
[[role.own]]
[[role.own]]
schema = 's'
[[role.own]]
schema = 's'
objects = '*'"
        );
        stage.settle("import_app", &text).await;
        stage.admin("postgres", "CREATE ROLE \"no\tfile\"; GRANT \"no\tfile\" TO import_group").await;
        let import = Import::read(&stage.server("postgres")).await.unwrap();
        let left_out = import.left_out();
        assert_eq!(left_out.len(), 2, "{left_out:?}");
        assert!(left_out.iter().all(|what| what.contains("no\\tfile")), "{left_out:?}");
        stage.admin("postgres", "DROP ROLE \"no\tfile\"").await;
        let text = round_trip(&stage).await;
        for line in [
            "functions = [\"f(integer)\", \"g\"]",
            "types = \"*\"",
            "owner = [\"import_group\", \"import_owner\"]",
            "objects = \"*\"",
            "login = false",
        ] {
            assert!(text.lines().any(|written| written == line), "{line}:\n{text}");
        }
        // One object of another owner, one privilege more, a default of the administrator's.
        let superuser = stage.superuser("import_app").await;
        superuser
            .batch_execute("ALTER TABLE s.a OWNER TO import_group; GRANT UPDATE ON s.b TO import_group")
            .await
            .unwrap();
        stage.admin("import_app", "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO import_group").await;
        let text = round_trip(&stage).await;
        assert!(!text.contains("objects = \"*\""), "{text}");
    });
}

const MADE: &str =
    "CREATE SCHEMA s; CREATE TABLE s.a (id serial); CREATE TABLE s.b (); CREATE VIEW s.v AS SELECT 1 AS n;
    CREATE FUNCTION s.f(integer) RETURNS integer LANGUAGE sql AS 'SELECT 1';
    CREATE FUNCTION s.f(text) RETURNS integer LANGUAGE sql AS 'SELECT 1';
    CREATE PROCEDURE s.g(integer) LANGUAGE sql AS 'SELECT 1';
    CREATE TYPE s.pair AS (a integer); CREATE DOMAIN s.small AS integer";

#[test]
fn what_a_single_server_has_is_a_file() {
    run(async {
        let stage = Stage::fresh(Flavour::Single).await;
        let text = "[[role]]\nname = 'single_import'\nclient_id = '00000000-0000-4000-8000-000000000003'
[[role.grant]]\nschema = 'public'\nprivileges = 'USAGE'";
        stage.database("single_import", "").await;
        stage.settle("single_import", text).await;
        let text = round_trip(&stage).await;
        assert!(text.contains("name = \"single_import\""), "{text}");
    });
}

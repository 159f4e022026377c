//! For any file: after it is applied, a second plan is empty, and the server's own roles are as before.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::{Config, TestRunner};

use crate::fixture::{Stage, run};

const SCHEMA: &str =
    "CREATE SCHEMA s; CREATE TABLE s.a (); CREATE TABLE s.\"B b\" (); CREATE VIEW s.v AS SELECT 1 AS x;
    CREATE SEQUENCE s.q; CREATE TYPE s.e AS ENUM (); CREATE FUNCTION s.f(integer) RETURNS integer LANGUAGE sql AS 'SELECT 1'";

/// One of some grants of each class, with privileges of that class.
fn grant() -> impl Strategy<Value = String> {
    let some = |on: &'static str, words: &'static [&'static str]| {
        (subsequence(words, 1..=words.len()), select(&["random_1", "random_2"][..])).prop_map(
            move |(words, database)| {
                format!("[[role.grant]]\ndatabase = '{database}'\n{on}\nprivileges = {words:?}\n")
            },
        )
    };
    prop_oneof![
        some("", &["CONNECT", "TEMP", "CREATE"]),
        some("schema = 's'", &["USAGE", "CREATE"]),
        some("schema = 's'\ntables = ['a', 'B b']", &["SELECT", "INSERT", "TRIGGER"]),
        some("schema = 's'\ntables = '*'", &["SELECT", "UPDATE", "ALL"]),
        some("schema = 's'\nsequences = '*'", &["USAGE", "SELECT"]),
        some("schema = 's'\nfunctions = ['f']", &["EXECUTE"]),
        some("schema = 's'\ntypes = '*'", &["USAGE"]),
    ]
}

fn default() -> impl Strategy<Value = String> {
    (
        select(&["", "schema = 's'\n"][..]),
        select(&["tables", "sequences"][..]),
        select(&["SELECT", "ALL"][..]),
    )
        .prop_map(|(schema, on, privilege)| {
            format!(
                "[[role.default]]\ndatabase = 'random_1'\n{schema}on = '{on}'\nprivileges = '{privilege}'\n"
            )
        })
}

/// Roles of three principals, each under one of two names, so that from file to file they are made and renamed; and one
/// that is an administrator, or none. An administrator keeps its name.
fn file() -> impl Strategy<Value = String> {
    let role = |number: usize, names: [&'static str; 2]| {
        let what = (
            select(names.to_vec()),
            select(&["service", "user", "group"][..]),
            proptest::collection::vec(grant(), 0..4),
            proptest::collection::vec(default(), 0..2),
            subsequence(&["random_group", "random 'group'"][..], 0..=2),
            any::<bool>(),
        );
        what.prop_map(move |(name, kind, grants, defaults, groups, is_admin)| {
            let is_admin = is_admin && names[0] == names[1];
            format!(
                "[[role]]\nname = '{name}'\nkind = '{kind}'\nadmin = {is_admin}\nmember_of = {groups:?}\n\
                 object_id = '5f3c1a52-0000-4000-8000-00000000f00{number}'\n{}{}",
                grants.concat(),
                defaults.concat()
            )
        })
    };
    let roles = (
        role(0, ["random 1", "random \"2\""]),
        role(1, ["random #EXT# 3", "random 🦀 4"]),
        role(2, ["random\\5", "random $$ 6"]),
        role(3, ["random admin", "random admin"]),
    );
    let roles = roles.prop_map(|(one, two, three, admin)| vec![one, two, three, admin]);
    let roles = roles.prop_flat_map(|roles| subsequence(roles, 1..=4)).prop_map(|roles| roles.concat());
    (roles, groups()).prop_map(|(roles, groups)| format!("{groups}{roles}"))
}

/// Two group roles, of which one owns the schema, or its objects, or the database, and is a member of the other or is not.
fn groups() -> impl Strategy<Value = String> {
    let own = subsequence(&["", "schema = 's'\n", "schema = 's'\nobjects = '*'\n"][..], 0..=3);
    let groups = (own, any::<bool>(), select(&["'random own'", "{ role = 'random own', admin = true }"][..]));
    groups.prop_map(|(own, is_first, membership)| {
        let own: String =
            own.iter().map(|own| format!("[[role.own]]\ndatabase = 'random_1'\n{own}")).collect();
        let (first, second) = if is_first { (own, String::new()) } else { (String::new(), own) };
        format!(
            "[[role]]\nname = 'random own'\nlogin = false\n{first}
[[role]]\nname = 'random \"own\" $$'\nlogin = false\nmember_of = [{membership}]\n{second}"
        )
    })
}

/// The server's own roles, their memberships in each other, and their default privileges.
const OWN_ROLES: &str = "
WITH own AS (SELECT * FROM pg_roles WHERE rolname ~ '^(pg_|azure_pg_admin$|azuresu$|replication$)')
SELECT own::text FROM own
UNION ALL SELECT concat_ws(' ', roleid::regrole, member::regrole, admin_option) FROM pg_auth_members
WHERE roleid IN (SELECT oid FROM own) AND member IN (SELECT oid FROM own)
UNION ALL SELECT d::text FROM pg_default_acl d WHERE defaclrole IN (SELECT oid FROM own)
ORDER BY 1";

#[test]
fn after_apply_nothing_is_left_to_do() {
    run(async {
        let stage = Stage::flexible().await;
        stage.database("random_1", SCHEMA).await;
        stage.database("random_2", SCHEMA).await;
        stage.admin("postgres", "CREATE ROLE random_group; CREATE ROLE \"random 'group'\"").await;
    });
    let before = run(async { Stage::flexible().await.texts("random_1", OWN_ROLES).await });
    let config = Config { cases: 12, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&file(), |text| {
        run(async { Stage::flexible().await.settle("random_1", &text).await });
        Ok(())
    });
    result.unwrap();
    let after = run(async { Stage::flexible().await.texts("random_1", OWN_ROLES).await });
    assert!(before.len() > 5, "{before:#?}");
    assert_eq!(after, before);
}

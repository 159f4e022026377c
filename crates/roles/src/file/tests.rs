use std::collections::BTreeSet;

use super::*;
use crate::desired::{GrantTarget, ObjectNames, OwnTarget};
use crate::privilege::{Class, Privileges};

const ONE: &str = "00000000-0000-4000-8000-000000000001";

fn faults(text: &str) -> Vec<String> {
    match RolesFile::parse(text, "app") {
        Ok(file) => panic!("{file:?}"),
        Err(faults) => faults.all().iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn everything_that_can_be_said() {
    let text = format!(
        r#"
[[role]]
name = "my-app"
object_id = "{ONE}"
member_of = ["readers"]

[[role.grant]]
privileges = ["CONNECT"]

[[role.grant]]
database = "other"
schema = "public"
privileges = "usage"

[[role.grant]]
schema = "public"
tables = ["a", "b"]
privileges = ["SELECT"]

[[role.grant]]
schema = "public"
functions = "*"
privileges = ["ALL"]

[[role.default]]
schema = "public"
owner = "deployer"
on = "tables"
privileges = ["SELECT"]

[[role]]
name = "alice_contoso.com#EXT#@tenant.onmicrosoft.com"
kind = "user"
admin = true
mfa = true
"#
    );
    let file = RolesFile::parse(&text, "app").unwrap();
    let [app, alice] = file.roles() else { panic!("{file:?}") };
    assert_eq!(
        (app.kind(), app.identity()),
        (ObjectType::Service, PrincipalRef::ObjectId(ONE.parse().unwrap()))
    );
    assert_eq!(app.member_of, BTreeMap::from([("readers".to_owned(), MembershipOptions::default())]));
    let [database, schema, tables, functions] = &*app.grants else { panic!("{app:?}") };
    assert_eq!((&*database.database, &database.on), ("app", &GrantTarget::Database));
    assert_eq!((&*schema.database, &schema.on), ("other", &GrantTarget::Schema("public".to_owned())));
    let names = ObjectNames::Some(["a", "b"].map(str::to_owned).into());
    assert_eq!(tables.on, GrantTarget::Objects { class: Class::Table, schema: "public".to_owned(), names });
    assert_eq!(functions.privileges, Privileges::All);
    assert_eq!(app.defaults[0].owner.as_deref(), Some("deployer"));
    assert_eq!(alice.name().as_str(), "alice_contoso.com#EXT#@tenant.onmicrosoft.com");
    assert_eq!((alice.identity(), alice.is_admin, alice.is_mfa), (PrincipalRef::Name, true, true));
    assert_eq!(file.databases(), BTreeSet::from(["app", "other"]));
    assert_eq!(RolesFile::parse("", "app"), Ok(RolesFile::default()));
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let text = format!(
        r#"
[[role]]
name = "{long}"
[[role]]
name = "a"
kind = "device"
object_id = "not-a-guid"
colour = "blue"
[[role]]
name = "b"
object_id = "{ONE}"
[[role]]
name = "c"
object_id = "{ONE}"
[[role]]
name = "b"
[[role]]
object_id = "{{00000000-0000-4000-8000-000000000002}}"
[[role]]
name = "pg_read_all_data"
mfa = true
[[role]]
name = "d"
[[role.grant]]
schema = "s"
privileges = ["SELECT"]
[[role.grant]]
tables = "*"
privileges = ["SELECT"]
"#,
        long = "x".repeat(64)
    );
    let told = faults(&text);
    for expected in [
        "line 3: \"xxxxxxxx",
        "line 6: a kind is service, user or group, not \"device\"",
        "line 7: object_id is a GUID",
        "line 8: a role has no key `colour`",
        "line 12: \"c\" and \"b\" (line 9) are for one principal",
        "line 15: the role \"b\" is in line 9 already",
        "line 17: a role needs a name",
        "line 18: object_id is a GUID",
        "line 20: \"pg_read_all_data\": the name belongs to the server itself",
        "line 19: mfa is for users and groups",
        "line 26: \"SELECT\" is no privilege on a schema",
        "line 27: a grant on tables, sequences, functions or types names their schema",
    ] {
        assert!(told.iter().any(|fault| fault.starts_with(expected)), "{expected}: {told:#?}");
    }
    assert_eq!(told.len(), 12, "{told:#?}");
}

#[test]
fn each_bad_input() {
    for (text, expected) in [
        ("role = 1", "role is a list of tables"),
        ("roles = []", "the file has no key `roles`"),
        ("[[role]]\nname = 1", "name is a text in quotes"),
        ("[[role]]\nname = 'a'\nadmin = 'yes'", "admin is true or false"),
        ("[[role]]\nname = 'a'\nmember_of = [1]", "member_of is a list of texts"),
        ("[[role]]\nname = 'a'\nmember_of = ['a']", "\"a\" is to be a member of itself"),
        ("[[role]]\nname = 'a'\nmember_of = ['azure_pg_admin']", "that is what `admin`"),
        (
            "[[role]]\nname = 'a'\nmember_of = ['b']\n[[role]]\nname = 'b'\nmember_of = ['a']",
            "is to be a member of itself, through others",
        ),
        (
            "[[role]]\nname = 'a'\nkind = 'user'\nclient_id = '00000000-0000-4000-8000-000000000001'",
            "only a service has",
        ),
        (
            "[[role]]\nname = 'a'\nobject_id = '00000000-0000-4000-8000-000000000001'\nclient_id = '00000000-0000-4000-8000-000000000001'",
            "not both",
        ),
        ("[[role]]\nname = 'a'\nobject_id = '00000000-0000-0000-0000-000000000000'", "object_id is a GUID"),
        ("[[role]]\nname = 'a'\nobject_id = '00000000000040008000000000000001'", "object_id is a GUID"),
        (
            "[[role]]\nname = 'a'\n[[role.grant]]\nschema='s'\ntables=['*','t']\nprivileges='SELECT'",
            "stands alone",
        ),
        (
            "[[role]]\nname = 'a'\n[[role.grant]]\nschema='s'\ntables=[]\nprivileges='SELECT'",
            "name the objects",
        ),
        (
            "[[role]]\nname = 'a'\n[[role.grant]]\nschema='s'\ntables='*'\nsequences='*'\nprivileges='SELECT'",
            "one for each",
        ),
        ("[[role]]\nname = 'a'\n[[role.grant]]\nschema='s'", "privileges are missing"),
        ("[[role]]\nname = 'a'\n[[role.grant]]\nschema=''\nprivileges='USAGE'", "schema: a name is missing"),
        ("[[role]]\nname = 'a'\n[[role.default]]\non='views'\nprivileges='SELECT'", "a default is on ="),
        ("[[role]]\nname = 'a'\nlogin = false\nobject_id = 'x'", "so it has no object_id"),
        ("[[role]]\nname = 'a'\nlogin = false\nadmin = false", "so it has no admin"),
        ("[[role]]\nname = 'a'\nmember_of = [{ admin = true }]", "a membership names its role"),
        ("[[role]]\nname = 'a'\nmember_of = { role = 'b', grant = true }", "a membership has no key `grant`"),
        ("[[role]]\nname = 'a'\nmember_of = [{ role = 'b', inherit = false, set = false }]", "is none"),
        ("[[role]]\nname = 'a'\nmember_of = ['b', { role = 'b', admin = true }]", "the same role twice"),
        ("[[role]]\nname = 'a'\n[[role.own]]\nobjects = '*'", "own with objects names their schema"),
        ("[[role]]\nname = 'a'\n[[role.own]]\nschema = 's'\nobjects = 't'", "objects is \"*\""),
        ("[[role]]\nname = 'a'\n[[role.own]]\nschema = 'pg_catalog'", "belongs to the server itself"),
        (
            "[[role]]\nname = 'a'\n[[role.own]]\nschema = 's'\n[[role]]\nname = 'b'\n[[role.own]]\nschema = 's'",
            "\"b\" is to own what \"a\" is to own already",
        ),
        (
            "[[role]]\nname = 'a'\n[[role.default]]\nowner = ['b', 'azure_pg_admin']\non = 'tables'\nprivileges = 'SELECT'",
            "owner \"azure_pg_admin\": the name belongs to the server itself",
        ),
        (
            "[[role]]\nname = 'a'\n[[role.default]]\nowner = []\non = 'types'\nprivileges = 'USAGE'",
            "at least one role",
        ),
        ("[[schema]]\nowner = 'a'", "a schema needs a name"),
        ("[[schema]]\nname = 's'", "has an owner, a read_write or a read_only role"),
        ("[[schema]]\nname = 's'\nowner = 'a'\nread_only = 'a'", "are three roles"),
        ("[[schema]]\nname = 's'\nowner = 'azure_pg_admin'", "belongs to the server itself"),
        ("[[schema]]\nname = 'information_schema'\nowner = 'a'", "belongs to the server itself"),
        ("[[schema]]\nname = 's'\nowner = 'a'\ncreators = 'azuresu'", "belongs to the server itself"),
        ("[[role]]\nname = \"a\\u0000\"", "control character"),
        ("[[role]\nname = 'a'", "line 1: "),
        ("[[role]]\nname = 'a\nadmin = true", "line 2: "),
    ] {
        let told = faults(text);
        assert!(told.iter().any(|fault| fault.contains(expected)), "{text}: {told:#?}");
    }
    assert!(faults(&" ".repeat(SIZE_LIMIT + 1))[0].contains("at most"));
}

#[test]
fn group_roles_memberships_and_owners() {
    let text = r#"
[[role]]
name = "shop_owner"
login = false
member_of = ["a", { role = "b", inherit = false }, { role = "c", set = false, admin = true }]
[[role.own]]
[[role.own]]
schema = "shop"
[[role.own]]
database = "other"
schema = "shop"
objects = "*"
[[role.default]]
owner = ["one", "two"]
on = "types"
privileges = "USAGE"
"#;
    let file = RolesFile::parse(text, "app").unwrap();
    let [role] = file.roles() else { panic!("{file:?}") };
    assert!(role.is_group_role());
    let options = |inherit, set, admin| MembershipOptions { inherit, set, admin };
    let groups: Vec<_> = role.member_of.values().copied().collect();
    assert_eq!(groups, [options(true, true, false), options(false, true, false), options(true, false, true)]);
    let owns: Vec<_> = role.owns.iter().map(|want| (&*want.database, &want.on)).collect();
    let (schema, objects) = (OwnTarget::Schema("shop".to_owned()), OwnTarget::Objects("shop".to_owned()));
    assert_eq!(owns, [("app", &OwnTarget::Database), ("app", &schema), ("other", &objects)]);
    let owners: Vec<_> = role.defaults.iter().map(|want| want.owner.as_deref()).collect();
    assert_eq!(owners, [Some("one"), Some("two")]);
    assert_eq!(file.databases(), BTreeSet::from(["app", "other"]));
}

/// `docs/roles.md` shows what a template stands for.
#[test]
fn a_template_is_what_its_page_writes_out() {
    let page = include_str!("../../../../docs/roles.md");
    let blocks: Vec<&str> =
        page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let template = blocks.iter().find(|block| block.contains("read_only = ")).unwrap();
    let written = blocks.iter().find(|block| block.contains("name = \"shop_ro\"")).unwrap();
    let read = |text: &str| RolesFile::parse(text, "app").unwrap().to_toml();
    assert_eq!(read(template), read(written));
}

/// A file that is written is read as the same file.
#[test]
fn what_is_written_is_read_again() {
    let long = "é".repeat(31);
    for name in ["it's \"q\" \\ $$", "日本語 🦀", "'''\"\"\"", "#", "[[role]]", &long] {
        let name = toml::Value::String(name.to_owned()).to_string();
        let text = format!(
            "[[schema]]\nname = {name}\ndatabase = {name}\nowner = {name}\nread_only = 'ro'\ncreators = ['x', {name}]
[[role]]\nname = 'm'\nmember_of = [{name}, {{ role = 'z', admin = true }}]\nkind = 'user'\nmfa = true\nobject_id = '{ONE}'
[[role.grant]]\nschema = {name}\nfunctions = [{name}, 'f(integer, text)']\nprivileges = 'ALL'
[[role.default]]\non = 'tables'\nprivileges = ['SELECT', 'INSERT']
[[role]]\nname = 'n'\nadmin = true\nclient_id = '00000000-0000-4000-8000-000000000002'"
        );
        let first = RolesFile::parse(&text, "app").unwrap().to_toml();
        let again = RolesFile::parse(&first, "other").unwrap();
        assert_eq!(again.to_toml().replace("\"other\"", "\"app\""), first);
    }
}

proptest::proptest! {
    #[test]
    fn no_text_is_too_much(text in "\\PC{0,200}") {
        let _ = RolesFile::parse(&text, "app");
    }

    /// Any texts in the place of any names: a file that is read is written, and read as the same file.
    #[test]
    fn any_text_is_a_name_or_a_fault(names in proptest::array::uniform4("[\\x00-\\x7fé日🦀]{0,40}")) {
        let [one, two, three, four] = names.map(|name| toml::Value::String(name).to_string());
        let text = format!(
            "[[schema]]\nname = {four}\nowner = {one}\nread_write = {two}\nread_only = {three}\ncreators = {four}
[[role]]\nname = {one}\nlogin = false\nmember_of = [{two}, {{ role = {three}, admin = true }}]
[[role.own]]\ndatabase = {four}
[[role.grant]]\nschema = {two}\nfunctions = [{three}, {four}]\nprivileges = 'EXECUTE'
[[role.default]]\nowner = [{two}, {four}]\non = 'types'\nprivileges = 'USAGE'"
        );
        if let Ok(file) = RolesFile::parse(&text, "app") {
            let written = file.to_toml();
            assert_eq!(RolesFile::parse(&written, "app").unwrap().to_toml(), written);
        }
    }
}

/// A file as JSON: what a resource holds.
fn as_json(text: &str) -> serde_json::Map<String, serde_json::Value> {
    let table: toml::Table = text.parse().unwrap();
    match serde_json::to_value(table).unwrap() {
        serde_json::Value::Object(map) => map,
        other => panic!("{other}"),
    }
}

#[test]
fn the_same_document_as_json_means_the_same() {
    let text = format!(
        "[[role]]\nname = 'my-app'\nobject_id = '{ONE}'\nmember_of = ['readers', {{ role = 'auditors', admin = true }}]\n\
         [[role.grant]]\nschema = 'shop'\ntables = '*'\nprivileges = ['SELECT']\n\
         [[role.default]]\non = 'tables'\nprivileges = ['SELECT']\n\
         [[role]]\nname = 'owner'\nlogin = false\n[[role.own]]\ndatabase = 'other'\n\
         [[schema]]\nname = 'shop'\nread_only = 'shop_ro'\n"
    );
    let file = RolesFile::parse(&text, "app").unwrap();
    let document = RolesFile::from_json(&as_json(&text), "app").unwrap();
    assert_eq!(document.to_toml(), file.to_toml());
}

#[test]
fn faults_of_json_name_their_paths() {
    let mut document = as_json(
        "[[role]]\nname = 'a'\n[[role.grant]]\nprivileges = ['CONNECT', 'READ']\n\
         [[role]]\nname = 'a'\nlogin = false\nkind = 'user'\nsurprise = 1\n",
    );
    document.insert("schema".to_owned(), serde_json::json!([null, { "owner": "x" }]));
    let faults = RolesFile::from_json(&document, "app").unwrap_err();
    let told: Vec<String> = faults.all().iter().map(ToString::to_string).collect();
    assert!(told.iter().any(|fault| fault.starts_with("role[0].grant[0].privileges: \"READ\"")), "{told:#?}");
    assert!(told.iter().any(|fault| fault == r#"role[1]: the role "a" is in role[0] already"#), "{told:#?}");
    assert!(told.iter().any(|fault| fault.starts_with("role[1].surprise: a role has no key")), "{told:#?}");
    assert!(told.iter().any(|fault| fault.starts_with("schema[0]: ")), "{told:#?}");
    assert!(told.iter().any(|fault| fault == "schema[1]: a schema needs a name"), "{told:#?}");
    assert!(faults.all().iter().all(|fault| fault.line.is_none()), "{told:#?}");

    let known = serde_json::json!({ "role": [{ "name": null }], "other": null, "more": 1 });
    let faults = RolesFile::from_json(known.as_object().unwrap(), "app").unwrap_err();
    let told: Vec<String> = faults.all().iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(told[0].starts_with("more: the file has no key"), "{told:#?}");
    assert_eq!(told[1], "role[0]: a role needs a name");
}

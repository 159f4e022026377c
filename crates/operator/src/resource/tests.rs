use std::collections::BTreeSet;

use kube::CustomResourceExt as _;
use pgentra_roles::RolesFile;
use serde_json::json;

use super::*;

/// The schema of the resource's specification.
fn schema() -> Value {
    let crd = serde_json::to_value(PostgresRoles::crd()).unwrap();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone()
}

fn faults(document: &Value) -> Vec<String> {
    let faults = RolesFile::from_json(document.as_object().unwrap(), "app").unwrap_err();
    faults.all().iter().map(ToString::to_string).collect()
}

/// The keys that the reader of the document names when it does not know one.
fn known_keys(document: &Value) -> BTreeSet<String> {
    let faults = faults(document);
    let list = faults.iter().find_map(|fault| fault.split_once("its keys are ")).unwrap().1;
    list.split(", ").map(str::to_owned).collect()
}

/// The schema and the reader have the same keys: what one of them lets through, the other one reads.
#[test]
fn the_schema_has_the_keys_of_the_document() {
    let roles = &schema()["properties"]["role"]["items"];
    let keys = |schema: &Value| -> BTreeSet<String> {
        schema["properties"].as_object().unwrap().keys().cloned().collect()
    };
    let unknown = json!({ "unknown": 1 });
    let in_role = |key: &str| json!({ "role": [{ "name": "a", key: [unknown.clone()] }] });
    assert_eq!(keys(roles), known_keys(&json!({ "role": [unknown] })));
    for key in ["own", "grant", "default"] {
        assert_eq!(keys(&roles["properties"][key]["items"]), known_keys(&in_role(key)), "{key}");
    }
    assert_eq!(keys(&schema()["properties"]["schema"]["items"]), known_keys(&json!({ "schema": [unknown] })));
}

#[test]
fn a_resource_holds_the_document_of_a_file() {
    let text = r#"
        [[role]]
        name = "my-app"
        object_id = "00000000-1111-2222-3333-444444444444"
        member_of = ["readers", { role = "auditors", admin = true }]
        [[role.grant]]
        schema = "shop"
        tables = ["*"]
        privileges = ["SELECT"]
        [[role.default]]
        on = "tables"
        owner = ["deployer"]
        privileges = ["ALL"]
        [[role]]
        name = "readers"
        login = false
        [[role.own]]
        schema = "shop"
        objects = "*"
        [[schema]]
        name = "shop"
        read_only = "shop_ro"
        creators = ["my-app"]
    "#;
    let file = RolesFile::parse(text, "app").unwrap();
    // As `kubectl` sends it.
    let resource: PostgresRoles = serde_json::from_value(json!({
        "apiVersion": "pgentra.dev/v1alpha1", "kind": "PostgresRoles", "metadata": { "name": "shop" },
        "spec": {
            "server": "postgresql://operator@one/app",
            "role": [
                {
                    "name": "my-app",
                    "object_id": "00000000-1111-2222-3333-444444444444",
                    "member_of": ["readers", { "role": "auditors", "admin": true }],
                    "grant": [{ "schema": "shop", "tables": ["*"], "privileges": ["SELECT"] }],
                    "default": [{ "on": "tables", "owner": ["deployer"], "privileges": ["ALL"] }],
                },
                { "name": "readers", "login": false, "own": [{ "schema": "shop", "objects": "*" }] },
            ],
            "schema": [{ "name": "shop", "read_only": "shop_ro", "creators": ["my-app"] }],
        },
    }))
    .unwrap();
    let spec = &resource.spec;
    assert_eq!((spec.policy, spec.deletion, &*spec.interval), (RolesPolicy::Apply, Deletion::Keep, "5m"));
    assert_eq!(RolesFile::from_json(&spec.document(), "app").unwrap().to_toml(), file.to_toml());
}

/// Every value that the schema lets through for a privilege is one on some kind of object.
#[test]
fn the_privileges_of_the_schema_are_those_of_the_document() {
    let roles = schema();
    let pattern = &roles["properties"]["role"]["items"]["properties"]["grant"]["items"]["properties"]["privileges"]
        ["items"]["pattern"];
    let words = pattern.as_str().unwrap().trim_start_matches("^(?i:").trim_end_matches(")$");
    let places = [
        json!({}),
        json!({ "schema": "s" }),
        json!({ "schema": "s", "tables": ["*"] }),
        json!({ "schema": "s", "sequences": ["*"] }),
        json!({ "schema": "s", "functions": ["*"] }),
        json!({ "schema": "s", "types": ["*"] }),
    ];
    for word in words.split('|') {
        let is_known = places.iter().any(|place| {
            let mut grant = place.clone();
            grant["privileges"] = json!([word]);
            let document = json!({ "role": [{ "name": "a", "grant": [grant] }] });
            RolesFile::from_json(document.as_object().unwrap(), "app").is_ok()
        });
        assert!(is_known, "{word}");
    }
}

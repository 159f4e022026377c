//! `pgentra identity` and `pgentra grant`, as processes, against the local Resource Manager, Graph and PostgreSQL.
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

use e2e::{Cloud, Done, Flavour, Lab, have};
use serde_json::Value;

/// A shell on a host of the cloud.
fn on<'a>(lab: &'a Lab, cloud: &Cloud<'_>, host: &str, script: &str) -> Done<'a> {
    lab.shell(script).envs(cloud.env(host)).done()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[test]
fn identities_are_shown_found_and_assigned() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let (own, other) = (cloud.identity("system-assigned"), cloud.identity("user-assigned"));
    let admin = |script: &str| on(&lab, &cloud, "admin", script);

    let shown = admin("pgentra identity show --vm myVm -o json").json();
    assert_eq!(shown["resource_group"], "myResourceGroup");
    for (one, expected) in [(&shown["system_assigned"], own), (&shown["user_assigned"][0], other)] {
        for field in ["object_id", "client_id"] {
            assert_eq!(one[field], expected[field]);
        }
    }
    // with az as in the article, and with pgentra
    let found = admin("pgentra identity find myVm -o json").json();
    assert_eq!(found[0]["client_id"], own["client_id"]);
    assert_eq!(found.as_array().unwrap().len(), 1);
    let found = admin("pgentra identity find my --prefix -o json").json();
    assert_eq!(found.as_array().unwrap().len(), 3);
    let person = admin("pgentra identity find 'Local Administrator' --kind user -o json").json();
    assert_eq!(person[0]["object_id"], cloud.identity("user")["object_id"]);
    assert!(admin("pgentra identity find myVm").ok().contains(text(&own["client_id"])));

    // an identity is not assigned twice; the metadata service no longer serves a removed one
    let again = admin("pgentra identity assign --vm myVm -g myResourceGroup");
    again.ok();
    assert!(again.stderr.contains("nothing was changed"), "{again:?}");
    let again = admin("pgentra identity assign --vm myVm --identity myIdentity -o json").json();
    assert_eq!(again["user_assigned"][0]["object_id"], other["object_id"]);

    // an application with a role may; an identity without one may not, and the error says what is
    // missing
    on(&lab, &cloud, "client-secret", "pgentra identity show --vm myVm").ok();
    let refused = on(&lab, &cloud, "aks", "pgentra identity show --vm myVm");
    let words = ["403", "az role assignment create --assignee", text(&other["object_id"]), "--role 'Reader'"];
    assert_eq!(refused.fault(5, &words), None);
    let refused = on(&lab, &cloud, "aks", "pgentra identity find myVm");
    assert_eq!(refused.fault(5, &["Directory Readers"]), None);
}

#[test]
fn what_cannot_be_meant_is_told() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let deep = "--identity /subscriptions/x/resourceGroups/y";
    for (command, code, words) in [
        ("pgentra identity show --vm no-such-name", 2, "no-such-name"),
        ("pgentra identity show --vm no-such-name -g myResourceGroup", 2, "404 ResourceNotFound"),
        ("pgentra identity show --vm myVm -g nowhere", 2, "ResourceGroupNotFound"),
        ("pgentra identity show --vm ../myVm", 2, "no name of a resource"),
        ("pgentra identity show --vm myVm --subscription mine", 2, "not the id of a subscription"),
        ("pgentra identity show --vm myVm --resource https://x.example", 2, "--resource"),
        ("pgentra identity show --vm myVm --management-endpoint http://x.example", 2, "https://"),
        (&format!("pgentra identity assign --vm myVm {deep}"), 2, "resource id"),
        ("pgentra identity assign --vm myVm --identity no-such-name", 2, "no-such-name"),
        ("pgentra identity find no-such-name", 2, "no principal in the tenant"),
        ("pgentra identity server-admin list --server no-such-name", 2, "no-such-name"),
        (
            "pgentra identity server-admin add no-such-name --server mydemoserver",
            2,
            "no principal in the tenant",
        ),
        ("pgentra identity server-admin remove no-such-name --server mydemoserver", 2, "no administrator"),
        (
            "pgentra identity server-admin add 00000000-1111-4222-8333-444444444444 --server mydemoserver",
            2,
            "no principal in the tenant",
        ),
        ("pgentra grant no-such-name --role x --yes", 2, "no-such-name"),
        ("pgentra grant myVm --role x --server no-such-name --yes", 2, "no-such-name"),
        (
            "pgentra query -c 'CREATE ROLE plain' >/dev/null && pgentra grant myVm --role plain --yes",
            2,
            "already",
        ),
        ("pgentra grant myVm --role myIdentity --yes", 2, "of the principal with object id"),
        (&format!("pgentra grant myVm --role {} --yes", "x".repeat(64)), 2, "63 bytes"),
        ("PGENTRA_MANAGEMENT_ENDPOINT=https://localhost:1 pgentra identity show --vm myVm", 4, "cannot"),
    ] {
        let done = on(&lab, &cloud, "admin", command);
        assert_eq!(done.fault(code, &[words]), None);
    }
}

#[test]
fn an_administrator_of_the_server_signs_in_as_one() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let admin = |words: &str| {
        on(
            &lab,
            &cloud,
            "admin",
            &format!("pgentra identity server-admin {words} --server mydemoserver -o json"),
        )
    };
    let first = admin("list").json();
    assert_eq!(first[0]["object_id"], cloud.identity("user")["object_id"]);
    let lonely = admin(&format!("remove {}", text(&first[0]["object_id"])));
    assert_eq!(lonely.fault(2, &["last"]), None);

    let group = "'Database administrators'";
    assert_eq!(admin(&format!("add {group}")).json()["kind"], "Group");
    let again = admin(&format!("add {group}"));
    again.ok();
    assert!(again.stderr.contains("already"), "{again:?}");
    assert_eq!(admin("list").json().as_array().unwrap().len(), 2);
    // the administrator is a member of the group
    let query =
        format!("pgentra query -U {group} -o json -c \"SELECT pg_has_role('azure_pg_admin', 'member')\"");
    assert_eq!(on(&lab, &cloud, "admin", &query).json()[0]["rows"][0][0], "t");
    admin(&format!("remove {group}")).ok();
    assert_eq!(admin("list").json(), first);
    on(&lab, &cloud, "admin", &query).fails(5);
}

#[test]
fn a_grant_does_the_administrators_half() {
    for flavour in Flavour::ALL {
        let lab = Lab::new();
        let cloud = lab.cloud(flavour, &[]);
        let admin = |script: &str| on(&lab, &cloud, "admin", script);
        // without a terminal there is no question
        let unasked = admin("pgentra grant myVm --role my-app");
        assert_eq!(unasked.fault(2, &["--yes", "nothing was changed"]), None);
        assert!(unasked.stderr.contains("+ role my-app"), "the plan comes first: {unasked:?}");
        on(&lab, &cloud, "vm", "pgentra query -U my-app -c 'SELECT 1'").fails(5);

        let granted = admin("pgentra grant myVm --role my-app --yes -o json").json();
        assert_eq!((&granted["created"], &granted["assigned"]), (&Value::Bool(true), &Value::Bool(false)));
        assert_eq!(granted["object_id"], cloud.identity("system-assigned")["object_id"]);
        assert_eq!(granted["flavour"], flavour.to_string());
        let query = "pgentra query -U my-app -o json -c 'SELECT current_user'";
        assert_eq!(on(&lab, &cloud, "vm", query).json()[0]["rows"][0][0], "my-app");

        // the second run has no changes and no question
        let again = admin("pgentra grant myVm --role my-app -o json").json();
        assert_eq!(again["created"], false);
        // the role belongs to one identity and keeps it
        let taken = admin("pgentra grant myVm --role my-app --identity myIdentity --yes");
        assert_eq!(taken.fault(2, &["already"]), None);

        // on the machine itself it signs in too
        let metadata = cloud.text("/metadata_url");
        let here = format!(
            "AZURE_POD_IDENTITY_AUTHORITY_HOST={metadata} pgentra grant myVm --role 'Odd \"name\"' --identity myIdentity --yes -o json"
        );
        let granted = admin(&here).json();
        assert_eq!((&granted["signed_in"], &granted["created"]), (&Value::Bool(true), &Value::Bool(true)));
    }
}

/// Changes the machine's identities through Resource Manager, as another client does.
fn patch(lab: &Lab, cloud: &Cloud<'_>, path: &str, method: &str, body: &str) {
    let version = if path.contains("Microsoft.ManagedIdentity") { "2024-11-30" } else { "2024-11-01" };
    let address = format!("{}{path}?api-version={version}", cloud.text("/management_url"));
    let token = "$(pgentra token --resource https://management.azure.com)";
    let script = format!(
        "curl -sSf -o /dev/null --cacert $SSL_CERT_FILE -X {method} -H 'Content-Type: application/json' \
         -H \"Authorization: Bearer {token}\" -d '{body}' '{address}'"
    );
    on(lab, cloud, "admin", &script).ok();
}

#[test]
fn a_grant_gives_the_machine_its_identity_first() {
    for flavour in Flavour::ALL {
        let lab = Lab::new();
        let cloud = lab.cloud(flavour, &[]);
        let admin = |script: &str| on(&lab, &cloud, "admin", script);
        let group = format!(
            "/subscriptions/{}/resourceGroups/myResourceGroup/providers",
            cloud.text("/subscription_id")
        );
        let vm = format!("{group}/Microsoft.Compute/virtualMachines/myVm");
        patch(&lab, &cloud, &vm, "PATCH", r#"{"identity":{"type":"None"}}"#);
        assert!(admin("pgentra identity show --vm myVm").ok().contains("no identity"));

        // a role of another identity is detected before the machine is changed
        let taken = admin("pgentra grant myVm --role myVm --yes");
        assert_eq!(taken.fault(2, &["already"]), None);
        assert!(admin("pgentra identity show --vm myVm").ok().contains("no identity"));

        let granted = admin("pgentra grant myVm --role my-app --yes -o json").json();
        assert_eq!((&granted["assigned"], &granted["created"]), (&Value::Bool(true), &Value::Bool(true)));
        assert_ne!(granted["object_id"], cloud.identity("system-assigned")["object_id"]);
        let query = "pgentra query -U my-app -o json -c 'SELECT current_user'";
        assert_eq!(on(&lab, &cloud, "vm", query).json()[0]["rows"][0][0], "my-app");

        let identity = format!("{group}/Microsoft.ManagedIdentity/userAssignedIdentities/further");
        patch(&lab, &cloud, &identity, "PUT", r#"{"location":"westeurope"}"#);
        let granted = admin("pgentra grant myVm --role further --identity further --yes -o json").json();
        assert_eq!((&granted["assigned"], &granted["created"]), (&Value::Bool(true), &Value::Bool(true)));
        let shown = admin("pgentra identity show --vm myVm -o json").json();
        assert_eq!(shown["user_assigned"][0]["object_id"], granted["object_id"]);
        assert!(shown["system_assigned"].is_object(), "it keeps its own");
    }
}

#[test]
fn a_person_is_asked_once() {
    if !have(&["script"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    for (answer, role, done) in [("n\n", "no", false), ("\n", "nothing", false), ("y\n", "yes", true)] {
        let command = format!("script -qec 'pgentra grant myVm --role {role}' /dev/null");
        let asked = lab.shell(&command).envs(cloud.env("admin")).input(answer).done();
        let said = asked.ok();
        assert_eq!(said.matches("[y/N]").count(), 1, "{said}");
        assert_eq!(said.contains("nothing was changed"), !done, "{said}");
        let query = format!("pgentra query -U {role} -c 'SELECT 1'");
        let signed_in = on(&lab, &cloud, "vm", &query).status.success();
        assert_eq!(signed_in, done, "{role}");
    }
}

//! `pgentra role` against a local cloud, and every command of `docs/roles.md`.
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::fs;
use std::path::Path;

use e2e::{Cloud, Flavour, Lab, Run, have};
use serde_json::{Value, json};

/// The page as a script, and the output that the page shows.
fn page() -> (String, Vec<String>) {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/roles.md");
    let (mut script, mut said, mut block) = (String::new(), Vec::new(), "");
    let text = fs::read_to_string(page).unwrap();
    for line in text.lines() {
        match (block, line.strip_prefix("```")) {
            ("", Some("toml")) => {
                script.push_str("cat >roles.toml <<'END'\n");
                block = "toml";
            }
            ("", Some("console")) => block = "console",
            ("", Some(_)) => block = "other",
            (_, Some(_)) => {
                if block == "toml" {
                    script.push_str("END\n");
                }
                block = "";
            }
            ("toml", None) => script.push_str(&format!("{line}\n")),
            ("console", None) => match line.strip_prefix("$ ") {
                Some(command) => script.push_str(&format!("{command}\n")),
                // Lines that the page leaves out.
                None if line == "…" => {}
                None => said.push(line.to_owned()),
            },
            _ => {}
        }
    }
    (script, said)
}

#[test]
fn the_page_does_what_it_says() {
    if !have(&["jq"]) {
        return;
    }
    let lab = Lab::new();
    let (script, said) = page();
    assert!(said.len() > 10 && script.contains("pgentra role apply"), "{script}");
    let done = lab.shell(&format!("{script}echo \"$ADMIN\"\n")).done();
    // its last line is printed before its process has ended
    lab.await_processes();
    let admin = done.ok().lines().last().unwrap().to_owned();
    let mut lines = done.ok().lines();
    for expected in said.iter().map(|line| line.replace("$ADMIN", &admin)) {
        assert!(
            lines.any(|line| line == expected),
            "not printed, or not in this order: {expected}\n{done:?}"
        );
    }
}

fn role<'lab>(lab: &'lab Lab, cloud: &Cloud<'_>, words: &[&str]) -> Run<'lab> {
    lab.pgentra(&[&["role"], words].concat()).envs(cloud.env("admin"))
}

#[test]
fn a_role_from_nothing_to_a_sign_in_on_both_flavours() {
    for (flavour, option, id) in
        [(Flavour::Flexible, "--object-id", "object_id"), (Flavour::Single, "--client-id", "client_id")]
    {
        let lab = Lab::new();
        let cloud = lab.cloud(flavour, &[]);
        let id = cloud.identity("system-assigned")[id].as_str().unwrap().to_owned();
        let name = "alice #EXT# \"🦀\"";
        let script = role(&lab, &cloud, &["create", name, option, &id, "--print-sql"]).done();
        assert!(script.ok().contains(&id) && script.ok().ends_with("COMMIT;\n"), "{script:?}");
        let list = || role(&lab, &cloud, &["list", "-o", "json"]).done().json();
        let has = || list()["roles"].as_array().unwrap().iter().any(|role| role["name"] == name);
        assert!(!has(), "--print-sql ran it");
        role(&lab, &cloud, &["create", name, option, &id]).done().ok();
        assert!(has() && list()["flavour"] == flavour.to_string());
        let who = ["query", "-U", name, "-c", "SELECT current_user", "-o", "json"];
        assert_eq!(lab.pgentra(&who).envs(cloud.env("vm")).done().json()[0]["rows"][0][0], name);
        // psql can run the printed script
        if have(&["psql"]) {
            role(&lab, &cloud, &["drop", name, "--yes"]).done().ok();
            let psql = ["psql", "--", "-v", "ON_ERROR_STOP=1", "-q"];
            lab.pgentra(&psql).envs(cloud.env("admin")).input(script.ok()).done().ok();
            lab.pgentra(&who).envs(cloud.env("vm")).done().ok();
        }
        role(&lab, &cloud, &["drop", name, "--yes"]).done().ok();
        assert!(!has());
    }
}

/// By client id, through Graph; and roles whose principal is gone.
#[test]
fn the_tenant_is_asked() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let vm = cloud.identity("system-assigned");
    let client_id = vm["client_id"].as_str().unwrap();
    let made =
        role(&lab, &cloud, &["create", "by client id", "--client-id", client_id, "-o", "json"]).done().json();
    let sql = made["changes"][0]["sql"][0].as_str().unwrap();
    assert!(sql.contains(vm["object_id"].as_str().unwrap()), "{made}");
    let unknown_id = "00000000-1111-2222-3333-444444444444";
    let unknown = role(&lab, &cloud, &["create", "no-such-role", "--client-id", unknown_id]).done();
    assert_eq!(unknown.fault(2, &["no service principal with client id", unknown_id]), None);
    role(&lab, &cloud, &["create", "gone", "--object-id", unknown_id]).done().ok();
    let roles = role(&lab, &cloud, &["list", "--orphans", "-o", "json"]).done().json();
    let orphans: Vec<_> = roles["roles"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|role| role["orphan"] == true)
        .map(|role| &role["name"])
        .collect();
    assert_eq!(orphans, ["gone"], "{roles}");
}

/// A plan as JSON and with an exit code; `apply` asks once on a terminal; an imported file has an empty plan.
#[test]
fn a_plan_is_shown_asked_for_and_carried_out() {
    if !have(&["script"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let file = "[[role]]\nname = 'writers'\nlogin = false\nmember_of = 'readers'\n[[role]]\nname = 'readers'\nlogin = false\n";
    fs::write(lab.path().join("home/roles.toml"), file).unwrap();
    let plan = |file: &str| {
        let done = role(&lab, &cloud, &["plan", "-f", file, "--exit-code", "-o", "json"]).done();
        let document: Value = serde_json::from_str(&done.stdout).unwrap();
        (done.status.code(), document)
    };
    let (code, document) = plan("roles.toml");
    assert_eq!(code, Some(2), "{document}");
    assert_eq!((&document["version"], &document["applied"]), (&json!(1), &json!(false)), "{document}");
    let changes = document["changes"].as_array().unwrap();
    let members = |change: &Value, names: &[&str]| -> Vec<Value> {
        names.iter().map(|name| change[*name].clone()).collect()
    };
    let found: Vec<_> = changes
        .iter()
        .map(|change| members(change, &["sign", "action", "role", "database", "sql"]))
        .collect();
    let expected = [
        vec![
            json!("+"),
            json!("create"),
            json!("writers"),
            json!(null),
            json!(["CREATE ROLE \"writers\" NOLOGIN"]),
        ],
        vec![
            json!("+"),
            json!("create"),
            json!("readers"),
            json!(null),
            json!(["CREATE ROLE \"readers\" NOLOGIN"]),
        ],
        vec![
            json!("+"),
            json!("join"),
            json!("writers"),
            json!(null),
            json!(["GRANT \"readers\" TO \"writers\""]),
        ],
    ];
    assert_eq!(found, expected, "{document}");

    for (answer, is_done) in [("n\n", false), ("\n", false), ("y\n", true)] {
        let apply = lab.shell("script -qec 'pgentra role apply -f roles.toml' /dev/null");
        let asked = apply.envs(cloud.env("admin")).input(answer).done();
        let said = asked.ok();
        assert_eq!(said.matches("[y/N]").count(), 1, "{said}");
        assert_eq!(said.contains("nothing was changed"), !is_done, "{said}");
        let (code, document) = plan("roles.toml");
        assert_eq!(code, Some(if is_done { 0 } else { 2 }), "{document}");
    }
    role(&lab, &cloud, &["import", "-f", "imported.toml"]).done().ok();
    let (code, document) = plan("imported.toml");
    assert_eq!((code, &document["changes"]), (Some(0), &json!([])), "{document}");
}

#[test]
fn bad_input_is_refused_before_anything_is_written() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let home = lab.path().join("home");
    let one = "00000000-1111-2222-3333-444444444444";
    let twice = format!(
        "[[role]]\nname='a'\nobject_id='{one}'\n[[role]]\nname='b'\nobject_id='{one}'\n[[role]]\nname='c'\nkind='x'"
    );
    fs::write(home.join("twice.toml"), twice).unwrap();
    fs::write(
        home.join("table.toml"),
        "[[role]]\nname='myVm'\n[[role.grant]]\nschema='public'\ntables='nope'\nprivileges='SELECT'",
    )
    .unwrap();
    let long = "x".repeat(64);
    let cases: [(&[&str], i32, &[&str]); 16] = [
        (&["create", &long, "--object-id", one], 2, &["63 bytes", "64"]),
        (&["create", "pg_mine", "--object-id", one], 2, &["belongs to the server"]),
        (&["create", " a", "--object-id", one], 2, &["space"]),
        (&["create", "a", "--object-id", "myVm"], 2, &["GUID", "myVm"]),
        (&["create", "a", "--kind", "device", "--object-id", one], 2, &["service, user or group"]),
        (&["create", "myVm", "--object-id", one], 5, &["is there already"]),
        (&["create", "no principal of this name"], 5, &["not found in the tenant", "--object-id"]),
        (&["drop", "no-such-role"], 5, &["no-such-role", "role list"]),
        (&["plan", "-f", "nowhere.toml"], 2, &["nowhere.toml"]),
        (&["apply", "-f", "twice.toml"], 2, &["line 4", "one principal", "line 9", "kind is service"]),
        (&["apply", "-f", "table.toml"], 2, &["line 3", "no table", "nope"]),
        // with --exit-code, 2 is a difference
        (&["plan", "-f", "nowhere.toml", "--exit-code"], 1, &["nowhere.toml"]),
        (&["plan", "-f", "twice.toml", "--exit-code"], 1, &["one principal"]),
        (&["plan", "-f", "table.toml", "--exit-code", "--no-such-option"], 1, &["--no-such-option"]),
        (&["import", "-f", "table.toml"], 2, &["cannot write table.toml", "new file"]),
        (&["import", "-f", "no-such-folder/roles.toml"], 2, &["cannot write no-such-folder/roles.toml"]),
    ];
    let before = role(&lab, &cloud, &["list"]).done().ok().to_owned();
    let mut faults = Vec::new();
    for (words, code, said) in cases {
        let done = role(&lab, &cloud, words).done();
        faults.extend(done.fault(code, said).map(|fault| format!("{words:?}: {fault}: {}", done.stderr)));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!(role(&lab, &cloud, &["list"]).done().ok(), before);
    // a role that is not an administrator may not list roles, and can read their labels
    let vm = lab.pgentra(&["role", "list"]).envs(cloud.env("vm")).done();
    assert!(vm.ok().contains("myIdentity") && vm.ok().contains("security label"), "{vm:?}");
}

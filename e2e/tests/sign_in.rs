//! People sign in at the local Entra, with Microsoft's libraries.
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::path::Path;

use e2e::{Cloud, Flavour, Lab, client, have};
use serde_json::{Value, json};

/// The client id of the Azure CLI, which these libraries use where none is given.
const CLI: &str = "04b07795-8ddb-461a-bbee-02f9e1bf7b46";

/// What a program is told: the address of Entra with the tenant, the application and its secret, and two users.
fn sign_in(lab: &Lab, cloud: &Cloud<'_>, program: &[&str]) -> (Value, [String; 2], String) {
    let on = |host: &str, script: &str| lab.shell(script).envs(cloud.env(host)).done();
    on("vm", "pgentra local user add 'Ada Lovelace'").ok();
    let users = on("vm", "pgentra local user list -o json").json();
    let names = [0, 1].map(|at| users[at]["name"].as_str().unwrap().to_owned());
    let environment = cloud.env("client-secret");
    let authority = format!("{}{}", environment["AZURE_AUTHORITY_HOST"], environment["AZURE_TENANT_ID"]);
    let application = environment["AZURE_CLIENT_ID"].clone();
    let told = [&authority, &application, &environment["AZURE_CLIENT_SECRET"], &names[0], &names[1]];
    let words: Vec<&str> = program.iter().copied().chain(told.map(String::as_str)).collect();
    let report = lab.program(&words).envs(environment.clone()).within(120).done().json();
    (report, names, application)
}

fn own(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name);
    path.to_str().unwrap().to_owned()
}

/// Whose the tokens of a report are, and for which program.
fn check_tokens(report: &Value, expected: &[(&str, &str, &str, &str)]) {
    let postgresql = "https://ossrdbms-aad.database.windows.net";
    for (at, user, app, acr) in expected {
        let token = &report[at];
        assert_eq!(
            [&token["upn"], &token["appid"], &token["appidacr"], &token["aud"], &token["idtyp"]],
            [&json!(user), &json!(app), &json!(acr), &json!(postgresql), &json!("user")],
            "{at}: {report}"
        );
    }
}

/// An agent identity without credentials, for which its blueprint signs in: MSAL for Python sends `fmi_path`.
#[test]
fn an_agent_identity_signs_in_with_msal() {
    if !have(&["python"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let python = client("venv/bin/python");
    let words = [python.to_str().unwrap(), &own("agent.py"), &cloud.text("/name")];
    let done = lab.program(&words).envs(cloud.env("client-secret")).done();
    assert_eq!(done.ok(), "helper\nTrue\n");
}

/// The same flows and the device code flow with azure-identity for JavaScript, and a password, which is not enough.
#[test]
fn a_person_signs_in_with_the_library_for_javascript() {
    if !have(&["node"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let (node, folder) = (client("venv/bin/node"), client(""));
    let program = [node.to_str().unwrap(), &own("sign_in.mjs"), folder.to_str().unwrap()];
    let (report, [administrator, ada], application) = sign_in(&lab, &cloud, &program);
    check_tokens(
        &report,
        &[
            ("interactive", &administrator, CLI, "0"),
            ("device", &administrator, CLI, "0"),
            ("by_code", &ada, CLI, "0"),
            ("on_behalf_of", &administrator, &application, "1"),
        ],
    );
    for (at, expected) in [
        ("record", json!([administrator, true])),
        ("management", json!("https://management.azure.com")),
        ("message", json!(true)),
        ("used_code", json!(54005)),
        ("wrong_audience", json!(500_131)),
        ("password", json!(50076)),
    ] {
        assert_eq!(report[at], expected, "{at}: {report}");
    }
}

/// The authorization code flow with PKCE, refresh tokens and the on-behalf-of flow, with MSAL for Python and
/// azure-identity.
#[test]
fn a_person_signs_in_with_the_libraries_for_python() {
    if !have(&["python"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let python = client("venv/bin/python");
    let program = [python.to_str().unwrap(), &own("sign_in.py")];
    let (report, [administrator, ada], application) = sign_in(&lab, &cloud, &program);
    check_tokens(
        &report,
        &[
            ("interactive", &administrator, CLI, "0"),
            ("refreshed", &administrator, CLI, "0"),
            ("by_code", &ada, CLI, "0"),
            ("on_behalf_of", &administrator, &application, "1"),
        ],
    );
    for (at, expected) in [
        ("id_token", json!(administrator)),
        ("account", json!(administrator)),
        ("refreshed_is_new", json!(true)),
        ("management", json!("https://management.azure.com")),
        ("wrong_verifier", json!([501_481])),
        ("used_code", json!([54005])),
        ("wrong_audience", json!([500_131])),
        ("unsigned", json!([50013])),
        ("azure_identity", json!([administrator, administrator])),
        ("azure_identity_on_behalf_of", json!(administrator)),
    ] {
        assert_eq!(report[at], expected, "{at}: {report}");
    }
}

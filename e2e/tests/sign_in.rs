//! People sign in at the local Entra, with Microsoft's libraries.

use std::path::Path;

use e2e::{Flavour, Lab, client, have};
use serde_json::{Value, json};

/// The authorization code flow with PKCE, refresh tokens and the on-behalf-of flow, with MSAL for Python and
/// azure-identity.
#[test]
fn a_person_signs_in_with_the_libraries_for_python() {
    if !have(&["python"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let on = |host: &str, script: &str| lab.shell(script).envs(cloud.env(host)).done();
    on("vm", "pgentra local user add 'Ada Lovelace'").ok();
    let users = on("vm", "pgentra local user list -o json").json();
    let name = |at: usize| users[at]["name"].as_str().unwrap().to_owned();
    let environment = cloud.env("client-secret");
    let authority = format!("{}{}", environment["AZURE_AUTHORITY_HOST"], environment["AZURE_TENANT_ID"]);
    let application = environment["AZURE_CLIENT_ID"].clone();
    let python = client("venv/bin/python");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/sign_in.py");
    let words = [
        python.to_str().unwrap(),
        script.to_str().unwrap(),
        &authority,
        &application,
        &environment["AZURE_CLIENT_SECRET"],
        &name(0),
        &name(1),
    ];
    let report: Value = lab.program(&words).envs(environment.clone()).within(120).done().json();
    let (administrator, ada) = (name(0), name(1));
    let cli = "04b07795-8ddb-461a-bbee-02f9e1bf7b46";
    let postgresql = "https://ossrdbms-aad.database.windows.net";
    for (at, user, app, acr) in [
        ("interactive", &administrator, cli, "0"),
        ("refreshed", &administrator, cli, "0"),
        ("by_code", &ada, cli, "0"),
        ("on_behalf_of", &administrator, &*application, "1"),
    ] {
        let token = &report[at];
        assert_eq!(
            [&token["upn"], &token["appid"], &token["appidacr"], &token["aud"], &token["idtyp"]],
            [&json!(user), &json!(app), &json!(acr), &json!(postgresql), &json!("user")],
            "{at}: {report}"
        );
    }
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

//! `pgentra local fault`: programs suffer a fault while it is on.

use e2e::{Flavour, Lab};
use serde_json::{Value, json};

#[test]
fn a_fault_is_suffered_until_it_is_cleared() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let on = |host: &str, script: &str| lab.shell(script).envs(cloud.env(host)).done();
    let active = |script: &str| {
        let list = on("vm", script).json();
        let shown = |it: &Value| json!([it["fault"], it["endpoint"], it["left"]]);
        list["active"].as_array().map(|all| all.iter().map(shown).collect::<Vec<_>>())
    };
    assert!(on("vm", "pgentra local fault list").stderr.contains("no fault is on"));

    // Two requests suffer it, and the client tries a third time by itself.
    let set = "pgentra local fault set throttled --times 2 -o json";
    assert_eq!(active(set), Some(vec![json!(["throttled", "imds-token", 2])]));
    on("vm", "pgentra query -c 'SELECT 1'").ok();
    assert_eq!(active("pgentra local fault list -o json"), Some(vec![]));

    for (fault, words) in [
        ("html", "a web page, not JSON"),
        ("huge-token", "token"),
        ("clock-ahead", "while validating the access token"),
        ("clock-behind", "expired"),
        ("down", "503"),
    ] {
        on("vm", &format!("pgentra local fault set {fault}")).ok();
        let failed = on("vm", "pgentra query -c 'SELECT 1' --token-timeout 5s || exit 9");
        assert_eq!(failed.status.code(), Some(9), "{fault}: {failed:?}");
        assert!(failed.stderr.contains(words), "{fault}: {failed:?}");
        // It is at one endpoint alone.
        on("aks", "pgentra query -c 'SELECT 1'").ok();
        on("vm", &format!("pgentra local fault clear {fault}")).ok();
        on("vm", "pgentra query -c 'SELECT 1'").ok();
    }

    on("vm", "pgentra local fault set roll-over --at entra-token").ok();
    // The header names another key each time.
    let header = || {
        let token = lab.pgentra(&["token"]).envs(cloud.env("aks")).token();
        token.split_once('.').map(|it| it.0.to_owned())
    };
    assert_ne!(header(), header());
    on("vm", "pgentra local fault set slow --at app-service").ok();
    let listed = on("vm", "pgentra local fault list");
    assert!(listed.ok().contains("roll-over") && listed.ok().contains("app-service"), "{listed:?}");
    on("vm", "pgentra local fault clear roll-over --at app-service").ok();
    assert_eq!(active("pgentra local fault list -o json").map(|it| it.len()), Some(2));
    assert_eq!(active("pgentra local fault clear -o json"), Some(vec![]));

    on("vm", "pgentra local fault set slowly").fails(2);
    on("vm", "pgentra local fault set slow --times 0").fails(2);
    on("vm", "pgentra local fault set slow --at nowhere").fails(2);
    on("vm", "pgentra local fault clear --name other").fails(2);
    let refused = on("vm", "pgentra local fault set huge-token --at keys");
    let said =
        ["`huge-token` changes tokens, and `keys` gives out none", "pgentra local fault set huge-token"];
    assert_eq!(refused.fault(2, &said), None);
}

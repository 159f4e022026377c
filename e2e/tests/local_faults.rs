//! `pgentra local fault`: programs suffer a fault while it is on.

use e2e::{Flavour, Lab};
use eventually::{DEADLINE, eventually_blocking};
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

    // Refusals of Entra, with the claims that a client has to ask for.
    for (fault, number) in [
        ("mfa-required", "AADSTS50076"),
        ("access-blocked", "AADSTS53003"),
        ("tenant-throttled", "AADSTS90055"),
    ] {
        on("vm", &format!("pgentra local fault set {fault}")).ok();
        let failed = on("aks", "pgentra query -c 'SELECT 1' --token-timeout 5s || exit 9");
        assert!(failed.status.code() == Some(9) && failed.stderr.contains(number), "{fault}: {failed:?}");
        let ask = "curl -s --cacert $SSL_CERT_FILE -d grant_type=none $AZURE_AUTHORITY_HOST/$AZURE_TENANT_ID/oauth2/v2.0/token";
        let body = on("aks", ask).json();
        let claims = body["claims"].as_str().map(|claims| claims.contains("capolids"));
        assert_eq!(claims, (fault != "tenant-throttled").then_some(true), "{body}");
        on("vm", &format!("pgentra local fault clear {fault}")).ok();
        on("aks", "pgentra query -c 'SELECT 1'").ok();
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
    // This cloud was started without an Arc agent.
    let refused = on("vm", "pgentra local fault set down --at arc");
    assert_eq!(refused.fault(2, &["no `arc`", "without --arc"]), None);
    let refused = on("vm", "pgentra local fault set slow --at postgresql");
    assert_eq!(refused.fault(2, &["`slow` is a fault of answers over HTTP"]), None);
    let refused = on("vm", "pgentra local fault set failover --times 2");
    assert_eq!(refused.fault(2, &["`failover` does not end after a number of requests"]), None);
}

/// Sessions end with 57P01, new ones are refused with 57P03, and then the data are there.
#[test]
fn a_server_fails_over() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let on = |host: &str, script: &str| lab.shell(script).envs(cloud.env(host)).done();
    on("vm", "pgentra query -c 'CREATE TEMP TABLE gone (a int)'").ok();
    on("admin", "pgentra query -c 'CREATE TABLE kept AS SELECT 1 AS a' -c 'GRANT SELECT ON kept TO PUBLIC'")
        .ok();
    let began = "SELECT pg_postmaster_start_time()::text";
    let before = on("vm", &format!("pgentra query -o json -c \"{began}\"")).json();
    let slept = on(
        "vm",
        "pgentra query -c 'SELECT pg_sleep(600)' & QUERY=$!; \
         until pgentra query -c \"SELECT query FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)'\" | grep -q sleep; do :; done; \
         pgentra local fault set failover && wait $QUERY",
    );
    assert!(!slept.status.success());
    assert!(slept.stderr.contains("terminating connection due to administrator command"), "{slept:?}");
    let listed = on("vm", "pgentra local fault list -o json").json();
    assert_eq!(listed["active"][0]["fault"], "failover", "{listed}");
    let refused = on("vm", "PGPASSWORD=$(pgentra token) psql -c 'SELECT 1'");
    assert!(refused.stderr.contains("cannot reach its PostgreSQL server"), "{refused:?}");
    eventually_blocking(DEADLINE, "the failover has ended", || {
        let done = on("vm", "pgentra query -c 'SELECT a FROM kept'");
        if done.status.success() { Ok(()) } else { Err(done.stderr) }
    });
    assert_eq!(on("vm", "pgentra local fault list -o json").json()["active"], json!([]));
    let after = on("vm", &format!("pgentra query -o json -c \"{began}\"")).json();
    assert_ne!(before, after);
}

/// PostgreSQL refuses sessions over its limit by itself.
#[test]
fn no_connection_is_left() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let on = |host: &str, script: &str| lab.shell(script).envs(cloud.env(host)).done();
    let set = on("vm", "pgentra local fault set connection-limit -o json").json();
    assert_eq!(set["active"][0]["endpoint"], "postgresql", "{set}");
    for host in ["vm", "admin"] {
        let refused = on(host, "pgentra query -o json -c 'SELECT 1'");
        assert!(refused.stderr.contains("53300"), "{refused:?}");
        assert!(refused.stderr.contains("remaining connection slots are reserved"), "{refused:?}");
    }
    on("vm", "pgentra local fault clear connection-limit").ok();
    eventually_blocking(DEADLINE, "sessions are possible again", || {
        let done = on("vm", "pgentra query -c 'SELECT 1'");
        if done.status.success() { Ok(()) } else { Err(done.stderr) }
    });
}

//! What the checks of a gateway find for its operator.

use std::fs;

use e2e::{Lab, have};

use crate::stage::Stage;

#[test]
fn the_check_finds_what_clients_would_meet() {
    if !have(&["postgresql", "psql", "jq"]) {
        return;
    }
    let lab = Lab::new();
    let stage = Stage::new(&lab);
    let (server, settings) = stage.scram_server(&format!("app={}:service", stage.object_id("vm")));
    let file = stage.write("gateway.toml", &format!("{}{settings}", stage.settings));
    let (vm, other) =
        (stage.write("vm.token", &stage.token("vm")), stage.write("other.token", &stage.another_token()));
    let check =
        |more: &[&str]| lab.pgentra(&[&["gateway", "--check", "--config", &file], more].concat()).done();
    let done = check(&["--token-file", &vm, "--role", "app"]);
    assert!(
        done.ok().contains("may use the role") && done.ok().contains("1 mapped role(s)"),
        "{}",
        done.stdout
    );
    let done = check(&["--token-file", &other, "--role", "app"]);
    assert_eq!(done.status.code(), Some(5), "{done:?}");
    assert!(done.stdout.contains("Service principal oid mismatch"), "{}", done.stdout);
    assert!(done.stdout.contains("hint: compare the claims: pgentra whoami"), "{}", done.stdout);
    server.down();
    let done = check(&[]);
    assert_eq!(done.status.code(), Some(4), "{done:?}");
    assert!(done.stdout.contains("cannot be reached"), "{}", done.stdout);
    server.up();
    for file in [vm, other] {
        fs::remove_file(file).unwrap();
    }
    let done = lab.pgentra(&["gateway", "--check-config", "--config", &file]).done();
    assert!(done.ok().ends_with("the configuration is valid\n"), "{}", done.stdout);
    stage.write("gateway.toml", &format!("{}{settings}max_conections = 1\n", stage.settings));
    let done = lab.pgentra(&["gateway", "--check-config", "--config", &file]).done();
    assert!(done.fails(2).contains("the nearest is max_connections"), "{}", done.stderr);
}

/// The same checks as a report: what failed, with a command that shows it.
#[test]
fn doctor_finds_what_is_wrong_with_a_gateway() {
    if !have(&["postgresql", "psql", "jq"]) {
        return;
    }
    let lab = Lab::new();
    let stage = Stage::new(&lab);
    let (server, settings) = stage.scram_server(&format!("app={}:service", stage.object_id("vm")));
    let text = format!("{}{settings}", stage.settings);
    let file = stage.write("gateway.toml", &text);
    let (vm, other) =
        (stage.write("vm.token", &stage.token("vm")), stage.write("other.token", &stage.another_token()));
    let doctor = |more: &[&str]| {
        lab.pgentra(&[&["doctor", "--gateway", "--config", &file], more].concat()).env("LC_ALL", "C").done()
    };
    let done = doctor(&["--token-file", &vm, "--role", "app"]);
    let verdict = done.ok().lines().last().unwrap();
    assert!(verdict.starts_with("ok Everything works: the gateway signs clients in at "), "{done:?}");
    assert!(verdict.ends_with("(5 checks passed)"), "{done:?}");
    let done = doctor(&[]);
    assert!(done.ok().contains("(4 checks passed, 1 unknown"), "{done:?}");

    // What a failed check says: the finding, and words of its line.
    let fails = |more: &[&str], finding: &str, words: &str| {
        let done = doctor(more);
        assert_eq!(done.status.code(), Some(6), "{done:?}");
        assert!(done.stdout.contains(&format!("--explain {finding}")), "{finding}: {done:?}");
        assert!(done.stdout.contains(words), "{words}: {done:?}");
        let verdict = done.stdout.lines().last().unwrap().to_owned();
        assert!(verdict.starts_with("FAIL ") && verdict.contains(finding), "{done:?}");
        let next = verdict.split_once("Next: ").unwrap().1.to_owned();
        if next != "pgentra whoami" {
            lab.shell(&next).done().ok();
        }
        done.stdout
    };
    let judged =
        fails(&["--token-file", &other, "--role", "app"], "gateway-token", "Service principal oid mismatch");
    for token in [&vm, &other] {
        let token = fs::read_to_string(token).unwrap();
        assert!(token.split('.').all(|part| !judged.contains(part)), "{judged}");
    }
    let unmapped = ["--token-file", &vm, "--role", "nobody_here"];
    fails(&unmapped, "gateway-token", "not mapped to a principal");
    let json = doctor(&[&unmapped[..], &["-o", "json", "--redact"]].concat());
    let report: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(report["finding"], "gateway-token");
    let checks: Vec<_> = report["checks"].as_array().unwrap().iter().map(|check| &check["outcome"]).collect();
    assert_eq!(checks, ["passed", "passed", "passed", "passed", "failed"]);
    for secret in [&*stage.tenant, "nobody_here", server.folder.to_str().unwrap(), "pgentra_gateway"] {
        assert!(!json.stdout.contains(secret), "{secret}: {}", json.stdout);
    }

    // The mapping is gone; the server refuses; it is down.
    server.sql("ALTER TABLE pgentra.mapping RENAME TO other");
    fails(&[], "gateway-mapping", "mapping.read");
    server.sql("ALTER TABLE pgentra.other RENAME TO mapping");
    server.sql("ALTER ROLE pgentra_gateway NOLOGIN");
    fails(&[], "gateway-sign-in", "cannot sign in at");
    server.sql("ALTER ROLE pgentra_gateway LOGIN");
    server.down();
    let down = fails(&[], "gateway-upstream-unreachable", "cannot be reached");
    let isready = down.split_once("pg_isready ").unwrap().1.lines().next().unwrap();
    let done = lab.shell(&format!("pg_isready {isready}")).done();
    assert_eq!(done.status.code(), Some(2), "{done:?}");
    server.up();
    lab.shell(&format!("pg_isready {isready}")).done().ok();

    // The issuer has no such keys; the command in the hint says the same.
    stage.write("gateway.toml", &text.replace("/discovery/v2.0/keys", "/nothing"));
    let keys = fails(&[], "gateway-keys", "issuer.keys");
    let curl = keys.split_once("curl ").unwrap().1.lines().next().unwrap();
    let done = lab.shell(&format!("curl {curl}")).done();
    assert_eq!(done.status.code(), Some(22), "{done:?}");
    stage.write("gateway.toml", &format!("{text}max_conections = 1\n"));
    fails(&[], "gateway-settings", "the nearest is max_connections");
    let done = doctor(&["--token-file", "none", "--role", "app"]);
    assert_eq!(done.status.code(), Some(2), "{done:?}");
    for file in [vm, other] {
        fs::remove_file(file).unwrap();
    }
}

//! A mapping in the database that cannot be read: what clients and the operator are told.

use std::fs;

use e2e::{Lab, have};
use eventually::{DEADLINE, eventually_blocking};
use rustix::process::Signal;

use crate::stage::Stage;

/// What is done to the server, what undoes it, and the words that name it.
const FAULTS: [(&str, &str, &str); 6] = [
    (
        "REVOKE SELECT ON pgentra.mapping FROM pgentra_gateway",
        "GRANT SELECT ON pgentra.mapping TO pgentra_gateway",
        "permission denied for view mapping",
    ),
    (
        "REVOKE USAGE ON SCHEMA pgentra FROM pgentra_gateway",
        "GRANT USAGE ON SCHEMA pgentra TO pgentra_gateway",
        "permission denied for schema pgentra",
    ),
    (
        "ALTER VIEW pgentra.mapping RENAME TO gone",
        "ALTER VIEW pgentra.gone RENAME TO mapping",
        "relation \"pgentra.mapping\" does not exist",
    ),
    (
        "ALTER VIEW pgentra.mapping RENAME COLUMN kind TO sort",
        "ALTER VIEW pgentra.mapping RENAME COLUMN sort TO kind",
        "column \"kind\" does not exist",
    ),
    (
        "ALTER VIEW pgentra.mapping RENAME TO right_one; \
         CREATE VIEW pgentra.mapping AS SELECT rolname, object_id, NULL::text AS kind, is_mfa, is_adopted FROM pgentra.right_one; \
         GRANT SELECT ON pgentra.mapping TO pgentra_gateway",
        "DROP VIEW pgentra.mapping; ALTER VIEW pgentra.right_one RENAME TO mapping",
        "the mapping in PostgreSQL is not as the gateway's preparation makes it",
    ),
    (
        "ALTER VIEW pgentra.mapping RENAME TO right_one; \
         CREATE VIEW pgentra.mapping AS SELECT rolname, object_id, kind, 'maybe'::text AS is_mfa, is_adopted FROM pgentra.right_one; \
         GRANT SELECT ON pgentra.mapping TO pgentra_gateway",
        "DROP VIEW pgentra.mapping; ALTER VIEW pgentra.right_one RENAME TO mapping",
        "invalid input syntax for type boolean: \"maybe\"",
    ),
];

#[test]
fn a_mapping_that_cannot_be_read_is_named() {
    if !have(&["postgresql", "psql", "jq", "curl"]) {
        return;
    }
    let lab = Lab::new();
    let stage = Stage::new(&lab);
    let vm = stage.token("vm");
    let (server, settings) = stage.scram_server(&format!("app={}:service", stage.object_id("vm")));
    server.sql("ALTER SYSTEM SET log_connections = on");
    server.sql("SELECT pg_reload_conf()");
    let logs = lab.path().join("logs");
    fs::create_dir(&logs).unwrap();
    let audit = logs.join("audit.jsonl");
    let gateway = stage.gateway(&format!("audit = '{}'\n{settings}", audit.display()));
    let file = lab.path().join("gateway.toml").display().to_string();
    let health = gateway.await_line("health on ").rsplit_once("http://").unwrap().1.to_owned();
    let ready = || lab.program(&["curl", "-s", &format!("http://{health}readiness")]).done().stdout;
    let sign_in = || stage.sign_in(&gateway, "app", &vm, "SELECT current_user");
    let sessions = || {
        let log = fs::read_to_string(server.folder.join("log")).unwrap();
        log.lines().filter(|line| line.contains("connection authorized: user=app ")).count()
    };
    let last_refusal = || -> serde_json::Value {
        let said = fs::read_to_string(&audit).unwrap();
        let line = said.lines().rfind(|line| line.contains("\"refused\"")).unwrap();
        serde_json::from_str(line).unwrap()
    };
    let doctor = || lab.pgentra(&["doctor", "--gateway", "--config", &file]).env("LC_ALL", "C").done();
    assert_eq!(sign_in().ok().trim(), "app");

    for (fault, repair, words) in FAULTS {
        let before = sessions();
        server.sql(fault);
        let done = sign_in();
        let told = "the gateway cannot read which principals may use which roles";
        assert!(done.stderr.contains(told), "{fault}: {}", done.stderr);
        assert!(done.stderr.contains("pgentra doctor --gateway"), "{fault}: {}", done.stderr);
        assert!(!done.stderr.contains(words), "{fault}: the client is told of the server: {}", done.stderr);
        let refusal = last_refusal();
        assert_eq!(refusal["sqlstate"], "F0000", "{fault}: {refusal}");
        assert_eq!(refusal["role"], "app", "{fault}: {refusal}");
        // A text in a line of the log has its quotes escaped.
        let line = gateway.await_line(&words.replace('"', "\\\""));
        assert!(line.contains("the mapping of roles cannot be read"), "{fault}: {line}");
        assert!(ready().contains("the mapping of roles cannot be read"), "{fault}: {}", ready());
        let done = doctor();
        assert_eq!(done.status.code(), Some(6), "{fault}: {done:?}");
        assert!(done.stdout.contains("--explain gateway-mapping"), "{fault}: {done:?}");
        assert!(done.stdout.contains(words), "{fault}: {done:?}");
        assert_eq!(sessions(), before, "{fault}: a session was opened");
        server.sql(repair);
        assert_eq!(sign_in().ok().trim(), "app", "{repair}");
        assert!(doctor().status.success(), "{repair}");
    }

    // The server does not let the gateway in, and then it is down.
    server.sql("ALTER ROLE pgentra_gateway NOLOGIN");
    server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'pgentra_gateway'");
    let before = sessions();
    let done = sign_in();
    assert!(done.stderr.contains("the gateway cannot read which principals"), "{}", done.stderr);
    assert_eq!(last_refusal()["sqlstate"], "F0000");
    server.sql("ALTER ROLE pgentra_gateway LOGIN");
    assert_eq!(sessions(), before);
    server.down();
    let done = sign_in();
    assert!(done.stderr.contains("the gateway cannot reach its PostgreSQL server"), "{}", done.stderr);
    assert_eq!(last_refusal()["sqlstate"], "57P03");
    let done = doctor();
    assert!(done.stdout.contains("--explain gateway-upstream-unreachable"), "{done:?}");
    server.up();
    assert_eq!(sign_in().ok().trim(), "app");
    eventually_blocking(DEADLINE, "the gateway is ready", || {
        let said = ready();
        if said.starts_with("ready") { Ok(()) } else { Err(said) }
    });
    gateway.signal(Signal::TERM);
}

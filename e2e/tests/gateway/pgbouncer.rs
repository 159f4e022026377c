//! PgBouncer behind a gateway.

use std::fs;

use e2e::{Lab, have};
use rustix::process::Signal;

use crate::stage::{Stage, free_port};

/// PgBouncer as the page configures it: sign-ins of mapped roles share a server connection.
#[test]
fn pgbouncer_pools_the_sessions_of_a_gateway() {
    const PAGE: &str = include_str!("../../../docs/gateway-configure.md");
    if !have(&["postgresql", "psql", "jq", "pgbouncer"]) {
        return;
    }
    let lab = Lab::new();
    let stage = Stage::new(&lab);
    let (server, settings) = stage.scram_server(&format!("dba={}", stage.object_id("admin")));
    server.sql("CREATE DATABASE app");
    server.sql("CREATE ROLE pgbouncer LOGIN PASSWORD 'of the pool'");

    let block = |kind: &str| {
        let (_, rest) = PAGE.split_once(&format!("```{kind}\n")).unwrap();
        rest.split_once("```").unwrap().0.to_owned()
    };
    for database in ["postgres", "app"] {
        let conninfo = format!("{} dbname={database}", server.conninfo());
        lab.program(&["psql", &conninfo, "-v", "ON_ERROR_STOP=1"]).input(&block("sql")).done().ok();
    }
    let (folder, port) = (server.folder.display().to_string(), free_port().to_string());
    let ini = block("ini")
        .replace("/var/run/postgresql port=5432", &format!("{folder} port={}", server.port))
        .replace("6433", &port)
        .replace("/var/run/pgbouncer", &folder)
        .replace("/etc/pgbouncer/userlist.txt", &format!("{folder}/data/userlist.txt"));
    let files = format!("logfile = {folder}/pgbouncer.log\npidfile = {folder}/pgbouncer.pid\n");
    server.write("pgbouncer.ini", &(ini + &files), 0o600);
    server.write("userlist.txt", "\"pgbouncer\" \"of the pool\"\n", 0o600);
    let pgbouncer = ["/usr/sbin/pgbouncer", "-q", "-d", "data/pgbouncer.ini"];
    server.run_program(&pgbouncer);
    let pool = Pool(folder.clone());

    let settings = settings.replace(&format!(":{}'", server.port), &format!(":{port}'"));
    let gateway = stage.gateway(&settings);
    let (vm, other, dba) = (stage.token("vm"), stage.another_token(), stage.token("admin"));
    let vm_id = stage.object_id("vm");
    let create =
        format!("SELECT pgaadauth_create_principal_with_oid('app', '{vm_id}', 'service', false, false)");
    stage.sign_in(&gateway, "dba", &dba, &create).ok();
    let who = "SELECT current_user, pg_backend_pid(), current_database()";
    let ask = |token: &str| stage.connect(&gateway, "user=app dbname=app", token, who);
    let first = ask(&vm);
    assert!(first.ok().starts_with("app|") && first.ok().trim().ends_with("|app"), "{first:?}");
    assert_eq!(ask(&vm).ok(), first.ok(), "another server connection");
    let refused = ask(&other);
    assert!(refused.stderr.contains("Service principal oid mismatch"), "{}", refused.stderr);
    // Statements of one transaction, and a role of another password.
    let done = stage.connect(&gateway, "user=app dbname=app", &vm, "BEGIN; SELECT 1; COMMIT");
    assert!(done.ok().contains('1'), "{done:?}");
    drop(pool);
}

/// A PgBouncer that runs in a folder.
struct Pool(String);

impl Drop for Pool {
    fn drop(&mut self) {
        let Ok(pid) = fs::read_to_string(format!("{}/pgbouncer.pid", self.0)) else { return };
        let pid = pid.trim().parse().ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, Signal::INT);
        }
    }
}

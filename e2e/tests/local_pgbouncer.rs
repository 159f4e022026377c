//! The built-in PgBouncer of the local cloud, at port 6432 of Azure's name.

use std::collections::BTreeMap;
use std::path::Path;

use e2e::{Cloud, Done, Flavour, Lab, User, have};
use eventually::{DEADLINE, eventually_blocking, holds};
use rustix::process::{Signal, kill_process};
use serde_json::Value;

/// A local cloud, seen by programs that connect to its PgBouncer.
struct Pooled<'lab> {
    lab: &'lab Lab,
    cloud: Cloud<'lab>,
}

impl<'lab> Pooled<'lab> {
    fn new(lab: &'lab Lab, arguments: &[&str]) -> Self {
        Self { lab, cloud: lab.cloud(Flavour::Flexible, arguments) }
    }

    /// The variables of a program on this host, with a token as the password, and the port of PgBouncer.
    fn variables(&self, host: &str) -> BTreeMap<String, String> {
        let mut variables = self.cloud.env(host);
        let token = self.lab.pgentra(&["token"]).envs(variables.clone()).token();
        variables.insert("PGPASSWORD".to_owned(), token);
        variables.insert("PGPORT".to_owned(), self.cloud.text("/server/pgbouncer_port"));
        variables
    }

    fn psql(&self, host: &str, script: &str) -> Done<'lab> {
        self.lab.shell(&format!("psql -X {script}")).envs(self.variables(host)).done()
    }

    /// Sets a server parameter through Resource Manager, and waits until it has the value.
    fn set(&self, parameter: &str, value: &str) {
        let configurations = "configurations() {
            curl -sS --cacert \"$PGENTRA_MANAGEMENT_CA\" -H \"Authorization: Bearer $(pgentra token --resource https://management.azure.com)\" -H 'Content-Type: application/json' \"$@\" \\
                \"${PGENTRA_MANAGEMENT_ENDPOINT%/}/subscriptions/$AZURE_SUBSCRIPTION_ID/resourceGroups/myResourceGroup/providers/Microsoft.DBforPostgreSQL/flexibleServers/mydemoserver/configurations/$parameter?api-version=2025-08-01\"
        }\n";
        let variables = || {
            let mut variables = self.cloud.env("client-secret");
            variables.insert("parameter".to_owned(), parameter.to_owned());
            variables
        };
        let body = format!(r#"{{"properties":{{"value":"{value}","source":"user-override"}}}}"#);
        let put = format!("{configurations} configurations -f -X PUT -d '{body}'");
        eventually_blocking(DEADLINE, "the server takes the change", || {
            let done = self.lab.shell(&put).envs(variables()).done();
            if done.status.success() { Ok(()) } else { Err(done.stderr) }
        });
        eventually_blocking(DEADLINE, "the parameter has its value", || {
            let shown: Value =
                self.lab.shell(&format!("{configurations} configurations")).envs(variables()).done().json();
            holds(shown["properties"]["value"].clone(), |shown| shown == value)
        });
    }
}

#[test]
fn a_saved_state_has_the_parameters() {
    if !have(&["pgbouncer", "psql", "curl"]) {
        return;
    }
    let lab = Lab::new();
    let file = lab.path().join("my.pgentra");
    let options = ["--state", file.to_str().unwrap()];
    let pooled = Pooled::new(&lab, &options);
    for (parameter, value) in
        [("pgbouncer.pool_mode", "session"), ("pgbouncer.stats_users", "myVm"), ("pgbouncer.enabled", "true")]
    {
        pooled.set(parameter, value);
    }
    kill_process(pooled.cloud.pid(), Signal::TERM).unwrap();
    assert!(pooled.cloud.ended().success());
    let pooled = Pooled::new(&lab, &options);
    assert_eq!(pooled.psql("vm", "-Atc 'SELECT current_user'").ok(), "myVm\n");
    let shown = pooled.psql("vm", "-d pgbouncer -Atc 'SHOW POOLS'");
    let is_ours = |pool: &str| pool.starts_with("postgres|myVm|") && pool.ends_with("|session");
    assert!(shown.ok().lines().any(is_ours), "{shown:?}");
}

#[test]
fn a_parameter_switches_pgbouncer_on_and_its_console_shows_the_pools() {
    if !have(&["pgbouncer", "psql", "curl"]) {
        return;
    }
    let lab = Lab::new();
    let pooled = Pooled::new(&lab, &[]);
    // As on Azure it is off, and nothing listens.
    let refused = pooled.psql("vm", "-c 'SELECT 1'");
    assert!(refused.stderr.contains("Connection refused"), "{refused:?}");

    pooled.set("pgbouncer.enabled", "true");
    assert_eq!(pooled.psql("vm", "-Atc 'SELECT current_user'").ok(), "myVm\n");
    let refused = pooled.psql("vm", "-d pgbouncer -c 'SHOW POOLS'");
    assert!(refused.stderr.contains("FATAL:  not allowed"), "{refused:?}");

    pooled.set("pgbouncer.stats_users", "myVm,reporter");
    let pools = "-d pgbouncer -Atc 'SHOW POOLS'";
    let shown = pooled.psql("vm", pools);
    assert!(shown.ok().contains("postgres|myVm|") && shown.ok().contains("|transaction"), "{shown:?}");
    let refused = pooled.psql("user-assigned", pools);
    assert!(refused.stderr.contains("not allowed"), "{refused:?}");
    // The console is for reading, as stats_users have it.
    let refused = pooled.psql("vm", "-d pgbouncer -c 'SHUTDOWN'");
    assert!(refused.stderr.contains("admin access needed"), "{refused:?}");

    // A role with a password has its own way in, also to the console.
    pooled.psql("admin", r#"-c "CREATE ROLE reporter LOGIN PASSWORD 'of its own'""#).ok();
    let mut reporter = pooled.variables("vm");
    reporter.extend(
        [("PGUSER", "reporter"), ("PGPASSWORD", "of its own")]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    let as_reporter = |script: &str| lab.shell(&format!("psql -X {script}")).envs(reporter.clone()).done();
    assert_eq!(as_reporter("-Atc 'SELECT current_user'").ok(), "reporter\n");
    assert!(as_reporter("-d pgbouncer -c 'SHOW VERSION'").ok().contains("PgBouncer"));
    pooled.psql("admin", "-c 'ALTER ROLE reporter NOLOGIN'").ok();
    let refused = as_reporter("-d pgbouncer -c 'SHOW VERSION'");
    assert!(refused.stderr.contains("not permitted to log in"), "{refused:?}");
    pooled.psql("admin", "-c 'ALTER ROLE reporter LOGIN'").ok();
    reporter.insert("PGPASSWORD".to_owned(), "another".to_owned());
    for database in ["postgres", "pgbouncer"] {
        let refused =
            lab.shell("psql -X -c 'SELECT 1'").envs(reporter.clone()).env("PGDATABASE", database).done();
        assert!(refused.stderr.contains("authentication failed"), "{database}: {refused:?}");
    }

    // The console is for roles that may log in.
    for change in ["NOLOGIN", "VALID UNTIL $$2000-01-01$$"] {
        pooled.psql("admin", &format!("-c 'ALTER ROLE \"myVm\" {change}'")).ok();
        let refused = pooled.psql("vm", pools);
        assert!(!refused.status.success(), "{change}: {refused:?}");
        let again = "ALTER ROLE \"myVm\" LOGIN VALID UNTIL $$infinity$$";
        pooled.psql("admin", &format!("-c '{again}'")).ok();
    }
    pooled.psql("vm", pools).ok();

    // Another pool mode is in force at once, and SET then lasts.
    pooled.set("pgbouncer.pool_mode", "session");
    eventually_blocking(DEADLINE, "the pool is one of sessions", || {
        let shown = pooled.psql("vm", pools).stdout;
        holds(shown, |shown| {
            shown.lines().any(|pool| pool.starts_with("postgres|myVm|") && pool.ends_with("|session"))
        })
    });
    pooled.set("pgbouncer.enabled", "false");
    let refused = pooled.psql("vm", "-c 'SELECT 1'");
    assert!(refused.stderr.contains("Connection refused"), "{refused:?}");
    pooled.set("pgbouncer.enabled", "true");
    assert_eq!(pooled.psql("vm", "-Atc 'SELECT current_user'").ok(), "myVm\n");

    // One that has ended by itself is started again.
    let [process] = lab.processes("/pgbouncer.ini")[..] else { panic!("one PgBouncer runs") };
    kill_process(process, Signal::KILL).unwrap();
    assert!(!pooled.psql("vm", "-c 'SELECT 1'").status.success());
    pooled.set("pgbouncer.enabled", "true");
    eventually_blocking(DEADLINE, "PgBouncer runs again", || {
        let done = pooled.psql("vm", "-Atc 'SELECT current_user'");
        if done.stdout == "myVm\n" { Ok(()) } else { Err(done.stderr) }
    });
}

#[test]
fn many_clients_share_few_server_connections() {
    if !have(&["pgbouncer", "psql", "curl"]) {
        return;
    }
    let lab = Lab::new();
    let pooled = Pooled::new(&lab, &["--pgbouncer"]);
    pooled.set("pgbouncer.default_pool_size", "3");
    pooled.set("pgbouncer.stats_users", "myVm");
    let script = lab.path().join("transactions.sql");
    std::fs::write(&script, "BEGIN;\nSELECT pg_backend_pid();\nSELECT 1;\nEND;\n").unwrap();
    let pgbench = format!("pgbench -n -c 30 -j 2 -t 20 -f {}", script.display());
    let done = lab.shell(&pgbench).envs(pooled.variables("vm")).done();
    assert!(done.ok().contains("600/600"), "{done:?}");
    let opened = pooled.psql("vm", "-Atc \"SELECT count(*) FROM pg_stat_activity WHERE usename = 'myVm'\"");
    assert!((1..=3).contains(&opened.ok().trim().parse().unwrap()), "{opened:?}");

    // What PgBouncer refuses, it refuses in its own words.
    let options =
        lab.shell("psql -X -c 'SELECT 1'").envs(pooled.variables("vm")).env("PGOPTIONS", "-c work_mem=1MB");
    let refused = options.done();
    assert!(refused.stderr.contains("unsupported startup parameter: options"), "{refused:?}");
    pooled.set("pgbouncer.ignore_startup_parameters", "options");
    eventually_blocking(DEADLINE, "the parameter is ignored", || {
        let variables = pooled.variables("vm");
        let done =
            lab.shell("psql -X -c 'SELECT 1'").envs(variables).env("PGOPTIONS", "-c work_mem=1MB").done();
        if done.status.success() { Ok(()) } else { Err(done.stderr) }
    });
    for (change, words) in [
        (("PGDATABASE", "nowhere"), "database \"nowhere\" does not exist"),
        (("PGPASSWORD", "not.a.token"), "The access token has invalid format"),
        (("PGUSER", "myIdentity"), "does not match"),
        (("PGUSER", "no-one"), "no such user"),
        (("PGSSLMODE", "disable"), "no encryption"),
    ] {
        let variables = pooled.variables("vm");
        let refused = lab.shell("psql -X -c 'SELECT 1'").envs(variables).env(change.0, change.1).done();
        assert!(!refused.status.success() && refused.stderr.contains(words), "{change:?}: {refused:?}");
    }
}

#[test]
fn an_old_session_of_pgbouncer_goes_on_and_an_old_token_opens_none() {
    if !have(&["pgbouncer", "psql"]) {
        return;
    }
    let lab = Lab::new();
    let pooled = Pooled::new(&lab, &["--pgbouncer"]);
    let variables = pooled.variables("vm");
    let mut session = lab.converse(&["psql", "-X", "-At"], variables.clone());
    let mut answer = || {
        session.say("SELECT current_user;");
        session.answer()
    };
    assert_eq!(answer(), "myVm");
    let name = pooled.cloud.text("/name");
    lab.pgentra(&["local", "clock", "--name", &name, "--advance", "25h"]).done().ok();
    assert_eq!(answer(), "myVm");
    let refused = lab.shell("psql -X -c 'SELECT 1'").envs(variables).done();
    assert!(refused.stderr.contains("The access token has expired"), "{refused:?}");
    assert_eq!(pooled.psql("vm", "-Atc 'SELECT current_user'").ok(), "myVm\n");
    assert!(session.end().success());
}

/// As an ordinary user, to whom PgBouncer then belongs.
#[test]
fn a_program_finds_it_at_port_6432_of_azures_name() {
    if !have(&["pgbouncer", "psql", "curl", "jq", "setpriv"]) {
        return;
    }
    let lab = Lab::of(User::Ordinary);
    let cloud = lab.cloud(Flavour::Flexible, &["--pgbouncer"]);
    let script = "export PGPASSWORD=$(curl -sS 'http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fossrdbms-aad.database.windows.net' -H Metadata:true | jq -r .access_token)
        for port in 5432 6432; do
            psql -X \"host=mydemoserver.postgres.database.azure.com port=$port dbname=postgres user=myVm sslmode=verify-full sslrootcert=/etc/ssl/certs/ca-certificates.crt\" -Atc 'SELECT current_user'
        done";
    let name = cloud.text("/name");
    let words = ["local", "run", "--name", &name, "--", "bash", "-euc", script];
    assert_eq!(lab.pgentra(&words).done().ok(), "myVm\nmyVm\n");

    // Killed, the local cloud leaves nothing: the end of the lab looks for processes and folders.
    assert_eq!(lab.processes("pgbouncer.ini").len(), 1);
    kill_process(cloud.pid(), Signal::KILL).unwrap();
    cloud.ended();
    lab.await_processes();
}

#[test]
fn single_server_has_none() {
    let lab = Lab::new();
    for option in ["--pgbouncer", "--pgbouncer-port=6432"] {
        let done = lab.pgentra(&["local", "up", "--flavour", "single", option]).done();
        assert_eq!(done.fault(2, &["Single Server has no built-in PgBouncer", "--flavour flexible"]), None);
    }
}

#[test]
fn without_the_program_its_package_is_named() {
    if !have(&["pgbouncer", "mounts", "root"]) || !Path::new(PROGRAM).is_file() {
        return;
    }
    let lab = Lab::behind(&["unshare", "--mount", "sh", "-ec", HIDDEN, PROGRAM]);
    let done = lab.pgentra(&["local", "up", "--pgbouncer"]).done();
    let words = ["cannot switch PgBouncer on: there is no program pgbouncer", "apt-get install pgbouncer"];
    assert_eq!(done.fault(2, &words), None);

    // A state in which it is on begins a cloud all the same.
    let other = Lab::new();
    let file = other.path().join("my.pgentra");
    let options = ["--state", file.to_str().unwrap()];
    let cloud = other.cloud(Flavour::Flexible, &[&options[..], &["--pgbouncer"]].concat());
    kill_process(cloud.pid(), Signal::TERM).unwrap();
    assert!(cloud.ended().success());
    let cloud = lab.cloud(Flavour::Flexible, &options);
    assert!(cloud.logged().contains("PgBouncer is off in this run"), "{}", cloud.logged());
}

const PROGRAM: &str = "/usr/sbin/pgbouncer";
/// What is no file is no program.
const HIDDEN: &str = "mount --bind /dev/null \"$0\"; exec \"$@\"";

//! A pooled session goes only to a client that could sign in now, and equals a new session.
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::collections::BTreeMap;

use e2e::{Cloud, Flavour, Lab, Proxy, have};
use eventually::{DEADLINE, eventually_blocking};

/// A change by the administrator while a session is pooled. `{r}` is a role and a database,
/// separate for each case; `{map}` creates the role.
struct Case {
    change: &'static str,
    ask: &'static str,
    /// What the next client gets, on its output or in the error.
    reads: &'static str,
}

const fn case(change: &'static str, ask: &'static str, reads: &'static str) -> Case {
    Case { change, ask, reads }
}

const WHO: &str = "SELECT session_user";

const FLEXIBLE: &[Case] = &[
    case("ALTER ROLE {r} NOLOGIN;", WHO, "FATAL:  role \"{r}\" is not permitted to log in"),
    case("ALTER ROLE {r} CONNECTION LIMIT 0;", WHO, "FATAL:  too many connections for role \"{r}\""),
    case("SELECT pgaadauth_drop_principal_if_exists('{r}');", WHO, "FATAL:  role \"{r}\" is not mapped"),
    case(
        "SELECT pgaadauth_drop_principal_if_exists('{r}');\n{map}",
        "CREATE TEMP TABLE t (); SELECT current_user",
        "{r}",
    ),
    case("ALTER ROLE {r} SET work_mem = '33MB';", "SHOW work_mem", "33MB"),
    case(
        "ALTER DATABASE {r} SET default_transaction_isolation = 'serializable';",
        "SHOW transaction_isolation",
        "serializable",
    ),
    // Which no report names.
    case(
        "SELECT pgaadauth_update_principal_with_oid('{r}', '00000000-0000-0000-0000-000000000001', 'service', false, false);",
        WHO,
        "FATAL:",
    ),
    case("ALTER ROLE {r} RENAME TO {r}_old;", WHO, "FATAL:  role \"{r}\" is not mapped"),
    case(
        "REVOKE CONNECT ON DATABASE {r} FROM PUBLIC;",
        WHO,
        "FATAL:  permission denied for database \"{r}\"",
    ),
    case(
        "ALTER DATABASE {r} ALLOW_CONNECTIONS false;",
        WHO,
        "FATAL:  database \"{r}\" is not currently accepting connections",
    ),
    case("ALTER DATABASE {r} CONNECTION LIMIT 0;", WHO, "FATAL:  too many connections for database \"{r}\""),
    case("ALTER ROLE {r} IN DATABASE {r} SET work_mem = '34MB';", "SHOW work_mem", "34MB"),
    case("ALTER ROLE ALL IN DATABASE {r} SET work_mem = '35MB';", "SHOW work_mem", "35MB"),
    case("DROP DATABASE {r} WITH (FORCE);", WHO, "FATAL:  database \"{r}\" does not exist"),
];

const SINGLE: &[Case] = &[
    case("ALTER ROLE {r} NOLOGIN;", WHO, "FATAL:  role \"{r}\" is not permitted to log in"),
    case("REVOKE azure_ad_user FROM {r};", WHO, "FATAL:"),
    case("DROP ROLE {r};\n{map}", "CREATE TEMP TABLE t (); SELECT current_user", "{r}"),
    case("ALTER ROLE {r} SET work_mem = '33MB';", "SHOW work_mem", "33MB"),
];

/// A local cloud, and a proxy to it whose metrics are read.
struct Stage<'lab> {
    lab: &'lab Lab,
    cloud: &'lab Cloud<'lab>,
    flavour: Flavour,
    proxy: Proxy<'lab>,
    admin: String,
    administrator: BTreeMap<String, String>,
}

impl<'lab> Stage<'lab> {
    fn new(lab: &'lab Lab, cloud: &'lab Cloud<'lab>, flavour: Flavour, keeps: &[&str]) -> Self {
        let arguments = [&["--listen=0", "--admin-listen=0"], keeps].concat();
        // Clients name roles and databases.
        let variables = cloud.env("vm").into_iter();
        let variables = variables.filter(|(name, _)| !["PGUSER", "PGDATABASE"].contains(&name.as_str()));
        let proxy = lab.proxy(variables, &arguments, 1);
        let line = proxy.await_line("admin on ");
        let admin = line.split("admin on ").nth(1).unwrap().trim_end_matches('/').to_owned();
        Self { lab, cloud, flavour, proxy, admin, administrator: cloud.env("admin") }
    }

    fn fill(&self, text: &str, name: &str) -> String {
        let vm = self.cloud.identity("system-assigned");
        let id = |what: &str| vm[what].as_str().unwrap().to_owned();
        let map = match self.flavour {
            Flavour::Flexible => format!(
                "SELECT pgaadauth_create_principal_with_oid('{{r}}', '{}', 'service', false, false);",
                id("object_id")
            ),
            Flavour::Single => format!(
                "SET aad_validate_oids_in_tenant = off;\nCREATE ROLE {{r}} LOGIN PASSWORD '{}' IN ROLE azure_ad_user;",
                id("client_id")
            ),
        };
        text.replace("{map}", &map).replace("{r}", name)
    }

    fn administer(&self, sql: &str) {
        let words = ["psql", "-X", "-v", "ON_ERROR_STOP=1"];
        let done = self.lab.pgentra(&[&words[..1], &["--"], &words[1..]].concat());
        done.envs(self.administrator.clone()).input(sql).done().ok();
    }

    /// What a client gets, on its output or in the error.
    fn read(&self, name: &str, sql: &str) -> String {
        let conninfo = format!("host=127.0.0.1 port={} user={name} dbname={name}", self.proxy.port());
        let done = self.lab.program(&["psql", "-XAtq", "-c", sql, &conninfo]).done();
        match done.stderr.find("FATAL:") {
            Some(at) => done.stderr[at..].to_owned(),
            None => done.ok().to_owned(),
        }
    }

    /// The value of the metric whose line contains these words.
    fn metric(&self, words: &str) -> String {
        let url = format!("{}/metrics", self.admin);
        let text = self.lab.program(&["curl", "-sS", "--fail-with-body", &url]).done().ok().to_owned();
        let line =
            text.lines().find(|line| line.contains(words) && !line.starts_with('#')).unwrap_or_default();
        line.rsplit(' ').next().unwrap_or_default().trim_end_matches(".0").to_owned()
    }

    fn await_kept(&self, number: usize) {
        eventually_blocking(DEADLINE, "a session that waits", || {
            self.metric("pgentra_proxy_sessions_ready{") == number.to_string()
        });
    }

    fn close(&self, database: &str) -> String {
        let url = format!("{}/pool/close?database={database}", self.admin);
        self.lab.program(&["curl", "-sS", "-X", "POST", &url]).done().ok().to_owned()
    }
}

fn play(flavour: Flavour, cases: &[Case]) {
    if !have(&["psql", "curl"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(flavour, &[]);
    let plain = Stage::new(&lab, &cloud, flavour, &[]);
    for (kind, keeps) in [("reuse", "--reuse"), ("warm", "--warm=1")] {
        let keeping = Stage::new(&lab, &cloud, flavour, &[keeps]);
        for (number, case) in cases.iter().enumerate() {
            let name = format!("{kind}_{number}");
            keeping.administer(&keeping.fill("{map}\nCREATE DATABASE {r};", &name));
            assert_eq!(keeping.read(&name, WHO), format!("{name}\n"));
            keeping.await_kept(1);
            keeping.administer(&keeping.fill(case.change, &name));
            let (ask, reads) = (keeping.fill(case.ask, &name), keeping.fill(case.reads, &name));
            let read = keeping.read(&name, &ask);
            assert!(read.starts_with(&reads), "{kind}, {}: {read:?} instead of {reads:?}", case.change);
            assert_eq!(plain.read(&name, &ask), read, "as without kept sessions");
            keeping.close(&name);
            keeping.await_kept(0);
        }
        assert_eq!(keeping.metric("result=\"hit\""), "0", "no client was given one");
    }
}

#[test]
fn what_the_administrator_of_a_flexible_server_changes_holds_for_the_next_client() {
    play(Flavour::Flexible, FLEXIBLE);
}

#[test]
fn what_the_administrator_of_a_single_server_changes_holds_for_the_next_client() {
    play(Flavour::Single, SINGLE);
}

#[test]
fn a_database_can_be_dropped_renamed_and_copied() {
    if !have(&["psql", "curl"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    for keeps in ["--reuse", "--warm=2"] {
        let stage = Stage::new(&lab, &cloud, Flavour::Flexible, &[keeps]);
        let number = if keeps == "--reuse" { 1 } else { 2 };
        stage.administer(&stage.fill("{map}\nCREATE DATABASE {r};", "migrated"));
        for change in [
            "CREATE DATABASE copy TEMPLATE migrated; DROP DATABASE copy;",
            "ALTER DATABASE migrated RENAME TO moved; ALTER DATABASE moved RENAME TO migrated;",
            "DROP DATABASE migrated; SELECT pgaadauth_drop_principal_if_exists('migrated');",
        ] {
            assert_eq!(stage.read("migrated", WHO), "migrated\n");
            stage.await_kept(number);
            assert_eq!(stage.close("another"), "closed 0\n");
            assert_eq!(stage.close("migrated"), format!("closed {number}\n"));
            stage.administer(change);
        }
    }
}

#[test]
fn a_reused_session_has_no_temporary_schema() {
    if !have(&["psql", "curl"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let stage = Stage::new(&lab, &cloud, Flavour::Flexible, &["--reuse"]);
    stage.administer(&stage.fill("{map}\nCREATE DATABASE {r};", "temporary"));
    for made in [
        "CREATE TEMP TABLE q (a int)",
        "CREATE TEMP SEQUENCE q",
        "SET search_path = pg_temp; CREATE TABLE q ()",
    ] {
        stage.read("temporary", made);
        assert_eq!(stage.read("temporary", "SELECT pg_my_temp_schema()"), "0\n", "after {made}");
    }
    // Without a temporary schema the session is used again.
    let pid = stage.read("temporary", "SELECT pg_backend_pid()");
    stage.await_kept(1);
    assert_eq!(stage.read("temporary", "SELECT pg_backend_pid()"), pid);
}

//! The state of a proxy's targets is that of the last event: on the status page, in `/readiness`,
//! in metrics and for systemd.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failing helper fails its test")]

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use e2e::{Cloud, Done, Flavour, Lab, Proxy, have};
use eventually::{DEADLINE, eventually_blocking};
use serde_json::Value;

/// A proxy with its admin listener.
struct Shown<'lab> {
    lab: &'lab Lab,
    proxy: Proxy<'lab>,
    admin: String,
}

impl<'lab> Shown<'lab> {
    fn new(lab: &'lab Lab, cloud: &Cloud<'_>, targets: &[&str]) -> Self {
        let arguments = [&["--admin-listen=0", "--listen=127.0.0.1:0"], targets].concat();
        let proxy = lab.proxy(cloud.env("vm"), &arguments, targets.len());
        let line = proxy.await_line("admin on ");
        let admin = line.split("admin on ").nth(1).unwrap().trim_end_matches('/').to_owned();
        Self { lab, proxy, admin }
    }

    fn get(&self, path: &str) -> String {
        let url = format!("{}{path}", self.admin);
        self.lab.program(&["curl", "-sS", &url]).done().ok().to_owned()
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.get("/status.json")).unwrap()
    }

    /// The status code and the body of `/readiness`.
    fn readiness(&self) -> (String, String) {
        let url = format!("{}/readiness", self.admin);
        let done = self.lab.program(&["curl", "-sS", "-w", "%{http_code}", &url]).done();
        let (body, code) = done.ok().rsplit_once('\n').unwrap();
        (code.to_owned(), body.to_owned())
    }

    /// The status of a target.
    fn target(&self, name: &str) -> Value {
        let status = self.status();
        let targets = status["targets"].as_array().unwrap();
        targets.iter().find(|target| target["name"] == name).unwrap_or_else(|| panic!("{status:#}")).clone()
    }

    fn state(&self, name: &str) -> String {
        self.target(name)["state"].as_str().unwrap().to_owned()
    }

    /// A client of the target with this number.
    fn client(&self, number: usize, role: &str, database: &str) -> Done<'lab> {
        let address = &self.proxy.listeners()[number];
        let port = address.rsplit(':').next().unwrap();
        let conninfo = format!("host=127.0.0.1 port={port} user={role} dbname={database} sslmode=disable");
        self.lab.program(&["psql", "-Atc", "SELECT 1", &conninfo]).done()
    }
}

#[test]
fn serving_idle_and_failing_are_told_apart() {
    if !have(&["curl", "psql"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let shown = Shown::new(
        &lab,
        &cloud,
        &[
            "name=spare user=myVm dbname=postgres",
            "name=unresolved host=nowhere.invalid user=myVm dbname=postgres",
            "name=another user=myIdentity dbname=postgres",
            "name=untrusted sslrootcert=system user=myVm dbname=postgres",
            "name=tokenless token_command=false user=myVm dbname=postgres",
            "name=busy user=myVm dbname=postgres",
        ],
    );
    for (number, role) in [(1, "myVm"), (1, "myVm"), (2, "myIdentity"), (3, "myVm"), (4, "myVm")] {
        assert!(!shown.client(number, role, "postgres").status.success());
    }
    let port = shown.proxy.listeners()[5].rsplit(':').next().unwrap().to_owned();
    let busy = format!("host=127.0.0.1 port={port} user=myVm dbname=postgres sslmode=disable");
    // A session that lasts until its client gets the end of its input.
    let mut session = std::process::Command::new("psql")
        .args(["-At", &busy])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually_blocking(DEADLINE, "a session is open", || shown.state("busy") == "serving");

    let status = shown.status();
    let states: Vec<_> =
        status["targets"].as_array().unwrap().iter().map(|one| one["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["failing", "failing", "failing", "failing", "serving", "idle"], "{status:#}");
    assert_eq!(status["summary"].to_string(), r#"{"failing":4,"idle":1,"serving":1}"#);
    for (name, cause, sqlstate, failures) in [
        ("unresolved", "the server's name cannot be resolved", "08001", 2),
        ("another", "the role is mapped to another identity", "28000", 1),
        ("untrusted", "no verified TLS", "08001", 1),
        ("tokenless", "no token: ", "28000", 1),
    ] {
        let target = shown.target(name);
        assert!(target["cause"].as_str().unwrap().starts_with(cause), "{target:#}");
        let last = &target["last_sign_in"];
        assert_eq!(
            (&last["ok"], &last["sqlstate"], &last["failures"]),
            (&false.into(), &sqlstate.into(), &failures.into())
        );
        for time in ["time", "failing_since"] {
            assert!(last[time].as_str().unwrap().ends_with('Z'), "{last:#}");
        }
        assert!(!last["message"].as_str().unwrap().is_empty(), "{last:#}");
    }
    assert_eq!(shown.target("busy")["last_sign_in"]["ok"], true);
    assert_eq!(shown.target("spare")["last_sign_in"], Value::Null);
    // Five targets sign in with one identity, and one with none.
    assert_eq!(status["identities"].as_array().unwrap().len(), 2, "{status:#}");

    // One target that can serve is enough for readiness; the others are named.
    let (code, body) = shown.readiness();
    assert_eq!((&*code, body.lines().next()), ("200", Some("ready")), "{body}");
    assert_eq!(body.lines().nth(1), Some("6 targets: 1 serving, 1 idle, 4 failing"));
    assert_eq!(body.lines().filter(|line| line.starts_with("failing: ")).count(), 4, "{body}");
    assert!(
        body.contains("failing: unresolved: the server's name cannot be resolved (SQLSTATE 08001, since "),
        "{body}"
    );
    let metrics = shown.get("/metrics");
    for (name, value) in [("unresolved", 1), ("tokenless", 1), ("busy", 0), ("spare", 0)] {
        let series = format!("pgentra_proxy_failing{{target=\"{name}\"}} {value}");
        assert!(metrics.lines().any(|line| line.trim_end_matches(".0") == series), "no {series}");
    }

    drop(session.stdin.take());
    session.wait().unwrap();
    eventually_blocking(DEADLINE, "the session is over", || shown.state("busy") == "idle");
}

/// The state is that of the last sign-in: a target recovers with the first success.
#[test]
fn a_target_recovers_when_a_sign_in_succeeds() {
    if !have(&["curl", "psql"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let shown = Shown::new(&lab, &cloud, &["name=app user=myVm dbname=postgres"]);
    let admin = |sql: &str| {
        lab.pgentra(&["query", "-c", sql]).envs(cloud.env("admin")).done().ok();
    };
    shown.client(0, "myVm", "postgres").ok();
    assert_eq!(shown.state("app"), "idle");
    admin("ALTER ROLE \"myVm\" NOLOGIN");
    for failures in 1..=2 {
        assert!(!shown.client(0, "myVm", "postgres").status.success());
        let target = shown.target("app");
        assert_eq!(
            (&target["state"], &target["cause"]),
            (&"failing".into(), &"the role may not log in".into())
        );
        assert_eq!(target["last_sign_in"]["failures"], failures);
    }
    // A probe that removed the proxy would also remove the clients that show the recovery.
    assert_eq!(shown.readiness().0, "200");
    admin("ALTER ROLE \"myVm\" LOGIN");
    shown.client(0, "myVm", "postgres").ok();
    let target = shown.target("app");
    assert_eq!((&target["state"], &target["cause"]), (&"idle".into(), &Value::Null), "{target:#}");
}

/// A client that names an unknown role or database is refused, and does not change the state of the
/// target.
#[test]
fn a_clients_mistake_is_not_the_targets_failure() {
    if !have(&["curl", "psql"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let mut vm = cloud.env("vm");
    for variable in ["PGUSER", "PGDATABASE"] {
        vm.remove(variable);
    }
    let proxy = lab.proxy(vm, &["--admin-listen=0", "--listen=127.0.0.1:0", "--name=open"], 1);
    let line = proxy.await_line("admin on ");
    let admin = line.split("admin on ").nth(1).unwrap().trim_end_matches('/').to_owned();
    let shown = Shown { lab: &lab, proxy, admin };
    for (role, database) in [("ghost", "postgres"), ("myVm", "nowhere"), ("myIdentity", "postgres")] {
        assert!(!shown.client(0, role, database).status.success());
        assert_eq!(shown.state("open"), "idle", "{role}, {database}");
    }
    let status = shown.status();
    let target = &status["targets"][0];
    assert_eq!(target["refusals"]["3D000"], 1, "{status:#}");
    assert!(target["refusal_messages"]["3D000"].as_str().unwrap().contains("nowhere"), "{status:#}");
    let problem = &status["problems"][1];
    assert_eq!((&problem["role"], &problem["database"]), (&"myVm".into(), &"nowhere".into()), "{status:#}");
    assert!(!problem["hint"].as_str().unwrap().is_empty(), "{status:#}");
}

#[test]
fn a_proxy_without_any_token_is_not_ready() {
    if !have(&["curl"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let shown = Shown::new(&lab, &cloud, &["name=a token_command=false", "name=b token_command='exit 3'"]);
    eventually_blocking(DEADLINE, "both have failed", || shown.readiness().1.contains("0 idle, 2 failing"));
    let (code, body) = shown.readiness();
    assert_eq!(code, "503");
    assert!(body.starts_with("no token for a: "), "{body}");
    assert!(body.contains("\nfailing: a: no token: ") && body.contains("\nfailing: b: "), "{body}");
    let waited = lab.pgentra(&[
        "proxy",
        "wait",
        "--timeout",
        "0",
        "--admin",
        shown.admin.strip_prefix("http://").unwrap(),
    ]);
    let waited = waited.done();
    assert!([Some(3), Some(4)].contains(&waited.status.code()), "{waited:?}");
}

#[test]
fn targets_are_called_by_their_names() {
    if !have(&["curl"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let port = cloud.text("/server/port");
    let shown = Shown::new(
        &lab,
        &cloud,
        &[
            "name='monthly reports'",
            "dbname=postgres",
            "dbname=postgres",
            "host=db.invalid port=5432 dbname=app",
        ],
    );
    let status = shown.status();
    let mut names: Vec<_> =
        status["targets"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    let short = format!("localhost:{port}/postgres");
    assert_eq!(names, ["db.invalid/app", &short, &format!("{short} (2)"), "monthly reports"]);
    assert!(shown.get("/metrics").contains("pgentra_proxy_ready{target=\"monthly reports\"}"));
    for (targets, words) in [
        (&["name=a", "name=a"][..], "another target has it"),
        (&["--name=all", "dbname=a", "dbname=b"], "another target has it"),
        (&["name='a\tb'"], "control character"),
        (&[&*format!("name={}", "x".repeat(64))], "64 characters"),
    ] {
        let words_of = [&["proxy", "--check"], targets].concat();
        let refused = lab.pgentra(&words_of).envs(cloud.env("vm")).done();
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        assert!(refused.stderr.contains(words), "{refused:?}");
    }
}

#[test]
fn the_service_manager_hears_of_the_state() {
    if !have(&["curl", "psql"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let path = lab.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let hear = |words: &str| loop {
        let mut message = [0; 4096];
        let length = socket.recv(&mut message).unwrap_or_else(|error| panic!("no {words:?}: {error}"));
        let message = String::from_utf8_lossy(&message[..length]).into_owned();
        if message.contains(words) {
            return message;
        }
    };
    let mut vm = cloud.env("vm");
    vm.insert("NOTIFY_SOCKET".to_owned(), path.display().to_string());
    let proxy = lab.proxy(
        vm,
        &["--listen=127.0.0.1:0", "name=app host=nowhere.invalid user=myVm dbname=postgres"],
        1,
    );
    hear("1 target(s) on 1 listener(s), 0 session(s); 0 serving, 1 idle, 0 failing");
    let conninfo = format!("host=127.0.0.1 port={} user=myVm dbname=postgres sslmode=disable", proxy.port());
    assert!(!lab.program(&["psql", "-Atc", "SELECT 1", &conninfo]).done().status.success());
    hear("; 0 serving, 0 idle, 1 failing; app: the server's name cannot be resolved");
    drop(proxy);
    fs::remove_file(path).unwrap();
}

#[test]
fn the_page_shows_what_fails_first() {
    if !have(&["chromium", "curl", "psql"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let shown = Shown::new(
        &lab,
        &cloud,
        &["name=good user=myVm dbname=postgres", "name=bad host=nowhere.invalid user=myVm dbname=postgres"],
    );
    shown.client(0, "myVm", "postgres").ok();
    assert!(!shown.client(1, "myVm", "postgres").status.success());
    let profile = lab.path().join("chromium");
    fs::create_dir_all(&profile).unwrap();
    let words = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
        "--virtual-time-budget=5000",
        "--dump-dom",
        &format!("--user-data-dir={}", profile.display()),
        &shown.admin,
    ];
    let page = lab.program(&words).env("TMPDIR", &profile).done().ok().to_owned();
    let find = |text: &str| page.find(text).unwrap_or_else(|| panic!("no {text:?} in {page}"));
    let table = find("id=\"targets\"");
    assert!(
        find("2 targets: 0 serving, 1 idle, 1 failing") < find(">bad<") && find(">bad<") < table,
        "{page}"
    );
    let at =
        |text: &str| page[table..].find(text).unwrap_or_else(|| panic!("no {text:?} in {}", &page[table..]));
    assert!(
        at(">bad<") < at("✗ failing") && at("✗ failing") < at(">good<") && at(">good<") < at("– idle"),
        "{page}"
    );
    at("the server's name cannot be resolved");
    at("1 sign-in failed, SQLSTATE 08001");
    find("! ready, 1 failing");
    // Every time has its zone, and the token of the one identity is shown once.
    at(" UTC</small>");
    assert_eq!(page.matches(" succeeded, 0 failed<").count(), 1, "{page}");
    drop(shown);
    drop(cloud);
    lab.await_processes();
}

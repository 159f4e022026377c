//! The status page of `pgentra proxy` in a browser: idle, busy and broken; light, dark and narrow. The pictures are written to
//! `target/status-page`, for people who change the page.
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::io::Write as _;
use std::process::{Child, Stdio};

use e2e::{Cloud, Done, Flavour, Lab, Proxy, have, look};
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

    fn status(&self) -> Value {
        let url = format!("{}/status.json", self.admin);
        serde_json::from_str(self.lab.program(&["curl", "-sS", &url]).done().ok()).unwrap()
    }

    /// The connection string of a client of the target with this number.
    fn conninfo(&self, number: usize, more: &str) -> String {
        let port = self.proxy.listeners()[number].rsplit(':').next().unwrap();
        format!("host=127.0.0.1 port={port} sslmode=disable {more}")
    }

    fn client(&self, number: usize, more: &str) -> Done<'lab> {
        self.lab.program(&["psql", "-Atc", "SELECT 1", &self.conninfo(number, more)]).done()
    }

    /// A session that has been told this, and lasts until it is dropped.
    fn session(&self, number: usize, more: &str, told: &str) -> Held {
        let mut psql = std::process::Command::new("psql")
            .args(["-Atq", &self.conninfo(number, more)])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        psql.stdin.as_mut().unwrap().write_all(format!("{told}\n").as_bytes()).unwrap();
        Held(psql)
    }

    /// Waits until the sessions that are listed have these states.
    fn await_states(&self, states: &[&str]) {
        eventually_blocking(DEADLINE, &format!("the sessions are {states:?}"), || {
            let status = self.status();
            let seen: Vec<_> = status["sessions"]
                .as_array()
                .unwrap()
                .iter()
                .map(|session| session["state"].as_str().unwrap().to_owned())
                .collect();
            if seen == states { Ok(()) } else { Err(seen) }
        });
    }

    /// What the browser shows and copies, once the page shows `awaited`. The pictures are called by `name`.
    fn look(&self, name: &str, awaited: &str) -> Value {
        look(self.lab, &self.admin, ("status-page", name), awaited, &[])
    }
}

/// A client with a session. Dropping it ends the client.
struct Held(Child);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn text(report: &Value) -> &str {
    report["text"].as_str().unwrap()
}

#[track_caller]
fn assert_shows(report: &Value, texts: &[&str]) {
    for shown in texts {
        assert!(text(report).contains(shown), "no {shown:?} in {}", text(report));
    }
}

#[test]
fn an_idle_proxy_says_how_to_connect() {
    if !have(&["chromium", "curl", "node", "psql"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let shown = Shown::new(&lab, &cloud, &["name=orders user=myVm dbname=postgres", "name='my reports'"]);
    eventually_blocking(DEADLINE, "there is a token", || shown.status()["state"] == "ready");
    let report = shown.look("idle", "2 targets: 0 serving, 2 idle, 0 failing");
    assert_shows(
        &report,
        &[
            "✓ ready",
            "– orders",
            "my reports",
            "no sign-in so far",
            "none open",
            "none since the start",
            "left",
        ],
    );
    let copied: Vec<_> =
        report["copied"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    let [psql, jdbc, second, _] = copied[..] else { panic!("{copied:?}") };
    // What is copied works as it is typed, also in a shell whose PGSSLMODE is for the server.
    for command in [psql, second] {
        let typed = format!("{command} -Atc 'SELECT current_user'");
        assert_eq!(lab.shell(&typed).env("PGSSLMODE", "verify-full").done().ok(), "myVm\n", "{command}");
    }
    let port = shown.proxy.port();
    assert_eq!(jdbc, format!("jdbc:postgresql://127.0.0.1:{port}/postgres?user=myVm&sslmode=disable"));
    drop((shown, cloud));
    lab.await_processes();
}

#[test]
fn a_busy_proxy_lists_its_sessions() {
    if !have(&["chromium", "curl", "node", "psql"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let shown = Shown::new(&lab, &cloud, &["name=orders user=myVm", "name=reports user=myVm"]);
    for _ in 0..3 {
        shown.client(0, "user=myVm dbname=postgres application_name=cron").ok();
    }
    let held = [
        ("web", "SELECT 1;"),
        ("'<b>bold</b>'", "SELECT 1;"),
        ("migration", "BEGIN;"),
        ("importer", "BEGIN; SELECT 1/0;"),
        ("report", "SELECT pg_sleep(600);"),
    ]
    .map(|(application, told)| {
        shown.session(0, &format!("user=myVm dbname=postgres application_name={application}"), told)
    });
    shown.await_states(&["active", "idle in transaction (aborted)", "idle in transaction", "idle", "idle"]);
    let status = shown.status();
    let active = &status["sessions"][0];
    for (field, value) in [
        ("target", "orders"),
        ("role", "myVm"),
        ("client_role", "myVm"),
        ("database", "postgres"),
        ("application_name", "report"),
    ] {
        assert_eq!(active[field], value, "{active:#}");
    }
    assert!(active["client"].as_str().unwrap().starts_with("127.0.0.1:"), "{active:#}");
    // The server knows the backend by the same number.
    let pid = active["backend_pid"].as_u64().unwrap();
    let sql = format!("SELECT application_name FROM pg_stat_activity WHERE pid = {pid}");
    let conninfo = shown.conninfo(1, "user=myVm dbname=postgres");
    assert_eq!(lab.program(&["psql", "-Atc", &sql, &conninfo]).done().ok(), "report\n");
    assert_eq!(status["sessions_not_shown"], 0);
    let [orders, reports] = ["orders", "reports"].map(|name| {
        status["targets"].as_array().unwrap().iter().find(|target| target["name"] == name).unwrap()
    });
    let sum = |target: &Value| -> u64 {
        target["recent"]["sessions"].as_array().unwrap().iter().map(|count| count.as_u64().unwrap()).sum()
    };
    assert_eq!((sum(orders), sum(reports)), (8, 0), "{orders:#}");
    let wait = &orders["session_start"];
    assert_eq!((&wait["of"], &reports["session_start"]), (&8.into(), &Value::Null));
    assert!(
        wait["p50_seconds"].as_f64() > Some(0.0)
            && wait["p50_seconds"].as_f64() <= wait["p95_seconds"].as_f64()
    );

    let page = include_str!("../../docs/proxy-observe.md");
    let lacking = e2e::undocumented(&status, &["refusals", "refusal_messages"], page);
    assert_eq!(lacking, Vec::<String>::new(), "docs/proxy-observe.md");

    let report = shown.look("busy", "idle in transaction (aborted)");
    assert_shows(
        &report,
        &[
            "2 targets: 1 serving, 1 idle, 0 failing",
            "✓ serving",
            "<b>bold</b>",
            "5 open",
            "of the last 8",
            &pid.to_string(),
        ],
    );
    // The server does not see that the client of a long query has gone.
    drop(held);
    let sql = format!("SELECT pg_terminate_backend({pid})");
    assert_eq!(lab.program(&["psql", "-Atc", &sql, &conninfo]).done().ok(), "t\n");
    eventually_blocking(DEADLINE, "no session is listed", || {
        shown.status()["sessions"] == Value::Array(vec![])
    });
    drop((shown, cloud));
    lab.await_processes();
}

#[test]
fn a_broken_proxy_says_what_is_broken_first() {
    if !have(&["chromium", "curl", "node", "psql"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let shown = Shown::new(
        &lab,
        &cloud,
        &[
            "name=orders user=myVm dbname=postgres",
            "name=reports host=reports.invalid user=myVm dbname=reports",
        ],
    );
    let held = shown.session(0, "user=myVm dbname=postgres application_name=web", "SELECT 1;");
    shown.await_states(&["idle"]);
    for _ in 0..3 {
        assert!(!shown.client(1, "user=myVm dbname=reports application_name=nightly").status.success());
    }
    let turned = "user=ghost dbname=postgres application_name='a\u{202e}b'";
    assert!(!shown.client(0, turned).status.success());
    let report = shown.look("broken", "2 targets: 1 serving, 0 idle, 1 failing");
    assert_shows(
        &report,
        &[
            "! ready, 1 failing",
            "the server's name cannot be resolved",
            "3 sign-ins failed, SQLSTATE 08001",
            "3 times since",
            "Hint: is the name spelled right?",
            "nightly",
            "ghost",
            " UTC",
            " ago",
        ],
    );
    // A character that turns the text around does not reach the screen.
    assert!(text(&report).contains("a\\u202Eb") && !text(&report).contains('\u{202e}'), "{}", text(&report));
    let at = |shown: &str| text(&report).find(shown).unwrap_or_else(|| panic!("no {shown:?}"));
    assert!(at("✗ reports") < at("✓ orders") && at("✗ failing") < at("✓ serving"), "{}", text(&report));
    assert_eq!(report["title"], "ready, 1 failing – pgentra proxy");
    assert!(
        report["bars"].as_u64() >= Some(3),
        "a session, and refusals of both targets: {}",
        report["bars"]
    );
    drop((held, shown, cloud));
    lab.await_processes();
}

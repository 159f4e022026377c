//! The page of the local cloud in a browser: idle, busy and refusing; light, dark and narrow. The pictures are written to
//! `target/local-page`, for people who change the page.
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use e2e::{Cloud, Done, Flavour, Lab, have, look};
use eventually::{DEADLINE, eventually_blocking};
use serde_json::{Value, json};

/// A cloud with its page.
struct Shown<'lab> {
    lab: &'lab Lab,
    cloud: Cloud<'lab>,
    url: String,
}

impl<'lab> Shown<'lab> {
    fn new(lab: &'lab Lab, flavour: Flavour) -> Self {
        let cloud = lab.cloud(flavour, &[]);
        let url = cloud.text("/page");
        Self { lab, cloud, url }
    }

    /// A shell on a host of the cloud.
    fn on(&self, host: &str, script: &str) -> Done<'lab> {
        self.lab.shell(script).envs(self.cloud.env(host)).done()
    }

    fn state(&self) -> Value {
        let url = format!("{}state.json", self.url);
        self.lab.program(&["curl", "-sS", &url]).done().json()
    }

    /// What the browser shows and copies, after these steps. The pictures are called by `name`.
    fn look(&self, name: &str, awaited: &str, steps: &[Value]) -> Value {
        look(self.lab, &self.url, ("local-page", name), awaited, steps)
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
fn an_idle_cloud_says_who_is_there_and_how_to_connect() {
    if !have(&["chromium", "curl", "node", "psql"]) {
        return;
    }
    let lab = Lab::new();
    let shown = Shown::new(&lab, Flavour::Single);
    let name = shown.cloud.text("/name");
    let printed = lab.pgentra(&["local", "open", "--name", &name]).done();
    assert_eq!(printed.ok(), format!("{}\n", shown.url));
    let report = shown.look("idle", "Single Server", &[]);
    let id = shown.cloud.identity("system-assigned")["object_id"].as_str().unwrap().to_owned();
    assert_shows(&report, &["myVm", "myIdentity", "myApp", &id, "as this machine", "github-actions"]);
    assert!(!text(&report).contains("not reached"), "{}", text(&report));
    let copied: Vec<_> =
        report["copied"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    assert!(copied.contains(&&*id), "{copied:?}");
    // What is copied works as it is typed.
    let sql = "-Atc 'SELECT current_user'";
    for (program, more) in [("&& pgentra psql", " --"), ("&& PGPASSWORD=", "")] {
        let command = copied.iter().find(|text| text.contains(program)).unwrap();
        assert_eq!(lab.shell(&format!("{command}{more} {sql}")).done().ok(), "myVm\n", "{command}");
    }
    let url = copied.iter().find(|text| text.starts_with("postgresql://")).unwrap();
    let typed = format!("PGPASSWORD=$(pgentra token) psql '{url}' {sql}");
    assert_eq!(shown.on("vm", &typed).ok(), "myVm\n");
    drop(shown);
    lab.await_processes();
}

#[test]
fn a_refused_login_names_its_check_and_buttons_move_the_clock() {
    if !have(&["chromium", "curl", "node", "psql"]) {
        return;
    }
    let lab = Lab::new();
    let shown = Shown::new(&lab, Flavour::Flexible);
    let old = lab.pgentra(&["token"]).envs(shown.cloud.env("vm")).token();
    for host in ["vm", "aks", "client-secret"] {
        shown.on(host, "pgentra query -c 'SELECT 1'").ok();
    }
    let busy = shown.look("busy", "4 logins let in, 0 refused", &[]);
    assert_shows(&busy, &["metadata service", "✓\nobject id", "the same token again", "left"]);

    // The clock moves, and a fault waits for its request.
    let steps = [
        json!({"click": "button[data-seconds='90000']", "awaits": "1 d 1 h ahead of this machine"}),
        json!({"select": ["#fault", "html"], "awaits": "captive portal"}),
        json!({"click": "#set", "awaits": "HTML instead of JSON at metadata service (vm, user-assigned), for 1 more request"}),
        json!({"select": ["#fault", "slow"]}),
        json!({"select": ["#endpoint", "app-service"]}),
        json!({"select": ["#times", ""]}),
        json!({"click": "#set", "awaits": "a slow answer at App Service, until it is switched off"}),
        json!({"select": ["#fault", "connection-limit"], "awaits": "has as many sessions as it takes"}),
        json!({"click": "#set", "awaits": "no connection left at PostgreSQL, until it is switched off"}),
        json!({"click": "#active li:last-child button"}),
    ];
    shown.look("moved", "myVm", &steps);
    shown.on("vm", "pgentra local fault clear slow").ok();
    eventually_blocking(DEADLINE, "one fault is left", || {
        let active = shown.state()["faults"]["active"].clone();
        if active.as_array().unwrap().len() == 1 { Ok(()) } else { Err(active) }
    });
    assert_eq!(shown.state()["ahead_seconds"], 90_000);
    let psql = format!("PGPASSWORD={old} psql -c 'SELECT 1'");
    assert!(shown.on("vm", &psql).stderr.contains("The access token has expired"));
    assert!(shown.on("vm", "pgentra query -c 'SELECT 1'").stderr.contains("a web page, not JSON"));
    shown.on("vm", "PGAPPNAME='<b>bold</b>' pgentra query -d nowhere -c 'SELECT 1'").fails(5);
    shown.on("vm", "pgentra query -U myIdentity -c 'SELECT 1'").fails(5);
    shown.on("vm", "pgentra query -c 'SELECT 1'").ok();

    let steps = [json!({"click": "#tokens details summary", "awaits": "\"xms_mirid\""})];
    let report = shown.look("refusing", "5 logins let in, 3 refused", &steps);
    assert_shows(
        &report,
        &[
            "✗\ntime",
            "The access token has expired. Acquire a new token and try again.",
            "✗\nobject id",
            "Service principal oid mismatch",
            "✗\nPostgreSQL",
            "database \"nowhere\" does not exist",
            "<b>bold</b>",
            "refused 1",
            "expired",
        ],
    );
    assert!(!text(&report).contains("captive portal"), "the fault has happened");
    let logins = shown.state()["logins"].clone();
    let ended: Vec<_> = logins.as_array().unwrap()[..4].iter().map(|it| it["ended_at"].clone()).collect();
    assert_eq!(ended, [Value::Null, "principal".into(), "server".into(), "time".into()]);
    drop(shown);
    lab.await_processes();
}

#[test]
fn a_browser_is_opened_where_a_person_sits() {
    if !have(&["script"]) {
        return;
    }
    let lab = Lab::new();
    let shown = Shown::new(&lab, Flavour::Flexible);
    let opened = lab.path().join("opened");
    let opener = lab.path().join("bin/xdg-open");
    fs::write(&opener, format!("#!/bin/sh\necho \"$@\" >> '{}'\n", opened.display())).unwrap();
    fs::set_permissions(&opener, fs::Permissions::from_mode(0o755)).unwrap();
    let on_a_terminal = |words: &str| {
        let script = format!("script --quiet --return --command '{words}' /dev/null");
        lab.shell(&script).env("TERM", "xterm").done().ok().trim().to_owned()
    };
    // Only the last one opens it.
    assert_eq!(lab.shell("DISPLAY=:0 pgentra local open").done().ok().trim(), shown.url);
    for command in
        ["pgentra local open", "DISPLAY=:0 pgentra local open --print", "DISPLAY=:0 pgentra local open"]
    {
        assert_eq!(on_a_terminal(command), shown.url, "{command}");
    }
    let what = "one address was opened";
    let expected = format!("{}\n", shown.url);
    eventually_blocking(DEADLINE, what, || {
        let said = fs::read_to_string(&opened).unwrap_or_default();
        if said == expected { Ok(()) } else { Err(said) }
    });
    drop(shown);
}

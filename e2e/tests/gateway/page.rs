//! The status page of `pgentra gateway` in a browser. The pictures are written to `target/gateway-page`, for people who change
//! the page.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use e2e::{Lab, have, look};
use eventually::{DEADLINE, eventually_blocking};
use serde_json::Value;

use crate::stage::Stage;

/// A client with a session. Dropping it ends the client.
struct Held(Child);

impl Held {
    fn start(conninfo: &str, token: &str) -> Self {
        let mut psql = Command::new("psql")
            .args(["-Atq", conninfo])
            .env("PGPASSWORD", token)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        psql.stdin.as_mut().unwrap().write_all(b"SELECT 1;\n").unwrap();
        Self(psql)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_page_shows_servers_logins_and_sessions() {
    if !have(&["chromium", "curl", "node", "postgresql", "psql", "jq"]) {
        return;
    }
    let lab = Lab::new();
    let stage = Stage::new(&lab);
    let (vm, vm_id) = (stage.token("vm"), stage.object_id("vm"));
    let (_server, settings) = stage.scram_server(&format!("app={vm_id}:service"));
    let gateway = stage.gateway(&format!(
        "admin_listen = '127.0.0.1:0'\nmax_connections = 20\n[[server]]\nname = 'orders'\nwarm = 1\n{settings}databases = ['postgres']\n\
         [[server]]\nname = 'reports'\n{settings}"
    ));
    let admin =
        gateway.await_line("admin on ").split("admin on ").nth(1).unwrap().trim_end_matches('/').to_owned();
    let status = || -> Value {
        let url = format!("{admin}/status.json");
        serde_json::from_str(lab.program(&["curl", "-sS", &url]).done().ok()).unwrap()
    };
    assert_eq!(stage.sign_in(&gateway, "app", &vm, "SELECT 1").ok().trim(), "1");
    for _ in 0..3 {
        assert!(!stage.sign_in(&gateway, "app", "no-token", "SELECT 1").status.success());
    }
    let other = stage.another_token();
    assert!(!stage.sign_in(&gateway, "app", &other, "SELECT 1").status.success());
    assert!(!stage.sign_in(&gateway, "a\u{202e}<b>bold</b>", &vm, "SELECT 1").status.success());

    let port = gateway.listeners()[0].rsplit_once(':').unwrap().1;
    let conninfo = format!(
        "host=localhost hostaddr=127.0.0.1 port={port} sslmode=require user=app dbname=postgres application_name='<i>web</i>'"
    );
    let held = Held::start(&conninfo, &vm);
    let shown = eventually_blocking(
        DEADLINE,
        "a session is listed, others wait, and both servers are checked",
        || {
            let status = status();
            let sessions = status["sessions"].as_array().unwrap().len();
            let checked = status["servers"]
                .as_array()
                .unwrap()
                .iter()
                .all(|server| server["server_version"].is_string());
            // Two names of applications had a session.
            let ready = status["servers"][0]["sessions"]["ready"] == 2;
            if sessions == 1 && checked && ready { Ok(status) } else { Err(status) }
        },
    );
    let session = &shown["sessions"][0];
    for (field, value) in [
        ("server", "orders"),
        ("role", "app"),
        ("database", "postgres"),
        ("application_name", "<i>web</i>"),
        ("kind", "app"),
        ("object_id", &vm_id),
    ] {
        assert_eq!(session[field], value, "{session:#}");
    }
    let orders =
        &shown["servers"].as_array().unwrap().iter().find(|server| server["name"] == "orders").unwrap();
    assert_eq!(orders["sessions"]["limit"], 20, "{orders:#}");
    assert_eq!(orders["logins"]["let_in"], 2, "{orders:#}");
    let refused = serde_json::json!({"format": 3, "principal": 1, "role": 1});
    assert_eq!(orders["logins"]["refused"], refused, "{orders:#}");
    assert_eq!(orders["mapping"]["source"], "flexible", "{orders:#}");
    assert_eq!(orders["mapping"]["roles"], 1, "{orders:#}");
    let keys = &orders["keys"][0];
    assert!(keys["keys"].as_u64() >= Some(1) && keys["age_seconds"].as_u64() < Some(3600), "{keys:#}");
    assert!(shown["logins"][0]["outcome"] == "let in" && shown["logins"][1]["check"] == "role", "{shown:#}");

    let lacking = e2e::undocumented(&shown, &["refused"], include_str!("../../../docs/gateway-observe.md"));
    assert_eq!(lacking, Vec::<String>::new(), "docs/gateway-observe.md");

    let report = look(&lab, &admin, ("gateway-page", "busy"), "2 servers: 2 serving, 0 failing", &[]);
    let text = report["text"].as_str().unwrap();
    for wanted in [
        "✓ ready",
        "orders",
        "reports",
        "format 3, principal 1, role 1",
        "in the database, flexible",
        "3 times since",
        "at principal",
        "a\\u202E<b>bold</b>",
        "<i>web</i>",
        "1 open",
        "of 20, 2 ready",
        &vm_id,
    ] {
        assert!(text.contains(wanted), "no {wanted:?} in {text}");
    }
    assert!(!text.contains('\u{202e}'), "{text}");
    assert_eq!(report["title"], "ready – pgentra gateway");

    drop(held);
    eventually_blocking(DEADLINE, "no session is listed", || {
        let status = status();
        if status["sessions"] == Value::Array(vec![]) { Ok(()) } else { Err(status) }
    });
    // A page of another site reads nothing.
    let answer = lab
        .program(&["curl", "-s", "-o", "-", "-w", "%{http_code}", "-H", "Host: evil.example", &admin])
        .done();
    assert!(answer.ok().ends_with("421"), "{answer:?}");
}

//! Sessions that are signed in before a client asks for them, in front of a stock server.

use std::fs;

use e2e::{Lab, Proxy, have};
use eventually::{DEADLINE, eventually_blocking};
use rustix::process::Signal;

use crate::stage::{Server, Stage, debian, methods};

/// A gateway with an admin listener, and the server behind it.
struct Warm<'a, 'lab> {
    lab: &'lab Lab,
    server: &'a Server<'lab>,
    gateway: Proxy<'lab>,
    admin: String,
}

impl Warm<'_, '_> {
    fn metric(&self, name: &str) -> u64 {
        let text = self.lab.program(&["curl", "-sS", &format!("{}/metrics", self.admin)]).done();
        let line = text.ok().lines().find(|line| line.starts_with(name)).map(str::to_owned);
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    }

    /// Waits until so many sessions wait.
    fn await_ready(&self, wanted: u64) {
        eventually_blocking(DEADLINE, "sessions wait", || {
            let ready = self.metric("pgentra_gateway_sessions_ready{");
            if ready == wanted { Ok(()) } else { Err(ready) }
        });
    }

    fn hits(&self) -> u64 {
        self.metric("pgentra_gateway_supply_total{server=\"main\",result=\"hit\"}")
    }

    /// The sessions of the role at the server.
    fn sessions(&self) -> String {
        self.server.sql("SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'")
    }
}

#[test]
fn sessions_wait_by_every_method() {
    if !have(&["postgresql", "psql", "jq", "curl"]) {
        return;
    }
    let lab = Lab::new();
    let stage = Stage::new(&lab);
    let (vm, vm_id, other) = (stage.token("vm"), stage.object_id("vm"), stage.another_token());
    for number in 0..3 {
        let server = Server::start(&lab, &debian(), &stage.certificate);
        let (method, init, settings) = methods(&stage, &server).swap_remove(number);
        let app = format!("app={vm_id}:service");
        let mut words: Vec<_> = init.iter().map(String::as_str).collect();
        words.extend(["--tenant", &stage.tenant, "--admin", &app]);
        server.init(&words);
        if method == "peer" {
            // Before PostgreSQL 16, one line for each role.
            server.init(&words);
        }
        if method == "cert" {
            let certificate = fs::read_to_string(format!("{}.crt", words[3])).unwrap();
            server.write("gateway.crt", &certificate, 0o600);
            server.sql("ALTER SYSTEM SET ssl_ca_file = 'gateway.crt'");
            server.sql("SELECT pg_reload_conf()");
        }
        let with = |warm: &str| {
            format!("admin_listen = '127.0.0.1:0'\n[[server]]\nname = 'main'\n{settings}warm = {warm}\n")
        };
        let gateway = stage.gateway(&with("2"));
        let admin = gateway.await_line("admin on ").split("admin on ").nth(1).unwrap().to_owned();
        let admin = admin.trim_end_matches('/').to_owned();
        let warm = Warm { lab: &lab, server: &server, gateway, admin };
        let pid = |token: &str| stage.sign_in(&warm.gateway, "app", token, "SELECT pg_backend_pid()");

        pid(&vm).ok();
        warm.await_ready(2);
        assert_eq!(warm.sessions(), "2", "{method}");
        let waiting = server.sql("SELECT pid FROM pg_stat_activity WHERE usename = 'app'");
        let refused = pid(&other);
        assert!(refused.stderr.contains("Service principal oid mismatch"), "{method}: {refused:?}");
        assert_eq!(warm.hits(), 0, "{method}");
        let given = pid(&vm);
        assert!(waiting.lines().any(|pid| pid == given.ok().trim()), "{method}: {waiting} {given:?}");
        assert_eq!(warm.hits(), 1, "{method}");

        // The server is restarted: the next client gets a session of the new one.
        warm.await_ready(2);
        server.down();
        server.up();
        assert_eq!(
            stage.sign_in(&warm.gateway, "app", &vm, "SELECT current_user").ok().trim(),
            "app",
            "{method}"
        );
        warm.await_ready(2);

        // A database is dropped.
        server.sql("CREATE DATABASE dropped");
        let conninfo = "user=app dbname=dropped";
        stage.connect(&warm.gateway, conninfo, &vm, "SELECT 1").ok();
        warm.await_ready(4);
        let close = format!("{}/pool/close?database=dropped", warm.admin);
        let closed = lab.program(&["curl", "-sS", "-X", "POST", &close]).done();
        assert_eq!(closed.ok().trim(), "closed 2", "{method}");
        server.sql("DROP DATABASE dropped");

        // None waits by a new configuration.
        stage.write("gateway.toml", &format!("{}{}", stage.settings, with("0")));
        warm.gateway.signal(Signal::HUP);
        let changed = warm.gateway.await_line("reloaded: server changed: main: ");
        assert!(changed.contains("warm 2 -> 0"), "{changed}");
        eventually_blocking(DEADLINE, "none waits at the server", || warm.sessions() == "0");
        warm.await_ready(0);
        pid(&vm).ok();
        assert_eq!(warm.sessions(), "0", "{method}");
    }
}

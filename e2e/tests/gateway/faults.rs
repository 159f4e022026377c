//! Faults around a gateway: no client hangs, none is left without an answer, and nothing stays open.

use std::fs;

use e2e::{Lab, Namespace, Proxy, client, have};
use eventually::{DEADLINE, eventually_blocking};
use rustix::process::{Pid, Signal, kill_process};

use crate::stage::Stage;

/// Open files of the gateway.
fn files(gateway: &Proxy<'_>) -> usize {
    fs::read_dir(format!("/proc/{}/fd", gateway.pid().as_raw_nonzero())).unwrap().count()
}

/// A number from the gateway's /proc/PID/status.
fn status(gateway: &Proxy<'_>, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.pid().as_raw_nonzero())).unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_server_is_killed_under_a_statement_and_comes_back() {
    if !have(&["postgresql", "psql", "jq"]) {
        return;
    }
    let lab = Lab::new();
    let stage = Stage::new(&lab);
    let (vm, vm_id) = (stage.token("vm"), stage.object_id("vm"));
    let (server, settings) = stage.scram_server(&format!("app={vm_id}:service"));
    let gateway = stage.gateway(&settings);
    assert_eq!(stage.sign_in(&gateway, "app", &vm, "SELECT 1").ok().trim(), "1");
    let before = files(&gateway);
    let port = gateway.listeners()[0].rsplit_once(':').unwrap().1;
    let conninfo = format!("host=localhost port={port} user=app dbname=postgres sslmode=require");
    for _ in 0..3 {
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| {
                lab.program(&["psql", &conninfo, "-c", "SELECT pg_sleep(86400)"])
                    .env("PGPASSWORD", &vm)
                    .done()
            });
            let asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
            eventually_blocking(DEADLINE, "the statement runs", || server.sql(asleep) == "1");
            let postmaster = fs::read_to_string(server.folder.join("data/postmaster.pid")).unwrap();
            let postmaster = Pid::from_raw(postmaster.lines().next().unwrap().parse().unwrap()).unwrap();
            kill_process(postmaster, Signal::KILL).unwrap();
            let asked = asked.join().unwrap();
            assert!(asked.stderr.contains("connection to server was lost"), "{asked:?}");
        });
        let done = stage.sign_in(&gateway, "app", &vm, "SELECT 1");
        assert!(done.stderr.contains("cannot reach its PostgreSQL server"), "{}", done.stderr);
        server.up_after_a_crash();
        assert_eq!(stage.sign_in(&gateway, "app", &vm, "SELECT current_user").ok().trim(), "app");
    }
    eventually_blocking(DEADLINE, "the files of the sessions are closed", || files(&gateway) <= before + 1);
}

/// Every client gets a session or an error, whatever comes at once; files and memory are given back.
#[test]
fn ten_thousand_clients_in_a_burst() {
    const CLIENTS: u64 = 10_000;
    const SESSIONS: u64 = 40;
    if !have(&["postgresql", "psql", "jq", "python"]) {
        return;
    }
    let lab = Lab::behind(&["bash", "-c", "ulimit -Sn 256; exec \"$@\"", "bash"]);
    let stage = Stage::new(&lab);
    let (vm, vm_id) = (stage.token("vm"), stage.object_id("vm"));
    let (_server, settings) = stage.scram_server(&format!("app={vm_id}:service"));
    let gateway =
        stage.gateway(&format!("danger_accept_plaintext = true\nmax_connections = {SESSIONS}\n{settings}"));
    let port = gateway.listeners()[0].rsplit_once(':').unwrap().1.to_owned();
    let token = stage.write("vm.token", &vm);
    let (python, burst) =
        (client("venv/bin/python"), concat!(env!("CARGO_MANIFEST_DIR"), "/clients/burst.py"));
    let clients = CLIENTS.to_string();
    let words = [python.to_str().unwrap(), burst, "127.0.0.1", &port, "app", "postgres", &clients, &token];
    let before = files(&gateway);
    let mut memory = Vec::new();
    for _ in 0..2 {
        let told = lab.program(&words).within(600).done().json();
        let told = told.as_object().unwrap();
        // A client that has not sent its token gives way to others; it is told so, too. A slow machine does not get to the
        // last ones in time.
        let refused =
            ["53300", "57P03", "57014"].iter().filter_map(|code| told.get(*code)?.as_u64()).sum::<u64>();
        assert_eq!(told["session"], SESSIONS, "{told:?}");
        assert_eq!(refused, CLIENTS - SESSIONS, "{told:?}");
        eventually_blocking(DEADLINE, "its files are closed", || files(&gateway) <= before + 2);
        memory.push(status(&gateway, "VmRSS"));
    }
    assert!(memory[1] < memory[0] + memory[0] / 4, "{memory:?} kB are held after each burst");
    fs::remove_file(token).unwrap();
    assert_eq!(stage.sign_in(&gateway, "app", &vm, "SELECT current_user").ok().trim(), "app");
}

/// The machines of the server and of the client disappear without a word: the session ends after a minute of silence and a
/// probe. In the namespace one failed probe is enough instead of nine.
#[test]
fn a_peer_that_is_gone_without_a_word_ends_the_session() {
    if !have(&["postgresql", "psql", "jq", "ip", "netns", "ss"]) {
        return;
    }
    let namespace = Namespace::new("gateway");
    let lab = namespace.lab();
    let stage = Stage::new(&lab);
    let (vm, vm_id) = (stage.token("vm"), stage.object_id("vm"));
    let (server, settings) = stage.scram_server(&format!("app={vm_id}:service"));
    // Over TCP, as to another machine.
    let socket = format!("upstream = '{}:{}'", server.folder.display(), server.port);
    let ca = lab.path().join("ca.crt");
    let over_tls = format!("upstream = 'localhost:{}'\nupstream_ca = '{}'", server.port, ca.display());
    assert!(settings.contains(&socket), "{settings}");
    let audit = lab.path().join("audit");
    let settings = settings.replace(&socket, &over_tls);
    let gateway = stage.gateway(&format!("audit = '{}'\n{settings}", audit.display()));
    let before = files(&gateway);
    let script = r#"
        echo 1 >/proc/sys/net/ipv4/tcp_keepalive_probes
        mkfifo hold
        psql -X "host=localhost hostaddr=127.0.0.1 port=$1 user=app dbname=postgres sslmode=require" <hold &
        exec 3>hold
        lines() { timeout 300 bash -c 'until grep "$1" "$2"; do sleep 0.1; done' - "$@"; }
        lines '"event":"start"' "$2" >start
        echo "$(ss -tnoH "dport = :$3" | grep -c keepalive) of $(ss -tnoH "dport = :$3" | wc -l)" >upstream
        ip link set lo down
        lines '"event":"end"' "$2"
        kill $!
        ip link set lo up
        cat upstream
        rm hold start upstream
    "#;
    let port = gateway.listeners()[0].rsplit_once(':').unwrap().1.to_owned();
    let words = ["bash", "-euc", script, "bash", &port, audit.to_str().unwrap(), &server.port.to_string()];
    let ended = lab.program(&words).env("PGPASSWORD", &vm).within(600).done();
    let last = ended.ok().lines().last().unwrap_or_default().to_owned();
    let (kept, all) = last.split_once(" of ").unwrap();
    assert!(kept == all && kept != "0", "connections to the server with keepalives: {last}");
    assert!(
        ended.stdout.contains(r#""ended_by":"client"#) || ended.stdout.contains(r#""ended_by":"server"#),
        "{ended:?}"
    );
    eventually_blocking(DEADLINE, "its files are closed", || files(&gateway) <= before + 2);
    assert_eq!(stage.sign_in(&gateway, "app", &vm, "SELECT current_user").ok().trim(), "app");
}

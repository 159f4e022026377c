//! Limits of `pgentra proxy`: clients that are not authenticated cannot keep others out.
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use e2e::{Cloud, Flavour, Lab, Proxy, have};
use eventually::{DEADLINE, eventually_blocking};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

fn address(text: &str) -> SocketAddr {
    text.trim_start_matches("http://").trim_end_matches('/').parse().unwrap()
}

/// A connection that has sent this.
fn connection(to: SocketAddr, said: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(said).unwrap();
    stream
}

/// The bytes it gets until the connection closes.
fn told(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// A start-up packet of protocol 3.0.
fn start(role: &str) -> Vec<u8> {
    let parameters = [&b"user\0"[..], role.as_bytes(), b"\0database\0postgres\0\0"].concat();
    let length = u32::try_from(parameters.len() + 8).unwrap();
    [&length.to_be_bytes()[..], &[0, 3, 0, 0], &parameters].concat()
}

/// Raises this process's limit of open files to the maximum.
fn allow_files() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
}

/// What names the cloud, but neither role nor server.
fn variables(cloud: &Cloud<'_>) -> BTreeMap<String, String> {
    let named = |name: &String| !["PGUSER", "PGDATABASE", "PGHOST", "PGPORT"].contains(&name.as_str());
    cloud.env("vm").into_iter().filter(|(name, _)| named(name)).collect()
}

fn target(cloud: &Cloud<'_>) -> String {
    format!("host=localhost port={}", cloud.env("vm")["PGPORT"])
}

fn files(proxy: &Proxy<'_>) -> usize {
    let pid = proxy.pid().as_raw_nonzero();
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Another user of this machine has three hundred connections to a socket that it may not use: they
/// are refused at once, and a user who may connect is served.
#[test]
fn a_user_whom_the_socket_is_not_for_takes_no_room() {
    if !have(&["psql", "python"]) || !rustix::process::geteuid().is_root() {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let role = cloud.env("vm")["PGUSER"].clone();
    let folder = lab.path().join("shared");
    let listen = format!("{}:5432", folder.display());
    let arguments = ["--listen", &listen, "--listen-uids", "4711", &target(&cloud)];
    let proxy = lab.proxy(variables(&cloud), &arguments, 1);
    let script = r#"
        mkfifo "$HOME/hold"
        setpriv --reuid=65534 --regid=65534 --clear-groups python3 -c '
import socket, sys
connections = []
for _ in range(300):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(sys.argv[1])
    connections.append(connection)
print("held", connections[0].recv(4096), flush=True)
sys.stdin.read()
' "$1/.s.PGSQL.5432" <"$HOME/hold" >"$HOME/held" &
        exec 3>"$HOME/hold"
        until grep -q held "$HOME/held"; do sleep 0.1; done
        cat "$HOME/held"
        PGCONNECT_TIMEOUT=10 psql -XAtw -c 'SELECT 7' "host=$1 user=$2 dbname=postgres"
        exec 3>&-
        wait
    "#;
    let words = ["bash", "-euo", "pipefail", "-c", script, "bash", folder.to_str().unwrap(), &role];
    let done = lab.program(&words).within(120).done();
    assert!(done.ok().ends_with("7\n"), "{done:?}");
    assert!(done.stdout.contains("the local user 65534 may not use the proxy's socket"), "{done:?}");
    drop(proxy);
}

/// A client that sends nothing, or a part of its first packet, is refused after the time limit of
/// the first packet, not of the sign-in.
#[test]
fn a_first_packet_has_a_time_of_its_own() {
    let lab = Lab::new();
    let arguments = ["--listen", "127.0.0.1:0", "--first-packet-timeout", "1", "--start-up-timeout", "3600"];
    let proxy =
        lab.proxy([], &[&arguments[..], &["--token-command", "exit 1", "-h", "localhost"]].concat(), 1);
    let to = address(&proxy.listeners()[0]);
    let whole = start("app");
    for said in [&b""[..], &whole[..3], &whole[..whole.len() - 1], &[0, 0, 0, 8, 4]] {
        let answer = told(connection(to, said));
        assert!(answer.contains("C57014") && answer.contains("start-up packet"), "{said:?}: {answer:?}");
    }
    drop(proxy);
}

/// A thousand silent connections, and hundreds with an incomplete request, do not delay a probe.
#[test]
fn a_probe_is_answered_whatever_else_is_connected() {
    allow_files();
    let lab = Lab::new();
    let arguments = ["--listen", "127.0.0.1:0", "--health-listen", "127.0.0.1:0", "--admin-listen", "0"];
    let proxy =
        lab.proxy([], &[&arguments[..], &["--token-command", "exit 1", "-h", "localhost"]].concat(), 1);
    let said = |what: &str| {
        eventually_blocking(DEADLINE, "the listener is up", || proxy.said().contains(what));
        let said = proxy.said();
        address(said.split(what).nth(1).unwrap().split_whitespace().next().unwrap())
    };
    let (health, admin) = (said("health on "), said("admin on "));
    let head = "GET /liveness HTTP/1.1\r\nHost: 127.0.0.1\r\n";
    let body = "POST /quitquitquit HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 100000\r\n\r\nhalf";
    for to in [health, admin] {
        let mut held = Vec::new();
        for said in [&b""[..], head.as_bytes(), body.as_bytes(), b"\x16\x03\x01"] {
            for _ in 0..if said.is_empty() { 1000 } else { 300 } {
                held.push(connection(to, said));
            }
            let mut probe = connection(to, format!("{head}\r\n").as_bytes());
            probe.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            let mut answer = [0; 15];
            probe.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200 OK", "{said:?}");
        }
    }
    proxy.signal(Signal::TERM);
    assert!(proxy.ended().success());
}

/// Clients that hang up before there is a token free their permits: the next one gets the real
/// error, not "too many clients".
#[test]
fn clients_that_are_gone_are_not_too_many() {
    let lab = Lab::new();
    let arguments = ["--listen", "127.0.0.1:0", "--max-connections", "5", "--token-timeout", "20"];
    let silent = ["--token-command", "exec sleep 86400", "-h", "localhost"];
    let proxy = lab.proxy([], &[&arguments[..], &silent].concat(), 1);
    let to = address(&proxy.listeners()[0]);
    let before = files(&proxy);
    for _ in 0..300 {
        drop(connection(to, &start("app")));
    }
    eventually_blocking(DEADLINE, "those that are gone are let go", || files(&proxy) <= before + 4);
    let answer = told(connection(to, &start("app")));
    assert!(!answer.contains("53300") && answer.contains("C28000"), "{answer:?}");
    drop(proxy);
}

/// A drain does not wait for pooled sessions.
#[test]
fn only_clients_are_waited_for() {
    if !have(&["psql"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let vm = cloud.env("vm");
    let arguments = [
        "--listen",
        "127.0.0.1:0",
        "--warm",
        "3",
        "--reuse",
        "--drain-timeout",
        "3600",
        "--admin-listen",
        "0",
    ];
    let proxy = lab.proxy(variables(&cloud), &[&arguments[..], &[&target(&cloud)]].concat(), 1);
    let conninfo = format!("host=127.0.0.1 port={} user={} dbname=postgres", proxy.port(), vm["PGUSER"]);
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'psql'";
    let psql = || lab.program(&["psql", "-XAtwc", sql, &conninfo]).done().ok().trim().parse::<u32>().unwrap();
    eventually_blocking(DEADLINE, "sessions are ready", || psql() >= 3);
    let admin = address(proxy.said().split("admin on ").nth(1).unwrap().split_whitespace().next().unwrap());
    eventually_blocking(DEADLINE, "no client is left", || {
        let metrics = told(connection(admin, b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"));
        let open = metrics.lines().find(|line| line.starts_with("pgentra_proxy_sessions_open{")).unwrap();
        open.split(" ").nth(1).unwrap().parse::<f64>().unwrap() == 0.0
    });
    proxy.signal(Signal::TERM);
    proxy.await_line("stopping; 0 session(s) to wait for");
    assert!(proxy.ended().success());
}

/// Forty wrong passwords at once: a dozen are checked, and the right one is accepted seconds later.
#[test]
fn guesses_at_once_shut_nobody_out() {
    if !have(&["psql"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let role = cloud.env("vm")["PGUSER"].clone();
    let users = lab.path().join("users");
    let hashed = lab.pgentra(&["proxy", "hash-password", &role]).input("secret\n").done();
    fs::write(&users, hashed.ok()).unwrap();
    fs::set_permissions(&users, fs::Permissions::from_mode(0o600)).unwrap();
    let file = users.to_str().unwrap();
    let arguments = ["--listen", "127.0.0.1:0", "--listen-auth-file", file, &target(&cloud)];
    let proxy = lab.proxy(variables(&cloud), &arguments, 1);
    let script = r#"
        for guess in $(seq 40); do
            PGPASSWORD=$guess psql -XAtwc 'SELECT 1' "$1" >>"$HOME/out" 2>&1 &
        done
        SECONDS=0
        wait
        echo "$(grep -c 'password authentication failed' "$HOME/out") $SECONDS"
        PGCONNECT_TIMEOUT=20 PGPASSWORD=secret psql -XAtwc 'SELECT 7' "$1"
    "#;
    let conninfo = format!("host=127.0.0.1 port={} user={role} dbname=postgres", proxy.port());
    let done = lab.program(&["bash", "-c", script, "bash", &conninfo]).within(180).done();
    let lines: Vec<&str> = done.ok().lines().collect();
    assert_eq!(lines[1..], ["7"], "{done:?}");
    let counts: Vec<u32> = lines[0].split(' ').map(|number| number.parse().unwrap()).collect();
    assert!((1..=13 + counts[1]).contains(&counts[0]) && counts[0] < 40, "{counts:?}");
    drop(proxy);
}

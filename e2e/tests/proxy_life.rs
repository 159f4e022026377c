//! Start, reload and shutdown of `pgentra proxy` with active clients.
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use e2e::{Cloud, Flavour, Lab, Proxy, have};
use eventually::{DEADLINE, eventually_blocking, holds};
use rustix::process::Signal;

type Variables = BTreeMap<String, String>;

/// Acknowledged rows are counted, so that a lost answer is found.
const SCRIPT: &str = "INSERT INTO told VALUES (:client_id);\n";

/// A local cloud, and the configuration file of a proxy.
struct Stage<'lab> {
    lab: &'lab Lab,
    cloud: Cloud<'lab>,
    file: PathBuf,
}

impl<'lab> Stage<'lab> {
    fn new(lab: &'lab Lab) -> Self {
        let cloud = lab.cloud(Flavour::Flexible, &[]);
        let stage = Self { lab, cloud, file: lab.path().join("proxy.toml") };
        stage.admin("CREATE TABLE told (client int); GRANT ALL ON told TO PUBLIC");
        stage
    }

    /// Runs SQL of the administrator, without the proxy.
    fn admin(&self, sql: &str) -> serde_json::Value {
        let query = ["query", "-o", "json", "-c", sql];
        self.lab.pgentra(&query).envs(self.cloud.env("admin")).done().json()
    }

    /// The one number of such SQL.
    fn count(&self, sql: &str) -> u64 {
        self.admin(sql)[0]["rows"][0][0].as_str().unwrap().parse().unwrap()
    }

    fn write(&self, more: &str) {
        let vm = self.cloud.env("vm");
        let target = format!(
            "[[target]]\nserver = \"host=localhost port={}\"\nlisten = \"127.0.0.1:0\"\n",
            vm["PGPORT"]
        );
        fs::write(&self.file, format!("{more}\n{target}")).unwrap();
    }

    /// The variables of the cloud, without role and server.
    fn variables(&self) -> Variables {
        let named = |name: &String| !["PGUSER", "PGDATABASE", "PGHOST", "PGPORT"].contains(&name.as_str());
        self.cloud.env("vm").into_iter().filter(|(name, _)| named(name)).collect()
    }

    fn proxy<'a>(&self, lab: &'a Lab, more: &str) -> Proxy<'a> {
        self.write(more);
        lab.proxy(self.variables(), &["--config", self.file.to_str().unwrap()], 1)
    }

    /// Runs a client of the proxy in a shell. It reads pgbench's script as `$1`.
    fn client(&self, proxy: &Proxy<'_>, script: &str) -> std::thread::JoinHandle<(bool, String)> {
        let file = self.lab.path().join("told.sql");
        fs::write(&file, SCRIPT).unwrap();
        let vm = self.cloud.env("vm");
        let mut command = std::process::Command::new("bash");
        command
            .args(["-euo", "pipefail", "-c", script, "bash", file.to_str().unwrap()])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", proxy.port())
            .env("PGUSER", &vm["PGUSER"])
            .env("PGDATABASE", &vm["PGDATABASE"]);
        std::thread::spawn(move || {
            let done = command.output().unwrap();
            let said = [done.stdout, done.stderr].concat();
            (done.status.success(), String::from_utf8_lossy(&said).into_owned())
        })
    }

    /// Waits until so many clients are connected.
    fn at_work(&self, clients: u64) {
        eventually_blocking(DEADLINE, "clients at work", || {
            self.count("SELECT count(DISTINCT client) FROM told") >= clients
        });
    }

    fn told(&self) -> u64 {
        self.count("SELECT count(*) FROM told")
    }

    /// Waits until the server has no session of the proxy's clients: its processes take a moment to
    /// end.
    fn no_session_is_left(&self) {
        let role = &self.cloud.env("vm")["PGUSER"];
        let sessions = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{role}'");
        eventually_blocking(DEADLINE, "no session of the server's", || self.count(&sessions) == 0);
    }
}

/// The number of transactions in pgbench's output.
fn processed(said: &str) -> u64 {
    let line = said.lines().find(|line| line.contains("actually processed")).unwrap();
    let digits: String = line.split('/').next().unwrap().chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

#[test]
fn reload_under_load_loses_no_answer() {
    if !have(&["postgresql"]) {
        return;
    }
    let lab = Lab::new();
    let stage = Stage::new(&lab);
    let proxy = stage.proxy(&lab, "max_connections = 50");
    let persistent = stage.client(&proxy, "pgbench -n -f $1 -c 4 -t 1000");
    let new_ones = stage.client(&proxy, "pgbench -n -f $1 -c 2 -t 50 -C");
    stage.at_work(4);
    for round in 51..71 {
        stage.write(&format!("max_connections = {round}"));
        proxy.signal(Signal::HUP);
        proxy.await_line(&format!("max_connections {} -> {round}", round - 1));
    }
    stage.write("max_conections = 1");
    proxy.signal(Signal::HUP);
    proxy.await_line("the new configuration is refused");
    proxy.await_line("the nearest is max_connections");
    for (client, expected) in [(persistent, 4000), (new_ones, 100)] {
        let (well, said) = client.join().unwrap();
        assert!(well, "{said}");
        assert_eq!(processed(&said), expected, "{said}");
    }
    assert_eq!(stage.told(), 4100);
    assert!(!proxy.said().contains("no longer listening"), "{}", proxy.said());
    proxy.signal(Signal::TERM);
    proxy.await_line("stopping; 0 session(s) to wait for");
    assert!(proxy.ended().success());
    stage.no_session_is_left();
}

#[test]
fn sigterm_under_load_lets_sessions_end() {
    if !have(&["postgresql"]) {
        return;
    }
    let lab = Lab::new();
    let stage = Stage::new(&lab);
    let proxy = stage.proxy(&lab, "drain_timeout = 600");
    let client = stage.client(&proxy, "pgbench -n -f $1 -c 4 -t 1000");
    stage.at_work(4);
    proxy.signal(Signal::TERM);
    proxy.await_line("stopping; 4 session(s) to wait for");
    let address = ("127.0.0.1", proxy.port().parse().unwrap());
    eventually_blocking(DEADLINE, "the listener to close", || TcpStream::connect(address).is_err());
    let (well, said) = client.join().unwrap();
    assert!(well, "{said}");
    assert_eq!((processed(&said), stage.told()), (4000, 4000));
    assert!(proxy.ended().success());
    stage.no_session_is_left();
}

#[test]
fn a_second_sigterm_does_not_wait() {
    if !have(&["psql"]) {
        return;
    }
    let lab = Lab::new();
    let stage = Stage::new(&lab);
    let audit = lab.path().join("audit.jsonl");
    let proxy = stage.proxy(&lab, &format!("drain_timeout = 86400\naudit = {audit:?}"));
    let client = stage.client(&proxy, "psql -X -c 'INSERT INTO told VALUES (1)' -c 'SELECT pg_sleep(86400)'");
    stage.at_work(1);
    proxy.signal(Signal::TERM);
    proxy.await_line("stopping; 1 session(s) to wait for");
    proxy.signal(Signal::TERM);
    proxy.await_line("stopping at once; 1 session(s) are ended");
    assert!(proxy.ended().success());
    let (well, said) = client.join().unwrap();
    assert!(!well && said.contains("terminating connection due to administrator command"), "{said}");
    // Its end is in the audit log.
    let lines = fs::read_to_string(audit).unwrap();
    let ends: Vec<&str> = lines.lines().filter(|line| line.contains(r#""event":"end""#)).collect();
    assert!(ends.len() == 1 && ends[0].contains(r#""ended_by":"drained""#), "{lines}");
}

#[test]
fn systemd_hands_over_its_sockets_and_hears_how_it_goes() {
    if !have(&["psql", "python"]) {
        return;
    }
    let lab = Lab::new();
    let stage = Stage::new(&lab);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/sockets.py");
    let socket = lab.path().join(".s.PGSQL.5432");
    let behind = Lab::behind(&["python3", script.to_str().unwrap(), socket.to_str().unwrap()]);
    let manager = lab.path().join("notify");
    let listening = UnixDatagram::bind(&manager).unwrap();
    listening.set_read_timeout(Some(DEADLINE)).unwrap();
    let hear_that = |what: &str, is_it: &dyn Fn(&str) -> bool| {
        eventually_blocking(DEADLINE, what, || {
            let mut message = [0; 2048];
            let length = listening.recv(&mut message).unwrap();
            holds(String::from_utf8(message[..length].to_vec()).unwrap(), |message| is_it(message))
        })
    };
    let hear = |begins: &str| hear_that(begins, &|message| message.starts_with(begins));
    let mut variables = stage.variables();
    variables.insert("NOTIFY_SOCKET".to_owned(), manager.to_str().unwrap().to_owned());
    variables.insert("WATCHDOG_USEC".to_owned(), "200000".to_owned());
    let vm = stage.cloud.env("vm");
    let target = format!("host=localhost port={}", vm["PGPORT"]);
    let proxy = behind.proxy(variables, &[&target], 2);
    assert_eq!(
        hear("READY=1"),
        "READY=1\nSTATUS=1 target(s) on 2 listener(s), 0 session(s); 0 serving, 1 idle, 0 failing"
    );
    assert_eq!(proxy.listeners()[1], socket.to_str().unwrap());
    for host in ["127.0.0.1", lab.path().to_str().unwrap()] {
        let port = if host.starts_with('/') { "5432".to_owned() } else { proxy.port() };
        let conninfo = format!("host={host} port={port} user={} dbname={}", vm["PGUSER"], vm["PGDATABASE"]);
        assert_eq!(lab.program(&["psql", "-XAtc", "SELECT 7", &conninfo]).done().ok(), "7\n");
    }
    hear("WATCHDOG=1");
    // Two sessions end unobserved; one that stays is counted.
    let client = stage.client(&proxy, "psql -X -c 'INSERT INTO told VALUES (1)' -c 'SELECT pg_sleep(86400)'");
    stage.at_work(1);
    let serving = "listener(s), 1 session(s); 1 serving, 0 idle, 0 failing";
    hear_that(serving, &|message| message.starts_with("STATUS=") && message.contains(serving));
    proxy.signal(Signal::HUP);
    hear("RELOADING=1\nMONOTONIC_USEC=");
    hear("READY=1");
    proxy.await_line("nothing has changed");
    proxy.signal(Signal::TERM);
    hear("STOPPING=1\nSTATUS=waiting for 1 session(s)");
    proxy.signal(Signal::TERM);
    assert!(proxy.ended().success());
    assert!(!client.join().unwrap().0);
    // The proxy must not remove it.
    assert!(socket.exists());
    fs::remove_file(socket).unwrap();
}

/// Without a token the proxy listens, but it reports readiness only after its first token request
/// has failed.
#[test]
fn systemd_hears_that_there_is_no_token() {
    let lab = Lab::new();
    let manager = lab.path().join("notify");
    let listening = UnixDatagram::bind(&manager).unwrap();
    let variables = [("NOTIFY_SOCKET".to_owned(), manager.to_str().unwrap().to_owned())];
    let arguments = ["--listen", "127.0.0.1:0", "--token-command", "exit 1", "-h", "localhost"];
    let proxy = lab.proxy(variables, &arguments, 1);
    let mut message = [0; 2048];
    let length = listening.recv(&mut message).unwrap();
    let message = std::str::from_utf8(&message[..length]).unwrap();
    let begin = "READY=1\nSTATUS=1 target(s) on 1 listener(s), 0 session(s); 0 serving, 0 idle, 1 failing; localhost: no token: ";
    assert!(message.starts_with(begin), "{message}");
    proxy.signal(Signal::TERM);
    assert!(proxy.ended().success());
}

#[test]
fn files_that_run_out_are_waited_for() {
    if !have(&["psql"]) {
        return;
    }
    let lab = Lab::new();
    let stage = Stage::new(&lab);
    let few = Lab::behind(&["bash", "-c", r#"ulimit -n 40; exec "$@""#, "bash"]);
    let proxy = stage.proxy(&few, "");
    let port: u16 = proxy.port().parse().unwrap();
    let crowd: Vec<_> = (0..80).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    proxy.await_line("a connection could not be accepted");
    drop(crowd);
    let (well, said) = stage.client(&proxy, "psql -XAtc 'SELECT 7'").join().unwrap();
    assert!(well && said == "7\n", "{said}");
    // No connections of the crowd are left.
    let open = || fs::read_dir(format!("/proc/{}/fd", proxy.pid().as_raw_nonzero())).unwrap().count();
    eventually_blocking(DEADLINE, "its files are closed", || open() < 30);
}

#[test]
fn a_check_tells_of_every_target() {
    let lab = Lab::new();
    let stage = Stage::new(&lab);
    let vm = stage.cloud.env("vm");
    let good = format!("host=localhost port={}", vm["PGPORT"]);
    let check = |targets: &[&str], more: &[&str]| {
        let words = [&["proxy", "--check", "-o", "json"], more, targets].concat();
        lab.pgentra(&words).envs(stage.variables()).done()
    };
    let with_role = format!("{good} user={} dbname={}", vm["PGUSER"], vm["PGDATABASE"]);
    let all = check(&[&good, &with_role], &[]).json();
    assert_eq!(all.as_array().unwrap().iter().filter(|target| target["ok"] == true).count(), 2, "{all}");
    for (bad, code) in [
        ("host=localhost port=1".to_owned(), 4),
        (format!("{good} user=no_such_role"), 5),
        (format!("{good} token_command=false"), 3),
    ] {
        let done = check(&[&good, &bad, "host=localhost port=1"], &[]);
        assert_eq!(done.status.code(), Some(code), "{done:?}");
        let told: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
        assert_eq!(
            (&told[0]["ok"], &told[1]["ok"], &told[1]["exit_code"]),
            (&true.into(), &false.into(), &code.into())
        );
        assert!(told[1]["error"].is_string() && done.stderr.contains("2 of 3 target(s)"), "{done:?}");
    }
}
#[test]
fn sigterm_under_load_ends_sessions_between_transactions() {
    if !have(&["postgresql"]) {
        return;
    }
    let lab = Lab::new();
    let stage = Stage::new(&lab);
    let proxy = stage.proxy(&lab, "drain_timeout = 600\ndrain = 'transaction'");
    // More than a minute of work.
    let client = stage.client(&proxy, "pgbench -n -f $1 -c 4 -t 1000000");
    stage.at_work(4);
    proxy.signal(Signal::TERM);
    assert!(proxy.ended().success());
    let (well, said) = client.join().unwrap();
    assert!(!well && said.contains("terminating connection due to administrator command"), "{said}");
    // Every committed row was acknowledged to its client.
    assert_eq!(processed(&said), stage.told(), "{said}");
    stage.no_session_is_left();
}

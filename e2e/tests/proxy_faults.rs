//! Failures around `pgentra proxy`, and the errors that clients get.
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;

use e2e::{Cloud, Flavour, Lab, Namespace, Proxy, client, have};
use eventually::{DEADLINE, eventually_blocking};

/// A proxy to a local cloud.
struct Stage<'lab> {
    lab: &'lab Lab,
    proxy: Proxy<'lab>,
    cloud: Cloud<'lab>,
    through: BTreeMap<String, String>,
}

impl<'lab> Stage<'lab> {
    fn new(lab: &'lab Lab, arguments: &[&str]) -> Self {
        let cloud = lab.cloud(Flavour::Flexible, &[]);
        let vm = cloud.env("vm");
        let proxy = lab.proxy(vm.clone(), &[&["--listen", "127.0.0.1:0"], arguments].concat(), 1);
        let through = [
            ("PGHOST", "127.0.0.1"),
            ("PGPORT", &proxy.port()),
            ("PGUSER", &vm["PGUSER"]),
            ("PGDATABASE", &vm["PGDATABASE"]),
        ];
        let through = through.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Self { lab, proxy, cloud, through }
    }

    /// Runs a client's script.
    fn client(&self, script: &str) -> e2e::Done<'lab> {
        self.lab.shell(script).envs(self.through.clone()).done()
    }

    /// A number from the proxy's /proc/PID/status.
    fn status(&self, key: &str) -> u64 {
        let pid = self.proxy.pid().as_raw_nonzero();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Open files of the proxy.
    fn files(&self) -> usize {
        let pid = self.proxy.pid().as_raw_nonzero();
        fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
    }

    /// Waits until it has as few open files again: a session closes its own a moment after its
    /// client has left.
    fn closes(&self, files: usize) {
        // Two more: a metadata service that is kept in touch with.
        eventually_blocking(DEADLINE, "its files are closed", || self.files() <= files + 2);
    }
}

/// A backend that dies during a statement: its client gets the server's error, or the end of the
/// connection; it does not hang, and the next client is served.
#[test]
fn the_server_dies_under_a_statement() {
    if !have(&["psql"]) {
        return;
    }
    let lab = Lab::new();
    let stage = Stage::new(&lab, &[]);
    let terminated = stage.client(
        "psql -XAtc 'SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(100)' 2>&1 || echo exit $?; psql -XAtc 'SELECT 1'",
    );
    assert!(
        terminated.ok().contains("terminating connection due to administrator command"),
        "{terminated:?}"
    );
    assert!(terminated.stdout.ends_with("exit 2\n1\n"), "{terminated:?}");
    // The whole server is killed and cannot send a message.
    let script = r#"
        psql -XAtc "SET application_name = 'sleeper'" -c 'SELECT pg_sleep(100)' >"$HOME/said" 2>&1 &
        client=$!
        until [ "$(psql -XAtc "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sleeper' AND wait_event = 'PgSleep'")" = 1 ]; do :; done
        kill -KILL "$PROCESS"
        wait $client || echo exit $?
        psql -XAtc 'SELECT 1' 2>&1 || echo exit $?
    "#;
    let postmaster = fs::read_to_string(find(&stage.cloud.folder(), "postmaster.pid")).unwrap();
    let script = script.replace("$PROCESS", postmaster.lines().next().unwrap());
    let killed = stage.client(&script);
    let said = killed.ok();
    // One client lost its connection, the other got the error that there is no server.
    assert!(said.starts_with("exit 2\n") && said.ends_with("exit 2\n"), "{killed:?}");
    assert!(said.contains("FATAL:"), "{killed:?}");
}

/// The path of a file below a folder.
fn find(folder: &std::path::Path, name: &str) -> std::path::PathBuf {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir() && !path.is_symlink());
    let here = files.into_iter().find(|path| path.ends_with(name));
    here.or_else(|| folders.iter().find(|path| contains(path, name)).map(|path| find(path, name))).unwrap()
}

fn contains(folder: &std::path::Path, name: &str) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return false };
    entries.map(|entry| entry.unwrap().path()).any(|path| {
        if path.is_dir() && !path.is_symlink() { contains(&path, name) } else { path.ends_with(name) }
    })
}

/// Sessions leave no open files and no memory: the memory after the second thousand is that after
/// the first.
#[test]
fn nothing_leaks() {
    if !have(&["psql"]) {
        return;
    }
    let lab = Lab::new();
    let stage = Stage::new(&lab, &[]);
    let files = stage.files();
    let round = "pgbench -n -c 10 -t 20 -C -f <(echo 'SELECT 1') 2>/dev/null | grep -e 'actually processed'";
    let before = stage.client(round);
    assert!(before.ok().contains("200/200"), "{before:?}");
    let memory = stage.status("VmRSS");
    for _ in 0..3 {
        assert!(stage.client(round).ok().contains("200/200"));
    }
    stage.closes(files);
    let now = stage.status("VmRSS");
    assert!(now < memory + memory / 4, "{now} kB are held, {memory} were");
}

/// Every accepted client gets a session or an error; the system's maximum may wait to be accepted;
/// no files and memory are left; and a shell's limit of open files does not matter.
#[test]
fn ten_thousand_clients_in_a_burst() {
    const CLIENTS: usize = 10_000;
    const SESSIONS: usize = 40;
    if !have(&["psql", "python", "curl", "ip"]) {
        return;
    }
    let lab = Lab::behind(&["bash", "-c", "ulimit -Sn 256; exec \"$@\"", "bash"]);
    let stage = Stage::new(&lab, &["--max-connections", &SESSIONS.to_string(), "--admin-listen", "0"]);
    let admin = stage.proxy.await_line("admin on ").split("admin on ").nth(1).unwrap().to_owned();
    let (python, burst) =
        (client("venv/bin/python"), concat!(env!("CARGO_MANIFEST_DIR"), "/clients/burst.py"));
    let clients = CLIENTS.to_string();
    let [host, port, user, database] =
        ["PGHOST", "PGPORT", "PGUSER", "PGDATABASE"].map(|name| stage.through[name].as_str());
    let waiting = lab.program(&["ss", "-lntH", &format!("sport = :{port}")]).done().ok().to_owned();
    let most = fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap().trim().parse::<u32>().unwrap();
    // The proxy asks for no more than this.
    let most = most.min(65_535).to_string();
    assert_eq!(waiting.split_whitespace().nth(2), Some(most.as_str()), "{waiting}");
    let words = [python.to_str().unwrap(), burst, host, port, user, database, &clients];
    let before = stage.files();
    let told = || lab.program(&words).within(600).done().json();
    let expected = serde_json::json!({ "session": SESSIONS, "53300": CLIENTS - SESSIONS });
    assert_eq!(told(), expected);
    stage.closes(before);
    // The allocator keeps the memory of the largest burst, which differs a little; a leak for each
    // client would grow with every burst.
    let mut memory = vec![stage.status("VmRSS")];
    let settles = |memory: &[u64]| matches!(memory, [.., before, now] if *now < before + before / 8);
    while !settles(&memory) {
        assert!(memory.len() < 4, "{memory:?} kB are held after each burst");
        assert_eq!(told(), expected);
        stage.closes(before);
        memory.push(stage.status("VmRSS"));
    }
    let metrics = lab.program(&["curl", "-sS", &format!("{admin}metrics")]).done().ok().to_owned();
    let accepted = metrics.lines().find(|line| line.starts_with("pgentra_proxy_connections_total{")).unwrap();
    assert_eq!(
        accepted.split(' ').next_back(),
        Some((memory.len() * CLIENTS).to_string().as_str()),
        "{metrics}"
    );
    assert_eq!(stage.client("psql -XAtc 'SELECT 1'").ok(), "1\n");
}

/// The server's machine disappears during a statement: the client gets an error once keepalives
/// fail, and the next client is served once the network is back.
#[test]
fn a_server_that_is_gone_without_a_word() {
    if !have(&["psql", "ip", "netns"]) {
        return;
    }
    let namespace = Namespace::new("server");
    let lab = namespace.lab();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let vm = cloud.env("vm");
    // The client's connection does not use the network.
    let socket = lab.path().join("sockets");
    fs::DirBuilder::new().mode(0o700).create(&socket).unwrap();
    let socket = socket.to_str().unwrap();
    // The timeout covers a query that was not acknowledged when the network went down.
    let keepalives = "keepalives_idle=1 keepalives_interval=1 keepalives_count=1 tcp_user_timeout=2000";
    let target = format!("host=localhost port={} {keepalives}", vm["PGPORT"]);
    let proxy = lab.proxy(vm.clone(), &["--listen", socket, &target], 1);
    let psql = |sql: &str| {
        let conninfo = format!("host={socket} port=5432 user={} dbname={}", vm["PGUSER"], vm["PGDATABASE"]);
        lab.program(&["psql", "-XAtc", sql, &conninfo])
    };
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| psql("SELECT pg_sleep(86400)").done());
        let asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        eventually_blocking(DEADLINE, "the statement runs", || psql(asleep).done().ok() == "1\n");
        namespace.ip(&["link", "set", "lo", "down"]);
        let asked = asked.join().unwrap();
        assert!(
            !asked.status.success() && asked.stderr.contains("server closed the connection"),
            "{asked:?}"
        );
    });
    namespace.ip(&["link", "set", "lo", "up"]);
    assert_eq!(psql("SELECT 7").done().ok(), "7\n");
    drop(proxy);
}

/// A client's machine disappears: its session ends after a minute of silence and a probe; in the
/// namespace one failed probe is enough instead of nine.
#[test]
fn a_client_that_is_gone_without_a_word() {
    if !have(&["psql", "ip", "netns"]) {
        return;
    }
    let namespace = Namespace::new("client");
    let lab = namespace.lab();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let vm = cloud.env("vm");
    let audit = lab.path().join("audit");
    let arguments = ["--listen", "127.0.0.1:0", "--audit", audit.to_str().unwrap()];
    let proxy = lab.proxy(vm.clone(), &arguments, 1);
    let script = r#"
        echo 1 >/proc/sys/net/ipv4/tcp_keepalive_probes
        mkfifo hold
        psql -X "host=127.0.0.1 port=$1 sslmode=disable" <hold &
        exec 3>hold
        until grep '"event":"start"' "$2" >start; do sleep 0.1; done
        ip link set lo down
        until grep '"event":"end"' "$2"; do sleep 0.1; done
        kill $!
        ip link set lo up
    "#;
    let words = ["bash", "-euc", script, "bash", &proxy.port(), audit.to_str().unwrap()];
    let user = ["PGUSER", "PGDATABASE"].map(|name| (name.to_owned(), vm[name].clone()));
    let ended = lab.program(&words).envs(user).within(600).done();
    assert!(ended.ok().contains(r#""ended_by":"client""#), "{ended:?}");
}

/// A token is in its memory, so a crash must write no core file, in contrast to another program.
#[test]
fn a_crash_writes_no_memory_to_disk() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let script = "ulimit -c unlimited
        pgentra proxy --listen 127.0.0.1:0 2>said & proxy=$!
        until grep -q listening said; do :; done
        kill -ABRT $proxy; wait $proxy || echo exit $?
        ls";
    let crashed = lab.shell(script).envs(cloud.env("vm")).done();
    assert_eq!(crashed.ok(), "exit 134\nsaid\n");
    let other =
        lab.shell("ulimit -c unlimited; sleep 100 & kill -ABRT $!; wait $! || ls; rm -f core*").done();
    if !other.ok().contains("core") {
        let _ = writeln!(
            std::io::stderr(),
            "e2e: this system writes no core files, so the test proves nothing here"
        );
    }
}

//! Real clients through `pgentra proxy`, without a password: each gets the same results as with a
//! token of its own.
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use e2e::{Cloud, Flavour, Lab, Proxy, Run, client, have};

const JDBC: &str = "/usr/share/java/postgresql.jar";

type Variables = BTreeMap<String, String>;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn own(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name)
}

/// The folder of the programs of an installed server.
fn postgresql() -> String {
    fs::read_to_string(client("postgresql")).unwrap().trim_end().to_owned()
}

/// A local cloud before an installed PostgreSQL, and a proxy to it.
struct Stage<'lab> {
    lab: &'lab Lab,
    direct: Variables,
    through: Variables,
    proxy: Proxy<'lab>,
    cloud: Cloud<'lab>,
}

impl<'lab> Stage<'lab> {
    fn new(lab: &'lab Lab, arguments: &[&str]) -> Self {
        let cloud = lab.cloud(Flavour::Flexible, &["--postgres", &postgresql()]);
        let vm = cloud.env("vm");
        // The client chooses the database.
        let named = vm.clone().into_iter().filter(|(name, _)| name != "PGDATABASE");
        let proxy = lab.proxy(named, &[&["--listen", "127.0.0.1:0"], arguments].concat(), 1);
        let mut direct: Variables = vm
            .iter()
            .filter(|(name, _)| name.starts_with("PG"))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        direct.insert("PGPASSWORD".to_owned(), lab.pgentra(&["token"]).envs(vm.clone()).token());
        let through = [
            ("PGHOST", "127.0.0.1"),
            ("PGPORT", &proxy.port()),
            ("PGUSER", &vm["PGUSER"]),
            ("PGDATABASE", &vm["PGDATABASE"]),
        ];
        let through = through.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let stage = Self { lab, direct, through, proxy, cloud };
        stage.admin("GRANT ALL ON SCHEMA public TO PUBLIC");
        stage
    }

    /// SQL of the administrator.
    fn admin(&self, sql: &str) {
        self.lab.pgentra(&["query", "-c", sql]).envs(self.cloud.env("admin")).done().ok();
    }

    /// The program's output through the proxy equals its direct output, and contains these texts.
    fn agrees(&self, words: &[&str], says: &[&str]) {
        let [direct, through] = [&self.direct, &self.through]
            .map(|variables| self.lab.program(words).envs(variables.clone()).done());
        assert_eq!(direct.ok(), through.ok(), "{words:?}");
        for word in says {
            assert!(through.stdout.contains(word), "no {word:?} in {through:?}");
        }
    }

    /// A script in which `$1` is a folder for its files.
    fn shell(&self, script: &str, variables: &Variables, folder: &str) -> String {
        let folder = self.lab.path().join(folder);
        fs::create_dir_all(&folder).unwrap();
        let words = ["bash", "-euo", "pipefail", "-c", script, "bash", text(&folder)];
        self.lab.program(&words).envs(variables.clone()).done().ok().to_owned()
    }
}

#[test]
fn drivers_of_python() {
    if !have(&["python", "postgresql"]) {
        return;
    }
    let lab = Lab::new();
    let stage = Stage::new(&lab, &[]);
    let python = client("venv/bin/python");
    for (driver, says) in [
        (
            "psycopg",
            &[
                "who: ('myVm'",
                "copy: ",
                "pipeline: 249500",
                "['hello']",
                "cancelled: 57014",
                "timeout: 57014",
            ][..],
        ),
        ("asyncpg", &["who: ('myVm'", "copy out: ", "'hello'", "afterwards: 1"]),
        ("pg8000", &["who: ('myVm'", "copy: True", "22012"]),
    ] {
        stage.agrees(&[text(&python), text(&own("battery.py")), driver], says);
    }
}

#[test]
fn drivers_of_node() {
    if !have(&["node", "postgresql"]) {
        return;
    }
    let lab = Lab::new();
    let stage = Stage::new(&lab, &[]);
    let node = client("venv/bin/node");
    for (driver, says) in [
        ("pg", &["who: [\"myVm\"", "prepared: 5", "[\"news\",\"hello\"]", "22012"][..]),
        ("postgres", &["who: [[\"myVm\"", "copy: true", "cancelled: \"57014\""]),
    ] {
        stage.agrees(&[text(&node), text(&own("battery.mjs")), text(&client("")), driver], says);
    }
}

#[test]
fn the_driver_of_java() {
    if !have(&["jdbc", "postgresql"]) {
        return;
    }
    let lab = Lab::new();
    let stage = Stage::new(&lab, &[]);
    let battery = own("Battery.java");
    let says =
        ["who: myVm", "types: 10 ü", "batch: 5000", "copy out: 5001", "news hello", "cancelled: 57014"];
    stage.agrees(&["java", "-cp", JDBC, text(&battery)], &says);
}

#[test]
fn psql_and_pgbench() {
    if !have(&["psql", "postgresql"]) {
        return;
    }
    let lab = Lab::new();
    let stage = Stage::new(&lab, &[]);
    let script = r"
        psql -XAtq -v ON_ERROR_STOP=1 <<'SQL'
            SELECT current_user, current_setting('application_name'), current_setting('client_encoding');
            CREATE TEMP TABLE copied (id int, line text);
            INSERT INTO copied SELECT n, 'line ' || n FROM generate_series(1, 50000) n;
            \copy copied TO PSTDOUT
            \set FETCH_COUNT 100
            SELECT sum(id) FROM copied;
            SELECT * FROM copied LIMIT 500 \gdesc
            LISTEN news;
            NOTIFY news, 'hello';
            \echo :SERVER_VERSION_NUM
SQL
        PGOPTIONS='-c statement_timeout=50 -c search_path=pg_catalog' PGAPPNAME=mine psql -XAtqc 'SHOW search_path' \
            -c 'SHOW application_name' -c 'SELECT pg_sleep(100)' 2>&1 || :
    ";
    let direct = stage.shell(script, &stage.direct, "direct");
    let through = stage.shell(script, &stage.through, "through");
    // The process id of a session differs.
    let told = |said: &str| {
        said.lines().filter(|line| !line.starts_with("Asynchronous")).collect::<Vec<_>>().join("\n")
    };
    // Not the fifty thousand lines.
    assert!(told(&direct) == told(&through), "the proxy changes something");
    for word in ["myVm|psql|UTF8", "line 50000", "1250025000", "pg_catalog\nmine", "statement timeout"] {
        assert!(through.contains(word), "no {word:?}");
    }
    assert!(through.contains("Asynchronous notification \"news\" with payload \"hello\""));
    let bench = r"
        pgbench --initialize --quiet --scale 1 2>&1 | tail -n 1 >&2
        for mode in simple extended prepared; do
            pgbench --client 4 --transactions 100 --protocol $mode 2>/dev/null | grep -e 'actually processed' -e 'failed'
        done
        pgbench --client 4 --transactions 25 --select-only --connect 2>/dev/null | grep -e 'actually processed' -e 'failed'
    ";
    let done = stage.shell(bench, &stage.through, "bench");
    let expected =
        "number of transactions actually processed: 400/400\nnumber of failed transactions: 0 (0.000%)\n"
            .repeat(3);
    assert!(done.starts_with(&expected) && done.contains("processed: 100/100"), "{done}");
}

/// Ctrl-C in psql cancels the statement: the cancel request has the proxy's key.
#[test]
fn psql_cancels() {
    if !have(&["psql", "postgresql"]) {
        return;
    }
    let lab = Lab::new();
    let stage = Stage::new(&lab, &[]);
    let script = r#"
        psql -XAtc 'SELECT pg_sleep(100)' >"$1/out" 2>&1 &
        psql=$!
        until [ "$(psql -XAtc "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")" = 1 ]; do :; done
        kill -INT $psql
        wait $psql || grep ERROR "$1/out"
    "#;
    assert_eq!(
        stage.shell(script, &stage.through, "cancel"),
        "ERROR:  canceling statement due to user request\n"
    );
}

#[test]
fn dump_and_restore() {
    if !have(&["psql", "postgresql"]) {
        return;
    }
    let lab = Lab::new();
    let stage = Stage::new(&lab, &[]);
    stage.admin("ALTER ROLE \"myVm\" CREATEDB");
    let make = r#"
        createdb app
        psql -XAtq -v ON_ERROR_STOP=1 app <<'SQL'
            CREATE TABLE kept (id int PRIMARY KEY, line text, data bytea);
            INSERT INTO kept SELECT n, 'line ' || n, decode(md5(n::text), 'hex') FROM generate_series(1, 20000) n;
            CREATE INDEX ON kept (line);
            CREATE VIEW seen AS SELECT id FROM kept;
SQL
    "#;
    stage.shell(make, &stage.through, "through");
    let script = r#"
        pg_dump --file "$1/dump.sql" app
        pg_dump --format directory --jobs 3 --file "$1/dump.dir" app
        grep -v -e '^\\restrict' -e '^\\unrestrict' "$1/dump.sql" | sha256sum
    "#;
    let direct = stage.shell(script, &stage.direct, "direct");
    assert_eq!(stage.shell(script, &stage.through, "through"), direct);
    let restore = r#"
        createdb restored
        pg_restore --jobs 3 --dbname restored "$1/dump.dir"
        psql -XAtc 'SELECT count(*), sum(id), md5(string_agg(line || data::text, $$,$$ ORDER BY id)) FROM kept' restored
        psql -XAtc 'SELECT count(*), sum(id), md5(string_agg(line || data::text, $$,$$ ORDER BY id)) FROM kept' app
    "#;
    let restored = stage.shell(restore, &stage.through, "through");
    let lines: Vec<_> = restored.lines().collect();
    assert!(
        lines.len() == 2 && lines[0] == lines[1] && lines[0].starts_with("20000|200010000|"),
        "{restored}"
    );
}

/// A PostgreSQL with its own TLS that asks for a cleartext password: the token of its role `app`.
struct Server<'lab> {
    lab: &'lab Lab,
    folder: PathBuf,
    port: String,
    token: String,
    /// Variables of the identity.
    identity: Variables,
    _cloud: Cloud<'lab>,
}

impl<'lab> Server<'lab> {
    /// With these attributes of its role.
    fn start(lab: &'lab Lab, attributes: &str) -> Self {
        let cloud = lab.cloud(Flavour::Flexible, &[]);
        let vm = cloud.env("vm");
        let token = lab.pgentra(&["token"]).envs(vm.clone()).token();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
        let folder = lab.path().join("server");
        fs::create_dir(&folder).unwrap();
        let identity = vm.into_iter().filter(|(name, _)| !name.starts_with("PG")).collect();
        let server = Self { lab, folder, port, token, identity, _cloud: cloud };
        let script = r#"
            cd "$1"
            openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost \
                -addext basicConstraints=critical,CA:FALSE -keyout server.key -out server.crt 2>openssl.log
            as=
            [ "$(id -u)" != 0 ] || { chown -R nobody "$1"; as="setpriv --reuid nobody --clear-groups"; }
            $as "$2/initdb" -D data -U postgres --auth=trust --no-sync >initdb.log
            echo 'hostssl all,replication all 127.0.0.1/32 password' >data/pg_hba.conf
            echo 'local all all trust' >>data/pg_hba.conf
            settings="-c listen_addresses=127.0.0.1 -c port=$3 -c unix_socket_directories=$1 -c fsync=off -c wal_level=logical
                -c ssl=on -c ssl_cert_file=$1/server.crt -c ssl_key_file=$1/server.key"
            $as "$2/pg_ctl" -D data -w -l server.log -o "$(echo $settings)" start >pg_ctl.log
            psql -XAtq -h "$1" -p "$3" -U postgres postgres
        "#;
        let role = format!(
            "CREATE ROLE app LOGIN {attributes}; CREATE DATABASE app OWNER app;
             SET password_encryption = 'scram-sha-256'; ALTER ROLE app PASSWORD '{}'",
            server.token
        );
        server.run(script).input(&role).done().ok();
        server
    }

    /// A script in which `$1` is the server's folder, `$2` that of PostgreSQL's programs and `$3`
    /// the port.
    fn run(&self, script: &str) -> Run<'lab> {
        let words =
            ["bash", "-euo", "pipefail", "-c", script, "bash", text(&self.folder), &postgresql(), &self.port];
        self.lab.program(&words)
    }

    fn proxy(&self, arguments: &[&str]) -> Proxy<'lab> {
        let certificate = self.certificate();
        let target = format!("host=localhost port={} sslrootcert={certificate}", self.port);
        let arguments = [&["--listen", "127.0.0.1:0", &target], arguments].concat();
        self.lab.proxy(self.identity.clone(), &arguments, 1)
    }

    fn certificate(&self) -> String {
        text(&self.folder.join("server.crt")).to_owned()
    }

    fn through(proxy: &Proxy<'_>) -> Variables {
        variables(&[
            ("PGHOST", "127.0.0.1"),
            ("PGPORT", &proxy.port()),
            ("PGUSER", "app"),
            ("PGDATABASE", "app"),
        ])
    }

    fn direct(&self) -> Variables {
        variables(&[
            ("PGHOST", "localhost"),
            ("PGPORT", &self.port),
            ("PGUSER", "app"),
            ("PGDATABASE", "app"),
            ("PGPASSWORD", &self.token),
            ("PGSSLMODE", "verify-full"),
            ("PGSSLROOTCERT", &self.certificate()),
        ])
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        let script = r#"
            as=
            [ "$(id -u)" != 0 ] || as="setpriv --reuid nobody --clear-groups"
            cd "$1" && $as "$2/pg_ctl" -D data -w -m fast stop >pg_ctl.log
        "#;
        let stopped = self.run(script).done();
        if !std::thread::panicking() {
            stopped.ok();
        }
    }
}

fn variables(all: &[(&str, &str)]) -> Variables {
    all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn physical_and_logical_replication() {
    if !have(&["psql", "postgresql"]) {
        return;
    }
    let lab = Lab::new();
    let server = Server::start(&lab, "REPLICATION");
    let proxy = server.proxy(&[]);
    let script = r#"
        pg_basebackup --pgdata "$1/backup" --wal-method stream --checkpoint fast
        "$2/pg_verifybackup" "$1/backup"
        psql -XAtqc 'CREATE TABLE changed (id int)'
        pg_recvlogical --dbname app --slot changes --create-slot --plugin test_decoding
        psql -XAtqc 'INSERT INTO changed SELECT generate_series(1, 1000)'
        end=$(psql -XAtc 'SELECT pg_current_wal_lsn()')
        pg_recvlogical --dbname app --slot changes --start --endpos "$end" --no-loop --file - | grep -c INSERT
        pg_recvlogical --dbname app --slot changes --drop-slot
    "#;
    let replicated = server.run(script).envs(Server::through(&proxy)).done();
    assert_eq!(replicated.ok(), "backup successfully verified\n1000\n");
}

/// A running statement fails when the server stops; clients are served after the restart, and get
/// no pooled session of the old server.
#[test]
fn a_server_that_restarts_is_found_again() {
    if !have(&["psql", "postgresql"]) {
        return;
    }
    let lab = Lab::new();
    let server = Server::start(&lab, "");
    let proxy = server.proxy(&["--warm", "2", "--reuse"]);
    let script = r#"
        as=
        [ "$(id -u)" != 0 ] || as="setpriv --reuid nobody --clear-groups"
        cd "$1"
        psql -XAtc 'SELECT pg_sleep(86400)' >"$HOME/said" 2>&1 & client=$!
        until [ "$(psql -XAtc "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")" = 1 ]; do :; done
        before=$(psql -XAtc 'SELECT pg_postmaster_start_time()')
        $as "$2/pg_ctl" -D data -w -m immediate -l server.log restart >pg_ctl.log
        wait $client || echo "the statement ended: $?"
        for try in 1 2 3 4; do
            [ "$(psql -XAtc 'SELECT pg_postmaster_start_time()')" != "$before" ] && echo served
        done
    "#;
    let said = server.run(script).envs(Server::through(&proxy)).done();
    assert_eq!(said.ok(), "the statement ended: 2\nserved\nserved\nserved\nserved\n");
}

/// A driver's own tests pass through the proxy, except those that fail directly too.
#[test]
fn the_tests_of_asyncpg() {
    if !have(&["psql", "python", "asyncpg-tests", "postgresql"]) {
        return;
    }
    let lab = Lab::new();
    let server = Server::start(&lab, "SUPERUSER");
    let proxy = server.proxy(&[]);
    let (python, suite, tests) = (client("venv/bin/python"), own("suite.py"), client("asyncpg-tests"));
    let run = |variables: Variables, names: &[String]| {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let words = [&[text(&python), text(&suite), text(&tests)], &names[..]].concat();
        // The tests leave files behind.
        let run = lab.program(&words).envs(variables).env("TMPDIR", lab.path());
        let done = run.within(600).done();
        let said = done.json();
        let passed = said["passed"].as_u64().unwrap();
        let failed = said["failed"].as_array().unwrap();
        (passed, failed.iter().map(|name| name.as_str().unwrap().to_owned()).collect::<Vec<_>>(), done)
    };
    let (passed, mut failed, _) = run(Server::through(&proxy), &[]);
    assert!(passed > 300, "only {passed} passed; failed: {failed:?}");
    if !failed.is_empty() {
        let (_, directly, _) = run(server.direct(), &failed);
        failed.retain(|name| !directly.contains(name));
    }
    // Some tests measure time, so failed ones are repeated.
    if !failed.is_empty() {
        let (_, mut again, mut done) = run(Server::through(&proxy), &failed);
        // This one measures how much a client sends before it reads an error: more hops and a busy
        // machine increase that. One success in several tries is enough.
        let buffers = ["tests.test_execute.TestExecuteMany.test_executemany_server_failure_during_writes"];
        for _ in 0..8 {
            if again == buffers {
                (_, again, done) = run(Server::through(&proxy), &again);
            }
        }
        assert!(again.is_empty(), "{again:?}: {done:?}");
    }
}

/// The chain of `docs/proxy-pooling.md`: application, PgBouncer in transaction mode, pgentra, server.
#[test]
fn behind_pgbouncer() {
    if !have(&["psql", "pgbouncer", "postgresql"]) {
        return;
    }
    let lab = Lab::new();
    let stage = Stage::new(&lab, &["--max-connections", "5"]);
    let folder = lab.path().join("pgbouncer");
    fs::create_dir(&folder).unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/pgbouncer/pgbouncer.ini");
    let example = fs::read_to_string(example).unwrap();
    // The differences from the example: pgentra's address, the folder for files, and a socket
    // instead of a port.
    let ours = example
        .replace("port=6432", &format!("port={}", stage.proxy.port()))
        .replace("/etc/pgbouncer", text(&folder))
        .replace("/run/pgbouncer", text(&folder))
        .replace("my-app", "myVm");
    assert_ne!(ours, example);
    fs::write(folder.join("pgbouncer.ini"), ours).unwrap();
    let users = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/pgbouncer/userlist.txt");
    fs::write(folder.join("userlist.txt"), fs::read_to_string(users).unwrap().replace("my-app", "myVm"))
        .unwrap();
    let script = r#"
        user=$(id -u); [ "$user" != 0 ] || { chown nobody "$1"; set -- "$1" --user nobody; }
        pgbouncer "${@:2}" "$1/pgbouncer.ini" >"$1/log" 2>&1 &
        bouncer=$!
        trap 'kill $bouncer; wait $bouncer || :' EXIT
        export PGHOST=$1 PGPORT=5432 PGPASSWORD=for-pgbouncer-alone
        for try in $(seq 500); do [ -S "$1/.s.PGSQL.5432" ] && break; sleep 0.02; done
        psql -XAtc 'SELECT current_user' || { cat "$1/log" >&2; exit 1; }
        # Twenty clients on the five sessions that the proxy allows.
        pgbench --no-vacuum --client 20 --transactions 50 --select-only 2>/dev/null | grep -e 'actually processed'
    "#;
    stage.shell("pgbench --initialize --quiet 2>&1 | tail -n 1 >&2", &stage.through, "pgbouncer");
    let said = stage.shell(script, &stage.through, "pgbouncer");
    assert_eq!(said, "myVm\nnumber of transactions actually processed: 1000/1000\n");
}

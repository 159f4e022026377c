//! Clients get every answer that the server has sent, and committed transactions persist, when a
//! client leaves, the server ends, or a backend crashes.
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::collections::BTreeMap;

use e2e::{Cloud, Flavour, Lab, Proxy, client, have};

struct Stage<'lab> {
    lab: &'lab Lab,
    proxy: Proxy<'lab>,
    cloud: Cloud<'lab>,
    names: BTreeMap<String, String>,
}

impl<'lab> Stage<'lab> {
    /// A proxy that listens on a port and on a Unix socket of the same number.
    fn new(lab: &'lab Lab, arguments: &[&str]) -> Self {
        let cloud = lab.cloud(Flavour::Flexible, &[]);
        let vm = cloud.env("vm");
        let folder = lab.path().join("socket").display().to_string();
        let listeners = ["--listen", "127.0.0.1:0", "--listen", &format!("{folder}:5432")];
        let proxy = lab.proxy(vm.clone(), &[&listeners, arguments].concat(), 2);
        let names = ["PGUSER", "PGDATABASE"].map(|name| (name.to_owned(), vm[name].clone())).into();
        Self { lab, proxy, cloud, names }
    }

    /// The output of this file's client, which requests much data and leaves early.
    fn leaves_early(&self, way: &str, port: &str) -> String {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/leaves_early.py");
        let python = client("venv/bin/python");
        let run = self.lab.program(&[python.to_str().unwrap(), script, way]);
        run.envs(self.names.clone()).env("PGPORT", port).done().ok().to_owned()
    }
}

/// Through a socket with small buffers and one with large ones; with a session that goes back to
/// the pool, and with one that ends. Each client gets its whole answer.
#[test]
fn a_client_that_leaves_before_it_has_read_its_answer_gets_all_of_it() {
    if !have(&["python"]) {
        return;
    }
    for arguments in [&["--reuse"][..], &[]] {
        let lab = Lab::new();
        let stage = Stage::new(&lab, arguments);
        let folder = lab.path().join("socket").display().to_string();
        for (way, port, answers) in [(&*folder, "5432", 8 * 4), ("127.0.0.1", &*stage.proxy.port(), 17 * 4)] {
            let said = stage.leaves_early(way, port);
            assert!(said.starts_with(&format!("{answers} whole, ")), "{arguments:?}:\n{said}");
            let processes: usize = said.split(' ').nth(2).unwrap().parse().unwrap();
            if arguments.is_empty() {
                assert_eq!(processes, answers, "without reuse each has a session of its own");
            } else {
                // A client that leaves in a transaction ends its session, and so does a server that
                // is told to terminate it.
                assert!(processes < answers, "none was used again");
            }
        }
    }
}

/// One process of the server is killed, whereupon PostgreSQL ends all of them and recovers.
#[test]
fn what_was_acknowledged_is_there_after_a_server_process_has_crashed() {
    if !have(&["psql"]) {
        return;
    }
    let lab = Lab::new();
    let stage = Stage::new(&lab, &[]);
    let table = "CREATE TABLE kept (n int); GRANT ALL ON kept TO PUBLIC";
    lab.pgentra(&["query", "-c", table]).envs(stage.cloud.env("admin")).done().ok();
    let script = r#"
        psql -XAtqc 'SELECT pg_backend_pid()' -c 'SELECT pg_sleep(600)' >victim 2>&1 &
        until [ -s victim ]; do :; done
        for n in 1 2 3 4 5 6 7 8 9; do echo "INSERT INTO kept VALUES ($n);"; done | psql -XAtq
        printf '%s\n' 'BEGIN;' 'INSERT INTO kept VALUES (10);' 'COMMIT;' | psql -XAtq
        printf '11\n12\n' | psql -XAtqc 'COPY kept FROM STDIN'
        kill -KILL "$(head -1 victim)"
        wait || :
        until psql -XAtqc 'SELECT string_agg(n::text, chr(44) ORDER BY n) FROM kept' 2>/dev/null; do :; done
    "#;
    let vm = stage.cloud.env("vm");
    let through = [("PGHOST", "127.0.0.1"), ("PGPORT", &*stage.proxy.port())];
    let through = through.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let kept = lab.shell(script).envs(vm).envs(BTreeMap::from(through)).env("PGSSLMODE", "disable").done();
    assert_eq!(kept.ok(), "1,2,3,4,5,6,7,8,9,10,11,12\n");
}

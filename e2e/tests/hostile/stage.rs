//! One local cloud, one proxy with a listener of every kind, and the checks after every probe.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Mutex;

use e2e::{Cloud, Flavour, Lab, Proxy};
use eventually::{DEADLINE, eventually_blocking};

use crate::papers::{Papers, private};
use crate::peers::FakeServer;
use crate::wire::{self, Step, Stream, TERMINATE, Talk, query, send, start};

/// A name of the maximum length that PostgreSQL keeps.
pub(crate) const LONG: &str = "a-role-whose-name-has-as-many-bytes-as-postgresql-keeps-of-it-6";

/// The listeners of the proxy, in the order of its configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    Plain,
    Tls,
    Scram,
    Certificate,
    Unix,
    Warm,
    Reuse,
    Mapped,
    Pinned,
    Named,
    /// In front of a server that follows a script.
    Fake,
}

const DOORS: usize = 11;

pub(crate) struct Stage<'lab> {
    pub(crate) lab: &'lab Lab,
    pub(crate) cloud: Cloud<'lab>,
    pub(crate) proxy: Proxy<'lab>,
    pub(crate) papers: Papers,
    pub(crate) fake: FakeServer,
    /// The role of the machine's identity.
    pub(crate) role: String,
    pub(crate) admin: u16,
    pub(crate) health: u16,
    pub(crate) audit: PathBuf,
    pub(crate) probes: Probes,
}

/// The results of the probes so far.
#[derive(Default)]
pub(crate) struct Probes {
    names: Mutex<Vec<String>>,
    faults: Mutex<Vec<String>>,
}

impl Probes {
    /// Records a probe: `expected` has the allowed answers, separated by ` | `; a `*` at the end
    /// matches any rest. Returns whether one of them matched.
    pub(crate) fn note(&self, area: &str, name: &str, expected: &str, got: &str) -> bool {
        let is_met = |one: &str| one.strip_suffix('*').map_or(one == got, |start| got.starts_with(start));
        let is_right = expected.split(" | ").any(is_met);
        if !is_right {
            self.fault(format!("{area}: {name}: expected {expected:?}, got {got:?}"));
        }
        let name = format!("{area}: {name}");
        let mut names = self.names.lock().unwrap();
        assert!(!names.contains(&name), "two probes are called {name}");
        names.push(name);
        is_right
    }

    /// Records a fault.
    pub(crate) fn fault(&self, fault: String) {
        self.faults.lock().unwrap().push(fault);
    }

    pub(crate) fn count(&self) -> usize {
        self.names.lock().unwrap().len()
    }

    pub(crate) fn faults(&self) -> Vec<String> {
        self.faults.lock().unwrap().clone()
    }
}

impl<'lab> Stage<'lab> {
    pub(crate) fn new(lab: &'lab Lab) -> Stage<'lab> {
        let cloud = lab.cloud(Flavour::Flexible, &[]);
        let vm = cloud.env("vm");
        let role = vm["PGUSER"].clone();
        let papers = Papers::new(&lab.path().join("papers"));
        let fake = FakeServer::new(&papers);
        let users = lab.path().join("users");
        let lines = ["app", "b", "c", "d"].map(|name| {
            lab.pgentra(&["proxy", "hash-password", name]).input("secret\n").done().ok().to_owned()
        });
        private(&users, &lines.concat());
        let sockets = lab.path().join("sockets");
        fs::DirBuilder::new().mode(0o755).create(&sockets).unwrap();
        let audit = lab.path().join("audit");
        let server = format!("host=localhost port={}", vm["PGPORT"]);
        let tls = format!(
            "listen_tls_cert = '{0}/server.pem'\nlisten_tls_key = '{0}/server.key'\n",
            papers.folder.display()
        );
        let map = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| format!("'{name}' = '{role}'")).collect();
            format!("role_map = {{ {} }}\n", names.join(", "))
        };
        let targets = [
            (server.clone(), String::new()),
            (server.clone(), tls.clone()),
            (
                server.clone(),
                format!("{tls}listen_auth_file = '{}'\n{}", users.display(), map(&["app", "b", "c", "d"])),
            ),
            (
                server.clone(),
                format!(
                    "{tls}listen_tls_client_ca = '{}/ca.pem'\nlisten_tls_client_name = 'cn'\n{}",
                    papers.folder.display(),
                    map(&["app", "other"])
                ),
            ),
            (server.clone(), "listen_uids = ['65534']\n".to_owned()),
            (server.clone(), "warm = 1\n".to_owned()),
            (server.clone(), "reuse = true\n".to_owned()),
            (server.clone(), map(&["app", LONG, "with space"])),
            (format!("{server} user={role} dbname=postgres"), "pin = true\n".to_owned()),
            (format!("{server} user={role} dbname=postgres"), String::new()),
            (
                format!(
                    "host=localhost port={} sslrootcert={}/ca.pem connect_timeout=5",
                    fake.port(),
                    papers.folder.display()
                ),
                String::new(),
            ),
        ];
        let mut text = format!("admin_listen = '0'\nhealth_listen = '0'\naudit = '{}'\n", audit.display());
        for (index, (server, settings)) in targets.iter().enumerate() {
            let listen = if index == Door::Unix as usize {
                sockets.display().to_string()
            } else {
                "127.0.0.1:0".to_owned()
            };
            text.push_str(&format!("[[target]]\nserver = '{server}'\nlisten = '{listen}'\n{settings}"));
        }
        let file = lab.path().join("proxy.toml");
        fs::write(&file, text).unwrap();
        let proxy = lab.proxy(unnamed(vm), &["--config", file.to_str().unwrap()], DOORS);
        let port = |line: String| {
            let digits = line.trim_end_matches('/').rsplit(':').next().unwrap();
            let digits: String = digits.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().unwrap()
        };
        let admin = port(proxy.await_line("admin on "));
        let health = port(proxy.await_line("health on "));
        Stage { lab, cloud, proxy, papers, fake, role, admin, health, audit, probes: Probes::default() }
    }

    /// The port of a listener.
    pub(crate) fn port(&self, door: Door) -> u16 {
        self.proxy.listeners()[door as usize].rsplit(':').next().unwrap().parse().unwrap()
    }

    /// The port of the local cloud's gateway.
    pub(crate) fn gateway(&self) -> u16 {
        self.cloud.text("/server/port").parse().unwrap()
    }

    /// A connection to a listener, begun as a well-behaved client does.
    pub(crate) fn connect(&self, door: Door) -> Stream {
        match door {
            Door::Unix => Stream::unix(&self.proxy.listeners()[door as usize]),
            Door::Tls | Door::Scram | Door::Certificate => {
                Stream::tls(self.port(door), &self.papers.client(None, &[]), false)
            }
            _ => Stream::tcp(self.port(door)),
        }
    }

    /// A start-up of the machine's role.
    pub(crate) fn start(&self) -> Vec<u8> {
        start(&[("user", &self.role), ("database", "postgres")])
    }

    /// A probe: a conversation, then a check that other clients are served.
    pub(crate) fn probe(&self, area: &str, name: &str, talk: (Stream, &[Step]), expected: &str) {
        self.answered(area, name, &Talk::of(talk.0, talk.1), expected);
    }

    /// Records the answer, and checks that other clients are served.
    pub(crate) fn answered(&self, area: &str, name: &str, got: &str, expected: &str) {
        self.probes.note(area, name, expected, got);
        let steps = [send([self.start(), query("SELECT 1"), TERMINATE.to_vec()].concat())];
        let served = Talk::of(self.connect(Door::Plain), &steps);
        if served != "R0 ZI T D[1] C ZI ." {
            self.probes.fault(format!("{area}: {name}: and then a good client got {served:?}"));
        }
    }

    /// A session with these parameters that queries its role.
    pub(crate) fn identity(&self, door: Door, parameters: &[(&str, &str)]) -> String {
        let asked = query("SELECT session_user, current_user, current_database()");
        Talk::of(self.connect(door), &[send([start(parameters), asked, TERMINATE.to_vec()].concat())])
    }

    /// Open files of the proxy.
    pub(crate) fn files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.proxy.pid().as_raw_nonzero())).unwrap().count()
    }

    /// Memory of the proxy in kB.
    pub(crate) fn memory(&self) -> u64 {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.proxy.pid().as_raw_nonzero())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Waits until the proxy has no more open files than these.
    pub(crate) fn closes(&self, files: usize) {
        eventually_blocking(DEADLINE, "the proxy closes what the probes have opened", || {
            self.files() <= files
        });
    }

    /// A token of the machine for this resource.
    pub(crate) fn token(&self, host: &str, more: &[&str]) -> String {
        self.lab.pgentra(&[&["token"], more].concat()).envs(self.cloud.env(host)).token()
    }

    /// A session at the gateway itself, over TLS, with this password.
    pub(crate) fn sign_in(&self, role: &str, password: &[u8]) -> String {
        let tls =
            crate::papers::trusting(&fs::read_to_string(self.cloud.text("/server/sslrootcert")).unwrap());
        let stream = Stream::tls(self.gateway(), &tls, false);
        let first = start(&[("user", role), ("database", "postgres")]);
        let steps = [send(first), Step::Until(b'R'), send(wire::message(b'p', password)), send(TERMINATE)];
        Talk::of(stream, &steps)
    }
}

/// The variables without those that name a server, a role or a database.
pub(crate) fn unnamed(variables: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let names = ["PGUSER", "PGDATABASE", "PGHOST", "PGPORT"];
    variables.into_iter().filter(|(name, _)| !names.contains(&name.as_str())).collect()
}

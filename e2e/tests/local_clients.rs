//! Clients on every host of a local cloud, as the tables of docs/local-clients.md say.
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

mod mounts;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::iter;
use std::path::Path;
use std::sync::{Mutex, Once, OnceLock};

use e2e::{Cloud, Conversation, Flavour, Lab, client, example, have};
use mounts::Mounts;

const PAGE: &str = include_str!("../../docs/local-clients.md");
/// Tried where `e2e/setup.sh azure-identity` has built it, which takes minutes.
const MICROSOFTS_RUST: &str = "azure_identity, tokio-postgres";
/// How a program gets to the local cloud, with the heading of its table.
const WAYS: [(&str, &str); 2] =
    [("env", "## With `pgentra local env`"), ("run", "## With `pgentra local run`")];
/// Programs at the same time: several wait for the time limit of their library.
const AT_ONCE: usize = 4;

/// The cells of the tables: way, host and client, and what is in the cell.
type Cells = BTreeMap<(String, String, String), String>;

fn cells() -> Cells {
    let mut cells = Cells::new();
    for (way, heading) in WAYS {
        let (_, section) = PAGE.split_once(heading).unwrap();
        let mut rows = rows(section);
        let hosts = rows.remove(0);
        for row in rows {
            for (host, cell) in hosts.iter().zip(&row).skip(1) {
                let host = host.trim_matches('`').to_owned();
                cells.insert((way.to_owned(), host, row[0].clone()), cell.clone());
            }
        }
    }
    cells
}

/// The first table of a text: the words of each row, without the line below the heading.
fn rows(section: &str) -> Vec<Vec<String>> {
    let lines =
        section.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let words = |line: &str| line.trim_matches('|').split(" | ").map(|word| word.trim().to_owned()).collect();
    let rows = lines.filter(|line| !line.starts_with("|--") && !line.starts_with("| --"));
    rows.map(words).collect()
}

/// The words of an error for each cause of the page.
fn causes() -> BTreeMap<String, String> {
    let (_, section) = PAGE.split_once("## Causes").unwrap();
    let rows = rows(section).into_iter().skip(1);
    rows.map(|row| (format!("no ({})", row[0]), row[1].trim_matches('`').to_owned())).collect()
}

/// Each program on a host: its clients, and its words. The slowest is the last.
fn programs(host: &str) -> [(&'static [&'static str], Vec<String>); 7] {
    let own = |name: &str| text(&Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/on_hosts").join(name));
    let [jars, packages] = [client("jars"), client("")].map(|path| text(&path));
    let classes = text(&client("classes"));
    let [python, node, go, microsofts_rust] =
        ["venv/bin/python", "venv/bin/node", "bin/on_hosts", "bin/azure_identity"]
            .map(|path| text(&client(path)));
    let class_path = format!("{classes}:{jars}/*");
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    static RUST: OnceLock<String> = OnceLock::new();
    let rust = RUST.get_or_init(|| text(&example("pgentra-connect", "on_azure")));
    [
        (&["pgentra-connect"], words(&[rust])),
        (&[MICROSOFTS_RUST], words(&[&microsofts_rust, host])),
        (&["pgx"], words(&[&go, host])),
        (&["psql, `pgentra token`", "psql, curl"], words(&["bash", &own("psql.sh"), host])),
        (
            &[
                "node-postgres",
                "postgres.js",
                "Drizzle",
                "@azure/postgresql-auth, node-postgres",
                "@azure/postgresql-auth, Sequelize",
            ],
            words(&[&node, &own("clients.mjs"), &packages, host]),
        ),
        (
            &[
                "psycopg",
                "asyncpg",
                "SQLAlchemy",
                "Django",
                "azure-postgresql-auth, psycopg",
                "azure-postgresql-auth, asyncpg",
            ],
            words(&["env", "PYTHONDONTWRITEBYTECODE=1", &python, &own("clients.py"), host]),
        ),
        (
            &["azure-identity-extensions, JDBC", "JDBC"],
            words(&[
                "java",
                "-XX:TieredStopAtLevel=1",
                "-XX:+UseSerialGC",
                "-cp",
                &class_path,
                "Clients",
                host,
            ]),
        ),
    ]
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// The variables of a program that is deployed on Azure.
fn deployed(role: &str) -> [String; 6] {
    [
        "env".to_owned(),
        "PGHOST=mydemoserver.postgres.database.azure.com".to_owned(),
        "PGDATABASE=postgres".to_owned(),
        "PGSSLMODE=verify-full".to_owned(),
        "PGSSLROOTCERT=/etc/ssl/certs/ca-certificates.crt".to_owned(),
        format!("PGUSER={role}"),
    ]
}

/// A program on a host.
struct Trial {
    way: &'static str,
    host: String,
    clients: &'static [&'static str],
    words: Vec<String>,
}

impl Trial {
    /// Runs it, and returns for each client its role, or its error.
    fn seen(&self, lab: &Lab, cloud: &Cloud<'_>) -> Vec<(String, Result<String, String>)> {
        let variables = cloud.env(&self.host);
        let deployed = deployed(&variables["PGUSER"]);
        let name = cloud.text("/name");
        let mut words: Vec<&str> = Vec::new();
        if self.way == "run" {
            words.extend(["pgentra", "local", "run", "--name", &name, "--host", &self.host, "--"]);
            words.extend(deployed.iter().map(String::as_str));
        }
        words.extend(self.words.iter().map(String::as_str));
        let program = lab.program(&words).within(180);
        let done = if self.way == "env" { program.envs(variables) } else { program }.done();
        if !done.stdout.starts_with('{') {
            let said = if done.status.success() {
                Ok(done.stdout.trim().to_owned())
            } else {
                Err(done.stderr.clone())
            };
            return vec![(self.clients[0].to_owned(), said)];
        }
        done.stdout.lines().map(said).collect()
    }
}

/// The client of a line, and its role or its error.
fn said(line: &str) -> (String, Result<String, String>) {
    let value: serde_json::Value = serde_json::from_str(line).unwrap();
    let text = |name: &str| value[name].as_str().map(str::to_owned);
    (text("client").unwrap(), text("role").ok_or_else(|| text("error").unwrap()))
}

#[test]
fn the_tables_of_clients_are_true() {
    if !have(&["netns", "mounts", "python", "node", "go-program", "java-program", "psql", "curl", "jq"]) {
        return;
    }
    // No client asks the true Azure.
    let island = Mounts::new(true);
    let lab = island.lab();
    let cloud = lab.cloud(Flavour::Flexible, &["--arc"]);
    compile(&lab);
    let (cells, causes) = (cells(), causes());
    let cell = |way: &str, host: &str, client: &str| {
        let key = (way.to_owned(), host.to_owned(), client.to_owned());
        cells.get(&key).unwrap_or_else(|| panic!("no cell for {key:?}")).as_str()
    };
    let hosts: Vec<_> = cloud.description()["environments"].as_object().unwrap().keys().cloned().collect();
    let mut trials = Vec::new();
    for host in &hosts {
        for (clients, words) in programs(host) {
            for (way, _) in WAYS {
                trials.push(Trial { way, host: host.clone(), clients, words: words.clone() });
            }
        }
    }
    let tried: usize = trials.iter().map(|trial| trial.clients.len()).sum();
    assert_eq!(tried, cells.len(), "a client or a host is in the tables alone");
    // What the client does not have is not tried.
    let has = |trial: &Trial, client: &str| cell(trial.way, &trial.host, client) != "–";
    trials.retain(|trial| trial.clients.iter().any(|client| has(trial, client)));
    if !client("bin/azure_identity").exists() {
        let _ = writeln!(
            std::io::stderr(),
            "e2e: SKIPPED azure_identity for Rust, which is not here: bash e2e/setup.sh azure-identity"
        );
        trials.retain(|trial| trial.clients != [MICROSOFTS_RUST]);
    }
    // Taken from the end.
    trials.sort_by_key(|trial| trial.words[0] == "java");
    let (queue, wrong) = (Mutex::new(trials), Mutex::new(Vec::new()));
    let work = || {
        while let Some(trial) = { queue.lock().unwrap().pop() } {
            let role = cloud.env(&trial.host)["PGUSER"].clone();
            let seen = trial.seen(&lab, &cloud);
            for client in trial.clients.iter().filter(|client| has(&trial, client)) {
                let cell = cell(trial.way, &trial.host, client);
                let found = seen.iter().find(|seen| seen.0 == **client).map(|seen| &seen.1);
                let is_true = match (cell, found) {
                    ("yes", Some(Ok(found))) => *found == role,
                    (cell, Some(Err(error))) => {
                        causes.get(cell).is_some_and(|words| error.contains(words.as_str()))
                    }
                    _ => false,
                };
                if !is_true {
                    let Trial { way, host, .. } = &trial;
                    wrong.lock().unwrap().push(format!("{way}, {host}, {client}: `{cell}`, but {found:?}"));
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(work);
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Compiles the program in Java, once for all tests of this process.
fn compile(lab: &Lab) {
    static COMPILED: Once = Once::new();
    COMPILED.call_once(|| javac(lab));
}

fn javac(lab: &Lab) {
    let [jars, classes] = [client("jars"), client("classes")].map(|path| text(&path));
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/on_hosts/Clients.java");
    lab.program(&["javac", "-cp", &format!("{jars}/*"), "-d", &classes, source]).done().ok();
}

/// A program that keeps its pools, and opens one more connection in each when it is told to.
struct Pools(Conversation);

impl Pools {
    /// The program in `words` on this host.
    fn start(lab: &Lab, cloud: &Cloud<'_>, host: &str, words: &[String]) -> Pools {
        let (cloud_name, role) = (cloud.text("/name"), cloud.env(host)["PGUSER"].clone());
        let deployed = deployed(&role);
        let mut all = vec!["pgentra", "local", "run", "--name", &cloud_name, "--host", host, "--"];
        all.extend(deployed.iter().chain(words).map(String::as_str));
        all.push("--lives");
        Pools(lab.converse(&all, []))
    }

    /// Each client, and the role or the error of one more connection of its pool, when the clock is
    /// this far ahead. A program in Python moves its own clock.
    fn signed_in(&mut self, hours: u32) -> Vec<(String, Result<String, String>)> {
        self.0.say(&(hours * 3600).to_string());
        let lines = iter::from_fn(|| Some(self.0.answer()).filter(|line| line != "{}"));
        lines.map(|line| said(&line)).collect()
    }
}

/// Each new connection of a pool has a token that the server takes, over three lives of a token.
///
/// A library keeps a token by the clock of its program, which moves in Python alone. So tokens live 2
/// minutes here: less than what the other libraries want to be left of a token that they keep.
#[test]
fn pools_outlive_three_tokens() {
    if !have(&["netns", "mounts", "python", "node", "go-program", "java-program", "psql"]) {
        return;
    }
    // No client asks the true Azure.
    let island = Mounts::new(true);
    let lab = island.lab();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    compile(&lab);
    let name = cloud.text("/name");
    let control = |words: &[&str]| {
        lab.pgentra(&[&["local"], words, &["--name", &name]].concat()).done().ok();
    };
    for endpoint in ["imds-token", "entra-token"] {
        control(&["fault", "set", "short-life", "--at", endpoint]);
    }
    let first = lab.pgentra(&["token"]).envs(cloud.env("vm")).token();
    let takes_first =
        || lab.program(&["psql", "-Atc", "SELECT 1"]).envs(cloud.env("vm")).env("PGPASSWORD", &first).done();
    takes_first().ok();

    let mut all = Vec::new();
    // Microsoft's package for Python finds the role of a user-assigned identity only.
    for (host, programs_of) in
        [("client-secret", &["pgx", "node-postgres", "psycopg", "JDBC"][..]), ("user-assigned", &["psycopg"])]
    {
        for (clients, words) in programs(host) {
            if programs_of.iter().any(|name| clients.contains(name)) {
                all.push((host, Pools::start(&lab, &cloud, host, &words)));
            }
        }
    }
    let cells = cells();
    for life in 0..3 {
        for (host, pools) in &mut all {
            let role = cloud.env(host)["PGUSER"].clone();
            let seen = pools.signed_in(25 * life);
            assert!(!seen.is_empty());
            for (client, found) in seen {
                let key = ("run".to_owned(), (*host).to_owned(), client.clone());
                // What the table expects to fail is not a pool.
                if cells[&key] == "yes" {
                    assert_eq!(found, Ok(role.clone()), "{client} on {host} in life {life}");
                }
            }
        }
        control(&["clock", "--advance", "25h"]);
    }
    // The server does refuse a token of an earlier life.
    let refused = takes_first();
    assert!(refused.stderr.contains("The access token has expired"), "{refused:?}");
}

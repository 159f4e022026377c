//! What is measured, in which order.

use std::process::Command;

use anyhow::{Context, Result, bail};
use tokio::runtime::Runtime;

use crate::copy::Direction;
use crate::database::{Database, Files, Identity, Server};
use crate::options::Options;
use crate::pgbench::Load;
use crate::process::{find, output};
use crate::stub::Stub;
use crate::table::{Sample, Table};
use crate::ways::{Ground, Kind, Way};
use crate::{copy, idle, pgbench};

/// Clients of the persistent rows.
const CLIENTS: [u32; 3] = [1, 8, 64];
/// Clients where every transaction has a connection of its own.
const CONNECTING: u32 = 8;
/// Connects a second of one client that comes now and then: far fewer than a server can sign in.
const PACED: u32 = 20;
/// Numbers of idle sessions.
const IDLE: [usize; 2] = [1_000, 5_000];
/// Transactions whose time is taken one by one.
const TIMED: u32 = 20_000;

const PERSISTENT: [Kind; 11] = [
    Kind::Plain,
    Kind::Tls,
    Kind::Ours,
    Kind::OursSocket,
    Kind::PgBouncerSession,
    Kind::PgBouncerSocket,
    Kind::PgBouncerTransaction,
    Kind::Stunnel,
    Kind::HaProxyTls,
    Kind::HaProxy,
    Kind::Nginx,
];
const CONNECT: [Kind; 14] = [
    Kind::Plain,
    Kind::Tls,
    Kind::Ours,
    Kind::OursSocket,
    Kind::OursWarm,
    Kind::OursReuse,
    Kind::OursReuseSocket,
    Kind::PgBouncerSession,
    Kind::PgBouncerSocket,
    Kind::PgBouncerTransaction,
    Kind::Stunnel,
    Kind::HaProxyTls,
    Kind::HaProxy,
    Kind::Nginx,
];

/// A session holds the same behind either kind of socket.
const IDLING: [Kind; 7] = [
    Kind::Ours,
    Kind::PgBouncerSession,
    Kind::PgBouncerTransaction,
    Kind::Stunnel,
    Kind::HaProxyTls,
    Kind::HaProxy,
    Kind::Nginx,
];

/// Results of a run.
pub struct Measured {
    pub environment: Vec<String>,
    pub missing: Vec<String>,
    pub tables: Vec<Table>,
}

/// Measures what the options name.
pub fn run(options: &Options) -> Result<Measured> {
    let is_one = |start: &str| CONNECT.iter().any(|kind| kind.name().starts_with(start));
    if let Some(wrong) = options.ways.iter().find(|start| !is_one(start)) {
        bail!("no way begins with `{wrong}`; there are: {}", CONNECT.map(|kind| kind.name()).join("; "));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let files = Files::create()?;
    let identity = Identity::start(&runtime, &files, &options.pgentra)?;
    let server = Server::newest(&files)?;
    let database = Database::start(&server, &files, &identity)?;
    let missing = |kind: &Kind| kind.missing(&options.pgentra, &server);
    let mut measured = Measured {
        environment: environment(options, &server)?,
        missing: CONNECT
            .iter()
            .filter_map(|kind| Some(format!("{}: {}", kind.name(), missing(kind)?)))
            .collect(),
        tables: Vec::new(),
    };
    let bench = Bench { options, files, identity, runtime, server };
    measured.missing.iter().for_each(|missing| println!("no row for {missing}"));
    for section in &options.only {
        let tables = match section.as_str() {
            "persistent" => {
                vec![bench.persistent(&database, "simple")?, bench.persistent(&database, "prepared")?]
            }
            "connect" => vec![bench.connect(&database)?, bench.paced(&database)?],
            "latency" => vec![bench.latency(&database)?],
            "copy" => bench.copy(&database)?.into(),
            _ => vec![bench.idle()?],
        };
        for table in tables {
            println!("\n{}", table.markdown());
            measured.tables.push(table);
        }
    }
    Ok(measured)
}

struct Bench<'a> {
    options: &'a Options,
    files: Files,
    identity: Identity,
    runtime: Runtime,
    server: Server,
}

impl Bench<'_> {
    fn persistent(&self, database: &Database, protocol: &'static str) -> Result<Table> {
        let columns = CLIENTS
            .map(|clients| if clients == 1 { "1 client".into() } else { format!("{clients} clients") });
        let title = format!(
            "`pgbench -S`, {protocol} protocol: share of direct TLS, transactions a second, CPU of the proxy"
        );
        let mut table = Table::new(&title, columns.to_vec());
        let mut ways = self.ways(&PERSISTENT, database)?;
        if protocol == "prepared" {
            // Statements of the protocol stay with a server connection: PgBouncer follows them from version 1.21 on.
            ways.retain(|way| way.kind != Kind::PgBouncerTransaction || follows_statements());
        }
        for (column, clients) in CLIENTS.into_iter().enumerate() {
            self.rounds(&mut ways, |ways| {
                let load = Load { protocol, clients, seconds: self.options.seconds, reconnect: false };
                let all = each(ways, |way| pgbench::run(way, load))?;
                shares(&mut table, column, all.iter().map(|(kind, it)| (*kind, it.tps, beside(*kind, *it))));
                Ok(())
            })?;
        }
        Ok(table)
    }

    fn connect(&self, database: &Database) -> Result<Table> {
        let title = "`pgbench -S -C`, a connection for each transaction: times direct TLS, transactions a second, CPU of the proxy";
        let columns = vec![format!("{CONNECTING} clients")];
        let mut table = Table::new(title, columns);
        let mut ways = self.ways(&CONNECT, database)?;
        self.rounds(&mut ways, |ways| {
            let load = Load {
                protocol: "simple",
                clients: CONNECTING,
                seconds: self.options.seconds,
                reconnect: true,
            };
            let all = each(ways, |way| pgbench::run(way, load))?;
            shares(&mut table, 0, all.iter().map(|(kind, it)| (*kind, it.tps, beside(*kind, *it))));
            Ok(())
        })?;
        Ok(table)
    }

    fn paced(&self, database: &Database) -> Result<Table> {
        let title = format!("One client that connects {PACED} times a second: times as fast as direct TLS");
        let mut table = Table::new(&title, vec!["connect".to_owned()]);
        let mut ways = self.ways(&CONNECT, database)?;
        self.rounds(&mut ways, |ways| {
            let all = each(ways, |way| pgbench::connects(way, PACED, self.options.seconds))?;
            // The speed of a connect is one over its time.
            shares(&mut table, 0, all.iter().map(|(kind, ms)| (*kind, 1.0 / ms, vec![(*ms, "ms")])));
            Ok(())
        })?;
        Ok(table)
    }

    fn latency(&self, database: &Database) -> Result<Table> {
        let columns = vec!["p50, added".to_owned(), "p99, added".to_owned()];
        let title =
            "One client, prepared protocol: time that a round trip takes longer than with direct TLS, in µs";
        let mut table = Table::new(title, columns);
        let mut ways = self.ways(&PERSISTENT, database)?;
        ways.retain(|way| way.kind != Kind::PgBouncerTransaction || follows_statements());
        self.rounds(&mut ways, |ways| {
            let all = each(ways, |way| pgbench::latencies(way, "prepared", TIMED, &self.files))?;
            for (column, share) in [(0, 0.50), (1, 0.99)] {
                let at = |times: &[f64]| {
                    times.get((times.len() as f64 * share) as usize).copied().unwrap_or_default()
                };
                let direct =
                    all.iter().find(|(kind, _)| *kind == Kind::Tls).map_or(0.0, |(_, times)| at(times));
                for (kind, times) in &all {
                    let beside = vec![(at(times), "µs in all")];
                    table.push(*kind, column, Sample { value: at(times) - direct, beside });
                }
            }
            Ok(())
        })?;
        Ok(table)
    }

    fn copy(&self, database: &Database) -> Result<[Table; 2]> {
        let megabytes = self.options.megabytes;
        copy::prepare(&self.files, megabytes)?;
        let columns = || vec!["out".to_owned(), "in".to_owned()];
        let mut speed = Table::new(&format!("COPY of {megabytes} MB: share of direct TLS"), columns());
        let title = format!("COPY of {megabytes} MB: CPU seconds of the proxy for a gigabyte");
        let mut cpu = Table::new(&title, columns());
        let mut ways = self.ways(&PERSISTENT, database)?;
        for (column, direction) in [Direction::Out, Direction::In].into_iter().enumerate() {
            self.rounds(&mut ways, |ways| {
                let all = each(ways, |way| copy::run(way, direction, megabytes, &self.files))?;
                for (kind, it) in all.iter().filter(|(kind, _)| !matches!(kind, Kind::Plain | Kind::Tls)) {
                    cpu.push(*kind, column, Sample { value: it.cpu, beside: Vec::new() });
                }
                shares(
                    &mut speed,
                    column,
                    all.iter().map(|(kind, it)| (*kind, it.speed, vec![(it.speed, "MB/s")])),
                );
                Ok(())
            })?;
        }
        Ok([speed, cpu])
    }

    fn idle(&self) -> Result<Table> {
        let columns = IDLE.map(|sessions| format!("{} sessions", crate::table::number(sessions as f64)));
        let title = "Idle sessions after one query: memory of the proxy for each, in KiB";
        let mut table = Table::new(title, columns.to_vec());
        let stub = Stub::start(&self.runtime, &self.identity)?;
        for (column, sessions) in IDLE.into_iter().enumerate() {
            for kind in self.kinds(&IDLING) {
                // A new proxy process for each column: memory that earlier sessions freed would be reused and not counted.
                let way = Way::open(kind, &self.ground(stub.tls, stub.plain))?;
                let bytes = idle::run(&self.runtime, &way, sessions).with_context(|| kind.name())?;
                table.push(kind, column, Sample { value: bytes / 1024.0, beside: Vec::new() });
            }
        }
        Ok(table)
    }

    fn ground(&self, tls: u16, plain: u16) -> Ground<'_> {
        Ground { files: &self.files, identity: &self.identity, pgentra: &self.options.pgentra, tls, plain }
    }

    fn kinds(&self, kinds: &[Kind]) -> Vec<Kind> {
        let wanted = |kind: &Kind| {
            let named = |start: &String| kind.name().starts_with(start.as_str());
            *kind == Kind::Tls || self.options.ways.is_empty() || self.options.ways.iter().any(named)
        };
        let there = |kind: &Kind| kind.missing(&self.options.pgentra, &self.server).is_none();
        kinds.iter().copied().filter(wanted).filter(there).collect()
    }

    fn ways(&self, kinds: &[Kind], database: &Database) -> Result<Vec<Way>> {
        let ground = self.ground(database.port, database.port);
        self.kinds(kinds)
            .into_iter()
            .map(|kind| Way::open(kind, &ground).with_context(|| kind.name()))
            .collect()
    }

    /// Every way in turn, the other way round each second time: what warms up or tires does not favour the same one.
    fn rounds(&self, ways: &mut [Way], mut round: impl FnMut(&[Way]) -> Result<()>) -> Result<()> {
        for _ in 0..self.options.rounds {
            round(ways)?;
            ways.reverse();
        }
        Ok(())
    }
}

fn each<T>(ways: &[Way], run: impl Fn(&Way) -> Result<T>) -> Result<Vec<(Kind, T)>> {
    ways.iter().map(|way| Ok((way.kind, run(way).with_context(|| way.kind.name())?))).collect()
}

fn shares(
    table: &mut Table,
    column: usize,
    all: impl Iterator<Item = (Kind, f64, Vec<(f64, &'static str)>)> + Clone,
) {
    let direct = all.clone().find(|(kind, ..)| *kind == Kind::Tls).map_or(f64::NAN, |(_, value, _)| value);
    for (kind, value, beside) in all {
        table.push(kind, column, Sample { value: value / direct, beside });
    }
}

fn beside(kind: Kind, outcome: pgbench::Outcome) -> Vec<(f64, &'static str)> {
    let mut beside = vec![(outcome.tps, "TPS")];
    if !matches!(kind, Kind::Plain | Kind::Tls) {
        beside.push((outcome.cpu, "µs"));
    }
    beside
}

fn follows_statements() -> bool {
    let version = pgbouncer_version().unwrap_or_default();
    let mut numbers = version.trim_start_matches(|c: char| !c.is_ascii_digit()).split('.');
    let mut next = || numbers.next().and_then(|number| number.trim().parse::<u32>().ok()).unwrap_or_default();
    (next(), next()) >= (1, 21)
}

fn pgbouncer_version() -> Option<String> {
    let said = output(Command::new(find("pgbouncer")?).arg("--version")).ok()?;
    said.lines().next().map(str::to_owned)
}

fn environment(options: &Options, server: &Server) -> Result<Vec<String>> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpu.lines().find_map(|line| line.strip_prefix("model name\t: ")).unwrap_or("unknown processor");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let first = |command: &mut Command| {
        let said = output(command).unwrap_or_default();
        said.lines().next().unwrap_or_default().to_owned()
    };
    let mut lines = vec![
        format!("{model}, {cores} cores; {}", first(Command::new("uname").args(["-s", "-r"]))),
        server.version.clone(),
        first(Command::new(&options.pgentra).arg("--version")),
    ];
    lines.extend(pgbouncer_version());
    for (name, argument) in [("stunnel", "-version"), ("haproxy", "-v"), ("nginx", "-v")] {
        if let Some(program) = find(name) {
            let said = Command::new(program).arg(argument).output()?;
            let said = [said.stdout, said.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            lines.extend(said.lines().find(|line| line.to_lowercase().starts_with(name)).map(str::to_owned));
        }
    }
    let Options { rounds, seconds, .. } = options;
    lines.push(format!(
        "{rounds} rounds; {seconds} s for each run of pgbench, 2 threads, scale 10; fsync off"
    ));
    Ok(lines)
}

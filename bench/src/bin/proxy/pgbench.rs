//! `pgbench -S`: one row is read by its key, in a session that lasts or in a new one each time.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::database::Files;
use crate::process::output;
use crate::ways::Way;

/// Options of a run of pgbench.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Query protocol (`-M`): `simple` or `prepared`.
    pub protocol: &'static str,
    pub clients: u32,
    pub seconds: u32,
    /// A connection for each transaction.
    pub reconnect: bool,
}

/// Result of one run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Transactions per second.
    pub tps: f64,
    /// Processor time of the proxy for a transaction, in microseconds.
    pub cpu: f64,
}

/// Runs pgbench once over `way`, and measures the proxy's processor time.
pub fn run(way: &Way, load: Load) -> Result<Outcome> {
    let before = way.cpu();
    let mut command = pgbench(way, load.protocol, load.clients);
    command.args(["-T", &load.seconds.to_string()]);
    if load.reconnect {
        command.arg("-C");
    }
    let said = output(command.arg("bench"))?;
    let cpu = way.cpu() - before;
    let tps = number(&said, "tps = ")?;
    let transactions = number(&said, "number of transactions actually processed: ")?;
    Ok(Outcome { tps, cpu: cpu / transactions * 1e6 })
}

/// How long a connect takes one client that makes so many a second, at times that are spread by chance: in milliseconds.
pub fn connects(way: &Way, a_second: u32, seconds: u32) -> Result<f64> {
    let mut command = pgbench(way, "simple", 1);
    command.args(["-C", "-R", &a_second.to_string(), "-T", &seconds.to_string()]);
    number(&output(command.arg("bench"))?, "average connection time = ")
}

/// The number after these words in the output of pgbench.
fn number(said: &str, words: &str) -> Result<f64> {
    let line = said.lines().find_map(|line| line.strip_prefix(words));
    let digits = line.and_then(|rest| rest.split(|c: char| c != '.' && !c.is_ascii_digit()).next());
    let digits = digits.with_context(|| format!("pgbench did not say `{words}`: {said}"))?;
    digits.parse().with_context(|| format!("`{digits}` is no number"))
}

/// The times of single transactions of one client, in microseconds, sorted.
pub fn latencies(way: &Way, protocol: &str, transactions: u32, files: &Files) -> Result<Vec<f64>> {
    let prefix = files.path("latency");
    let mut command = pgbench(way, protocol, 1);
    command.args(["-t", &transactions.to_string(), "-l", "--log-prefix"]).arg(&prefix);
    output(command.arg("bench"))?;
    let mut all = Vec::new();
    let folder = prefix.parent().context("a folder")?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("latency.") {
            // client, transaction number, time in microseconds, …
            let text = fs::read_to_string(entry.path())?;
            all.extend(text.lines().filter_map(|line| line.split(' ').nth(2)?.parse::<f64>().ok()));
            fs::remove_file(entry.path())?;
        }
    }
    all.sort_by(f64::total_cmp);
    Ok(all)
}

fn pgbench(way: &Way, protocol: &str, clients: u32) -> Command {
    let mut command = Command::new("pgbench");
    let threads = clients.min(2);
    command.args(["-n", "-S", "-M", protocol, "-c", &clients.to_string(), "-j", &threads.to_string()]);
    command.args(["-h", &way.host, "-p", &way.port.to_string(), "-U", "bench"]);
    command.envs(way.env.iter().map(|(name, value)| (name, value)));
    command
}

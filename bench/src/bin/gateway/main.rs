//! The gateway's share of the work: `cargo xtask bench gateway`.
//!
//! Tokens verified per second on one core, beside one bare RSA check of the crypto library for the same tokens; a token
//! that was verified before; logins per second through the gateway of a local cloud, beside PostgreSQL's own
//! SCRAM-SHA-256 over TLS; and queries per second in sessions over TLS, beside PgBouncer and HAProxy. Rounds are interleaved; figures are medians; ratios are of the same round.

mod logins;
#[path = "../proxy/process.rs"]
mod process;
mod relay;
mod tokens;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;
use std::{fs, thread};

use anyhow::{Context, Result, bail};

const USAGE: &str =
    "gateway PGENTRA [--rounds N] [--seconds N] [--only verify,repeat,logins,relay] [--write FOLDER]";

/// What stands between these lines of the page is replaced.
const BEGIN: &str = "<!-- measured: written by `cargo xtask bench gateway --write docs` -->";
const END: &str = "<!-- end of what was measured -->";

struct Options {
    pgentra: String,
    rounds: usize,
    seconds: u64,
    only: Vec<String>,
    write: Option<PathBuf>,
}

/// One line of the result.
pub struct Row {
    pub what: String,
    pub a_second: f64,
    /// What it is compared with, and the ratio.
    pub ratio: Option<(f64, &'static str)>,
}

fn main() -> Result<()> {
    let options = Options::parse(std::env::args().skip(1))?;
    let time = Duration::from_secs(options.seconds);
    let cores = thread::available_parallelism()?.get();
    let mut rows = Vec::new();
    let wants = |name: &str| options.only.iter().any(|only| only == name);
    if wants("verify") || wants("repeat") {
        let tokens = tokens::Tokens::new();
        if wants("verify") {
            rows.extend(tokens.verified(options.rounds, time)?);
        }
        if wants("repeat") {
            rows.extend(tokens.repeated(options.rounds, time, cores)?);
        }
    }
    let mut table = if rows.is_empty() { String::new() } else { table(&rows) };
    if wants("logins") {
        table.push_str(if table.is_empty() { "" } else { "\n" });
        table.push_str(&logins::measure(&options.pgentra, options.rounds, options.seconds)?);
    }
    if wants("relay") {
        table.push_str(if table.is_empty() { "" } else { "\n" });
        table.push_str(&relay::measure(&options.pgentra, options.rounds, options.seconds)?);
    }
    let environment = format!("{} core(s); {} round(s) of {} s", cores, options.rounds, options.seconds);
    println!("{environment}\n\n{table}");
    if let Some(folder) = &options.write {
        let path = folder.join("bench-gateway.md");
        let page = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let (front, rest) = page.split_once(BEGIN).context("the page has lost its mark")?;
        let (_, back) = rest.split_once(END).context("the page has lost its end mark")?;
        fs::write(&path, format!("{front}{BEGIN}\n\n```\n{environment}\n```\n\n{table}\n{END}{back}"))?;
    }
    Ok(())
}

fn table(rows: &[Row]) -> String {
    let mut table = String::from("| what | a second | ratio |\n|---|---|---|\n");
    for row in rows {
        let ratio = row.ratio.map(|(ratio, of)| format!("{ratio:.2} of {of}")).unwrap_or_default();
        // Writing into a String cannot fail.
        let _ = writeln!(table, "| {} | {:.0} | {ratio} |", row.what, row.a_second);
    }
    table
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let pgentra = words.next().with_context(|| format!("usage: {USAGE}"))?;
        let only = ["verify", "repeat", "logins", "relay"].map(str::to_owned).to_vec();
        let mut options = Self { pgentra, rounds: 5, seconds: 3, only, write: None };
        while let Some(name) = words.next() {
            let value = words.next().with_context(|| format!("{name} needs a value; usage: {USAGE}"))?;
            match name.as_str() {
                "--rounds" => options.rounds = value.parse::<usize>()?.max(1),
                "--seconds" => options.seconds = value.parse::<u64>()?.max(1),
                "--only" => options.only = value.split(',').map(str::to_owned).collect(),
                "--write" => options.write = Some(value.into()),
                _ => bail!("there is no {name}; usage: {USAGE}"),
            }
        }
        Ok(options)
    }
}

//! COPY of a large table, out and in. What comes in is read and thrown away by the server.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::database::Files;
use crate::ways::Way;

/// Bytes of a row with its line end. PostgreSQL sends 8 KiB at a time whatever the width of a row.
const ROW: usize = 1_000;

/// Which way the rows go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Out,
    In,
}

/// Result of one COPY.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Megabytes (10^6 bytes) a second.
    pub speed: f64,
    /// Processor time of the proxy, in seconds for a gigabyte (10^9 bytes).
    pub cpu: f64,
}

/// The rows that go in.
pub fn prepare(files: &Files, megabytes: usize) -> Result<()> {
    let mut file = BufWriter::new(File::create(files.path("rows"))?);
    let row = [&[b'x'; ROW - 1][..], b"\n"].concat();
    for _ in 0..megabytes * 1_000_000 / ROW {
        file.write_all(&row)?;
    }
    Ok(file.flush()?)
}

/// Runs one COPY of `megabytes` over `way`, and measures the proxy's processor time.
pub fn run(way: &Way, direction: Direction, megabytes: usize, files: &Files) -> Result<Outcome> {
    let rows = megabytes * 1_000_000 / ROW;
    let sql = match direction {
        Direction::Out => {
            format!("COPY (SELECT repeat('x', {}) FROM generate_series(1, {rows})) TO STDOUT", ROW - 1)
        }
        Direction::In => "COPY sink FROM STDIN WHERE false".to_owned(),
    };
    let mut psql = Command::new("psql");
    psql.args([
        "-X",
        "-q",
        "-h",
        &way.host,
        "-p",
        &way.port.to_string(),
        "-U",
        "bench",
        "-d",
        "bench",
        "-c",
        &sql,
    ]);
    psql.envs(way.env.iter().map(|(name, value)| (name, value)));
    psql.stdout(Stdio::null());
    if direction == Direction::In {
        psql.stdin(File::open(files.path("rows"))?);
    }
    let before = way.cpu();
    let start = Instant::now();
    let status = psql.status().context("cannot run psql")?;
    let seconds = start.elapsed().as_secs_f64();
    ensure!(status.success(), "psql failed");
    let bytes = (rows * ROW) as f64;
    Ok(Outcome { speed: bytes / 1e6 / seconds, cpu: (way.cpu() - before) / (bytes / 1e9) })
}

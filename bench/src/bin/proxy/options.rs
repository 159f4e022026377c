//! What a run is told on the command line.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// What there is to measure.
pub const SECTIONS: [&str; 5] = ["persistent", "connect", "latency", "copy", "idle"];

const USAGE: &str =
    "proxy PGENTRA [--rounds N] [--seconds N] [--megabytes N] [--only persistent,connect,latency,copy,idle]
      [--ways NAME,…] [--write FOLDER]";

/// What a run is told.
pub struct Options {
    /// The binary that is measured.
    pub pgentra: String,
    pub rounds: usize,
    /// Duration of each run of pgbench.
    pub seconds: u32,
    /// Size of each COPY, in megabytes (10^6 bytes).
    pub megabytes: usize,
    pub only: Vec<String>,
    /// Ways whose name begins so; every one if empty. Direct TLS always takes part.
    pub ways: Vec<String>,
    /// The folder of `bench-proxy.md`, which is written.
    pub write: Option<PathBuf>,
}

impl Options {
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let pgentra = words.next().with_context(|| format!("usage: {USAGE}"))?;
        let only = SECTIONS.map(str::to_owned).to_vec();
        let mut options =
            Self { pgentra, rounds: 5, seconds: 5, megabytes: 500, only, ways: Vec::new(), write: None };
        while let Some(name) = words.next() {
            let value = words.next().with_context(|| format!("{name} needs a value; usage: {USAGE}"))?;
            let number = || value.parse::<usize>().with_context(|| format!("{name}: `{value}` is no number"));
            match name.as_str() {
                "--rounds" => options.rounds = number()?.max(1),
                "--seconds" => options.seconds = u32::try_from(number()?.max(1))?,
                "--megabytes" => options.megabytes = number()?.max(1),
                "--only" => options.only = value.split(',').map(str::to_owned).collect(),
                "--ways" => options.ways = value.split(',').map(str::to_owned).collect(),
                "--write" => options.write = Some(value.into()),
                _ => bail!("there is no {name}; usage: {USAGE}"),
            }
        }
        if let Some(wrong) = options.only.iter().find(|name| !SECTIONS.contains(&name.as_str())) {
            bail!("there is no section {wrong}; usage: {USAGE}");
        }
        Ok(options)
    }
}

//! Results on the screen and as a page of the documentation. `cargo xtask bench` draws its pictures from the page.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::sections::Measured;

/// What stands between these lines of the page is replaced.
const BEGIN: &str = "<!-- measured: written by `cargo xtask bench proxy --write docs` -->";
const END: &str = "<!-- end of what was measured -->";

pub fn print(measured: &Measured) {
    println!("\n{}", measured.environment.join("\n"));
    println!("read the shares: the machine decides the rest");
}

/// Writes the tables into `bench-proxy.md`, between its two marks.
pub fn write(measured: &Measured, folder: &Path) -> Result<()> {
    let path = folder.join("bench-proxy.md");
    let page = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let (front, rest) = page.split_once(BEGIN).context("the page has lost its mark")?;
    let (_, back) = rest.split_once(END).context("the page has lost its end mark")?;
    let mut out = String::from("\n\n```\n");
    measured.environment.iter().for_each(|line| {
        let _ = writeln!(out, "{line}");
    });
    measured.missing.iter().for_each(|line| {
        let _ = writeln!(out, "no row for {line}");
    });
    out.push_str("```\n");
    measured.tables.iter().for_each(|table| {
        let _ = write!(out, "\n{}", table.markdown());
    });
    fs::write(&path, format!("{front}{BEGIN}{out}\n{END}{back}"))?;
    Ok(())
}

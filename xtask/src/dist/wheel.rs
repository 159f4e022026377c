//! The Python wheel: pip puts the binary beside `python`, and `python -m pgentra` runs it.
//! <https://packaging.python.org/en/latest/specifications/binary-distribution-format/>

use std::fs;
use std::io::{Cursor, Write as _};

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::archive::{Entry, READ, RUN, Tree};
use super::build::Built;
use super::release::Release;
use super::shelf::Shelf;

/// The C library that the embedded PostgreSQL takes: glibc 2.34 of 2021. The binary itself takes none.
const PLATFORM: &str = "manylinux_2_34";

/// Makes the wheel of one system.
///
/// # Errors
/// A file cannot be read.
pub(crate) fn make(release: &Release, built: &Built, shelf: &mut Shelf) -> Result<()> {
    let version = &release.version;
    let tag = format!("py3-none-{PLATFORM}_{}", built.target.arch);
    let python = release.root.join("deploy/python");
    let readme = fs::read_to_string(release.root.join("README.md"))?;
    let information = format!("pgentra-{version}.dist-info");
    let mut tree = Tree::default();
    tree.copy("pgentra/__init__.py", READ, &python.join("__init__.py"))?;
    tree.copy("pgentra/__main__.py", READ, &python.join("__main__.py"))?;
    tree.copy(&format!("pgentra-{version}.data/scripts/pgentra"), RUN, &built.full)?;
    for licence in ["LICENSE-APACHE", "LICENSE-MIT"] {
        tree.copy(&format!("{information}/licenses/{licence}"), READ, &release.root.join(licence))?;
    }
    tree.file(
        &format!("{information}/METADATA"),
        READ,
        format!(
            "Metadata-Version: 2.4\nName: pgentra\nVersion: {version}\n\
             Summary: PostgreSQL without passwords, on Azure identities\n\
             Keywords: postgres,azure,entra,managed-identity,passwordless\n\
             License-Expression: Apache-2.0 OR MIT\nLicense-File: LICENSE-APACHE\nLicense-File: LICENSE-MIT\n\
             Requires-Python: >=3.8\nDescription-Content-Type: text/markdown\n\n{readme}"
        ),
    );
    tree.file(
        &format!("{information}/WHEEL"),
        READ,
        format!("Wheel-Version: 1.0\nGenerator: pgentra ({version})\nRoot-Is-Purelib: false\nTag: {tag}\n"),
    );
    let record = format!("{information}/RECORD");
    let mut lines = String::new();
    for (path, _, entry) in tree.entries() {
        if let Entry::File(content) = entry {
            let hash = URL_SAFE_NO_PAD.encode(Sha256::digest(content));
            lines.push_str(&format!("{path},sha256={hash},{}\n", content.len()));
        }
    }
    lines.push_str(&format!("{record},,\n"));
    tree.file(&record, READ, lines);
    let name = format!("pgentra-{version}-{tag}.whl");
    shelf.put(&name, &zip(&tree, release)?, "binary distribution format 1.0")
}

fn zip(tree: &Tree, release: &Release) -> Result<Vec<u8>> {
    let time =
        jiff::tz::TimeZone::UTC.to_datetime(jiff::Timestamp::from_second(i64::try_from(release.epoch)?)?);
    let stamp = DateTime::from_date_and_time(
        u16::try_from(time.year())?,
        u8::try_from(time.month())?,
        u8::try_from(time.day())?,
        u8::try_from(time.hour())?,
        u8::try_from(time.minute())?,
        u8::try_from(time.second())?,
    );
    let stamp = stamp.ok().context("zip knows the years 1980 to 2107")?;
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (path, mode, entry) in tree.entries() {
        if let Entry::File(content) = entry {
            let options = SimpleFileOptions::default()
                .compression_method(CompressionMethod::Deflated)
                .compression_level(Some(9))
                .last_modified_time(stamp)
                .unix_permissions(mode);
            archive.start_file(path, options)?;
            archive.write_all(content)?;
        }
    }
    Ok(archive.finish()?.into_inner())
}

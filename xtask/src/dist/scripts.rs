//! The shell installer and the Homebrew formula. Both name the archives of this run.

use std::fs;

use anyhow::{Context, Result};

use super::build::Built;
use super::release::Release;
use super::shelf::Shelf;

/// The name of the archive of one system.
pub(crate) fn archive(release: &Release, built: &Built, part: &str) -> String {
    format!("pgentra-{}-{}-linux{part}.tar.gz", release.version, built.target.arch)
}

/// The shell installer. Without a known address it takes the option `--from`.
///
/// # Errors
/// `deploy/install.sh` cannot be read.
pub(crate) fn installer(release: &Release, shelf: &mut Shelf) -> Result<()> {
    let text = filled(release, "deploy/install.sh")?;
    let how = match &release.base_url {
        Some(url) => format!("downloads from {url}"),
        None => "takes --from URL: no --base-url, and no `repository` in the manifest".to_owned(),
    };
    shelf.put("install.sh", text.as_bytes(), how)
}

/// The formula.
///
/// # Errors
/// `deploy/homebrew/pgentra.rb` cannot be read, or an archive was not made before.
pub(crate) fn formula(release: &Release, all: &[Built], shelf: &mut Shelf) -> Result<()> {
    let Some(url) = &release.base_url else {
        shelf.leave_out(
            "pgentra.rb",
            "a formula names its URL: give --base-url, or `repository` in the manifest",
        );
        return Ok(());
    };
    let mut systems = String::new();
    for built in all {
        let name = archive(release, built, "");
        let sum = shelf.sha256(&name).with_context(|| format!("the formula needs {name}"))?;
        let processor = if built.target.arch == "aarch64" { "arm" } else { "intel" };
        systems.push_str(&format!(
            "\n  on_{processor} do\n    url \"{url}/{name}\"\n    sha256 \"{sum}\"\n  end\n"
        ));
    }
    let text = filled(release, "deploy/homebrew/pgentra.rb")?.replace("@SYSTEMS@\n", &format!("{systems}\n"));
    shelf.put("pgentra.rb", text.as_bytes(), "Homebrew formula for Linux")
}

fn filled(release: &Release, path: &str) -> Result<String> {
    let text = fs::read_to_string(release.root.join(path)).with_context(|| format!("cannot read {path}"))?;
    let url = release.base_url.as_deref().unwrap_or_default();
    Ok(text.replace("@VERSION@", &release.version).replace("@BASE_URL@", url))
}

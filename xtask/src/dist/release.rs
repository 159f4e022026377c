//! What all artefacts of one run share: version, time, folders, and the systems that they are for.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use cargo_metadata::{Metadata, MetadataCommand};

use super::Options;

/// One version of pgentra, about to be packaged.
pub(crate) struct Release {
    pub(crate) root: PathBuf,
    pub(crate) version: String,
    /// The time of every file: that of the last commit, or SOURCE_DATE_EPOCH. Unix seconds.
    pub(crate) epoch: u64,
    /// Counts the packages of one version, for Debian and RPM.
    pub(crate) revision: u32,
    /// The folder with the artefacts.
    pub(crate) out: PathBuf,
    /// The profile that the binaries are built with.
    pub(crate) profile: String,
    /// Where the artefacts can be downloaded, without a slash at its end. None: not known.
    pub(crate) base_url: Option<String>,
    pub(crate) metadata: Metadata,
}

impl Release {
    /// Reads the workspace.
    ///
    /// # Errors
    /// The manifests cannot be read, or there is no commit to take the time from.
    pub(crate) fn new(root: &Path, options: &Options) -> Result<Release> {
        let metadata = MetadataCommand::new()
            .current_dir(root)
            .other_options(["--locked".to_owned()])
            .exec()
            .context("cannot read the manifests")?;
        let binary = metadata
            .workspace_packages()
            .into_iter()
            .find(|package| package.name.as_str() == "pgentra")
            .context("the workspace has no package pgentra")?;
        let version = binary.version.to_string();
        // GitHub and its kin serve the files of a release there.
        let repository = binary
            .repository
            .as_ref()
            .map(|url| format!("{}/releases/download/v{version}", url.trim_end_matches('/')));
        let base_url =
            options.base_url.as_deref().map(|url| url.trim_end_matches('/').to_owned()).or(repository);
        if let Some(url) = &base_url {
            // It is written into a shell script and a Ruby file.
            let plain = |c: char| c.is_ascii_alphanumeric() || "-._~:/[]@%+".contains(c);
            ensure!(
                url.chars().all(plain),
                "--base-url {url:?} has a character that is not one of a plain URL"
            );
        }
        let out = metadata.target_directory.join("artifacts").into_std_path_buf();
        Ok(Release {
            root: root.to_owned(),
            version,
            epoch: epoch(root)?,
            revision: options.revision,
            out: options.out.clone().unwrap_or(out),
            profile: options.profile.clone(),
            base_url,
            metadata,
        })
    }

    /// The folder with what is made on the way.
    pub(crate) fn stage(&self) -> PathBuf {
        self.target_folder().join("stage")
    }

    pub(crate) fn target_folder(&self) -> PathBuf {
        self.metadata.target_directory.clone().into_std_path_buf()
    }

    /// The time of the release in the notation of RFC 3339.
    ///
    /// # Errors
    /// The time is beyond the year 9999.
    pub(crate) fn time(&self) -> Result<String> {
        Ok(jiff::Timestamp::from_second(i64::try_from(self.epoch)?)?.to_string())
    }
}

/// A system that binaries are built for, in the words of each packager.
pub(crate) struct Target {
    pub(crate) triple: &'static str,
    /// In the names of archives; also the word of RPM and Python.
    pub(crate) arch: &'static str,
    /// In the names of Debian and OCI.
    pub(crate) debian: &'static str,
    /// In Node.js' names.
    pub(crate) node: &'static str,
    /// The compiler and linker for C, by Debian's name, where it is not this machine's own system.
    pub(crate) cc: &'static str,
}

/// Linux, from the most used to the least.
pub(crate) const TARGETS: [Target; 2] = [
    Target {
        triple: "x86_64-unknown-linux-gnu",
        arch: "x86_64",
        debian: "amd64",
        node: "x64",
        cc: "x86_64-linux-gnu-gcc",
    },
    Target {
        triple: "aarch64-unknown-linux-gnu",
        arch: "aarch64",
        debian: "arm64",
        node: "arm64",
        cc: "aarch64-linux-gnu-gcc",
    },
];

/// The reproducible builds project's variable, or the time of the last commit.
#[expect(clippy::disallowed_methods, reason = "SOURCE_DATE_EPOCH is read from the environment")]
fn epoch(root: &Path) -> Result<u64> {
    if let Ok(given) = std::env::var("SOURCE_DATE_EPOCH") {
        return given.parse().with_context(|| format!("SOURCE_DATE_EPOCH={given} is no number of seconds"));
    }
    let log = Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(root).output()?;
    let said = String::from_utf8_lossy(&log.stdout);
    said.trim().parse().context("git names no commit; set SOURCE_DATE_EPOCH to the time of the release")
}

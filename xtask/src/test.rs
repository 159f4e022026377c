//! The test command: installs what the tests need, then runs all of them.

use std::ffi::OsString;
use std::io::BufReader;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use cargo_metadata::Message;
use cargo_metadata::camino::Utf8PathBuf;

/// Features of `connect` for connection pools. They are built separately, so the tests before show
/// that the crates compile without them.
const POOLS: &str = "deadpool,bb8,diesel-async,sqlx,sea-orm";

/// Test binaries that run at the same time. Each already has a thread for every core, but an
/// end-to-end test waits for other processes for more than half of its time.
const AT_ONCE: usize = 2;

/// Installs the real clients, builds the binary for the end-to-end tests and runs every test of the
/// workspace. With `arguments`, `cargo test` gets them, and runs one test binary after another.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<()> {
    println!("== clients for the end-to-end tests");
    let installed =
        Command::new("bash").arg("e2e/setup.sh").current_dir(root).status().context("cannot run bash")?;
    ensure!(installed.success(), "e2e/setup.sh could not install what the end-to-end tests need; see above");
    println!("== the binary that the end-to-end tests drive");
    cargo(root, ["build", "--locked", "--package", "pgentra"].map(OsString::from).as_slice())?;
    println!("== unit, property, scenario and end-to-end tests");
    let workspace = ["test", "--locked", "--workspace"];
    if arguments.is_empty() {
        let binaries = build(root, &workspace)?;
        let mut failed = run_all(&binaries, &[])?;
        let documentation = [&workspace[..], &["--doc", "--no-fail-fast"]].concat();
        if cargo(root, &documentation.iter().map(OsString::from).collect::<Vec<_>>()).is_err() {
            failed.push("documentation");
        }
        ensure!(failed.is_empty(), "failed, as printed above: {}", failed.join(", "));
    } else {
        // A long run reports all of its failures.
        let words = workspace.iter().chain(&["--no-fail-fast"]).map(OsString::from);
        cargo(root, &words.chain(arguments.iter().map(OsString::from)).collect::<Vec<_>>())?;
    }
    println!("== connection pools over three token lifetimes");
    let mut pools: Vec<OsString> =
        ["test", "--locked", "--package", "pools", "--features", POOLS].map(OsString::from).to_vec();
    pools.extend(arguments.iter().map(OsString::from));
    cargo(root, &pools)
}

/// A test binary, the folder of its package, in which it runs, and its arguments.
#[derive(Clone)]
pub(crate) struct Binary {
    name: String,
    executable: Utf8PathBuf,
    folder: Utf8PathBuf,
    arguments: Vec<String>,
}

/// Builds the tests that `words` of cargo name.
///
/// # Errors
/// They do not compile, or there are none.
pub(crate) fn build(root: &Path, words: &[&str]) -> Result<Vec<Binary>> {
    let mut building = Command::new(env!("CARGO"))
        .args(words)
        .args(["--no-run", "--message-format", "json-render-diagnostics"])
        .current_dir(root)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    let output = building.stdout.take().context("cargo has no output")?;
    let mut binaries = Vec::new();
    for message in Message::parse_stream(BufReader::new(output)) {
        let Message::CompilerArtifact(artifact) = message.context("cargo prints no messages")? else {
            continue;
        };
        let (Some(executable), true) = (artifact.executable, artifact.profile.test) else { continue };
        let folder = artifact.manifest_path.parent().context("a manifest is in no folder")?.to_owned();
        let name = format!("{} {}", folder.file_name().unwrap_or_default(), artifact.target.name);
        binaries.push(Binary { name, executable, folder, arguments: Vec::new() });
    }
    let status = building.wait().context("cannot wait for cargo")?;
    ensure!(status.success(), "cargo {words:?} failed ({status})");
    ensure!(!binaries.is_empty(), "cargo {words:?} built no test");
    Ok(binaries)
}

/// Runs all of them behind these words, [`AT_ONCE`] at a time, and prints what each printed when it has ended. Returns
/// the names of those that failed.
///
/// # Errors
/// One cannot be run.
pub(crate) fn run_all<'a>(binaries: &'a [Binary], behind: &[String]) -> Result<Vec<&'a str>> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut failed = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(binary) = binaries.get(number) else { return Ok(failed) };
            println!("   {} of {}: {}", number + 1, binaries.len(), binary.name);
            if !binary.passes(behind)? {
                failed.push(binary.name.as_str());
            }
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(worker)).collect();
        let failed =
            workers.into_iter().map(|worker| worker.join().map_err(|_| anyhow!("a worker panicked"))?);
        Ok(failed.collect::<Result<Vec<_>>>()?.concat())
    })
}

/// Runs it behind these words, with its output on that of this command. Returns whether it passes.
///
/// # Errors
/// It cannot be run.
pub(crate) fn run_seen(binary: &Binary, behind: &[String]) -> Result<bool> {
    println!("   {}", binary.name);
    let mut command = binary.command(behind)?;
    Ok(command.status().with_context(|| format!("cannot run {command:?}"))?.success())
}

impl Binary {
    /// The same binary under a name of this run, with arguments.
    pub(crate) fn with(&self, name: &str, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|&word| word.to_owned()).collect();
        Self { name: name.to_owned(), arguments, ..self.clone() }
    }

    /// The command that runs it behind these words.
    fn command(&self, behind: &[String]) -> Result<Command> {
        let words = behind.iter().map(String::as_str).chain([self.executable.as_str()]);
        let all: Vec<&str> = words.chain(self.arguments.iter().map(String::as_str)).collect();
        let (program, arguments) = all.split_first().context("a command has a program")?;
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&self.folder).env("CARGO_MANIFEST_DIR", &self.folder);
        Ok(command)
    }

    /// Runs it, and prints what it printed, and for how long it ran.
    fn passes(&self, behind: &[String]) -> Result<bool> {
        let mut command = self.command(behind)?;
        #[expect(clippy::disallowed_methods, reason = "no test sees this time")]
        let begin = Instant::now();
        let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        // One write: the other workers print too.
        let seconds = begin.elapsed().as_secs();
        println!("-- {} ({seconds} s)\n{}{err}", self.name, out.trim_start());
        Ok(output.status.success())
    }
}

/// Runs cargo in the workspace. The error contains the arguments.
pub(crate) fn cargo(root: &Path, arguments: &[OsString]) -> Result<()> {
    let status =
        Command::new(env!("CARGO")).args(arguments).current_dir(root).status().context("cannot run cargo")?;
    ensure!(status.success(), "cargo {arguments:?} failed ({status})");
    Ok(())
}

//! Measures how long a local cloud takes to start, and looks for what it leaves.
#![expect(clippy::disallowed_methods, reason = "it measures time, and what it waits for has no event")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use serde_json::Value;

use crate::test::cargo;

/// Time for what was told to end, after the command has returned.
const ENDING: Duration = Duration::from_secs(10);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(50);

/// Arguments of `cargo xtask bench local`.
#[derive(Parser)]
#[command(name = "cargo xtask bench local")]
struct Options {
    /// Local clouds that are started one after another.
    #[arg(long, default_value_t = 50)]
    runs: usize,
    /// Local clouds that are started at the same time.
    #[arg(long, default_value_t = 8)]
    at_a_time: usize,
    /// How often that many are started.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Profile of the binary: dist is what is packaged.
    #[arg(long, default_value = "dist")]
    profile: String,
    /// Arguments for every start, such as `--snapshot FILE`.
    // `cargo xtask` itself may have taken the `--` before them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    up: Vec<String>,
}

/// Builds the binary, starts local clouds and prints how long each start took.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<()> {
    let name = "cargo xtask bench local".to_owned();
    let options = Options::try_parse_from([name].iter().chain(arguments))?;
    let build = ["build", "--profile", &options.profile, "--locked", "--package", "pgentra"];
    cargo(root, &build.map(Into::into))?;
    let folder = if options.profile == "dev" { "debug" } else { &options.profile };
    let site = Site::new(root.join("target").join(folder).join("pgentra"), options.up)?;
    println!("{}\n", machine());

    // The first one makes the certificate authority of its name, which later ones have.
    site.start("warm-up")?;
    site.stop("warm-up")?;
    let memory = shared_memory();
    let mut row = Vec::new();
    for _ in 0..options.runs {
        row.push(site.start("one")?);
        let ports = site.ports("one")?;
        site.stop("one")?;
        site.nothing_left(&ports)?;
    }
    let mut together = Vec::new();
    let names: Vec<String> = (0..options.at_a_time).map(|number| format!("n{number}")).collect();
    for _ in 0..options.rounds {
        let took: Result<Vec<Duration>> = thread::scope(|scope| {
            let starts: Vec<_> = names.iter().map(|name| scope.spawn(|| site.start(name))).collect();
            starts
                .into_iter()
                .map(|start| start.join().unwrap_or_else(|_| bail!("a start panicked")))
                .collect()
        });
        together.extend(took?);
        let mut ports = BTreeSet::new();
        for name in &names {
            ports.extend(site.ports(name)?);
        }
        names.iter().try_for_each(|name| site.stop(name))?;
        site.nothing_left(&ports)?;
    }
    let left: Vec<_> = shared_memory().difference(&memory).filter(|name| !is_used(name)).cloned().collect();
    ensure!(left.is_empty(), "shared memory is left: {left:?}");

    println!("| `pgentra local up --detach` | starts | median | 9 of 10 within | longest |");
    println!("|---|---|---|---|---|");
    println!("| one after another | {} |{}", row.len(), figures(row));
    println!("| {} at the same time | {} |{}", options.at_a_time, together.len(), figures(together));
    println!("\nno process, folder, port or shared memory was left; {}", load());
    Ok(())
}

/// Where the local clouds of a measurement live. Dropping it stops those that run, and removes the folder.
struct Site {
    binary: PathBuf,
    folder: PathBuf,
    up: Vec<String>,
    /// The names of those that were started and not stopped.
    running: Mutex<BTreeSet<String>>,
}

impl Site {
    fn new(binary: PathBuf, up: Vec<String>) -> Result<Self> {
        // A server that root starts runs as another user, who must be able to enter the folder.
        let folder = PathBuf::from(format!("/tmp/pgentra-starts-{}", std::process::id()));
        for name in ["", "tmp", "state"] {
            fs::create_dir(folder.join(name))?;
        }
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o711))?;
        fs::set_permissions(folder.join("tmp"), fs::Permissions::from_mode(0o711))?;
        Ok(Self { binary, folder, up, running: Mutex::default() })
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(words)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("TMPDIR", self.folder.join("tmp"))
            .env("XDG_STATE_HOME", self.folder.join("state"))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    /// Starts a local cloud; returns how long the command took.
    fn start(&self, name: &str) -> Result<Duration> {
        let mut command = self.command(&["local", "up", "--detach", "--name", name]);
        command.args(&self.up).stderr(Stdio::piped());
        let begin = Instant::now();
        let done = command.output().context("cannot run pgentra")?;
        let took = begin.elapsed();
        ensure!(done.status.success(), "a start failed: {}", String::from_utf8_lossy(&done.stderr));
        self.running().insert(name.to_owned());
        Ok(took)
    }

    fn stop(&self, name: &str) -> Result<()> {
        let status = self.command(&["local", "down", "--name", name]).stderr(Stdio::null()).status()?;
        ensure!(status.success(), "a stop failed ({status})");
        self.running().remove(name);
        Ok(())
    }

    fn running(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ports on which a local cloud listens.
    fn ports(&self, name: &str) -> Result<BTreeSet<u16>> {
        let mut command = self.command(&["local", "status", "-o", "json", "--name", name]);
        let status: Value = serde_json::from_slice(&command.stdout(Stdio::piped()).output()?.stdout)?;
        let pid = status["pid"].as_u64().context("the status has no process")?;
        let open = fs::read_dir(format!("/proc/{pid}/fd"))?.flatten().filter_map(|file| {
            let target = fs::read_link(file.path()).ok()?;
            let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            Some(inode.to_owned())
        });
        let open: BTreeSet<String> = open.collect();
        let ports: BTreeSet<u16> = listeners()?
            .into_iter()
            .filter(|(_, inode)| open.contains(inode))
            .map(|(port, _)| port)
            .collect();
        ensure!(ports.len() > 5, "a local cloud listens on {ports:?} only");
        Ok(ports)
    }

    /// Fails if something of a local cloud is left after some time.
    fn nothing_left(&self, ports: &BTreeSet<u16>) -> Result<()> {
        let begin = Instant::now();
        loop {
            let folders = fs::read_dir(self.folder.join("tmp"))?.count();
            let processes = self.processes()?;
            let listening: Vec<u16> =
                listeners()?.into_iter().map(|(port, _)| port).filter(|port| ports.contains(port)).collect();
            if folders == 0 && processes.is_empty() && listening.is_empty() {
                return Ok(());
            }
            ensure!(
                begin.elapsed() < ENDING,
                "left behind: {folders} folders, the processes {processes:?}, the ports {listening:?}"
            );
            thread::sleep(LOOK);
        }
    }

    /// The processes whose command line has the folder, or whose program is the binary below it.
    fn processes(&self) -> Result<Vec<String>> {
        let folder = self.folder.display().to_string();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")?.flatten() {
            let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
            let [line, variables] = ["cmdline", "environ"].map(read);
            let has = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains(&folder);
            if entry.file_name() != *std::process::id().to_string() && (has(&line) || has(&variables)) {
                found.push(String::from_utf8_lossy(&line).replace('\0', " "));
            }
        }
        Ok(found)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let running = self.running().clone();
        for error in running.iter().filter_map(|name| self.stop(name).err()) {
            println!("{error:#}");
        }
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            println!("cannot remove {}: {error}", self.folder.display());
        }
    }
}

/// The listening TCP ports of this machine, with their inodes (proc(5)).
fn listeners() -> Result<Vec<(u16, String)>> {
    let mut found = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in fs::read_to_string(table)?.lines().skip(1) {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let (Some(local), Some(&"0A"), Some(inode)) = (columns.get(1), columns.get(3), columns.get(9))
            else {
                continue;
            };
            let port = local.rsplit(':').next().and_then(|port| u16::from_str_radix(port, 16).ok());
            found.extend(port.map(|port| (port, (*inode).to_owned())));
        }
    }
    Ok(found)
}

/// Segments of System V, and files of POSIX shared memory.
fn shared_memory() -> BTreeSet<String> {
    let segments = segments().into_iter().map(|(segment, _)| segment);
    let files = fs::read_dir("/dev/shm").into_iter().flatten().flatten();
    let files = files.map(|file| file.path().display().to_string());
    segments.chain(files).collect()
}

/// The segments of System V, and whether a process has attached each (proc(5)).
fn segments() -> Vec<(String, bool)> {
    let table = fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    let row = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        Some((format!("segment {}", columns.get(1)?), *columns.get(6)? != "0"))
    };
    table.lines().skip(1).filter_map(row).collect()
}

/// Whether a process has this shared memory: then it is of another program of this machine.
fn is_used(name: &str) -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut maps = processes.filter_map(|process| fs::read_to_string(process.path().join("maps")).ok());
    segments().contains(&(name.to_owned(), true))
        || maps.any(|maps| maps.lines().any(|line| line.ends_with(name)))
}

/// Median, the time within which nine of ten are, and the longest.
fn figures(mut took: Vec<Duration>) -> String {
    took.sort();
    let at = |part: usize| took.get((took.len() * part).div_ceil(10).saturating_sub(1)).copied();
    let cells =
        [at(5), at(9), at(10)].map(|time| format!(" {:.2} s |", time.unwrap_or_default().as_secs_f64()));
    cells.concat()
}

/// The processor, how many of it, and what else is at work.
fn machine() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let count = thread::available_parallelism().map_or(0, usize::from);
    format!("{count} processors: {}; {}", model.map_or("unknown", |(_, model)| model), load())
}

fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!("load average {}", load.split(' ').next().unwrap_or("unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_of_a_start_follow_two_hyphens_which_may_be_gone() {
        for words in [&["--runs", "2", "--", "--snapshot", "F"][..], &["--runs", "2", "--snapshot", "F"]] {
            let options = Options::try_parse_from([&["bench"], words].concat()).unwrap();
            assert_eq!((options.runs, options.up), (2, vec!["--snapshot".to_owned(), "F".to_owned()]));
        }
    }

    #[test]
    fn figures_are_of_the_sorted_times() {
        let took = (1..=50).rev().map(|number| Duration::from_millis(number * 10)).collect();
        assert_eq!(figures(took), " 0.25 s | 0.45 s | 0.50 s |");
        assert_eq!(figures(vec![Duration::from_millis(700)]), " 0.70 s | 0.70 s | 0.70 s |");
    }
}

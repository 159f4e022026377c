//! Programs that this one starts, and what the system knows of them.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// Clock ticks a second in /proc: always 100 on Linux (proc(5), `sysconf(_SC_CLK_TCK)`).
const TICKS: f64 = 100.0;
/// A program that does not listen by then will not.
const START: Duration = Duration::from_secs(20);
/// A program that was asked to end gets this long.
const FAREWELL: Duration = Duration::from_secs(5);

/// A program that ends when this is dropped; and, by its parent-death signal, when this program is killed.
pub struct Running {
    name: String,
    child: Child,
    signal: Signal,
}

impl Running {
    /// Starts `words` with the variables `env`; its output goes to `log`. With `user`, as that user where we are root.
    /// Must be called on the main thread: the kernel ends the program when the thread that started it ends.
    pub fn start(
        name: &str,
        words: &[String],
        env: &[(String, String)],
        user: Option<&str>,
        log: &Path,
    ) -> Result<Self> {
        // PostgreSQL takes SIGQUIT as "stop at once".
        let signal = if name == "postgres" { Signal::QUIT } else { Signal::TERM };
        let mut command = Command::new("setpriv");
        if let (Some(user), true) = (user, rustix::process::geteuid().is_root()) {
            command.args(["--reuid", user, "--regid", user, "--clear-groups"]);
        }
        command.args(["--pdeathsig", if signal == Signal::QUIT { "QUIT" } else { "TERM" }, "--"]).args(words);
        let log = fs::File::options().create(true).append(true).open(log)?;
        command.envs(env.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), child, signal })
    }

    /// Waits until something listens on the port.
    pub fn wait_for(&mut self, port: u16) -> Result<()> {
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended at its start: {status}", self.name);
            }
            if start.elapsed() > START {
                bail!("{} does not listen", self.name);
            }
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Processor time so far, in seconds, with that of its children that live.
    pub fn cpu(&self) -> f64 {
        family(self.child.id()).into_iter().map(cpu).sum()
    }

    /// Memory in bytes: the proportional set size, with that of its children.
    pub fn memory(&self) -> f64 {
        family(self.child.id()).into_iter().map(memory).sum()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) else { return };
        let _ = kill_process(pid, self.signal);
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if start.elapsed() > FAREWELL {
                let _ = self.child.kill();
            }
            sleep(Duration::from_millis(10));
        }
    }
}

/// A process and those below it.
fn family(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut next = 0;
    while let Some(&pid) = all.get(next) {
        next += 1;
        // A child is listed under the thread that made it.
        for thread in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
    }
    all
}

/// Fields 14 and 15 of /proc/PID/stat, counted from behind the name, which may contain anything.
fn cpu(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = rest.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok());
    ticks.sum::<f64>() / TICKS
}

fn memory(pid: u32) -> f64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kilobytes = pss.and_then(|pss| pss.split_whitespace().next()?.parse::<f64>().ok());
    kilobytes.unwrap_or_default() * 1024.0
}

/// Runs a program to its end and returns what it printed.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
        bail!("{words:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Where a program is, on the PATH or where Debian puts servers.
pub fn find(name: &str) -> Option<String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path.split(':').chain(["/usr/sbin", "/usr/local/sbin"]);
    folders.map(|folder| format!("{folder}/{name}")).find(|path| Path::new(path).is_file())
}

/// A TCP port that is free at this moment.
pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Words as owned strings.
pub fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

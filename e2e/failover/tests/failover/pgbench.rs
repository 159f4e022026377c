//! `pgbench` that goes on after its connections broke, and which of its commits were acknowledged.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Each client counts its transactions, as the log of pgbench does.
const SCRIPT: &str = "\\set n :n + 1\nINSERT INTO ledger VALUES (:load, :run * 1000 + :client_id, :n);\n";
/// Seconds of one run; a run ends earlier when its connections break.
const SECONDS: &str = "--time=2";

/// Runs of pgbench, one after the other, until it is stopped.
pub(crate) struct Load {
    name: String,
    is_over: Arc<AtomicBool>,
    runs: JoinHandle<Vec<(i32, i32)>>,
}

impl Load {
    /// Starts the runs. What is written has `name` in its rows.
    pub(crate) fn start(folder: &Path, name: &str, port: u16, role: &str, more: &[&str]) -> Self {
        let folder = folder.join(name);
        fs::create_dir(&folder).unwrap();
        let script = folder.join("ledger.sql");
        fs::write(&script, SCRIPT).unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let (load, role) = (name.to_owned(), role.to_owned());
        let more: Vec<String> = more.iter().map(|option| (*option).to_owned()).collect();
        let runs = std::thread::spawn(move || {
            let (mut acknowledged, mut last) = (Vec::new(), String::new());
            for run in 0.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let prefix = folder.join(format!("run{run}"));
                let mut pgbench = Command::new("pgbench");
                pgbench
                    .args(["--no-vacuum", SECONDS, "--protocol=prepared", "--log"])
                    .arg(format!("--log-prefix={}", prefix.display()))
                    .arg(format!("--file={}", script.display()))
                    .args([
                        format!("--define=load={load}"),
                        format!("--define=run={run}"),
                        "--define=n=0".to_owned(),
                    ])
                    .args(&more)
                    .args([
                        "--host=127.0.0.1",
                        &format!("--port={port}"),
                        &format!("--username={role}"),
                        "postgres",
                    ])
                    .env_clear()
                    .env("PATH", "/usr/bin:/bin")
                    .stdin(Stdio::null());
                // It fails when its connections break.
                let said = pgbench.output().expect("pgbench, of Debian's package postgresql").stderr;
                let said = String::from_utf8_lossy(&said);
                let error = said.lines().find(|line| line.contains("error")).unwrap_or_default();
                if !error.is_empty() && last != error {
                    println!("{load}, run {run}: {error}");
                    error.clone_into(&mut last);
                }
                acknowledged.extend(logged(&folder, &format!("run{run}."), run));
            }
            acknowledged
        });
        Self { name: name.to_owned(), is_over, runs }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Waits for the end of the run. Returns the client and number of each acknowledged commit.
    pub(crate) fn stop(self) -> Vec<(i32, i32)> {
        self.is_over.store(true, Ordering::Relaxed);
        self.runs.join().unwrap()
    }
}

/// The transactions in the logs of a run: a line for each, which begins with the client and its count.
fn logged(folder: &Path, prefix: &str, run: i32) -> Vec<(i32, i32)> {
    let logs = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_log = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(prefix);
    let mut all = Vec::new();
    for log in logs.filter(is_log) {
        for line in fs::read_to_string(log).unwrap().lines() {
            let mut words = line.split(' ').map(|word| word.parse::<i32>());
            let (Some(Ok(client)), Some(Ok(n))) = (words.next(), words.next()) else {
                panic!("not a line of pgbench's log: {line}");
            };
            all.push((run * 1000 + client, n));
        }
    }
    all
}

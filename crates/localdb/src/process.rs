use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use crate::janitor::{Farewell, Janitor};
use crate::owner::{Owner, SEARCH_PATH};

/// One program of the server, to be run in the folder.
#[derive(Debug)]
pub(crate) struct ServerProgram<'a> {
    pub(crate) program: &'a Path,
    pub(crate) arguments: &'a [&'a OsStr],
    pub(crate) owner: Option<&'a Owner>,
    pub(crate) log: &'a Path,
    pub(crate) farewell: Farewell,
}

impl ServerProgram<'_> {
    /// Starts the program in a process group of its own, and registers it with the janitor.
    ///
    /// A shell waits for a line on its standard input before it executes the program, and the line is written after the
    /// janitor has the process id. If this process ends before that, the shell reads EOF and ends too, so the program
    /// is never left running without the janitor.
    pub(crate) async fn run(self, janitor: &mut Janitor) -> io::Result<Child> {
        let log = open_log(self.log)?;
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", r#"read -r go && exec "$@" </dev/null"#, "gate"])
            .arg(self.program)
            .args(self.arguments)
            .env_clear()
            .env("PATH", SEARCH_PATH)
            .env("LC_ALL", "C")
            .current_dir(janitor.folder())
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log);
        if let Some(owner) = self.owner {
            command.uid(owner.uid).gid(owner.gid);
        }
        let mut child = command.spawn()?;
        if let Some(pid) = child.id() {
            janitor.guard(pid, self.farewell)?;
        }
        if let Some(mut gate) = child.stdin.take() {
            gate.write_all(b"go\n").await?;
        }
        Ok(child)
    }
}

/// Kills a program that hangs, with all that it started.
pub(crate) fn kill_group(child: &Child) {
    if let Some(pid) = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
        // An error means that the process has ended already.
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

/// The last lines of a log, for an error message.
pub(crate) fn last_lines(log: &Path) -> String {
    use std::io::{Read, Seek, SeekFrom};

    let mut end = Vec::new();
    let read = File::open(log).and_then(|mut file| {
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_END)))?;
        file.take(LOG_END).read_to_end(&mut end)
    });
    if let Err(error) = read {
        return format!("(its log cannot be read: {error})");
    }
    let text = String::from_utf8_lossy(&end);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

/// Lines and bytes of a log in an error message: enough for the reason, which is at the end.
const LOG_LINES: usize = 12;
const LOG_END: u64 = 4096;

fn open_log(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

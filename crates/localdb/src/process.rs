use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::time::{interval, timeout};

use crate::janitor::{Farewell, Janitor};
use crate::owner::{Owner, SEARCH_PATH};
use crate::plain_file::check_plain;

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
        // Its processes have the lock, as they inherit the descriptor; a shell cannot take one.
        let lock = open_log(self.log)?;
        flock(&lock, FlockOperation::NonBlockingLockShared)?;
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", r#"read -r go && exec "$@" </dev/null 9>&1 1>&2"#, "gate"])
            .arg(self.program)
            .args(self.arguments)
            .env_clear()
            .env("PATH", SEARCH_PATH)
            .env("LC_ALL", "C")
            .current_dir(janitor.folder())
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(lock)
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

/// Waits until no process is left of the programs with this log, nor any that they started. Processes of PostgreSQL are
/// in sessions of their own, and go on for some milliseconds after the main one was killed.
///
/// # Errors
/// [`io::ErrorKind::TimedOut`] after `limit`.
pub(crate) async fn all_ended(log: &Path, limit: Duration) -> io::Result<()> {
    let lock = open_log(log)?;
    let free = async {
        let mut ticks = interval(END_INTERVAL);
        loop {
            ticks.tick().await;
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(()),
                Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(error) => return Err(error.into()),
            }
        }
    };
    let late = || io::Error::new(ErrorKind::TimedOut, "processes of PostgreSQL did not end");
    timeout(limit, free).await.unwrap_or_else(|_| Err(late()))
}

/// How often the end of the processes is looked for.
const END_INTERVAL: Duration = Duration::from_millis(10);

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
    let read = OpenOptions::new().read(true).custom_flags(plain_flags()).open(log).and_then(|mut file| {
        check_plain(&file)?;
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

/// Its folder may be another user's: a link in place of the log is refused.
fn open_log(path: &Path) -> io::Result<File> {
    let log =
        OpenOptions::new().create(true).append(true).mode(0o600).custom_flags(plain_flags()).open(path)?;
    check_plain(&log)?;
    Ok(log)
}

/// No link is followed, and no pipe waited for.
fn plain_flags() -> i32 {
    (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use eventually::DEADLINE;
    use rustix::process::kill_process;

    use super::*;

    #[test]
    fn a_log_is_no_link_and_no_pipe() {
        let base = tempfile::tempdir().unwrap();
        let (log, victim) = (base.path().join("log"), base.path().join("victim"));
        symlink(&victim, &log).unwrap();
        assert!(open_log(&log).is_err());
        assert!(!victim.exists());
        fs::write(&victim, "a secret").unwrap();
        assert!(!last_lines(&log).contains("secret"));
        fs::remove_file(&log).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&log).status().unwrap().success());
        assert!(open_log(&log).is_err());
        assert!(!last_lines(&log).is_empty());
        fs::remove_file(&log).unwrap();
        open_log(&log).unwrap();
    }

    #[tokio::test]
    async fn the_end_of_a_program_is_the_end_of_all_its_processes() {
        let base = tempfile::tempdir().unwrap();
        let mut janitor = Janitor::create(&base.path().join("folder")).unwrap();
        let log = janitor.folder().join("log");
        // The shell is the main process, and `sleep` one that it leaves.
        let script = "sleep 600 & echo left; wait";
        let folder = janitor.folder().to_owned();
        let order = ServerProgram {
            program: "/bin/sh".as_ref(),
            arguments: &["-c".as_ref(), script.as_ref(), folder.as_ref()],
            owner: None,
            log: &log,
            farewell: Farewell::Kill,
        };
        let mut child = order.run(&mut janitor).await.unwrap();
        let group = Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
        let left = async || fs::read_to_string(&log).is_ok_and(|text| text.contains("left"));
        eventually::eventually(DEADLINE, "its child runs", left).await;
        kill_process(group, Signal::KILL).unwrap();
        child.wait().await.unwrap();
        let error = all_ended(&log, Duration::ZERO).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        kill_process_group(group, Signal::KILL).unwrap();
        all_ended(&log, DEADLINE).await.unwrap();
    }
}

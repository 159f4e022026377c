use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A folder that is removed when its owner is dropped or its process ends, also by a panic or SIGKILL.
///
/// A small shell process waits for the end of this process on a pipe. It then stops the server that
/// was started in the folder, if one was, and removes the folder with all that is in it. It runs in a process group of
/// its own, so that a Ctrl-C does not reach it. If both processes end at once, as at the end of a container, the folder
/// is left.
///
/// Dropping it does the same and blocks until it is done: some ten milliseconds for a folder, up to a second with a
/// PostgreSQL in it, and never longer than the limits of the shell script (about 15 seconds for a server that hangs).
#[derive(Debug)]
pub struct Janitor {
    folder: PathBuf,
    process: Child,
}

impl Janitor {
    /// Creates `folder`, for this user alone, and watches it. Its parent must exist.
    ///
    /// There is no instant at which the folder exists and is not watched. Blocks for some milliseconds.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] when there is something of that name, which is then left untouched; any other
    /// error when the folder or the process cannot be made.
    pub fn create(folder: &Path) -> io::Result<Janitor> {
        if folder.symlink_metadata().is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        Janitor::begin("create", std::path::absolute(folder)?)
    }

    /// Watches a folder that exists, and removes it with all its content in the end. Blocks for some milliseconds.
    ///
    /// # Errors
    /// When there is no such folder, or the process cannot be started.
    pub fn watch(folder: &Path) -> io::Result<Janitor> {
        if !folder.symlink_metadata()?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Janitor::begin("watch", std::path::absolute(folder)?)
    }

    /// The folder, as an absolute path.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Stops the server and removes the folder now, and returns the result. Blocks as dropping does.
    ///
    /// # Errors
    /// When the folder is still there in the end.
    pub fn finish(mut self) -> io::Result<()> {
        self.clear()
    }

    /// From now on process `pid` is the one to stop, first by `way`. Its command line must contain the folder.
    pub(crate) fn guard(&mut self, pid: u32, way: Farewell) -> io::Result<()> {
        let signal = match way {
            Farewell::Await => "0",
            Farewell::Quit => "QUIT",
            Farewell::Kill => "KILL",
        };
        let pipe = self.process.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        // one write of less than a pipe's atomic size: never half a line
        pipe.write_all(format!("{signal} {pid}\n").as_bytes())
    }

    fn begin(task: &str, folder: PathBuf) -> io::Result<Janitor> {
        let mut process = Command::new("/bin/sh")
            .args(["-c", include_str!("janitor.sh"), "janitor", task])
            .arg(&folder)
            .env_clear()
            .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
            .env("LC_ALL", "C")
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut word = String::new();
        if let Some(answer) = process.stdout.take() {
            BufReader::new(answer).take(ANSWER_LIMIT).read_line(&mut word)?;
        }
        if word == "watching\n" {
            process.stderr = None;
            return Ok(Janitor { folder, process });
        }
        let mut complaint = String::new();
        if let Some(answer) = process.stderr.take() {
            answer.take(ANSWER_LIMIT).read_to_string(&mut complaint)?;
        }
        process.stdin = None;
        process.wait()?;
        Err(io::Error::other(complaint.trim_end().to_owned()))
    }

    fn clear(&mut self) -> io::Result<()> {
        self.process.stdin = None;
        if self.process.wait()?.success() {
            // The janitor has removed the folder. A folder of that name is now another process's, so it must stay.
            return Ok(());
        }
        // The janitor was killed, or could not remove the folder: remove it here.
        match std::fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        if self.process.stdin.is_some()
            && let Err(error) = self.clear()
        {
            tracing::error!(folder = %self.folder.display(), %error, "cannot remove the folder");
        }
    }
}

/// How a process is first asked to end.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Farewell {
    /// Not at all: it ends soon by itself, and would leave a shared memory segment if it were interrupted.
    Await,
    /// By SIGQUIT, PostgreSQL's immediate shutdown.
    Quit,
    /// By SIGKILL: PgBouncer has nothing to write down, and its signals for an orderly end depend on its version.
    Kill,
}

/// The janitor answers with one word or one line of complaint.
const ANSWER_LIMIT: u64 = 4096;

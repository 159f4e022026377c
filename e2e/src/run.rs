use std::fmt;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

use crate::Lab;

/// A program that runs in a lab.
#[must_use]
#[derive(Debug)]
pub struct Run<'lab> {
    lab: &'lab Lab,
    command: Command,
    shown: String,
    input: String,
    limit: Duration,
}

/// The output and exit status of a program.
pub struct Done<'lab> {
    lab: &'lab Lab,
    shown: String,
    /// Its exit status or signal.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl<'lab> Run<'lab> {
    pub(crate) fn new(lab: &'lab Lab, words: &[&str]) -> Run<'lab> {
        let mut command = lab.command(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        // The default time limit. No command here needs more than a few seconds on an idle machine.
        Run { lab, command, shown: words.join(" "), input: String::new(), limit: Duration::from_secs(120) }
    }

    /// Sets a variable.
    pub fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Sets several variables.
    pub fn envs(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.command.envs(variables);
        self
    }

    /// Sets its standard input.
    pub fn input(mut self, text: &str) -> Self {
        text.clone_into(&mut self.input);
        self
    }

    /// Sets the time limit, after which the test fails.
    pub fn within(mut self, seconds: u64) -> Self {
        self.limit = Duration::from_secs(seconds);
        self
    }

    /// Runs it and records its output for the search for tokens.
    pub fn done(self) -> Done<'lab> {
        let done = self.unrecorded();
        done.lab.record(&done.shown, &done.stdout);
        done.lab.record(&done.shown, &done.stderr);
        done
    }

    /// Runs a program whose stdout is a token; only stderr is recorded.
    pub fn token(self) -> String {
        let done = self.unrecorded();
        done.lab.record(&done.shown, &done.stderr);
        let token = done.ok().trim_end().to_owned();
        assert_eq!(token.split('.').count(), 3, "`{}` printed something else than a token", done.shown);
        done.lab.remember(&token);
        token
    }

    fn unrecorded(mut self) -> Done<'lab> {
        let mut child =
            self.command.spawn().unwrap_or_else(|error| panic!("cannot run `{}`: {error}", self.shown));
        let group = Pid::from_child(&child);
        let mut stdin = child.stdin.take().unwrap();
        let input = self.input;
        std::thread::spawn(move || stdin.write_all(input.as_bytes()));
        let stdout = read(child.stdout.take().unwrap());
        let stderr = read(child.stderr.take().unwrap());
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || sender.send(child.wait()));
        let Ok(status) = receiver.recv_timeout(self.limit) else {
            let _ = kill_process_group(group, Signal::KILL);
            panic!("`{}` took more than {:?}\n{}", self.shown, self.limit, stderr.recv().unwrap());
        };
        let status = status.unwrap();
        let text = |pipe: mpsc::Receiver<String>| {
            pipe.recv_timeout(self.limit).unwrap_or_else(|_| panic!("`{}` left its output open", self.shown))
        };
        Done { lab: self.lab, stdout: text(stdout), stderr: text(stderr), shown: self.shown, status }
    }
}

impl fmt::Debug for Done<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}\n{}{}", self.shown, self.status, self.stdout, self.stderr)
    }
}

impl Done<'_> {
    /// Its standard output; it must have succeeded.
    pub fn ok(&self) -> &str {
        assert!(self.status.success(), "{self:?}");
        &self.stdout
    }

    /// Its output as JSON; it must have succeeded.
    pub fn json(&self) -> Value {
        serde_json::from_str(self.ok())
            .unwrap_or_else(|error| panic!("`{}`: {error}\n{}", self.shown, self.stdout))
    }

    /// Its error message; see [`Done::fault`].
    pub fn fails(&self, code: i32) -> &str {
        assert_eq!(self.fault(code, &[]), None);
        &self.stderr
    }

    /// What is wrong with the way it failed, if anything: it must end with this exit code, print no
    /// result, print one error message that contains these words, and a hint.
    pub fn fault(&self, code: i32, words: &[&str]) -> Option<String> {
        let said = &self.stderr;
        let wrong = if self.status.code() != Some(code) {
            format!("ended with {}, not {code}", self.status)
        } else if !self.stdout.is_empty() {
            "printed a result".to_owned()
        } else if said.matches("error: ").count() != 1 {
            "does not name one error".to_owned()
        } else if !said.contains("hint: ") {
            "does not say what to try".to_owned()
        } else if let Some(word) = words.iter().find(|word| !said.contains(**word)) {
            format!("does not say {word:?}")
        } else {
            return None;
        };
        Some(format!("`{}` {wrong}:\n{}{said}", self.shown, self.stdout))
    }

    /// The signal that ended it.
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }
}

/// Reads a pipe to its end on a separate thread.
fn read(mut pipe: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        sender.send(String::from_utf8_lossy(&bytes).into_owned())
    });
    receiver
}

/// The processes whose command line or environment names `folder`, with their command lines.
pub(crate) fn processes(folder: &Path) -> Vec<(u32, String)> {
    let folder = folder.to_str().unwrap();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.filter_map(Result::ok) {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let file = |name| std::fs::read(entry.path().join(name)).unwrap_or_default();
        let (line, environment) = (file("cmdline"), file("environ"));
        if [&line, &environment].iter().any(|text| String::from_utf8_lossy(text).contains(folder)) {
            found.push((pid, String::from_utf8_lossy(&line).replace('\0', " ")));
        }
    }
    found
}

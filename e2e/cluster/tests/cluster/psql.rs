//! psql as a client that stays connected.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A psql that stays connected.
pub(crate) struct Psql {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Psql {
    /// Connects; a failure is seen at the first question.
    pub(crate) fn start(conninfo: &str, password: &str) -> Self {
        let mut process = Command::new("psql")
            .args(["-qAtX", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose", conninfo])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("PGPASSWORD", password)
            .env("PGCONNECT_TIMEOUT", "10")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("psql");
        let input = process.stdin.take().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { process, input, output }
    }

    /// The one line that a statement returns; the error if the session has ended.
    pub(crate) fn ask(&mut self, statement: &str) -> Option<String> {
        let mut line = String::new();
        let asked = writeln!(self.input, "{statement};").and_then(|()| self.output.read_line(&mut line));
        matches!(asked, Ok(1..)).then(|| line.trim_end().to_owned())
    }

    /// What it says after it has ended.
    pub(crate) fn error(self) -> String {
        drop(self.input);
        let said = self.process.wait_with_output().unwrap();
        String::from_utf8_lossy(&said.stderr).into_owned()
    }
}

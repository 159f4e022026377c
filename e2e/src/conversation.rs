use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ExitStatus};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

/// The time for an answer: a library may wait for its own time limit, and a JVM starts slowly on a busy machine.
const ANSWER: Duration = Duration::from_secs(120);
/// The time in which a program ends at the end of its input.
const ENDING: Duration = Duration::from_secs(15);

/// A program that reads lines and answers with lines. Dropping it closes its input, and kills it if it goes on.
pub struct Conversation {
    name: String,
    process: Option<Child>,
    input: Option<ChildStdin>,
    answers: mpsc::Receiver<String>,
}

impl Conversation {
    pub(crate) fn new(name: String, mut process: Child) -> Conversation {
        let output = BufReader::new(process.stdout.take().unwrap());
        let (sender, answers) = mpsc::channel();
        // A separate thread, as a read has no time limit.
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Conversation { name, input: process.stdin.take(), process: Some(process), answers }
    }

    /// Writes a line to the program.
    pub fn say(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    /// The next line of the program, without its end.
    ///
    /// # Panics
    ///
    /// If there is none within two minutes, or the program has ended.
    pub fn answer(&self) -> String {
        let answer = self.answers.recv_timeout(ANSWER);
        answer.unwrap_or_else(|error| panic!("`{}` does not answer: {error}", self.name))
    }

    /// Closes the input of the program, and returns its exit status.
    ///
    /// # Panics
    ///
    /// If it does not end within 15 seconds.
    pub fn end(mut self) -> ExitStatus {
        self.close().unwrap_or_else(|| panic!("`{}` went on after its input, and was killed", self.name))
    }

    fn close(&mut self) -> Option<ExitStatus> {
        drop(self.input.take());
        let mut process = self.process.take()?;
        let group = Pid::from_child(&process);
        let (sender, ended) = mpsc::channel();
        std::thread::spawn(move || sender.send(process.wait()));
        if let Ok(status) = ended.recv_timeout(ENDING) {
            return status.ok();
        }
        let _ = kill_process_group(group, Signal::KILL);
        let _ = ended.recv_timeout(ENDING);
        None
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.close();
    }
}

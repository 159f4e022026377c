use std::fmt;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::TryRecvError;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use eventually::eventually_blocking;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::Lab;

/// `pgentra proxy` or `pgentra gateway` in a lab. Dropping it sends SIGTERM, and fails the test if
/// the program ends with an error.
pub struct Proxy<'lab> {
    lab: &'lab Lab,
    process: Option<Child>,
    listeners: Vec<String>,
    said: Arc<Mutex<String>>,
    lines: mpsc::Receiver<String>,
}

impl<'lab> Proxy<'lab> {
    pub(crate) fn start(
        lab: &'lab Lab,
        program: &str,
        variables: impl IntoIterator<Item = (String, String)>,
        arguments: &[&str],
        listeners: usize,
    ) -> Proxy<'lab> {
        let mut process = lab
            .command(&[&["pgentra", "-v", program], arguments].concat())
            .envs(variables)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(process.stderr.take().unwrap());
        let said = Arc::new(Mutex::new(String::new()));
        let (sender, lines) = mpsc::channel();
        let log = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                log.lock().unwrap().push_str(&format!("{line}\n"));
                let _ = sender.send(line);
            }
        });
        let mut proxy = Proxy { lab, process: Some(process), listeners: Vec::new(), said, lines };
        for _ in 0..listeners {
            let line = proxy.await_line("listening on ");
            let listener = line.split(' ').nth(2).unwrap().to_owned();
            proxy.listeners.push(listener);
        }
        proxy
    }

    /// Its listen addresses as it reports them: an address, or the path of a socket.
    pub fn listeners(&self) -> &[String] {
        &self.listeners
    }

    /// The port of its first listener, which is a TCP address.
    pub fn port(&self) -> String {
        self.listeners[0].parse::<SocketAddr>().unwrap().port().to_string()
    }

    /// Waits for an output line that contains these words, and returns it.
    pub fn await_line(&self, words: &str) -> String {
        eventually_blocking(LIMIT, &format!("the proxy says {words:?}"), || {
            loop {
                match self.lines.try_recv() {
                    Ok(line) if line.contains(words) => return Ok(line),
                    Ok(_) => {}
                    Err(TryRecvError::Empty) => return Err(Log(self.said())),
                    Err(TryRecvError::Disconnected) => {
                        panic!("the proxy ended and did not say {words:?} but:\n{}", self.said())
                    }
                }
            }
        })
    }

    /// Its output so far.
    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// The id of its process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(self.process.as_ref().expect("it runs"))
    }

    /// Sends this signal to its process.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits until it has ended, after the test caused that.
    pub fn ended(mut self) -> ExitStatus {
        self.wait()
    }

    fn wait(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("it runs");
        let group = Pid::from_child(&process);
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || sender.send(process.wait()));
        let status = receiver.recv_timeout(LIMIT).unwrap_or_else(|_| {
            let _ = kill_process_group(group, Signal::KILL);
            panic!("the proxy did not end within {LIMIT:?}\n{}", self.said())
        });
        self.lab.record("pgentra proxy", &self.said());
        status.unwrap()
    }
}

impl fmt::Debug for Proxy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("listeners", &self.listeners).finish_non_exhaustive()
    }
}

impl Drop for Proxy<'_> {
    fn drop(&mut self) {
        if self.process.is_none() {
            return;
        }
        self.signal(Signal::TERM);
        let status = self.wait();
        if !std::thread::panicking() {
            assert!(status.success(), "the proxy ended with {status}:\n{}", self.said());
        }
    }
}

/// It takes a second on an idle machine; with a connected client it drains for five seconds.
const LIMIT: Duration = Duration::from_secs(60);

/// The log of a proxy, line by line in a failure.
struct Log(String);

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n{}", self.0)
    }
}

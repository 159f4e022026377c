use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;

use crate::Lab;

/// The Azure product that a local cloud imitates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// Flexible Server.
    Flexible,
    /// Single Server.
    Single,
}

impl Flavour {
    /// Both flavours.
    pub const ALL: [Flavour; 2] = [Flavour::Flexible, Flavour::Single];
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Flavour::Flexible => "flexible",
            Flavour::Single => "single",
        })
    }
}

/// `pgentra local up` in a lab, with the most verbose log. Dropping it stops it and checks that no
/// file or process is left.
#[derive(Debug)]
pub struct Cloud<'lab> {
    lab: &'lab Lab,
    process: Option<Child>,
    description: Value,
    log: PathBuf,
}

impl<'lab> Cloud<'lab> {
    pub(crate) fn up(lab: &'lab Lab, flavour: Flavour, arguments: &[&str]) -> Cloud<'lab> {
        let flavour = flavour.to_string();
        let words = ["pgentra", "-vv", "local", "up", "-o", "json", "--flavour", &flavour];
        // each cloud of a lab gets its own name
        let count = fs::read_dir(lab.path()).unwrap().count();
        let log = lab.path().join(format!("cloud-{count}.log"));
        let mut process = lab
            .command(&[&words, arguments].concat())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = stdout.read_line(&mut line);
            let _ = sender.send(line);
            let _ = stdout.read_to_end(&mut Vec::new());
        });
        let line = receiver.recv_timeout(READY_LIMIT).unwrap_or_default();
        let mut cloud = Cloud { lab, process: Some(process), description: Value::Null, log };
        match serde_json::from_str(&line) {
            Ok(description) => cloud.description = description,
            Err(error) => panic!("no ready line but {line:?} ({error})\n{}", cloud.logged()),
        }
        cloud
    }

    /// The document of `pgentra local status -o json`.
    pub fn description(&self) -> &Value {
        &self.description
    }

    /// The variables of `pgentra local env --host HOST -o json`.
    pub fn env(&self, host: &str) -> BTreeMap<String, String> {
        let name = self.text("/name");
        let variables =
            self.lab.pgentra(&["local", "env", "--name", &name, "--host", host, "-o", "json"]).done().json();
        serde_json::from_value(variables).unwrap()
    }

    /// A text of the status document, by its JSON pointer.
    pub fn text(&self, pointer: &str) -> String {
        match self.description.pointer(pointer) {
            Some(Value::String(text)) => text.clone(),
            Some(value) if !value.is_null() => value.to_string(),
            _ => panic!("no {pointer} in {}", self.description),
        }
    }

    /// One of its identities: `system-assigned`, `user-assigned` or `user`.
    pub fn identity(&self, kind: &str) -> &Value {
        let identities = self.description["identities"].as_array().unwrap();
        identities.iter().find(|identity| identity["kind"] == kind).unwrap()
    }

    /// The id of its process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(self.process.as_ref().expect("it runs"))
    }

    /// The path of its folder.
    pub fn folder(&self) -> PathBuf {
        self.text("/folder").into()
    }

    /// Its log so far.
    pub fn logged(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until its process has ended, after the test caused that.
    pub fn ended(mut self) -> ExitStatus {
        self.wait()
    }

    /// The token files of the pod, which contain tokens by design.
    fn assertions(&self) -> Vec<PathBuf> {
        let hosts = self.description["environments"].as_object().into_iter().flatten();
        hosts
            .filter_map(|(_, variables)| Some(variables["AZURE_FEDERATED_TOKEN_FILE"].as_str()?.into()))
            .collect()
    }

    fn wait(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("it runs");
        let group = Pid::from_child(&process);
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || sender.send(process.wait()));
        let status = receiver.recv_timeout(END_LIMIT).unwrap_or_else(|_| {
            let _ = kill_process_group(group, Signal::KILL);
            panic!("the local cloud did not end within {END_LIMIT:?}\n{}", self.logged())
        });
        status.unwrap()
    }
}

impl Drop for Cloud<'_> {
    fn drop(&mut self) {
        if self.process.is_none() {
            return;
        }
        if !std::thread::panicking() {
            self.lab.assert_no_token(&self.folder(), &self.assertions());
        }
        let _ = kill_process(self.pid(), Signal::TERM);
        self.wait();
    }
}

/// It takes a second or two on an idle machine.
const READY_LIMIT: Duration = Duration::from_secs(120);
/// PostgreSQL may take ten seconds to end its sessions.
const END_LIMIT: Duration = Duration::from_secs(60);

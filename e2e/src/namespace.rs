use std::process::Command;

use crate::Lab;

/// A network namespace with a loopback interface only. It needs Linux and root:
/// [`have`](crate::have) `netns`.
#[derive(Debug)]
pub struct Namespace(String);

impl Namespace {
    /// A namespace of this name, to which the process id is added.
    pub fn new(name: &str) -> Namespace {
        let namespace = Namespace(format!("e2e-{name}-{}", std::process::id()));
        ip(&["netns", "add", &namespace.0]);
        namespace.ip(&["link", "set", "lo", "up"]);
        namespace
    }

    /// Its name, for `ip netns`.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// A lab whose programs run in it.
    pub fn lab(&self) -> Lab {
        Lab::behind(&["ip", "netns", "exec", &self.0])
    }

    /// Runs `ip` in it.
    pub fn ip(&self, words: &[&str]) {
        ip(&[&["-n", &self.0], words].concat());
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        ip(&["netns", "del", &self.0]);
    }
}

fn ip(words: &[&str]) {
    assert!(Command::new("ip").args(words).status().unwrap().success(), "ip {words:?}");
}

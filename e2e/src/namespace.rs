use std::process::Command;

use crate::Lab;

/// A network of its own, with nothing but a loopback interface. It takes Linux and root: [`have`](crate::have) `netns`.
#[derive(Debug)]
pub struct Namespace(String);

impl Namespace {
    /// One of this name, to which the process adds its number.
    pub fn new(name: &str) -> Namespace {
        let namespace = Namespace(format!("e2e-{name}-{}", std::process::id()));
        ip(&["netns", "add", &namespace.0]);
        namespace.ip(&["link", "set", "lo", "up"]);
        namespace
    }

    /// A lab whose programs are in it.
    pub fn lab(&self) -> Lab {
        Lab::behind(&["ip", "netns", "exec", &self.0])
    }

    /// Runs `ip` on it.
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

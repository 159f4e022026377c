//! Provides the folder of the Azure Arc agent, which clients expect at one fixed path.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use e2e::Lab;

/// A mount namespace with an empty `/var/opt` of its own. It lives as long as its process.
pub(crate) struct Mounts(Child);

impl Mounts {
    /// A new one; it takes Linux and root.
    pub(crate) fn new() -> Mounts {
        let script = "mount -t tmpfs none /var/opt && echo ready && exec cat";
        let mut process = Command::new("unshare")
            .args(["--mount", "--", "sh", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Mounts(process)
    }

    /// A lab that sees it.
    pub(crate) fn lab(&self) -> Lab {
        Lab::behind(&["nsenter", &format!("--mount=/proc/{}/ns/mnt", self.0.id()), "--"])
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

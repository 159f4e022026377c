//! Provides the folder of the Azure Arc agent, which clients expect at one fixed path.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use e2e::Lab;

/// A mount namespace with an empty `/var/opt` of its own. It lives as long as its process.
pub(crate) struct Mounts {
    process: Child,
    namespaces: Vec<(&'static str, &'static str)>,
}

impl Mounts {
    /// A new one; it takes Linux and root. If `is_alone`, it has a network with a loopback interface only.
    pub(crate) fn new(is_alone: bool) -> Mounts {
        // The options of unshare and nsenter, and the names in /proc.
        let mut namespaces = vec![("--mount", "mnt")];
        let mut script = "mount -t tmpfs none /var/opt && echo ready && exec cat".to_owned();
        if is_alone {
            namespaces.push(("--net", "net"));
            script.insert_str(0, "ip link set lo up && ");
        }
        let mut process = Command::new("unshare")
            .args(namespaces.iter().map(|(option, _)| option))
            .args(["--", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Mounts { process, namespaces }
    }

    /// A lab that sees it.
    pub(crate) fn lab(&self) -> Lab {
        let id = self.process.id();
        let enter = |(option, name): &(&str, &str)| format!("{option}=/proc/{id}/ns/{name}");
        let options: Vec<String> = self.namespaces.iter().map(enter).collect();
        let words = ["nsenter"].into_iter().chain(options.iter().map(String::as_str)).chain(["--"]);
        Lab::behind(&words.collect::<Vec<_>>())
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

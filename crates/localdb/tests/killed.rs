//! The owner of a server is killed at critical moments; no process, folder or shared memory is left.
//!
//! The test starts itself again as the owner that will be killed, and becomes a child subreaper, so that it can `wait` for
//! each process that the owner left.
#![cfg(all(target_os = "linux", feature = "embedded"))]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failing helper fails its test")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use eventually::{DEADLINE, eventually_blocking};
use pgentra_localdb::{Installation, Options, start};
use rustix::process::{
    Pid, Signal, WaitOptions, getpid, kill_current_process_group, kill_process, set_child_subreaper, wait,
};

/// Tells the owner its folder, the moment of its death and the manner, and where to find an installed PostgreSQL.
const ROLE: [&str; 4] =
    ["LOCALDB_TEST_FOLDER", "LOCALDB_TEST_MOMENT", "LOCALDB_TEST_MANNER", "LOCALDB_TEST_INSTALLED"];

/// When there is this file in the folder, or when all is ready.
const EMBEDDED: [(&str, &str); 11] = [
    ("", "kill"),
    ("runtime/bin/initdb", "kill"),
    ("data", "kill"),
    ("data/base/1", "kill"),
    ("data/postmaster.pid", "kill"),
    ("socket/.s.PGSQL.5432", "kill"),
    ("ready", "kill"),
    ("ready", "interrupt"),
    ("ready", "panic"),
    ("ready", "exit"),
    // the server does not even answer to the janitor's signal
    ("ready", "kill, with the server stopped"),
];

/// Unlike the embedded one, an installed PostgreSQL has a System V segment.
const INSTALLED: [(&str, &str); 3] =
    [("data/base/1", "kill"), ("ready", "kill"), ("ready", "kill, with the server stopped")];

/// Invariant 9: a local cloud leaves nothing behind; this is the part of it that runs processes.
#[test]
fn nothing_survives_its_owner() {
    set_child_subreaper(Some(getpid())).unwrap();
    for (moment, manner) in EMBEDDED {
        check(moment, manner, "");
    }
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    for folder in
        versions.map(|entry| entry.unwrap().path()).filter(|folder| folder.join("bin/initdb").exists())
    {
        for (moment, manner) in INSTALLED {
            check(moment, manner, folder.to_str().unwrap());
        }
    }
}

#[expect(clippy::zombie_processes, reason = "await_orphans waits for it, as for every other one")]
fn check(moment: &str, manner: &str, installed: &str) {
    let place = tempfile::Builder::new().prefix("pgentra-").tempdir_in("/tmp").unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let folder = place.path().join("db");
    let this = std::env::current_exe().unwrap();
    // A shell that runs the tests in the background makes them ignore SIGINT (POSIX, "Asynchronous Lists").
    let mut owner = if manner == "interrupt" {
        let mut env = Command::new("env");
        env.arg("--default-signal=INT").arg(this);
        env
    } else {
        Command::new(this)
    };
    let owner = owner
        .args(["--exact", "the_owner", "--nocapture"])
        .env(ROLE[0], &folder)
        .env(ROLE[1], moment)
        .env(ROLE[2], manner)
        .env(ROLE[3], installed)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let owner = Pid::from_child(&owner);
    let (ends, status) = await_orphans(owner);
    let as_expected = match manner {
        "panic" => status.exit_status() == Some(101),
        "exit" => status.exit_status() == Some(0),
        "interrupt" => status.terminating_signal() == Some(Signal::INT.as_raw()),
        _ => status.terminating_signal() == Some(Signal::KILL.as_raw()),
    };
    let case = format!("{installed} {moment:?}, {manner}");
    assert!(as_expected, "{case}: the owner ended by {status:?}");
    assert!(!folder.exists(), "{case}: the folder is left");
    assert_eq!(shared_memory_of(&ends), Vec::<String>::new(), "{case}: shared memory is left");
}

/// Waits until the owner and all that it left have ended; who they were, and how the owner ended.
fn await_orphans(owner: Pid) -> (BTreeSet<i32>, rustix::process::WaitStatus) {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut ends = BTreeSet::new();
        let mut of_owner = None;
        // an error says that there is no child any more
        while let Ok(Some((pid, status))) = wait(WaitOptions::empty()) {
            ends.insert(pid.as_raw_pid());
            if pid == owner {
                of_owner = Some(status);
            }
        }
        sender.send((ends, of_owner.unwrap())).unwrap();
    });
    receiver.recv_timeout(Duration::from_secs(120)).expect("something of the server still runs")
}

/// The System V segments that one of these processes made (proc(5): the fifth column is the creator).
fn shared_memory_of(pids: &BTreeSet<i32>) -> Vec<String> {
    let segments = fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    let creator = |line: &str| line.split_whitespace().nth(4)?.parse().ok();
    let of_ours = |line: &&str| creator(line).is_some_and(|pid| pids.contains(&pid));
    segments.lines().filter(of_ours).map(str::to_owned).collect()
}

/// Not a test of its own: the owner that the test above starts.
#[test]
#[expect(clippy::disallowed_methods, reason = "a test that starts itself again has no other way to tell")]
fn the_owner() {
    let [Ok(folder), Ok(moment), Ok(manner), Ok(installed)] = ROLE.map(std::env::var) else {
        return;
    };
    let folder = PathBuf::from(folder);
    if moment != "ready" {
        let file = folder.join(moment);
        std::thread::spawn(move || {
            // Without a pause between them: the owner is killed as soon as the file is there.
            let exists = || (0..1_000).any(|_| file.exists());
            eventually_blocking(DEADLINE, &file.display().to_string(), exists);
            kill_process(getpid(), Signal::KILL)
        });
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server =
        if installed.is_empty() { Installation::Embedded } else { Installation::Installed(installed.into()) };
    let db = runtime.block_on(start(Options { folder: folder.clone(), server })).unwrap();
    match manner.as_str() {
        "interrupt" => kill_current_process_group(Signal::INT).unwrap(),
        "panic" => panic!("as the test wishes"),
        "exit" => return drop(db),
        manner => {
            if manner.ends_with("stopped") {
                kill_process(postmaster(&folder), Signal::STOP).unwrap();
            }
            kill_process(getpid(), Signal::KILL).unwrap();
        }
    }
    std::thread::park();
}

fn postmaster(folder: &Path) -> Pid {
    let lock_file = fs::read_to_string(folder.join("data/postmaster.pid")).unwrap();
    Pid::from_raw(lock_file.lines().next().unwrap().parse().unwrap()).unwrap()
}

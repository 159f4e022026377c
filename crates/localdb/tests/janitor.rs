//! The janitor by itself: which folders it takes, and that it clears them.
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use eventually::{DEADLINE, eventually_blocking};
use pgentra_localdb::Janitor;
use rustix::process::{Pid, Signal, kill_process};

fn fill(folder: &Path) {
    fs::create_dir_all(folder.join("a/b")).unwrap();
    fs::write(folder.join("a/b/file"), "content").unwrap();
}

#[test]
fn what_it_made_goes_when_it_finishes() {
    let place = tempfile::tempdir().unwrap();
    for name in ["plain", "-rf", "with space", "a'b\"c$d`e", "line\nbreak", "*"] {
        let bystander = place.path().join("bystander");
        fs::write(&bystander, "").unwrap();
        let folder = place.path().join(name);
        let janitor = Janitor::create(&folder).unwrap();
        assert_eq!(janitor.folder(), folder);
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        fill(&folder);
        janitor.finish().unwrap();
        assert!(!folder.exists(), "{name:?}");
        assert!(bystander.exists(), "{name:?}");
    }
}

#[test]
fn what_it_watches_goes_when_it_is_dropped() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("state");
    fill(&folder);
    drop(Janitor::watch(&folder).unwrap());
    assert!(!folder.exists());
}

#[test]
fn what_is_gone_already_is_no_error() {
    let place = tempfile::tempdir().unwrap();
    let janitor = Janitor::create(&place.path().join("state")).unwrap();
    fs::remove_dir(janitor.folder()).unwrap();
    janitor.finish().unwrap();
}

/// After the removal another process may use the name: a folder that it makes at that moment stays.
#[test]
fn what_comes_after_it_is_not_its_to_remove() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("state");
    for _ in 0..50 {
        let janitor = Janitor::create(&folder).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Without a pause between them, so that one of them comes as soon as the name is free.
                let created = || (0..1_000).any(|_| fs::create_dir(&folder).is_ok());
                eventually_blocking(DEADLINE, "the folder can be created again", created);
            });
            janitor.finish().unwrap();
        });
        assert!(folder.exists());
        fs::remove_dir(&folder).unwrap();
    }
}

#[test]
fn what_exists_is_not_taken() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("state");
    fs::create_dir(&folder).unwrap();
    assert_eq!(Janitor::create(&folder).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert!(folder.exists());
}

#[test]
fn what_is_no_folder_is_not_watched() {
    let place = tempfile::tempdir().unwrap();
    let link = place.path().join("link");
    symlink(place.path(), &link).unwrap();
    assert_eq!(Janitor::watch(&link).unwrap_err().kind(), ErrorKind::NotADirectory);
    assert_eq!(Janitor::watch(&place.path().join("absent")).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(Janitor::create(&place.path().join("no/parent")).is_err());
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
}

/// A link inside leads out of the folder: what it points to is not the janitor's.
#[test]
fn it_follows_no_link() {
    let place = tempfile::tempdir().unwrap();
    let outside = place.path().join("outside");
    fill(&outside);
    let janitor = Janitor::create(&place.path().join("state")).unwrap();
    symlink(&outside, janitor.folder().join("link")).unwrap();
    janitor.finish().unwrap();
    assert!(outside.join("a/b/file").exists());
}

/// Signals that a terminal, a shell or a service manager sends to all processes do not end it.
#[test]
#[cfg(target_os = "linux")]
fn signals_to_everybody_do_not_move_it() {
    let place = tempfile::tempdir().unwrap();
    let janitor = Janitor::create(&place.path().join("state")).unwrap();
    let pid = process_of(janitor.folder()).as_raw_pid();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    let ignored = u64::from_str_radix(ignored.trim(), 16).unwrap();
    for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT, Signal::PIPE] {
        assert_ne!(ignored & 1 << (signal.as_raw() - 1), 0, "{signal:?}");
    }
}

/// An orderly end removes the folder also if the janitor's process was killed.
#[test]
#[cfg(target_os = "linux")]
fn its_own_death_is_made_up_for() {
    let place = tempfile::tempdir().unwrap();
    let janitor = Janitor::create(&place.path().join("state")).unwrap();
    fill(janitor.folder());
    kill_process(process_of(janitor.folder()), Signal::KILL).unwrap();
    let folder = janitor.folder().to_owned();
    janitor.finish().unwrap();
    assert!(!folder.exists());
}

#[cfg(target_os = "linux")]
fn process_of(folder: &Path) -> Pid {
    let names_folder = |pid: &i32| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.ends_with(&format!("{}\0", folder.display()))
    };
    let pids =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Pid::from_raw(pids.into_iter().find(names_folder).unwrap()).unwrap()
}

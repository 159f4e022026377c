//! Installed servers that misbehave, played by shell scripts.
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use pgentra_localdb::{Installation, Options, StartError, start};

const VERSION: &str = r#"[ "$1" = --version ] && { echo "postgres (PostgreSQL) 16.9"; exit; }"#;
/// An `initdb` that makes what is configured afterwards.
const MAKES_CLUSTER: &str = r#"mkdir "$2" && touch "$2/pg_hba.conf" "$2/postgresql.conf""#;

/// Starts the server that the two scripts make up; its error, after checking that nothing is left.
async fn check(initdb: &str, postgres: &str) -> StartError {
    let place = tempfile::Builder::new().prefix("pgentra-").tempdir_in("/tmp").unwrap();
    open(place.path());
    let bin = place.path().join("bin");
    fs::create_dir(&bin).unwrap();
    open(&bin);
    for (name, script) in [("initdb", initdb), ("postgres", postgres)] {
        fs::write(bin.join(name), format!("#!/bin/sh\n{script}\n")).unwrap();
        open(&bin.join(name));
    }
    let folder = place.path().join("db");
    let server = Installation::Installed(place.path().to_owned());
    let error = start(Options { folder: folder.clone(), server }).await.unwrap_err();
    assert!(!folder.exists(), "left behind after: {error}");
    assert_eq!(running(&folder), Vec::<String>::new());
    let mut source = error.source();
    while let Some(inner) = source {
        assert!(!error.to_string().contains(&inner.to_string()), "said twice: {error}");
        source = inner.source();
    }
    error
}

/// The command lines, of all processes, that name the folder.
fn running(folder: &Path) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap();
    let lines = processes.filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("cmdline")).ok());
    lines.filter(|line| line.contains(folder.to_str().unwrap())).collect()
}

fn open(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn an_old_one_is_refused() {
    let error = check("exit 1", "echo 'postgres (PostgreSQL) 12.22'").await;
    assert!(matches!(&error, StartError::Version { answer, .. } if answer.contains("12.22")), "{error:?}");
    assert!(error.to_string().contains("PostgreSQL 13 or later"), "{error}");
}

#[tokio::test]
async fn something_else_is_refused() {
    let error = check("exit 1", "exit 1").await;
    assert!(matches!(error, StartError::Version { .. }), "{error:?}");
}

#[tokio::test]
async fn a_folder_without_programs_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let server = Installation::Installed(place.path().join("nothing"));
    let error = start(Options { folder: place.path().join("db"), server }).await.unwrap_err();
    assert!(matches!(error, StartError::NotInstalled { .. }), "{error:?}");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_failing_initdb_shows_its_last_words() {
    let error = check("seq 1000; echo 'initdb: error: no space left' >&2; exit 3", VERSION).await;
    let text = error.to_string();
    assert!(matches!(error, StartError::Ended { program: "initdb", .. }), "{error:?}");
    assert!(text.contains("no space left") && text.contains("1000") && !text.contains("\n100\n"), "{text}");
    assert!(text.contains("exit status: 3"), "{text}");
}

#[tokio::test]
async fn a_failing_server_shows_its_last_words() {
    let error = check(MAKES_CLUSTER, &format!("{VERSION}\necho 'FATAL:  out of luck' >&2; exit 1")).await;
    assert!(matches!(error, StartError::Ended { program: "postgres", .. }), "{error:?}");
    assert!(error.to_string().contains("FATAL:  out of luck"), "{error}");
}

/// The clock is paused: the time limit is reached as soon as there is nothing else to do.
#[tokio::test(start_paused = true)]
async fn a_hanging_initdb_is_ended() {
    let error = check("sleep 1000; exit 1", VERSION).await;
    assert!(matches!(error, StartError::Slow { program: "initdb", .. }), "{error:?}");
}

/// The secrets of our environment are not the server's.
#[tokio::test]
async fn the_environment_is_not_handed_on() {
    let error = check("env | sort | cut -d= -f1 | tr '\\n' ' '; exit 1", VERSION).await;
    assert!(error.to_string().ends_with("\nLC_ALL PATH PWD "), "{error}");
}

#[tokio::test]
#[cfg(not(feature = "embedded"))]
async fn a_build_without_one_says_so() {
    let place = tempfile::tempdir().unwrap();
    let error =
        start(Options { folder: place.path().join("db"), server: Installation::Embedded }).await.unwrap_err();
    assert!(matches!(error, StartError::NotEmbedded), "{error:?}");
    assert!(error.to_string().contains("name an installed one"), "{error}");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}

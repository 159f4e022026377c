//! Each kind of object, as a file before and after.

use std::fs;
use std::path::PathBuf;

use pgentra_injection::{Sidecar, SidecarChange, inject_manifest};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn sidecar() -> Sidecar {
    Sidecar::of_image("pgentra:0.1.0")
}

const KINDS: [&str; 9] =
    ["pod", "deployment", "statefulset", "daemonset", "replicaset", "job", "cronjob", "list", "stream"];

#[test]
fn each_kind_is_as_its_file() {
    for kind in KINDS {
        let text = fs::read_to_string(folder().join(format!("{kind}.yaml"))).unwrap();
        let done = inject_manifest(&text, &sidecar()).unwrap();
        let expected = fs::read_to_string(folder().join(format!("{kind}.injected.yaml"))).unwrap_or_default();
        assert!(done.text == expected, "{kind}.yaml becomes\n{}", done.text);
        assert!(
            done.reports.iter().any(|report| report.change == SidecarChange::Added),
            "{:?}",
            done.reports
        );

        let again = inject_manifest(&done.text, &sidecar()).unwrap();
        assert_eq!(again.text, done.text, "{kind}: a second run changes something");
        assert!(
            again.reports.iter().all(|report| report.change != SidecarChange::Added),
            "{:?}",
            again.reports
        );
    }
}

#[test]
fn every_file_is_tested() {
    let files = fs::read_dir(folder()).unwrap().count();
    assert_eq!(files, KINDS.len() * 2);
}

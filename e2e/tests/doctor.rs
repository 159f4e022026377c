//! `pgentra doctor` as a program: exit codes, both formats, masks. Its findings are tested with
//! seeded faults in the crate.
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

use e2e::{Flavour, Lab};
use serde_json::Value;

/// The outcome of a check.
fn outcome<'a>(report: &'a Value, id: &str) -> &'a str {
    let checks = report["checks"].as_array().unwrap();
    checks.iter().find(|check| check["id"] == id).unwrap()["outcome"].as_str().unwrap()
}

#[test]
fn a_login_that_works_and_one_that_does_not() {
    let lab = Lab::new();
    for flavour in Flavour::ALL {
        let cloud = lab.cloud(flavour, &[]);
        let vm = cloud.env("vm");
        let done = lab.pgentra(&["doctor"]).envs(vm.clone()).done();
        assert!(
            done.ok().contains("✓ Everything works: \"myVm\"") && !done.stdout.contains('\u{1b}'),
            "{done:?}"
        );
        let plain = lab.pgentra(&["doctor"]).envs(vm.clone()).env("LC_ALL", "C").done();
        assert!(plain.ok().is_ascii() && plain.stdout.contains("ok Everything works"), "{plain:?}");
        let report = lab.pgentra(&["doctor", "-o", "json"]).envs(vm.clone()).done().json();
        assert_eq!((&report["ok"], &report["finding"]), (&Value::Bool(true), &Value::Null));
        assert_eq!(outcome(&report, "query.result"), "passed");

        let done = lab.pgentra(&["doctor", "-U", "nobody_here", "-o", "json"]).envs(vm).done();
        assert_eq!(done.status.code(), Some(6), "{done:?}");
        for words in
            ["error: authentication.method: ", "hint: ", "see: pgentra doctor --explain role-not-mapped"]
        {
            assert!(done.stderr.contains(words), "{done:?}");
        }
        let report: Value = serde_json::from_str(&done.stdout).unwrap();
        assert_eq!(report["finding"], "role-not-mapped");
        assert_eq!(outcome(&report, "tls.certificate"), "passed");
        assert_eq!(outcome(&report, "authentication.method"), "failed");
        assert_eq!(outcome(&report, "query.result"), "not-reached");
    }
}

/// A masked value occurs nowhere, and has the same mask in both formats.
#[test]
fn a_report_for_strangers() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let vm = cloud.identity("system-assigned");
    let secrets = ["object_id", "client_id", "name"].map(|field| vm[field].as_str().unwrap());
    for (role, code) in [("myVm", 0), ("nobody_here", 6)] {
        for format in ["text", "json"] {
            let words = ["doctor", "--redact", "-d", "postgres", "-U", role, "-o", format];
            let done = lab.pgentra(&words).envs(cloud.env("vm")).done();
            assert_eq!(done.status.code(), Some(code), "{done:?}");
            for secret in secrets.iter().chain(&[role, "localhost", "127.0.0.1"]) {
                let told = [&done.stdout, &done.stderr].into_iter().any(|text| text.contains(secret));
                assert!(!told, "{secret} is told: {done:?}");
            }
            assert!(done.stdout.contains("[role-1]") && done.stdout.contains("[host-1]"), "{done:?}");
            assert!(done.stdout.contains("[id-1]"), "{done:?}");
        }
    }
}

#[test]
fn a_finding_is_explained() {
    let lab = Lab::new();
    let done = lab.pgentra(&["doctor", "--explain", "tls-unknown-issuer"]).done();
    assert!(done.ok().contains("DigiCert Global Root G2"), "{done:?}");
    let unknown = lab.pgentra(&["doctor", "--explain", "tls-unknown"]).done();
    assert_eq!(unknown.fault(2, &["tls-unknown-issuer"]), None);
    let nothing = lab.pgentra(&["doctor"]).done();
    assert_eq!(nothing.status.code(), Some(6), "{nothing:?}");
    assert!(nothing.stdout.contains("no server is named"), "{nothing:?}");
}

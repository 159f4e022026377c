//! The GitHub actions in `action/`: their steps run as a runner runs them, with a local cloud as
//! Azure and as GitHub.
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use e2e::{Done, Lab, client, have};
use serde_json::Value;

type Variables = BTreeMap<String, String>;

/// Runs an action of the tree with these inputs and variables.
fn action<'a>(lab: &'a Lab, name: &str, inputs: &[&str], variables: &Variables) -> Done<'a> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = client("venv/bin/python");
    let runner = root.join("clients/run_action.py");
    let folder = root.join("../action").join(name);
    let words = [python.to_str().unwrap(), runner.to_str().unwrap(), folder.to_str().unwrap()];
    let temporary = lab.path().join("temporary").display().to_string();
    lab.program(&[&words, inputs].concat()).envs(variables.clone()).env("RUNNER_TEMP", &temporary).done()
}

fn variables(found: &Value) -> Variables {
    serde_json::from_value(found["environment"].clone()).unwrap()
}

#[test]
fn a_job_gets_a_local_cloud_and_signs_in_with_its_federated_identity() {
    if !have(&["python", "jq"]) {
        return;
    }
    let lab = Lab::new();
    let program = format!("path={}", lab.path().join("bin/pgentra").display());
    let inputs = [&*program, "local-cloud=true", "name=job", "host=github-actions"];
    let set_up = action(&lab, "setup", &inputs, &Variables::new()).json();
    let folder = lab.path().join("bin").display().to_string();
    assert_eq!(set_up["outputs"]["path"], folder);
    assert_eq!(set_up["path"], serde_json::json!([folder]));
    let job = variables(&set_up);
    assert!(job.contains_key("ACTIONS_ID_TOKEN_REQUEST_URL"), "{job:?}");
    let query = lab.pgentra(&["query", "-o", "json", "-c", "SELECT current_user"]).envs(job.clone()).done();
    assert_eq!(query.json()[0]["rows"][0][0], job["PGUSER"]);

    // The server and the identity are inputs of the second action; only what GitHub and the trust
    // in the local authority need is in the environment of the job.
    let input = |name: &str, variable: &str| format!("{name}={}", job[variable]);
    let inputs = [
        input("client-id", "AZURE_CLIENT_ID"),
        input("tenant-id", "AZURE_TENANT_ID"),
        input("server", "PGHOST"),
        input("port", "PGPORT"),
        input("user", "PGUSER"),
        input("database", "PGDATABASE"),
    ];
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    let given = ["AZURE_CLIENT_ID", "AZURE_TENANT_ID", "PGHOST", "PGPORT", "PGUSER", "PGDATABASE"];
    let mut bare = job.clone();
    bare.retain(|name, _| !given.contains(&&**name));
    let signed_in = action(&lab, "login", &inputs, &bare);
    let found = variables(&signed_in.json());
    assert_eq!(found.keys().map(String::as_str).collect::<Vec<_>>(), {
        let mut names = given;
        names.sort_unstable();
        names
    });
    let mut later = bare.clone();
    later.extend(found);
    let words = ["exec", "--", "sh", "-c", "test -n \"$PGPASSWORD\" && echo signed in as \"$PGUSER\""];
    let done = lab.pgentra(&words).envs(later).done();
    assert_eq!(done.ok().trim_end(), format!("signed in as {}", job["PGUSER"]));

    bare.remove("ACTIONS_ID_TOKEN_REQUEST_TOKEN");
    let refused = action(&lab, "login", &inputs, &bare);
    assert!(!refused.status.success() && refused.stderr.contains("id-token: write"), "{refused:?}");
    lab.pgentra(&["local", "down", "--name", "job"]).done().ok();
}

#[test]
fn only_the_archive_with_the_given_hash_is_installed() {
    if !have(&["python", "jq"]) {
        return;
    }
    let lab = Lab::new();
    let folder = lab.path().join("pgentra-0.1.0");
    fs::create_dir(&folder).unwrap();
    let real = lab.path().join("bin/pgentra");
    fs::write(folder.join("pgentra"), format!("#!/bin/sh\nexec '{}' \"$@\"\n", real.display())).unwrap();
    fs::set_permissions(folder.join("pgentra"), fs::Permissions::from_mode(0o755)).unwrap();
    let script = format!(
        "cd {} && tar -czf archive.tar.gz pgentra-0.1.0 && sha256sum archive.tar.gz",
        lab.path().display()
    );
    let done = lab.shell(&script).done();
    let (hash, _) = done.ok().split_once(' ').unwrap();
    let archive = format!("archive={}", lab.path().join("archive.tar.gz").display());
    let none = Variables::new();
    let set_up = action(&lab, "setup", &[&archive, &format!("sha256={hash}")], &none);
    assert!(set_up.stderr.contains("pgentra 0."), "{set_up:?}");
    let found = set_up.json();
    let program = Path::new(found["outputs"]["path"].as_str().unwrap()).join("pgentra");
    assert!(lab.program(&[program.to_str().unwrap(), "--version"]).done().ok().starts_with("pgentra "));
    assert!(variables(&found).is_empty(), "no local cloud was asked for");
    fs::remove_dir_all(program.parent().unwrap()).unwrap();

    let other = "0".repeat(64);
    for (inputs, says) in [
        (&[&*archive, &format!("sha256={other}")][..], "nothing is installed"),
        (&[&*archive], "sha256 must be the hash"),
        (&[], "give one of the inputs"),
        (&["archive=http://127.0.0.1:1/a", &format!("sha256={other}")], "an https address or a file"),
        (&["path=/nowhere/pgentra"], "there is none at /nowhere/pgentra"),
    ] {
        let refused = action(&lab, "setup", inputs, &none);
        assert!(!refused.status.success() && refused.stderr.contains(says), "{refused:?}");
        assert!(refused.stderr.contains("::error::"), "{refused:?}");
    }
}

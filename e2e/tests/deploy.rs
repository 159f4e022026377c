//! The configurations below `deploy/` are ones that `pgentra proxy` takes. `deploy/check.sh` looks at all else there.
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::fs;
use std::path::Path;

use e2e::{Lab, have};

/// The text of a file below `deploy/`.
fn shipped(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name)).unwrap()
}

/// What the proxy says when it is to sign in with this configuration, where there is no identity: the first thing that it
/// fails at, once nothing is wrong with the configuration.
fn said(lab: &Lab, config: &str) -> String {
    fs::write(lab.path().join("proxy.toml"), config).unwrap();
    let file = lab.path().join("proxy.toml");
    let words = ["proxy", "--config", file.to_str().unwrap(), "--check", "--token-timeout", "1"];
    // Nobody listens there.
    let done = lab.pgentra(&words).env("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:1").done();
    assert_eq!(done.status.code(), Some(3), "{done:?}");
    done.stderr
}

#[test]
fn the_service_s_configuration_is_valid() {
    let lab = Lab::new();
    assert!(said(&lab, &shipped("systemd/proxy.toml")).contains("cannot be served"));
    // And a wrong one would be told.
    let wrong = shipped("systemd/proxy.toml").replace("drain_timeout", "drain_timeuot");
    fs::write(lab.path().join("wrong.toml"), wrong).unwrap();
    let file = lab.path().join("wrong.toml");
    let done = lab.pgentra(&["proxy", "--config", file.to_str().unwrap(), "--check"]).done();
    assert_eq!(done.status.code(), Some(2), "{done:?}");
    assert!(done.stderr.contains("the nearest is drain_timeout"), "{done:?}");
}

#[test]
fn the_shared_deployment_s_configuration_is_valid() {
    if !have(&["openssl"]) {
        return;
    }
    let lab = Lab::new();
    let make = r#"
        cd "$1"; umask 027; mkdir tls auth
        openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=pgentra -keyout tls/tls.key -out tls/tls.crt 2>openssl.log
        echo 'a password' | pgentra proxy hash-password my-app >auth/users.txt
    "#;
    let folder = lab.path().join("etc");
    fs::create_dir(&folder).unwrap();
    let folder = folder.to_str().unwrap();
    lab.program(&["bash", "-euo", "pipefail", "-c", make, "bash", folder]).done().ok();
    let manifest = shipped("kubernetes/shared.yaml");
    let (_, config) = manifest.split_once("proxy.toml: |\n").unwrap();
    let (config, _) = config.split_once("---").unwrap();
    let config = config.replace("/etc/pgentra", folder);
    assert!(config.contains("listen_auth_file"), "{config}");
    assert!(said(&lab, &config).contains("cannot be served"));
}

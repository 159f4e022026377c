//! `pgentra proxy` accepts the configurations below `deploy/`. `deploy/check.sh` checks everything
//! else there.
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::fs;
use std::path::Path;

use e2e::{Done, Lab, have};

/// The text of a file below `deploy/`.
fn shipped(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name)).unwrap()
}

/// What `--check-config` prints for this configuration.
fn checked<'lab>(lab: &'lab Lab, config: &str) -> Done<'lab> {
    let file = lab.path().join("proxy.toml");
    fs::write(&file, config).unwrap();
    lab.pgentra(&["proxy", "--config", file.to_str().unwrap(), "--check-config"]).done()
}

/// The listeners and the server of a valid configuration.
fn serves(lab: &Lab, config: &str) -> String {
    let done = checked(lab, config);
    let (lines, verdict) = done.ok().trim_end().rsplit_once('\n').unwrap();
    assert_eq!(verdict, "the configuration is valid");
    lines.to_owned()
}

#[test]
fn the_service_s_configuration_is_valid() {
    let lab = Lab::new();
    let serves = serves(&lab, &shipped("systemd/proxy.toml"));
    assert_eq!(serves, "127.0.0.1:6432 for my-server.postgres.database.azure.com:5432");
}

#[test]
fn a_check_of_the_configuration_finds_what_the_proxy_would_refuse() {
    let lab = Lab::new();
    let valid = shipped("systemd/proxy.toml");
    for (from, to, said) in [
        ("drain_timeout", "drain_timeuot", "the nearest is drain_timeout"),
        ("drain_timeout = 60", "drain_timeout = \"soon\"", "drain_timeout"),
        ("127.0.0.1:6432", "0.0.0.0:6432", "loopback"),
        ("127.0.0.1:6432", "127.0.0.1:66432", "listen"),
        ("azure.com/\"", "azure.com/?sslmode=disable\"", "sslmode"),
        ("azure.com/\"", "azure.com/?sslrootcert=/nowhere/ca.pem\"", "/nowhere/ca.pem"),
        ("max_connections = 100", "listen_tls_cert = \"/nowhere/cert.pem\"", "listen_tls_key"),
        ("max_connections = 100", "max_connections = 100\nmax_connections = 7", "duplicate key"),
        ("[[target]]", "[[target]", "proxy.toml"),
    ] {
        let wrong = valid.replace(from, to);
        assert_ne!(wrong, valid, "{from}");
        let done = checked(&lab, &wrong);
        assert_eq!((done.status.code(), done.stdout.as_str()), (Some(2), ""), "{done:?}");
        assert!(!done.stderr.contains("no server is named"), "{to}: a consequence is reported: {done:?}");
        assert!(done.stderr.contains(said), "{to}: {done:?}");
    }
    // systemd passes a socket to the service alone.
    let socket = valid.replace("127.0.0.1:6432", "systemd:app");
    assert_eq!(serves(&lab, &socket), "systemd:app for my-server.postgres.database.azure.com:5432");
    let done = lab.pgentra(&["proxy", "--config=/nowhere.toml", "--check-config"]).done();
    assert_eq!(done.status.code(), Some(2), "{done:?}");
    assert!(done.stderr.contains("/nowhere.toml"), "{done:?}");
    lab.pgentra(&["proxy", "--check", "--check-config", "-h", "localhost"]).done().fails(2);
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
    assert_eq!(serves(&lab, &config), "0.0.0.0:5432 for my-server.postgres.database.azure.com:5432");
}

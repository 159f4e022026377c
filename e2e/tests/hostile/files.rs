//! Files and folders that are not what they should be, and values that are none.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

use crate::commands::{Probe, run};
use crate::stage::{Stage, unnamed};

/// Folders of sockets, files of secrets, devices and pipes for files.
pub(crate) fn probes(stage: &Stage<'_>) {
    let folder = stage.lab.path().join("files");
    fs::create_dir(&folder).unwrap();
    let at = |name: &str| folder.join(name).display().to_string();
    let file = |name: &str, content: &[u8], mode: u32| {
        fs::write(folder.join(name), content).unwrap();
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(mode)).unwrap();
        at(name)
    };
    let directory = |name: &str, mode: u32| {
        fs::create_dir(folder.join(name)).unwrap();
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(mode)).unwrap();
        at(name)
    };
    let pipe = at("pipe");
    stage.lab.program(&["mkfifo", &pipe]).done().ok();
    let loops = at("loop");
    symlink("loop", &loops).unwrap();
    let dangling = at("dangling");
    symlink("nowhere", &dangling).unwrap();
    let kept = file("kept", b"kept", 0o600);
    let taken = directory("taken", 0o700);
    let served = UnixListener::bind(folder.join("taken/.s.PGSQL.5432")).unwrap();
    let lent = directory("lent", 0o700);
    fs::create_dir(folder.join("lent/.s.PGSQL.5432")).unwrap();
    let users = file("users", b"\"app\" \"SCRAM-SHA-256$4096:c2FsdA==$AAAA:AAAA\"\n", 0o600);
    let (cert, key) = (stage.papers.folder.join("server.pem"), stage.papers.folder.join("server.key"));
    let (cert, key) = (cert.display().to_string(), key.display().to_string());
    let open_key = file("open.key", &fs::read(&key).unwrap(), 0o604);
    let ours = format!("{}/files/x", stage.lab.path().display());
    let deep = at(&"d".repeat(120));

    let proxy = |words: &[&str]| {
        let words = [&["proxy"][..], words, &["host=db.example"]].concat();
        stage.lab.pgentra(&words).envs(unnamed(stage.cloud.env("vm")))
    };
    let check = |words: &[&str]| proxy(&[&["--check-config"][..], words].concat());
    let mut commands: Vec<Probe<'_>> = Vec::new();
    let mut add = |name: &str, run, expected| commands.push((name.to_owned(), run, expected));

    for (name, path) in [
        ("open to the group", directory("group", 0o770)),
        ("open to read", directory("read", 0o705)),
        ("open to all, sticky", directory("sticky", 0o1777)),
        ("that is a file", kept.clone()),
        ("that is a pipe", pipe.clone()),
        ("that is a loop", loops.clone()),
        ("that is nowhere", dangling.clone()),
        ("below a file", format!("{kept}/x")),
        ("below a device", "/dev/null/x".to_owned()),
        ("whose name is too long", deep.clone()),
        ("that is served", taken.clone()),
        ("with a folder for a socket", lent.clone()),
        ("below /proc", "/proc/self/x".to_owned()),
    ] {
        add(&format!("a folder {name}"), proxy(&["--listen", &path]), "1 | 2");
    }
    for (name, path) in [
        ("a pipe", pipe.as_str()),
        ("a folder", &taken),
        ("a loop", &loops),
        ("nowhere", &dangling),
        ("endless zeroes", "/dev/zero"),
        ("endless numbers", "/dev/urandom"),
        ("a terminal", "/dev/tty"),
        ("below a file", "/dev/null/x"),
    ] {
        add(&format!("roles in {name}"), check(&["--listen-auth-file", path]), "2");
        add(&format!("a certificate in {name}"), check(&["--listen-tls-cert", path, "--listen-tls-key", &key]), "2");
        add(&format!("a key in {name}"), check(&["--listen-tls-cert", &cert, "--listen-tls-key", path]), "2");
        add(&format!("authorities in {name}"), check(&["--listen-tls-cert", &cert, "--listen-tls-key", &key, "--listen-tls-client-ca", path]), "2");
        add(&format!("a configuration in {name}"), check(&["--config", path]), "2");
        let query = |conninfo: String| {
            let words = ["query", "-c", "SELECT 1", "-U", "x", &conninfo];
            stage.lab.pgentra(&words).envs(unnamed(stage.cloud.env("vm")))
        };
        add(&format!("roots in {name}"), query(format!("host=localhost port=1 sslrootcert={path}")), "2 | 4");
        add(&format!("services in {name}"), query("service=x".to_owned()).env("PGSERVICEFILE", path), "2");
        let assertion = stage.lab.pgentra(&["token", "--token-timeout", "3"]).envs(stage.cloud.env("aks"));
        add(&format!("an assertion in {name}"), assertion.env("AZURE_FEDERATED_TOKEN_FILE", path), "2 | 3");
        let certificate = stage.lab.pgentra(&["token", "--token-timeout", "3"]).envs(stage.cloud.env("client-certificate"));
        add(&format!("a client's certificate in {name}"), certificate.env("AZURE_CLIENT_CERTIFICATE_PATH", path), "2 | 3");
    }
    for (name, path) in [("a folder", taken.as_str()), ("a loop", &loops), ("below a file", "/dev/null/x"), ("nowhere's folder", "/nowhere/x")] {
        add(&format!("an audit log in {name}"), proxy(&["--listen", "127.0.0.1:0", "--audit", path]), "1 | 2");
    }
    add("a key that others read", check(&["--listen-tls-cert", &cert, "--listen-tls-key", &open_key]), "2");
    for (name, content) in [
        ("of no text", &b"\"app\" \"\xff\""[..]),
        ("of a password", b"\"app\" \"secret\""),
        ("of half a verifier", b"\"app\" \"SCRAM-SHA-256$4096:c2FsdA==$AAAA\""),
        ("of no iterations", b"\"app\" \"SCRAM-SHA-256$0:c2FsdA==$AAAA:AAAA\""),
        ("of iterations without end", b"\"app\" \"SCRAM-SHA-256$99999999999:c2FsdA==$AAAA:AAAA\""),
        ("of an open quote", b"\"app \"SCRAM-SHA-256$"),
        ("of NUL bytes", b"\0\0\0\0"),
    ] {
        let path = file(&format!("roles {name}"), content, 0o600);
        add(&format!("roles {name}"), check(&["--listen-auth-file", &path]), "2");
    }
    add("roles of short keys", check(&["--listen-auth-file", &users]), "2");
    for (name, content) in [
        ("of no text", &b"listen = '\xff'"[..]),
        ("of half a table", b"[[target"),
        ("of two of a key", b"drain_timeout = 1\ndrain_timeout = 2\n"),
        ("of a thousand tables", &b"[".repeat(100_000)),
        ("of dates", b"drain_timeout = 1979-05-27\n"),
        ("of infinity", b"drain_timeout = inf\n"),
        ("of a number beyond 64 bits", b"drain_timeout = 99999999999999999999\n"),
        ("of an octal number", b"max_connections = 0o777777777777\n"),
        ("of a text for a number", b"max_connections = '20'\n"),
        ("of a number for a list", b"listen = 5432\n"),
        ("of a list of numbers", b"listen_uids = [1.5]\n"),
        ("of a text for a truth", b"reuse = 'true'\n[[target]]\nserver = 'host=x'\n"),
        ("of a target that is no table", b"target = 'host=x'\n"),
        ("of a server that is no text", b"[[target]]\nserver = 1\n"),
        ("of an empty server", b"[[target]]\nserver = ''\n"),
        ("of another program", b"[databases]\napp = host=x\n"),
        ("of JSON", b"{\"target\": []}"),
        ("of a dotted key", b"target.x.y = 1\n"),
        ("of an empty map's name", b"[[target]]\nserver = 'host=x'\nrole_map = { '' = 'x' }\n"),
        ("of an empty role in a map", b"[[target]]\nserver = 'host=x'\nrole_map = { 'x' = '' }\n"),
        ("of a NUL byte in a map", b"[[target]]\nserver = 'host=x'\nrole_map = { \"a\\u0000b\" = 'x' }\n"),
    ] {
        let path = file(&format!("configuration {name}"), content, 0o600);
        let words = ["proxy", "--check-config", "--config", &path];
        add(&format!("a configuration {name}"), stage.lab.pgentra(&words).envs(unnamed(stage.cloud.env("vm"))), "2");
    }
    for (flag, values) in [
        ("--max-connections", &["1e3", "0x10", "1_000", " 5", "5 ", "+", "\u{665}", "4294967296", "99999999999999999999", "NaN", ""][..]),
        ("--start-up-timeout", &["0", "1.5", "60s", "18446744073709551616"]),
        ("--warm", &["yes", "4294967296"]),
        ("--drain-timeout", &["86401", "1h"]),
        ("--listen", &["127.0.0.1:65536", "127.0.0.1:x", "[::1", "::1:5432:", "127.0.0.1:5432:1", "0", "relative/path", "/x:0x5", "/x:65536", "systemd:", "tcp://127.0.0.1", "0.0.0.0:5432", "[::]:5432", "[::ffff:192.0.2.1]:5432", "192.0.2.1:5432", "\u{0661}"]),
        ("--admin-listen", &["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "x", "65536", "/tmp/x", ""]),
        ("--health-listen", &["x", "65536", "/tmp/x", "1:2:3"]),
        ("--listen-uids", &["4294967296", "0x10", "no-such-user-here", "", "root,", "1.5"]),
        ("--cloud", &["mars", "PUBLIC ", ""]),
        ("--tenant", &["../x", "a/b", "a?b", "a#b", "a@b:80", "a b", ".."]),
        ("--source", &["imds;id", "none", "../imds"]),
        ("--log-format", &["xml", ""]),
        ("--drain", &["never", ""]),
        ("--listen-tls-client-name", &["san", ""]),
        ("--resource", &["not a uri", "file:///etc/passwd\n"]),
    ] {
        for value in values {
            // what a listener is given alone is right for another flag
            let is_good = flag == "--listen" && *value == "0";
            let flag_is = format!("{flag}={value}");
            add(&format!("{flag} {value:?}"), check(&[&flag_is]), if is_good { "0" } else { "2" });
        }
    }
    run(stage, "files and values", commands);
    drop(served);
    // nothing of it was followed, emptied or taken away
    let left = |name: &str| folder.join(name).symlink_metadata().is_ok();
    stage.probes.note("files and values", "what lay there is there", "kept true true true", &format!("{} {} {} {}", fs::read_to_string(&kept).unwrap_or_default(), left("dangling"), left("taken/.s.PGSQL.5432"), left("lent/.s.PGSQL.5432")));
    stage.probes.note("files and values", "nothing was made", "false", &fs::exists(ours).unwrap().to_string());
}

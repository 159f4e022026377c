//! Invalid files, folders and values.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use e2e::Run;

use crate::commands::{Probe, run};
use crate::stage::{Stage, unnamed};

const AREA: &str = "files and values";

/// A folder of bad files, and the commands that read them.
struct Place<'stage, 'lab> {
    stage: &'stage Stage<'lab>,
    folder: PathBuf,
    commands: Vec<Probe<'lab>>,
    /// The variables of the machine.
    machine: BTreeMap<String, String>,
}

impl<'stage, 'lab> Place<'stage, 'lab> {
    fn new(stage: &'stage Stage<'lab>) -> Self {
        let folder = stage.lab.path().join("files");
        fs::create_dir(&folder).unwrap();
        let machine = unnamed(stage.cloud.env("vm"));
        let place = Place { stage, folder, commands: Vec::new(), machine };
        stage.lab.program(&["mkfifo", &place.at("pipe")]).done().ok();
        symlink("loop", place.at("loop")).unwrap();
        symlink("nowhere", place.at("dangling")).unwrap();
        place.file("kept", b"kept", 0o600);
        place.directory("taken", 0o700);
        place.directory("lent", 0o700);
        fs::create_dir(place.at("lent/.s.PGSQL.5432")).unwrap();
        place
    }

    fn at(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn file(&self, name: &str, content: &[u8], mode: u32) -> String {
        fs::write(self.at(name), content).unwrap();
        fs::set_permissions(self.at(name), fs::Permissions::from_mode(mode)).unwrap();
        self.at(name)
    }

    fn directory(&self, name: &str, mode: u32) -> String {
        fs::create_dir(self.at(name)).unwrap();
        fs::set_permissions(self.at(name), fs::Permissions::from_mode(mode)).unwrap();
        self.at(name)
    }

    fn add(&mut self, name: &str, run: Run<'lab>, expected: &'static str) {
        self.commands.push((name.to_owned(), run, expected));
    }

    fn command(&self, words: &[&str]) -> Run<'lab> {
        self.stage.lab.pgentra(words).envs(self.machine.clone())
    }

    /// A proxy that does not start.
    fn proxy(&self, words: &[&str]) -> Run<'lab> {
        self.command(&[&["proxy"], words, &["host=db.example"]].concat())
    }

    /// A configuration of a proxy that is only read.
    fn check(&self, words: &[&str]) -> Run<'lab> {
        self.proxy(&[&["--check-config"], words].concat())
    }

    /// A good certificate or key.
    fn paper(&self, name: &str) -> String {
        self.stage.papers.folder.join(name).display().to_string()
    }
}

/// Folders of sockets.
fn folders(place: &mut Place<'_, '_>) {
    for (name, path) in [
        ("open to the group", place.directory("group", 0o770)),
        ("open to read", place.directory("read", 0o705)),
        ("open to all, sticky", place.directory("sticky", 0o1777)),
        ("that is a file", place.at("kept")),
        ("that is a pipe", place.at("pipe")),
        ("that is a loop", place.at("loop")),
        ("that is nowhere", place.at("dangling")),
        ("below a file", place.at("kept/x")),
        ("below a device", "/dev/null/x".to_owned()),
        ("whose name is too long", place.at(&"d".repeat(120))),
        ("that is served", place.at("taken")),
        ("with a folder for a socket", place.at("lent")),
        ("below /proc", "/proc/self/x".to_owned()),
    ] {
        let run = place.proxy(&["--listen", &path]);
        place.add(&format!("a folder {name}"), run, "1 | 2");
    }
}

/// Devices, pipes and folders for files.
fn devices(place: &mut Place<'_, '_>) {
    let (cert, key) = (place.paper("server.pem"), place.paper("server.key"));
    let (pipe, taken, loops, dangling) =
        (place.at("pipe"), place.at("taken"), place.at("loop"), place.at("dangling"));
    let (pod, app) = (place.stage.cloud.env("aks"), place.stage.cloud.env("client-certificate"));
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
        let run = place.check(&["--listen-auth-file", path]);
        place.add(&format!("roles in {name}"), run, "2");
        let run = place.check(&["--listen-tls-cert", path, "--listen-tls-key", &key]);
        place.add(&format!("a certificate in {name}"), run, "2");
        let run = place.check(&["--listen-tls-cert", &cert, "--listen-tls-key", path]);
        place.add(&format!("a key in {name}"), run, "2");
        let run = place.check(&[
            "--listen-tls-cert",
            &cert,
            "--listen-tls-key",
            &key,
            "--listen-tls-client-ca",
            path,
        ]);
        place.add(&format!("authorities in {name}"), run, "2");
        let run = place.check(&["--config", path]);
        place.add(&format!("a configuration in {name}"), run, "2");
        let run = place.command(&[
            "query",
            "-c",
            "SELECT 1",
            "-U",
            "x",
            &format!("host=localhost port=1 sslrootcert={path}"),
        ]);
        place.add(&format!("roots in {name}"), run, "2 | 4");
        let run =
            place.command(&["query", "-c", "SELECT 1", "-U", "x", "service=x"]).env("PGSERVICEFILE", path);
        place.add(&format!("services in {name}"), run, "2");
        let assertion = place.stage.lab.pgentra(&["token", "--token-timeout", "3"]).envs(pod.clone());
        place.add(
            &format!("an assertion in {name}"),
            assertion.env("AZURE_FEDERATED_TOKEN_FILE", path),
            "2 | 3",
        );
        let certificate = place.stage.lab.pgentra(&["token", "--token-timeout", "3"]).envs(app.clone());
        place.add(
            &format!("a client's certificate in {name}"),
            certificate.env("AZURE_CLIENT_CERTIFICATE_PATH", path),
            "2 | 3",
        );
    }
    for (name, path) in [
        ("a folder", taken.as_str()),
        ("a loop", &loops),
        ("below a file", "/dev/null/x"),
        ("nowhere's folder", "/nowhere/x"),
    ] {
        let run = place.proxy(&["--listen", "127.0.0.1:0", "--audit", path]);
        place.add(&format!("an audit log in {name}"), run, "1 | 2");
    }
}

/// What is in files.
fn contents(place: &mut Place<'_, '_>) {
    let (cert, key) = (place.paper("server.pem"), place.paper("server.key"));
    let open_key = place.file("open.key", &fs::read(&key).unwrap(), 0o604);
    let run = place.check(&["--listen-tls-cert", &cert, "--listen-tls-key", &open_key]);
    place.add("a key that others read", run, "2");
    for (name, content) in [
        ("of no text", &b"\"app\" \"\xff\""[..]),
        ("of a password", b"\"app\" \"secret\""),
        ("of half a verifier", b"\"app\" \"SCRAM-SHA-256$4096:c2FsdA==$AAAA\""),
        ("of no iterations", b"\"app\" \"SCRAM-SHA-256$0:c2FsdA==$AAAA:AAAA\""),
        ("of iterations without end", b"\"app\" \"SCRAM-SHA-256$99999999999:c2FsdA==$AAAA:AAAA\""),
        ("of an open quote", b"\"app \"SCRAM-SHA-256$"),
        ("of NUL bytes", b"\0\0\0\0"),
    ] {
        let path = place.file(&format!("roles {name}"), content, 0o600);
        let run = place.check(&["--listen-auth-file", &path]);
        place.add(&format!("roles {name}"), run, "2");
    }
    let users = place.file("users", b"\"app\" \"SCRAM-SHA-256$4096:c2FsdA==$AAAA:AAAA\"\n", 0o600);
    let run = place.check(&["--listen-auth-file", &users]);
    place.add("roles of short keys", run, "2");
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
    ] {
        let path = place.file(&format!("configuration {name}"), content, 0o600);
        let words = ["proxy", "--check-config", "--config", &path];
        let run = place.command(&words);
        place.add(&format!("a configuration {name}"), run, "2");
    }
}

/// Values of settings.
fn values(place: &mut Place<'_, '_>) {
    for (flag, values) in [
        (
            "--max-connections",
            &[
                "0",
                "1.5",
                "1e-3",
                "1e400",
                "0x10",
                "1_000",
                " 5",
                "5 ",
                "+",
                "\u{665}",
                "4294967296",
                "99999999999999999999",
                "NaN",
                "",
            ][..],
        ),
        ("--start-up-timeout", &["0", "0.0001", "60x", "1e400", "-0", "25h", "18446744073709551616"]),
        ("--warm", &["yes", "4294967296"]),
        ("--drain-timeout", &["86401", "25h", "1d1d", "h"]),
        (
            "--listen",
            &[
                "127.0.0.1:65536",
                "127.0.0.1:x",
                "[::1",
                "::1:5432:",
                "127.0.0.1:5432:1",
                "0",
                "relative/path",
                "/x:0x5",
                "/x:65536",
                "systemd:",
                "tcp://127.0.0.1",
                "0.0.0.0:5432",
                "[::]:5432",
                "[::ffff:192.0.2.1]:5432",
                "192.0.2.1:5432",
                "\u{0661}",
            ],
        ),
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
            // a listener's value alone may be valid for another flag
            let is_good = flag == "--listen" && *value == "0";
            let flag_is = format!("{flag}={value}");
            let run = place.check(&[&flag_is]);
            place.add(&format!("{flag} {value:?}"), run, if is_good { "0" } else { "2" });
        }
    }
}

pub(crate) fn probes(stage: &Stage<'_>) {
    let mut place = Place::new(stage);
    let served = UnixListener::bind(place.at("taken/.s.PGSQL.5432")).unwrap();
    folders(&mut place);
    devices(&mut place);
    contents(&mut place);
    values(&mut place);
    run(stage, AREA, std::mem::take(&mut place.commands));
    drop(served);
    // no link was followed, and no file was truncated or removed
    let is_there = |name: &str| fs::symlink_metadata(place.at(name)).is_ok();
    let names = ["dangling", "taken/.s.PGSQL.5432", "lent/.s.PGSQL.5432", "pipe", "nowhere"];
    let kept = fs::read_to_string(place.at("kept")).unwrap_or_default();
    let got = format!("{kept} {:?}", names.map(is_there));
    stage.probes.note(AREA, "what lay there is there", "kept [true, true, true, true, false]", &got);
}

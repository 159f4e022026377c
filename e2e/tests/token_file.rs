//! `pgentra token --file`: a password file for programs that read one, and tokens of other services.
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use e2e::{Flavour, Lab, have};
use eventually::{DEADLINE, eventually_blocking};
use rustix::process::{Pid, Signal, kill_process};

/// What the service manager hears next.
fn heard(socket: &UnixDatagram) -> String {
    let mut message = [0; 512];
    let length = socket.recv(&mut message).unwrap();
    String::from_utf8(message[..length].to_vec()).unwrap()
}

/// The text of a file below `deploy/`.
fn shipped(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name)).unwrap()
}

/// The arguments of `pgentra` in the unit, and those of each of its containers in the manifest.
fn shipped_arguments() -> Vec<Vec<String>> {
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let unit = shipped("systemd/pgentra-token@.service");
    let (_, line) = unit.split_once("ExecStart=/usr/bin/pgentra ").unwrap();
    let mut found = vec![words(line.lines().next().unwrap())];
    let manifest = shipped("kubernetes/token-file.yaml");
    for container in manifest.split("image: pgentra:").skip(1) {
        let (_, arguments) = container.split_once("args:\n").unwrap();
        let lines = arguments.lines().map_while(|line| line.trim().strip_prefix("- "));
        found.push(lines.map(str::to_owned).collect());
    }
    found
}

fn mode(file: &Path) -> u32 {
    file.metadata().unwrap().permissions().mode() & 0o777
}

#[test]
fn a_password_file_outlives_its_tokens() {
    if !have(&["psql"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    // The lab's own folder may have no token in it.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    let path = file.to_str().unwrap();
    let on_vm = |script: &str| lab.shell(script).envs(cloud.env("vm")).env("F", path).done();

    // Once, without a line feed; the umask does not matter.
    on_vm("umask 0; pgentra token --file $F && PGPASSWORD=$(cat $F) psql -Atc 'SELECT 1'").ok();
    assert_eq!(mode(&file), 0o600);
    let first = fs::read_to_string(&file).unwrap();
    lab.remember(&first);
    assert!(first.starts_with("eyJ") && !first.ends_with('\n'));
    assert_eq!(on_vm("pgentra token --file $F").ok(), "", "nothing is printed");

    let manager = folder.path().join("notify");
    let socket = UnixDatagram::bind(&manager).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut variables = cloud.env("vm");
    let line = format!("host={} port={}", variables["PGHOST"], variables["PGPORT"]);
    variables.insert("NOTIFY_SOCKET".to_owned(), manager.to_str().unwrap().to_owned());
    let words = ["pgentra", "token", "--watch", "--file", path, "--pgpass", &line];
    let mut watch = lab.spawn(&words, variables);
    assert!(heard(&socket).starts_with("READY=1\nSTATUS=the token is valid until "));
    assert_eq!(mode(&file), 0o600);
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("localhost:") && text.ends_with('\n') && text.lines().count() == 1);
    let query = "PGPASSFILE=$F psql -w -Atc 'SELECT current_user'";
    assert_eq!(on_vm(query).ok(), "myVm\n");

    lab.pgentra(&["local", "clock", "--advance", "25h"]).done().ok();
    assert!(on_vm(query).stderr.contains("The access token has expired"));
    // The watch has its own clock, by which the token is valid. It is told to get another one.
    let pid = Pid::from_child(&watch);
    kill_process(pid, Signal::HUP).unwrap();
    eventually_blocking(DEADLINE, "the file has another token", || {
        fs::read_to_string(&file).unwrap() != text
    });
    assert!(heard(&socket).starts_with("READY=1"), "the status has the new expiry");
    assert_eq!(on_vm(query).ok(), "myVm\n");
    assert_eq!(mode(&file), 0o600);

    kill_process(pid, Signal::TERM).unwrap();
    assert!(watch.wait().unwrap().success());
    assert_eq!(on_vm(query).ok(), "myVm\n", "the file stays");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "the file and the socket");

    // The unit, the init container and the sidecar, in this place of the machine.
    let all = shipped_arguments();
    assert_eq!(all.len(), 3, "{all:?}");
    for arguments in all {
        fs::remove_file(&file).unwrap();
        let ours = |word: &String| {
            let word =
                word.replace("my-app@my-server.postgres.database.azure.com/app", "myIdentity@localhost/app");
            word.replace("/run/pgentra-token/%i/password", path).replace("/run/pgentra/password", path)
        };
        let words: Vec<String> =
            std::iter::once("pgentra".to_owned()).chain(arguments.iter().map(ours)).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut variables = cloud.env("aks");
        variables.insert("NOTIFY_SOCKET".to_owned(), manager.to_str().unwrap().to_owned());
        let mut program = lab.spawn(&words, variables);
        if words.contains(&"--watch") {
            while !heard(&socket).contains("READY=1") {}
            kill_process(Pid::from_child(&program), Signal::INT).unwrap();
        }
        assert!(program.wait().unwrap().success(), "{words:?}");
        assert_eq!(mode(&file), 0o600, "{words:?}");
    }
}

#[test]
fn a_file_that_cannot_be_one_is_told() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let token = |words: &[&str]| lab.pgentra(&[&["token"], words].concat()).envs(cloud.env("vm")).done();
    for (words, code, said) in [
        (&["--watch"][..], 2, "--file"),
        (&["--pgpass", "host=db"], 2, "--file"),
        (&["--file", "f", "--decode"], 2, "--decode"),
        (&["--file", "f", "-o", "json"], 2, "--output"),
        (&["--file", "/"], 2, "not a regular file"),
        (&["--file", "/no-such-folder/f"], 1, "cannot write /no-such-folder/f"),
        (&["--watch", "--file", "/no-such-folder/f"], 1, "cannot write /no-such-folder/f"),
        (&["--file", "f", "--token-command", "exit 3 # hunter2"], 3, "--token-command"),
        (&["--token-lifetime", "15m"], 2, "--token-command"),
        (&["--token-command", "echo opaque"], 3, "--token-lifetime 15m"),
        (&["--token-command", "echo opaque", "--token-lifetime", "1s"], 2, "30s"),
    ] {
        let done = token(words);
        assert_eq!(done.fault(code, &[said]), None);
        assert!(!done.stderr.contains("hunter2"), "{done:?}");
    }
}

/// The way of RDS and Cloud SQL: a command that makes an opaque token for a server, port and role.
#[test]
fn an_opaque_token_of_a_command_is_the_password() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let seen = "printf '%s %s %s' \"$PGENTRA_HOST\" \"$PGENTRA_PORT\" \"$PGENTRA_ROLE\" >seen;";
    // A token service of our own: what it prints has no end in itself. The server takes JSON Web
    // Tokens, so the command gets one for it, and its end is hidden from pgentra.
    let opaque = "echo \"$PGENTRA_HOST:$PGENTRA_PORT/?Action=connect&DBUser=$PGENTRA_ROLE\"";
    let on_vm = |script: &str| {
        lab.shell(script).envs(cloud.env("vm")).env("COMMAND", format!("{seen} {opaque}")).done()
    };
    let port = &cloud.env("vm")["PGPORT"];
    let expected = format!("localhost {port} myVm");

    let token = on_vm("pgentra token --token-command \"$COMMAND\" --token-lifetime 15m");
    assert_eq!(token.ok().trim(), format!("localhost:{port}/?Action=connect&DBUser=myVm"));
    // The server says that it is no token of its own: it was sent as the password.
    let refused = on_vm("pgentra query --token-command \"$COMMAND\" --token-lifetime 15m -c 'SELECT 1'");
    assert_eq!(refused.fault(5, &[]), None);
    assert_eq!(on_vm("cat seen").ok(), expected);
    on_vm("rm seen; pgentra exec --token-command \"$COMMAND\" --token-lifetime 15m -U other -- true").ok();
    assert_eq!(on_vm("cat seen").ok(), format!("localhost {port} other"));
    let proxy = "rm seen; pgentra proxy --check --listen 0 --token-command \"$COMMAND\" --token-lifetime 15m -h localhost -U myVm || true";
    on_vm(proxy).ok();
    assert_eq!(on_vm("cat seen").ok(), expected);
    // A line of a password file has the colons of the token.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pgpass");
    on_vm(&format!(
        "pgentra token --token-command \"$COMMAND\" --token-lifetime 15m --file {} --pgpass 'dbname=app'",
        file.display()
    ))
    .ok();
    let line = format!("localhost:{port}:app:myVm:localhost\\:{port}/?Action=connect&DBUser=myVm\n");
    assert_eq!(fs::read_to_string(&file).unwrap(), line);
    // With the server's own tokens it signs in.
    let signs_in = "pgentra query --token-lifetime 15m --token-command 'pgentra token --source imds' -o json -c 'SELECT current_user'";
    assert_eq!(on_vm(signs_in).json()[0]["rows"][0][0], "myVm");
}

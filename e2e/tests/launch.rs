//! `pgentra psql` and `pgentra exec`: the program connects for as long as it runs, and nothing is
//! left when it ends.
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::io::{BufRead as _, BufReader, Write as _};

use e2e::{Flavour, Lab, have};
use eventually::{DEADLINE, eventually_blocking};
use rustix::process::{Pid, Signal, kill_process};

const ADVANCE: &str = "pgentra local clock --advance 25h >&2";

#[test]
fn a_program_connects_after_its_first_token_has_expired() {
    if !have(&["psql", "postgresql"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let run = |words: &[&str]| lab.pgentra(words).envs(cloud.env("vm"));
    for way in [&["exec"][..], &["exec", "--tcp"]] {
        let script = format!("psql -Atc 'SELECT 1'; {ADVANCE}; psql -Atc 'SELECT current_user'");
        let done = run(&[way, &["--", "sh", "-c", &script]].concat()).done();
        assert_eq!(done.ok(), "1\nmyVm\n", "{way:?}");
    }
    // psql connects again by itself.
    let session = format!("SELECT 1;\n\\! {ADVANCE}\n\\c postgres\nSELECT 2;\n");
    let done = run(&["psql", "-At"]).input(&session).done();
    assert!(done.ok().starts_with("1\n") && done.ok().ends_with("2\n"), "{done:?}");
    // A connection for each transaction, before and after.
    let bench = "pgbench -n -C -t 20 -c 4 -f script";
    let script = format!("echo 'SELECT 1;' >script; {bench} && {ADVANCE} && {bench}");
    let done = run(&[
        "exec",
        "--",
        "sh",
        "-c",
        &format!("PATH=$PATH:$(ls -d /usr/lib/postgresql/*/bin | tail -n 1); {script}"),
    ])
    .done();
    assert_eq!(done.ok().matches("number of transactions actually processed: 80/80").count(), 2, "{done:?}");
    // The old way hands the token over once.
    let script =
        format!("psql -Atc 'SELECT 1'; {ADVANCE}; psql -Atc 'SELECT 2'; test ${{#PGPASSWORD}} -gt 500");
    let done = run(&["exec", "--direct", "--", "sh", "-c", &script]).done();
    assert_eq!(done.ok(), "1\n");
    assert!(done.stderr.contains("The access token has expired"), "{done:?}");
}

/// Workers of a restore, and psql that changes its database and its role: each opens connections of
/// its own, after the program's first token has expired too.
#[test]
fn every_connection_of_a_program_is_signed_in() {
    if !have(&["psql", "postgresql"]) {
        return;
    }
    let lab = Lab::new();
    // Its pg_dump refuses a server that is newer than itself, such as the embedded one.
    let folders = std::fs::read_dir("/usr/lib/postgresql").unwrap().map(|entry| entry.unwrap().path());
    let installed = folders.filter(|folder| folder.join("bin/initdb").exists()).max().unwrap();
    let bin = installed.join("bin").display().to_string();
    let cloud = lab.cloud(Flavour::Flexible, &["--postgres", installed.to_str().unwrap()]);
    let vm = cloud.text("/identities/0/object_id");
    let role =
        format!("SELECT pgaadauth_create_principal_with_oid('second', '{vm}', 'service', false, false)");
    let admin = |words: &[&str]| {
        lab.pgentra(&[&["query"], words].concat()).envs(cloud.env("admin")).done().ok();
    };
    admin(&["-c", "CREATE DATABASE shop", "-c", "CREATE DATABASE copy", "-c", &role]);
    for database in ["shop", "copy"] {
        admin(&["-d", database, "-c", "GRANT CREATE ON SCHEMA public TO \"myVm\""]);
    }
    let run = |words: &[&str]| lab.pgentra(words).envs(cloud.env("vm")).env("PGDATABASE", "shop");

    let tables = "for table in 1 2 3 4 5 6 7 8; do echo \"CREATE TABLE t$table AS SELECT generate_series(1, 100) AS id;\"; \
                  echo \"CREATE INDEX ON t$table (id);\"; done | psql -qv ON_ERROR_STOP=1";
    let dump = "pg_dump -Fc -n public -f dump --no-owner --no-privileges";
    let restore = "pg_restore -j4 -d copy --no-owner dump 2>&1 | grep -v 'schema \"public\" already exists' >restored || true";
    let count = "psql -d copy -Atc 'SELECT count(*) FROM t1, t8 WHERE t1.id = t8.id'";
    let script = format!("PATH={bin}:$PATH; {tables} && {dump} && {ADVANCE} && {restore}; {count}");
    let done = run(&["exec", "--", "sh", "-c", &script]).done();
    assert_eq!(done.ok(), "100\n", "{done:?}");

    let who = "SELECT current_database(), current_user;\n";
    let session = format!("{who}\\c copy\n{who}\\! {ADVANCE}\n\\c shop second\n{who}");
    for way in [&[][..], &["--tcp"]] {
        let done = run(&[&["psql"], way, &["-Atq"]].concat()).input(&session).done();
        let said: Vec<&str> = done.ok().lines().filter(|line| line.contains('|')).collect();
        assert_eq!(said, ["shop|myVm", "copy|myVm", "shop|second"], "{done:?}");
    }
}

#[test]
fn the_program_has_no_token_in_its_environment() {
    if !have(&["psql"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let run = |way: &[&str]| {
        let words = [&["exec"], way, &["--", "sh", "-c", "tr '\\0' '\\n' </proc/$$/environ"]].concat();
        // Settings of the direct way to the server, which the listener does not have.
        lab.pgentra(&words)
            .envs(cloud.env("vm"))
            .env("PGPASSWORD", "given")
            .env("PGSSLNEGOTIATION", "postgres")
            .env("PGREQUIREAUTH", "password")
            .env("PGCHANNELBINDING", "disable")
            .done()
    };
    let value = |text: &str, name: &str| {
        text.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
    };
    // That no token is in it, the lab itself checks.
    let socket = run(&[]).ok().to_owned();
    for (name, expected) in
        [("PGPORT", "5432"), ("PGUSER", "myVm"), ("PGDATABASE", "postgres"), ("PGSSLMODE", "disable")]
    {
        assert_eq!(value(&socket, name).as_deref(), Some(expected), "{name}");
    }
    for gone in ["PGPASSWORD", "PGSSLNEGOTIATION", "PGSSLROOTCERT", "PGREQUIREAUTH", "PGCHANNELBINDING"] {
        assert_eq!(value(&socket, gone), None, "{gone}");
    }
    let folder = value(&socket, "PGHOST").unwrap();
    assert!(folder.starts_with(lab.temporary().to_str().unwrap()), "{folder}");

    // Another password is made for each run, and it is needed.
    let (one, two) = (run(&["--tcp"]).ok().to_owned(), run(&["--tcp"]).ok().to_owned());
    assert_eq!(value(&one, "PGHOST").as_deref(), Some("127.0.0.1"));
    let passwords = [one, two].map(|text| value(&text, "PGPASSWORD").unwrap());
    assert!(passwords[0] != passwords[1] && passwords[0].len() == 64);
    let wrong = lab
        .pgentra(&["exec", "--tcp", "--", "sh", "-c", "PGPASSWORD=wrong psql -c 'SELECT 1'"])
        .envs(cloud.env("vm"))
        .done();
    assert!(wrong.stderr.contains("password authentication failed"), "{wrong:?}");
}

/// The folders of listeners, with their access modes.
fn listeners(lab: &Lab) -> Vec<(String, u32)> {
    use std::os::unix::fs::PermissionsExt as _;

    let entries = std::fs::read_dir(lab.temporary()).unwrap().filter_map(Result::ok);
    let named = entries.filter_map(|entry| {
        let mode = entry.metadata().ok()?.permissions().mode() & 0o777;
        Some((entry.file_name().into_string().ok()?, mode))
    });
    named.filter(|(name, _)| name.starts_with("pgentra-exec-")).collect()
}

#[test]
fn nothing_is_left_when_the_program_is_killed() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    // Killed: the program, and in the second run its listener's process too.
    for kills_listener in [false, true] {
        let mut program =
            lab.spawn(&["pgentra", "exec", "--", "sh", "-c", "echo $$; read line"], cloud.env("vm"));
        let mut out = BufReader::new(program.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let pid = Pid::from_raw(line.trim().parse().unwrap()).unwrap();
        assert_eq!(pid, Pid::from_child(&program), "the program has the process of pgentra itself");
        let [(_, mode)] = &listeners(&lab)[..] else { panic!("{:?}", listeners(&lab)) };
        assert_eq!(*mode, 0o700);
        if kills_listener {
            for listener in lab.processes("exec-listener") {
                kill_process(listener, Signal::KILL).unwrap();
            }
            program.stdin.take().unwrap().write_all(b"\n").unwrap();
        } else {
            kill_process(pid, Signal::KILL).unwrap();
        }
        program.wait().unwrap();
        eventually_blocking(DEADLINE, "the listener's folder is removed", || listeners(&lab).is_empty());
        eventually_blocking(DEADLINE, "the listener ends", || lab.processes("exec-listener").is_empty());
    }
}

#[test]
fn a_program_may_wait_for_all_of_its_children() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let script = "import os\ntry:\n  while True: os.wait()\nexcept ChildProcessError: print('none left')";
    let done = lab.pgentra(&["exec", "--", "python3", "-c", script]).envs(cloud.env("vm")).done();
    assert_eq!(done.ok(), "none left\n");
}

#[test]
fn a_listener_that_cannot_start_says_why() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let run =
        |words: &[&str]| lab.pgentra(&[&["exec"], words, &["--", "true"]].concat()).envs(cloud.env("vm"));
    let no_token = run(&["--token-command", "exit 3"]).done();
    assert_eq!(no_token.fault(3, &["caused by: ", "exit code 3", "doctor --explain"]), None);
    let nowhere = run(&[]).env("TMPDIR", "/proc").done();
    assert_eq!(nowhere.fault(1, &["cannot listen on a Unix socket", "--tcp"]), None);
    assert_eq!(run(&["--tcp", "--direct"]).done().fault(2, &["--direct"]), None);
}

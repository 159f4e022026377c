//! `pgentra proxy --print-config`: each printed configuration is read by the program that it is for,
//! or by the library that the program reads it with, and leads to the database.
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::fs;
use std::path::{Path, PathBuf};

use e2e::{Flavour, Lab, client, have};
use serde_json::{Value, json};

const JDBC: &str = "/usr/share/java/postgresql.jar";
const USAGE: i32 = 2;

/// A name with every character that a format treats in its own way.
const HOSTILE: &str = "Ü;l'{o}\"$PATH ${HOME} #% &=|\\`a`";
/// The same without what the dollar sign begins.
const NO_VARIABLE: &str = "Ü;l'{o}\"# %&=|\\`a`";

fn own(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name)
}

/// The configuration for a program, and what is said beside it.
fn printed(lab: &Lab, program: &str, words: &[&str], database: &str) -> (String, String) {
    let words = [&["proxy", "--print-config", program, "--listen", "6432"], words].concat();
    // No token is needed where the role is named.
    let run = lab.pgentra(&words).env("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:1");
    // As in psql, a database given as -d with "=" in it is a connection string.
    let done = run.env("PGDATABASE", database).done();
    (done.ok().to_owned(), done.stderr.clone())
}

fn read(lab: &Lab, program: &str, text: &str) -> Value {
    let file = lab.path().join("configuration");
    fs::write(&file, text).unwrap();
    let path = file.to_str().unwrap();
    let python = client("venv/bin/python");
    let words =
        [python.to_str().unwrap(), own("read_config.py").to_str().unwrap(), program, path].map(str::to_owned);
    let run = lab.program(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let found = run.env("PGSERVICEFILE", path).done().json();
    fs::remove_file(file).unwrap();
    found
}

#[test]
fn each_program_reads_the_names_as_they_are() {
    if !have(&["python"]) {
        return;
    }
    let lab = Lab::new();
    for program in ["pgadmin", "dbeaver", "grafana", "psql-service", "dotenv"] {
        for name in ["my-app", NO_VARIABLE, HOSTILE] {
            if program == "dbeaver" && name == HOSTILE {
                continue;
            }
            let (text, said) = printed(&lab, program, &["db.example", "-U", name], name);
            assert!(!said.is_empty(), "{program}: nothing says where it goes");
            let found = read(&lab, program, &text);
            assert_eq!(found, json!([["127.0.0.1", "6432", name, name]]), "{program}:\n{text}");
        }
    }
    let words = ["proxy", "--print-config", "dbeaver", "db.example", "-U", HOSTILE];
    assert_eq!(lab.pgentra(&words).done().fault(USAGE, &["cannot be written in DBeaver"]), None);
    let two = ["postgresql://app@one.example/a", "postgresql://app@two.example/b?name=Two"];
    for program in ["pgadmin", "dbeaver", "grafana", "psql-service", "dotenv"] {
        let found = read(&lab, program, &printed(&lab, program, &two, "").0);
        let expected = json!([["127.0.0.1", "6432", "app", "a"], ["127.0.0.1", "6433", "app", "b"]]);
        assert_eq!(found, expected, "{program}");
    }
}

/// Shells and Node.js read a file .env by rules of their own.
#[test]
fn a_shell_and_node_read_the_same_variables() {
    if !have(&["node"]) {
        return;
    }
    let lab = Lab::new();
    let file = lab.path().join(".env");
    for name in ["my-app", "My Group (R&D) #1; *", HOSTILE] {
        let (text, _) = printed(&lab, "dotenv", &["db.example", "-U", name], "");
        fs::write(&file, &text).unwrap();
        let path = file.to_str().unwrap();
        let shell = lab
            .program(&["sh", "-c", "set -a; . \"$1\"; printenv DATABASE_URL PGUSER || :", "sh", path])
            .done();
        let node = client("venv/bin/node");
        let script = "for (const name of ['DATABASE_URL', 'PGUSER']) if (process.env[name]) console.log(process.env[name])";
        let flag = format!("--env-file={path}");
        let node = lab.program(&[node.to_str().unwrap(), &flag, "-e", script]).done();
        assert_eq!(shell.ok(), node.ok(), "{text}");
        // PGUSER is left out where readers do not agree.
        let is_there = node.ok().lines().nth(1) == Some(name);
        assert_eq!(is_there, name != HOSTILE, "{node:?}");
    }
}

#[test]
fn pgjdbc_reads_the_names_as_they_are() {
    if !have(&["jdbc"]) {
        return;
    }
    let lab = Lab::new();
    let url = |name: &str| printed(&lab, "jdbc", &["db.example", "-U", name], name).0.trim_end().to_owned();
    let (plain, hostile) = (url("my-app"), url(HOSTILE));
    let file = own("JdbcUrl.java");
    let words = ["java", "-Dstdout.encoding=UTF-8", "-cp", JDBC, file.to_str().unwrap(), &plain, &hostile];
    let done = lab.program(&words).within(120).done();
    let lines: Vec<_> = done.ok().lines().collect();
    let expected = ["127.0.0.1", "6432", "my-app", "my-app", "127.0.0.1", "6432", HOSTILE, HOSTILE];
    assert_eq!(lines, expected);
}

/// The printed service leads through a running proxy to the database, with the role of the token.
#[test]
fn psql_signs_in_with_the_printed_service() {
    if !have(&["psql"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let mut vm = cloud.env("vm");
    let server = format!("localhost:{}", vm.remove("PGPORT").unwrap());
    for name in ["PGHOST", "PGUSER", "PGDATABASE"] {
        vm.remove(name);
    }
    let proxy = lab.proxy(vm.clone(), &[&server, "--listen", "0"], 1);
    let port = proxy.port();
    let words = ["proxy", "--print-config", "psql-service", &server, "--listen", &port];
    let done = lab.pgentra(&words).envs(vm).done();
    let file = lab.path().join("services");
    fs::write(&file, done.ok()).unwrap();
    let (_, command) = done.stderr.split_once("then: ").unwrap();
    let script = format!("PGSERVICEFILE={} {} -XAtc 'select current_user'", file.display(), command.trim());
    assert_eq!(lab.shell(&script).done().ok(), "myVm\n");
}

#[test]
fn what_cannot_be_printed_is_said_with_a_way_out() {
    let lab = Lab::new();
    let nowhere = ("AZURE_POD_IDENTITY_AUTHORITY_HOST".to_owned(), "http://127.0.0.1:1".to_owned());
    for (words, code, says) in [
        (
            &["jdbc", "db.example", "-U", "a", "--listen", "0"][..],
            USAGE,
            &["on 127.0.0.1:0", "--listen 6432"][..],
        ),
        (
            &["jdbc", "db.example", "-U", "a", "--listen", "/run/x"],
            USAGE,
            &["on /run/x:5432", "--listen 6432"],
        ),
        (&["jdbc", "db.example"], 3, &["no token from imds", "name the role with -U"]),
    ] {
        let done =
            lab.pgentra(&[&["proxy", "--print-config"], words].concat()).envs([nowhere.clone()]).done();
        assert_eq!(done.fault(code, says), None);
    }
    let both = ["proxy", "--check", "--print-config", "jdbc", "db.example"];
    assert_eq!(lab.pgentra(&both).done().status.code(), Some(USAGE));
}

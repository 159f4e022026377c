//! The environment for libpq programs.

use std::collections::BTreeMap;
use std::process::Command;

use pgentra_connect::{Connector, Layers, ListenerEnvironment, Roots, Target};
use pgentra_emulator::certificates::Authority;
use pgentra_system::{Env, Files};

use crate::server::{Machine, resource};

const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

fn connector(machine: &Machine, conninfo: &str, files: &[(&str, &str)]) -> Connector {
    let memory = Files::in_memory();
    for (path, content) in files {
        memory.put(*path, *content);
    }
    let env = Env::from_map::<String, String>([]);
    let layers = Layers::gather(Some(conninfo), &[], &env, &memory).unwrap();
    Connector::new(Target::resolve(&layers).unwrap(), machine.credential.clone(), resource()).unwrap()
}

async fn variables(connector: &Connector) -> BTreeMap<String, String> {
    let environment = connector.libpq_environment().await.unwrap();
    environment.variables().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[tokio::test]
async fn it_says_the_same_to_libpq() {
    let machine = Machine::start().await;
    let ours = Authority::generate().unwrap();
    let conninfo = "host=a,b port=1,2 hostaddr=127.0.0.1, user='My Group' dbname=d connect_timeout=9 \
                    sslmode=verify-ca sslrootcert=/ca.pem sslnegotiation=direct application_name=app options='-c x=y' load_balance_hosts=random";
    let connector = connector(&machine, conninfo, &[("/ca.pem", ours.pem())]);
    let variables = variables(&connector).await;
    for (name, value) in [
        ("PGHOST", "a,b"),
        ("PGPORT", "1,2"),
        ("PGHOSTADDR", "127.0.0.1,"),
        ("PGUSER", "My Group"),
        ("PGDATABASE", "d"),
        ("PGSSLMODE", "verify-ca"),
        ("PGSSLROOTCERT", "/ca.pem"),
        ("PGSSLNEGOTIATION", "direct"),
        ("PGTARGETSESSIONATTRS", "any"),
        ("PGLOADBALANCEHOSTS", "random"),
        ("PGCONNECT_TIMEOUT", "9"),
        ("PGAPPNAME", "app"),
        ("PGOPTIONS", "-c x=y"),
        ("PGREQUIREAUTH", "password"),
    ] {
        assert_eq!(variables.get(name).map(String::as_str), Some(value), "{name}");
    }
    let environment = connector.libpq_environment().await.unwrap();
    let token = machine.token().await;
    assert_eq!(environment.password().expose_secret(), token);
    assert!(!format!("{environment:?}").contains(&token));
}

#[tokio::test]
async fn the_systems_authorities_are_a_file_where_there_is_one() {
    let machine = Machine::start().await;
    let with = connector(&machine, "host=h user=u", &[(BUNDLE, "")]);
    assert_eq!(variables(&with).await["PGSSLROOTCERT"], BUNDLE);
    let without = connector(&machine, "host=h user=u", &[]);
    assert_eq!(variables(&without).await["PGSSLROOTCERT"], "system");

    let ours = Authority::generate().unwrap();
    let target = crate::server::target("host=h user=u").unwrap();
    let target = target.with_roots(Roots::from_pem(ours.pem().as_bytes()).unwrap());
    let in_memory = Connector::new(target, machine.credential.clone(), resource()).unwrap();
    assert!(in_memory.libpq_environment().await.unwrap_err().hint().unwrap().contains("sslrootcert"));
}

/// A program is started with an environment that would undo everything, and asked what it sees.
#[tokio::test]
async fn what_would_undo_it_is_taken_away() {
    let machine = Machine::start().await;
    let connector = connector(&machine, "host=h user=u", &[(BUNDLE, "")]);
    let environment = connector.libpq_environment().await.unwrap();
    let mut command = Command::new("env");
    for name in [
        "PGSERVICE",
        "PGSERVICEFILE",
        "PGHOSTADDR",
        "PGSSLCERT",
        "PGPASSFILE",
        "PGOPTIONS",
        "PGLOADBALANCEHOSTS",
        "PGSSLMODE",
    ] {
        command.env(name, "theirs");
    }
    environment.apply(&mut command);
    let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let seen: BTreeMap<&str, &str> = output.lines().filter_map(|line| line.split_once('=')).collect();
    assert_eq!(seen["PGSSLMODE"], "verify-full");
    assert_eq!(seen["PGPASSWORD"], machine.token().await);
    assert!(!output.contains("theirs"), "{:?}", seen.keys());
}

/// A program behind a listener of the proxy: none of the direct connection's settings is left.
#[tokio::test]
async fn a_program_behind_a_listener_knows_the_listener_alone() {
    let machine = Machine::start().await;
    let conninfo = "host=h user=u dbname=d application_name=app sslnegotiation=direct";
    let connector = connector(&machine, conninfo, &[(BUNDLE, "")]);
    let mut command = Command::new("env");
    command.env_clear().env("PATH", "/usr/bin:/bin");
    for name in [
        "PGSERVICE",
        "PGHOSTADDR",
        "PGPASSWORD",
        "PGPASSFILE",
        "PGSSLNEGOTIATION",
        "PGSSLROOTCERT",
        "PGREQUIREAUTH",
        "PGCHANNELBINDING",
        "PGTARGETSESSIONATTRS",
        "PGOPTIONS",
        "PGHOST",
    ] {
        command.env(name, "theirs");
    }
    command.env("PGCLIENTENCODING", "UTF8");
    ListenerEnvironment::new(connector.target(), "/run/listener", 5432).apply(&mut command);
    let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let mut seen: Vec<&str> = output.lines().filter(|line| line.starts_with("PG")).collect();
    seen.sort_unstable();
    let expected = [
        "PGAPPNAME=app",
        "PGCLIENTENCODING=UTF8",
        "PGDATABASE=d",
        "PGGSSENCMODE=disable",
        "PGHOST=/run/listener",
        "PGPORT=5432",
        "PGSSLMODE=disable",
        "PGUSER=u",
    ];
    assert_eq!(seen, expected);
}

#[test]
fn a_target_for_any_role_names_neither_role_nor_database() {
    let target = crate::server::target("host=h user=u dbname=d").unwrap().for_any_role();
    assert_eq!((target.named_user(), target.named_database()), (None, None));
    assert_eq!(target.endpoints()[0].host, "h");
}

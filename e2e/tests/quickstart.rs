//! `pgentra quickstart`: the whole article, on a machine without PostgreSQL.
#![expect(clippy::panic, reason = "a failing helper fails its test")]

use e2e::{Flavour, Lab, User, have};

/// The steps in the output, in this order.
const STEPS: [&str; 6] = [
    "1. A local cloud",
    "$ az vm identity assign -g myResourceGroup -n myVm",
    "$ az ad sp list --display-name myVm --query '[*].appId' --out tsv",
    "$ curl 'http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fossrdbms-aad.database.windows.net&client_id=",
    "$ pgentra token",
    "psql -h ",
];

fn check(user: User, flavour: Flavour, sql: &[&str]) {
    let lab = Lab::of(user);
    let played = lab
        .pgentra(&["quickstart", "--flavour", &flavour.to_string()])
        // no PostgreSQL and no other program is on the path
        .env("PATH", "/nowhere")
        .done();
    let text = played.ok();
    let end =
        text.find("\nConnected!\n\nPostgres version: PostgreSQL 17").unwrap_or_else(|| panic!("{text}"));
    assert_eq!(text[end..].lines().count(), 4, "{text}");
    let shown = format!("{}{}", played.stderr, text);
    let mut from = 0;
    for step in STEPS.iter().take(3).chain(sql).chain(&STEPS[3..]) {
        let at = shown[from..]
            .find(step)
            .unwrap_or_else(|| panic!("{step:?} is not, or not in its place, in\n{shown}"));
        from += at + step.len();
    }
    assert!(!shown.contains('\x1b'), "colours without a terminal: {shown:?}");
    lab.assert_nothing_left();
}

const FLEXIBLE: [&str; 1] = ["select * from pgaadauth_create_principal_with_oid('myuser', '"];
const SINGLE: [&str; 2] =
    ["SET aad_validate_oids_in_tenant = off;", "CREATE ROLE myuser WITH LOGIN PASSWORD '"];

#[test]
fn the_article_plays() {
    check(User::Ours, Flavour::Flexible, &FLEXIBLE);
    check(User::Ours, Flavour::Single, &SINGLE);
}

#[test]
fn the_article_plays_for_an_ordinary_user() {
    check(User::Ordinary, Flavour::Flexible, &FLEXIBLE);
    check(User::Ordinary, Flavour::Single, &SINGLE);
}

#[test]
fn the_article_plays_on_an_installed_postgresql() {
    let Some(folder) = std::fs::read_dir("/usr/lib/postgresql").ok().and_then(|mut folders| {
        folders.find_map(|folder| folder.ok().filter(|folder| folder.path().join("bin/initdb").exists()))
    }) else {
        return;
    };
    let version = folder.file_name().into_string().unwrap();
    let lab = Lab::new();
    for flavour in Flavour::ALL {
        let played = lab
            .pgentra(&[
                "quickstart",
                "--flavour",
                &flavour.to_string(),
                "--postgres",
                folder.path().to_str().unwrap(),
            ])
            .done();
        assert!(
            played.ok().contains(&format!("Postgres version: PostgreSQL {version}.")),
            "{}",
            played.stdout
        );
        lab.assert_nothing_left();
    }
}

#[test]
fn a_program_can_read_it() {
    let lab = Lab::new();
    let played = lab.pgentra(&["quickstart", "-o", "json"]).done().json();
    assert!(played["version"].as_str().unwrap().starts_with("PostgreSQL 17"), "{played}");
    let steps = played["steps"].as_array().unwrap();
    assert!(
        steps.len() >= 6 && steps.iter().all(|step| step["title"].is_string() && step["command"].is_string()),
        "{played}"
    );
}

#[test]
fn a_terminal_shows_progress() {
    if !have(&["script"]) {
        return;
    }
    let lab = Lab::new();
    let played =
        lab.program(&["script", "-qec", "pgentra quickstart", "/dev/null"]).env("TERM", "xterm").done();
    let text = played.ok();
    assert!(text.contains("starting PostgreSQL") && text.contains("\x1b["), "{text:?}");
    assert!(text.contains("Connected!"), "{text:?}");
}

/// With --keep the cloud of the article is there afterwards, until it is told to stop.
#[test]
fn it_can_be_kept() {
    let lab = Lab::new();
    let script = ": >said; pgentra quickstart --keep >out 2>>said & kept=$!\n\
                  grep -q 'keeps running' <(tail --pid=$kept -n +1 -f said) || { cat said; exit 1; }\n\
                  pgentra quickstart --keep && exit 1\n\
                  eval \"$(pgentra local env --name quickstart)\"\n\
                  pgentra query -o json -c 'SELECT current_user'\n\
                  pgentra query -U myuser -o json -c 'SELECT current_user'\n\
                  pgentra local down\nwait $kept\ncat out said";
    let done = lab.shell(script).done();
    for part in ["\"myVm\"", "\"myuser\"", "Connected!", "eval \"$(pgentra local env --name quickstart)\""] {
        assert!(done.ok().contains(part), "no {part}: {done:?}");
    }
    assert!(done.stderr.contains("a local cloud `quickstart` runs already"), "{done:?}");
    lab.await_processes();
    lab.assert_nothing_left();
}

/// Ctrl-C and other signals at several moments: after the folder exists, while PostgreSQL is
/// unpacked, initialised, started.
#[test]
fn interrupted_it_leaves_nothing() {
    let lab = Lab::new();
    for moment in ["", "db/runtime/bin", "db/data", "db/socket/.s.PGSQL.5432"] {
        for (signal, ends) in [("INT", "1"), ("TERM", "1"), ("KILL", "137")] {
            let script = format!(
                "set -m; pgentra quickstart & until [ -e \"$TMPDIR\"/pgentra-*quickstart-*/{moment} ]; do :; done\n\
                 kill -s {signal} -- -$!; status=0; wait $! || status=$?; echo \"ended $status\""
            );
            let done = lab.shell(&script).done();
            assert!(done.ok().ends_with(&format!("ended {ends}\n")), "{signal} at {moment:?}: {done:?}");
            lab.await_processes();
            lab.assert_nothing_left();
        }
    }
}

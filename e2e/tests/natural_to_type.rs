//! Commands typed without reading the manual: each does what it looks like, or is refused at once
//! with the right command in the hint.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use e2e::{Done, Flavour, Lab, have};

const USAGE: i32 = 2;
const REFUSED: i32 = 5;

type Variables = BTreeMap<String, String>;

/// Runs a command on its own terminal; the output is the terminal's content.
fn on_a_terminal<'lab>(lab: &'lab Lab, variables: &Variables, words: &str, input: &str) -> Done<'lab> {
    let run = lab.program(&["script", "--quiet", "--return", "--command", words, "/dev/null"]);
    run.envs(variables.clone()).env("TERM", "xterm").input(input).done()
}

/// Runs a shell script with these variables.
fn shell<'lab>(lab: &'lab Lab, variables: &Variables, script: &str) -> Done<'lab> {
    lab.shell(script).envs(variables.clone()).done()
}

#[test]
fn psql_takes_its_own_options() {
    if !have(&["psql"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let vm = cloud.env("vm");
    fs::write(lab.path().join("two.sql"), "select 2;\n\\echo three\n").unwrap();
    let file = lab.path().join("two.sql").display().to_string();
    for (words, expected) in [
        (&["psql", "-c", "select 1", "-At"][..], "1\n"),
        (&["psql", "-Atf", &file], "2\nthree\n"),
        (&["psql", "-XAtc", "select :x", "-v", "x=5"], "ERROR"),
        (&["psql", "-At", "-d", "postgres", "-U", "myVm", "-c", "select current_user"], "myVm\n"),
        (&["psql", "postgres", "myVm", "--csv", "--tuples-only", "--command=select 1, 2"], "1,2\n"),
        (&["psql", "-Atv", "x=5", "-f", "-"], "5\n"),
        (&["psql", "-Atc", "select 6", "--", "-F", "|"], "6\n"),
    ] {
        let done = lab.pgentra(words).envs(vm.clone()).input("select :x;\n").done();
        match expected {
            // psql does not replace variables in -c: the server refuses the colon.
            "ERROR" => assert!(done.stderr.contains("syntax error"), "{done:?}"),
            expected => assert_eq!(done.ok(), expected, "{words:?}"),
        }
    }
    let list = lab.pgentra(&["psql", "-lqtA"]).envs(vm.clone()).done();
    assert!(list.stdout.contains("template1") || list.stderr.contains("ERROR"), "{list:?}");
    let missing = lab.pgentra(&["psql", "-h"]).envs(vm).done();
    assert_eq!(missing.fault(USAGE, &["a value is required for --host", "pgentra psql --help"]), None);
}

#[test]
fn query_reads_files_and_standard_input() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let vm = cloud.env("vm");
    fs::write(lab.path().join("a.sql"), "select 'from a file' as a;\nselect 2 as b;\n").unwrap();
    let file = lab.path().join("a.sql").display().to_string();
    let query = |words: &[&str], input: &str| {
        lab.pgentra(&[&["query"], words].concat()).envs(vm.clone()).input(input).done()
    };
    let values = |done: Done<'_>| {
        let statements = done.json();
        let rows = statements.as_array().unwrap().iter().filter_map(|one| one["rows"][0][0].as_str());
        rows.map(str::to_owned).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(values(query(&["-o", "json", "-f", &file], "")), "from a file, 2");
    assert_eq!(values(query(&["-o", "json"], "select 1; select 2")), "1, 2");
    assert_eq!(
        values(query(&["-o", "json", "-c", "select 0", "-f", "-", "-c", "select 9"], "select 5")),
        "0, 5, 9"
    );
    for (words, input, says) in [
        (&["-f", "/nowhere.sql"][..], "", "/nowhere.sql"),
        (&["-c", "copy (select 1) to stdout"], "", "not for `pgentra query`"),
        (&["-c", "create temporary table t (a int); copy t from stdin"], "", "pgentra psql -c"),
        (&["-f", "-"], "copy (select 1) to stdout", "pgentra psql -f FILE"),
    ] {
        assert_eq!(query(words, input).fault(USAGE, &[says]), None, "{words:?}");
    }
    let terminal = on_a_terminal(&lab, &vm, "pgentra query", "");
    assert_eq!(terminal.status.code(), Some(USAGE), "{terminal:?}");
    assert!(terminal.stdout.contains("pgentra psql") && terminal.stdout.contains("-f FILE"), "{terminal:?}");
}

#[test]
fn query_says_what_the_server_notices_and_where_it_stops() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let vm = cloud.env("vm");
    let query = |sql: &str| lab.pgentra(&["query", "-c", sql]).envs(vm.clone()).done();
    let done =
        query("do $$begin raise notice 'hi'; raise warning E'\\x1b]0;pwn\\x07' using hint = 'h'; end$$");
    assert_eq!(done.ok(), "OK\n");
    assert!(done.stderr.contains("NOTICE:  hi\n"), "{done:?}");
    assert!(done.stderr.contains("WARNING:  \\x1B]0;pwn\\x07\nHINT:  h\n"), "{done:?}");
    for (sql, place) in [
        ("select 1 frm x", "LINE 1: select 1 frm x\n"),
        ("select 1;\nselekt 2", "  LINE 2: selekt 2\n          ^"),
        ("select nothing from pg_class", "  LINE 1: select nothing from pg_class\n                 ^"),
    ] {
        let done = query(sql);
        assert_eq!(done.status.code(), Some(REFUSED), "{done:?}");
        assert!(done.stderr.contains(place), "{done:?}");
        assert!(done.stderr.contains("see: pgentra doctor --explain statement-refused"), "{done:?}");
    }
    let done = lab.pgentra(&["query", "-f", "-"]).envs(vm.clone()).input("select 1;\n\\connect x\n").done();
    assert!(
        done.stderr.contains("standard input: ERROR") && done.stderr.contains("pgentra psql -f"),
        "{done:?}"
    );
}

#[test]
fn h_is_help_and_mistakes_have_hints() {
    let lab = Lab::new();
    for words in [
        &["-h"][..],
        &["token", "-h"],
        &["local", "-h"],
        &["local", "up", "-h"],
        &["local", "env", "-h"],
        &["proxy", "wait", "-h"],
        &["identity", "find", "-h"],
        &["man", "-h"],
        &["psql", "-?"],
    ] {
        let done = lab.pgentra(words).done();
        assert!(done.ok().contains("Usage: pgentra"), "{words:?}: {done:?}");
    }
    let mut faults = Vec::new();
    for (words, says) in [
        (&["query", "-h"][..], &["a value is required for --host", "help is --help"][..]),
        (&["token", "--token-timeout", "soon"], &["--token-timeout takes a time from 1s to 1h", "`soon`"]),
        (&["token", "--token-timeout", "-1"], &["--token-timeout takes a time", "`-1`"]),
        (&["token", "--source", "imsd"], &["imds, app-service", "`imsd`"]),
        (&["token", "--cloud", "mars"], &["public, usgov or china"]),
        (&["token", "--tenant", "a b"], &["a GUID or a domain name", "`a b`"]),
        (&["proxy", "wait", "--timeout", "2d"], &["--timeout takes a time from 0s to 24h"]),
        (&["local", "clock", "--advance", "400d"], &["--advance takes a time"]),
        (&["local", "status", "--nmae", "x"], &["no option --nmae", "did you mean --name?"]),
        (&["identity", "fnd"], &["`fnd` is no command of `pgentra identity`", "did you mean find?"]),
        (&["exec", "pg_dump", "--schema-only"], &["no option --schema-only", "pgentra exec --help"]),
    ] {
        faults.extend(lab.pgentra(words).done().fault(USAGE, says));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let filter = lab.pgentra(&["token"]).env("PGENTRA_LOG", "nonsense=foo").done();
    assert_eq!(
        filter.fault(USAGE, &["PGENTRA_LOG cannot be `nonsense=foo`", "pgentra_identity=debug"]),
        None
    );
}

#[test]
fn times_have_units_and_names_have_any_case() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let vm = cloud.env("vm");
    for words in [
        &["--token-timeout", "5s"][..],
        &["--token-timeout", "1m"],
        &["--token-timeout", "90"],
        &["--token-timeout", "30.0"],
        &["--source", "IMDS"],
        &["--cloud", "Public"],
        &["-o", "JSON"],
    ] {
        let done = lab.pgentra(&[&["whoami"], words].concat()).envs(vm.clone()).done();
        assert!(done.ok().contains("imds"), "{words:?}: {done:?}");
    }
    let before: u64 = lab.pgentra(&["local", "clock", "-o", "json"]).done().json()["now"].as_u64().unwrap();
    let after = lab.pgentra(&["local", "clock", "--advance", "1h30m", "-o", "json"]).done().json();
    assert!(after["now"].as_u64().unwrap() >= before + 5400, "{after}");
}

#[test]
fn a_proxy_is_told_its_server_by_a_word() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let mut vm = cloud.env("vm");
    let port = vm["PGPORT"].clone();
    // The server on the command line overrides the shell's variables.
    vm.insert("PGHOST".to_owned(), "wrong.invalid".to_owned());
    let server = format!("localhost:{port}");
    let proxy = lab.proxy(vm.clone(), &[&server, "--listen", "0", "--drain-timeout", "1s"], 1);
    let token = proxy.await_line("signed in as myVm (imds, token valid for ");
    assert!(token.contains("23 h 59 min"), "{token}");
    let connect = proxy.await_line("connect: psql ");
    let expected = format!("host=127.0.0.1 port={} user=myVm dbname=postgres", proxy.port());
    assert!(connect.contains(&expected), "{connect}");
    if have(&["psql"]) {
        let (_, command) = connect.split_once("connect: ").unwrap();
        let done = lab.shell(&format!("{command} -Atc 'select current_user'")).done();
        assert_eq!(done.ok(), "myVm\n");
    }
    let check = lab.pgentra(&["proxy", "--check", &server]).envs(vm.clone()).done();
    assert!(check.ok().contains("signed in"), "{check:?}");
    let mut faults = Vec::new();
    for (words, says) in [
        (
            &["stats"][..],
            &["\"stats\" is neither a command of \"pgentra proxy\" (wait, hash-password) nor a server"][..],
        ),
        (&["wiat"], &["\"wiat\" is neither", "pgentra proxy wait"]),
        (&["hash-pasword", "app"], &["\"hash-pasword\" is neither", "pgentra proxy hash-password"]),
        (&[&server, "--reuse", "maybe"], &["\"maybe\" is neither", "--reuse=false"]),
        (&[&server, "--max-connections", "0"], &["--max-connections: takes a number from 1 to 1000000"]),
        (&[&server, "--drain-timeout", "soon"], &["--drain-timeout: takes a time from 0s to 24h"]),
        (&[&server, "--listen", "99999"], &["ports are 0 to 65535"]),
        (&[&server, "--listen", "./run"], &["named from the root"]),
        (&[&server, "--tenant", "a b"], &["--tenant: takes a GUID"]),
    ] {
        let done = lab.pgentra(&[&["proxy"], words].concat()).envs(vm.clone()).within(30).done();
        faults.extend(done.fault(USAGE, says));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A proxy without a token says why, listens, and signs in as soon as there is one: no client has to
/// ask.
#[test]
fn a_proxy_without_a_token_says_why_and_asks_again() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let mut vm = cloud.env("vm");
    let server = format!("localhost:{}", vm["PGPORT"]);
    vm.remove("PGUSER");
    let marker = lab.path().join("marker");
    let command = format!("test -e {} && pgentra token --source imds", marker.display());
    for format in ["text", "json"] {
        let words = [&*server, "--listen", "0", "--token-command", &command, "--log-format", format];
        let said = format!(" -> {server}");
        let proxy = lab.proxy(vm.clone(), &words, 1);
        assert!(proxy.said().contains(&said), "{}", proxy.said());
        proxy.await_line(if format == "text" { "warning: no token from exec" } else { "no token from exec" });
        proxy.await_line("not signed in yet; the proxy listens, and asks for a token again");
        fs::write(&marker, "").unwrap();
        proxy.await_line("signed in as myVm (exec, token valid for ");
        if format == "json" {
            let lines = proxy.said();
            let lines = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
            let warning = lines.into_iter().find(|line| line["level"] == "WARN").unwrap();
            assert!(warning["hint"].as_str().unwrap().contains("--token-command by hand"), "{warning}");
        } else {
            assert!(proxy.said().contains("\nhint: "), "{}", proxy.said());
        }
        fs::remove_file(&marker).unwrap();
    }
}

#[test]
fn a_port_that_is_taken_leads_to_a_free_one() {
    let lab = Lab::new();
    let taken_here = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken_here.local_addr().unwrap().port().to_string();
    let environment = [("AZURE_POD_IDENTITY_AUTHORITY_HOST".to_owned(), "http://127.0.0.1:1".to_owned())];
    let words = ["proxy", "db.invalid", "--listen", &taken];
    let done = lab.pgentra(&words).envs(environment.clone()).within(30).done();
    assert_eq!(done.fault(1, &["cannot listen on", "this one is free: --listen "]), None);
    let (_, free) = done.stderr.split_once("--listen ").unwrap();
    let free: u16 = free.split_whitespace().next().unwrap().parse().unwrap();
    assert_ne!(free.to_string(), taken);
    // The option works as it is printed, with two targets as well.
    let words = ["db.invalid", "other.invalid", "--listen", &taken];
    let two = lab.pgentra(&[&["proxy"], &words[..]].concat()).envs(environment.clone()).within(30).done();
    let (_, free) = two.stderr.split_once("--listen ").unwrap();
    let free = free.split_whitespace().next().unwrap();
    lab.proxy(environment, &["db.invalid", "other.invalid", "--listen", free], 2);
    drop(taken_here);
}

#[test]
fn a_service_is_the_server_as_in_psql() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let vm = cloud.env("vm");
    let services = format!(
        "[local]\nhost=localhost\nport={}\nuser=myVm\ndbname=postgres\nsslmode=verify-full\nsslrootcert={}\n",
        vm["PGPORT"], vm["PGSSLROOTCERT"]
    );
    let file = lab.path().join("services");
    fs::write(&file, services).unwrap();
    let mut stale = vm;
    stale.insert("PGSERVICEFILE".to_owned(), file.display().to_string());
    for (name, value) in [("PGHOST", "stale.invalid"), ("PGPORT", "1"), ("PGUSER", "nobody_here")] {
        stale.insert(name.to_owned(), value.to_owned());
    }
    let sql = ["-o", "json", "-c", "select current_user"];
    for words in [&["service=local"][..], &["-d", "service=local"], &["postgresql:///?service=local"]] {
        let done = lab.pgentra(&[&["query"], words, &sql].concat()).envs(stale.clone()).done();
        assert_eq!(done.json()[0]["rows"][0][0], "myVm", "{words:?}");
    }
    stale.insert("PGSERVICE".to_owned(), "local".to_owned());
    let done = lab.pgentra(&[&["query"], &sql[..]].concat()).envs(stale).done();
    assert_eq!(done.json()[0]["rows"][0][0], "myVm");
}

#[test]
fn target_session_attrs_lead_to_the_primary() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let vm = cloud.env("vm");
    let port = &vm["PGPORT"];
    let hosts = format!("host=localhost,localhost port=1,{port} target_session_attrs=");
    for (attrs, code) in [("read-write", 0), ("primary", 0), ("prefer-standby", 0), ("standby", 4)] {
        let target = format!("{hosts}{attrs}");
        let done = lab.pgentra(&["query", &target, "-c", "select 1"]).envs(vm.clone()).done();
        assert_eq!(done.status.code(), Some(code), "{attrs}: {done:?}");
        if have(&["psql"]) {
            for words in [
                &["psql", &target, "-Atc", "select 1"][..],
                &["exec", &target, "--", "psql", "-Atc", "select 1"],
            ] {
                let done = lab.pgentra(words).envs(vm.clone()).done();
                assert_eq!(done.status.success(), code == 0, "{attrs}: {done:?}");
            }
        }
    }
    let variable = lab.pgentra(&["query", "-c", "select 1"]).envs(vm.clone());
    let done = variable.env("PGTARGETSESSIONATTRS", "standby").done();
    assert_eq!(done.fault(4, &["target_session_attrs=standby"]), None);
    let check = lab.pgentra(&["proxy", "--check", &format!("{hosts}primary user=myVm")]).envs(vm).done();
    assert!(check.ok().contains("signed in"), "{check:?}");
}

#[test]
fn a_shell_of_a_cloud_that_is_gone_is_told_at_once() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &["--name", "gone"]);
    let (vm, admin) = (cloud.env("vm"), cloud.env("admin"));
    assert_eq!(vm["PGENTRA_LOCAL"], "gone");
    // In that shell no command needs the name.
    lab.pgentra(&["local", "status"]).envs(vm.clone()).done().ok();
    let down = lab.pgentra(&["local", "down"]).envs(vm.clone()).done();
    down.ok();
    assert!(down.stderr.contains("pgentra local env --unset"), "{down:?}");
    cloud.ended();
    let commands: [&[&str]; 8] = [
        &["token"],
        &["whoami"],
        &["query", "-c", "select 1"],
        &["exec", "--", "true"],
        &["doctor"],
        &["proxy", "db.example"],
        &["role", "list"],
        &["identity", "find", "myVm"],
    ];
    let told = |says: &str| {
        let mut faults = Vec::new();
        for (words, variables) in commands.iter().zip([&vm, &admin].into_iter().cycle()) {
            let done = lab.pgentra(words).envs(variables.clone()).within(10).done();
            let says = [says, "pgentra local env --name gone", "pgentra local env --unset"];
            faults.extend(done.fault(USAGE, &says));
        }
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    };
    told("this shell is set up for the local cloud \"gone\", which has been stopped");
    let again = lab.cloud(Flavour::Flexible, &["--name", "gone"]);
    told("which has been stopped and started anew");
    lab.pgentra(&["query", "-c", "select 1"]).envs(again.env("vm")).done().ok();
    // What does not depend on the shell works in it.
    lab.pgentra(&["doctor", "--explain", "role-not-mapped"]).envs(vm.clone()).done().ok();
    lab.pgentra(&["local", "status"]).envs(vm.clone()).done().ok();
    let twice = lab.pgentra(&["local", "down", "--name", "never"]).done();
    twice.ok();
    assert!(twice.stderr.contains("no local cloud `never` runs; nothing to do"), "{twice:?}");
}

#[test]
fn a_shell_is_set_up_and_left_in_its_own_language() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    // Every variable of every host is taken away again, but for those that hold more than the local cloud.
    let unset = lab.pgentra(&["local", "env", "--unset", "--shell", "sh"]).done().ok().to_owned();
    let hosts = cloud.description()["environments"].as_object().unwrap();
    let names = hosts.values().flat_map(|variables| variables.as_object().unwrap().keys());
    let left: Vec<_> = names
        .filter(|name| !name.eq_ignore_ascii_case("no_proxy"))
        .filter(|name| !unset.contains(&format!("unset {name}\n")))
        .collect();
    assert!(left.is_empty(), "--unset forgets {left:?}");
    for (shell, own, setup) in [
        ("bash", "/bin/bash", "eval \"$(pgentra local env --host aks-binding)\""),
        ("zsh", "/usr/bin/zsh", "eval \"$(pgentra local env --host aks-binding)\""),
        ("fish", "/usr/bin/fish", "pgentra local env --host aks-binding | source"),
        ("fish", "/usr/bin/fish", "eval (pgentra local env --host vm)"),
    ] {
        if !have(&[shell]) {
            continue;
        }
        let unset = match shell {
            "fish" => "pgentra local env --unset | source",
            _ => "eval \"$(pgentra local env --unset)\"",
        };
        let script = format!(
            "{setup}\npgentra query -o json -c 'select current_user'\n{unset}\nenv | grep -c -E '^(PG|AZURE_|SSL_|REQUESTS_)'"
        );
        let done = lab.program(&[shell, "-c", &script]).env("SHELL", own).done();
        assert!(done.stdout.contains("\"my"), "{shell}: {done:?}");
        assert!(done.stdout.ends_with("\n0\n"), "{shell} keeps variables: {done:?}");
        assert_eq!(done.stderr, "", "{shell}");
    }
    // What `eval` takes fails where there is nothing to set.
    let failed =
        shell(&lab, &Variables::new(), "eval \"$(pgentra local env --host azure-arc)\" && echo went on");
    assert!(!failed.status.success() && failed.stdout.is_empty(), "{failed:?}");
    assert!(failed.stderr.contains("no Azure Arc server"), "{failed:?}");
    let failed = shell(&lab, &Variables::new(), "eval \"$(pgentra local env --name never)\" && echo went on");
    assert!(!failed.status.success() && failed.stdout.is_empty(), "{failed:?}");
    for (shell, line) in [
        ("powershell", "$Env:PGHOST = 'localhost'\n"),
        ("dotenv", "PGHOST='localhost'\n"),
        ("docker", "PGHOST=localhost\n"),
        ("FISH", "set -gx PGHOST 'localhost';\n"),
    ] {
        let done = lab.pgentra(&["local", "env", "--shell", shell]).done();
        assert!(done.ok().contains(line), "{done:?}");
    }
}

/// Each shell completes commands, options and values: of sources, of findings, and of the local
/// clouds that run.
#[test]
fn completions_offer_values_in_each_shell() {
    let lab = Lab::new();
    let _cloud = lab.cloud(Flavour::Flexible, &["--name", "spring"]);
    let plain = Variables::from([("NO_COLOR".to_owned(), "1".to_owned())]);
    // In bash and zsh the keys of a person are typed on a terminal.
    let typed = "pgentra vers\t\npgentra doctor --explain role-not-m\t\npgentra local status --name spr\t\n\
                 pgentra token --source im\t --hel\t\nexit\n";
    let version = lab.pgentra(&["--version"]).done().ok().trim().to_owned();
    let complete = |shown: &Done<'_>| {
        for part in
            [&*version, "The server asks for a password", "local cloud `spring`", "Usage: pgentra token"]
        {
            assert!(shown.stdout.contains(part), "no {part:?} in {shown:?}");
        }
    };
    if have(&["script"]) {
        let script = "source <(pgentra completions bash)\n";
        complete(&on_a_terminal(&lab, &plain, "bash --norc --noprofile -i", &format!("{script}{typed}")));
    }
    if have(&["script", "zsh"]) {
        lab.shell("mkdir -p .zfunc && pgentra completions zsh > .zfunc/_pgentra").done().ok();
        let script = "fpath=(~/.zfunc $fpath); autoload -Uz compinit && compinit -u\n";
        complete(&on_a_terminal(&lab, &plain, "zsh -f -i", &format!("{script}{typed}")));
        lab.shell("pgentra completions zsh > completions.zsh && zsh -n completions.zsh").done().ok();
    }
    if have(&["fish"]) {
        lab.shell("mkdir -p .config/fish/completions").done().ok();
        lab.shell("pgentra completions fish > .config/fish/completions/pgentra.fish").done().ok();
        for (line, value) in [
            ("pgentra lo", "local"),
            ("pgentra token --he", "--help"),
            ("pgentra token --source im", "imds"),
            ("pgentra query --cloud us", "usgov"),
            ("pgentra doctor --explain role-not-m", "role-not-mapped"),
            ("pgentra local status --name spr", "spring"),
        ] {
            let done = lab.program(&["fish", "-c", &format!("complete -C '{line}'")]).done();
            assert_eq!(done.stderr, "", "{done:?}");
            assert!(done.ok().lines().any(|one| one.split('\t').next() == Some(value)), "{line}: {done:?}");
        }
        lab.shell("fish --no-execute .config/fish/completions/pgentra.fish").done().ok();
    }
    let script = lab.pgentra(&["completions", "powershell"]).done();
    assert!(script.ok().contains("Register-ArgumentCompleter"), "{script:?}");
    if lab.shell("command -v pwsh").done().status.success() {
        let script = "pgentra completions powershell | Out-String | Invoke-Expression; \
                      (TabExpansion2 'pgentra token --source im' 25).CompletionMatches.CompletionText";
        let done = lab.program(&["pwsh", "-NoProfile", "-Command", script]).done();
        assert_eq!(done.ok().trim(), "imds");
    } else {
        eprintln!("e2e: no pwsh on the PATH; the script for PowerShell was printed and not loaded");
    }
}

#[test]
fn doctor_says_each_failure_once_and_ends_with_a_verdict() {
    if !have(&["script"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let mut vm = cloud.env("vm");
    vm.insert("LC_ALL".to_owned(), "C.UTF-8".to_owned());
    vm.insert("NO_COLOR".to_owned(), "1".to_owned());
    let done = on_a_terminal(&lab, &vm, "pgentra doctor", "");
    let last = done.ok().trim_end().lines().last().unwrap();
    let works = format!("✓ Everything works: \"myVm\" signs in to localhost:{}/postgres (", vm["PGPORT"]);
    assert!(last.contains(&works), "{done:?}");
    let folded = done.stdout.lines().count();
    let verbose = on_a_terminal(&lab, &vm, "pgentra doctor -v 2>/dev/null", "").ok().lines().count();
    assert!(folded < 20 && verbose > 2 * folded, "{folded} lines, with -v {verbose}");
    // Single Server has no labels that show the mapping.
    let other = Lab::new();
    let single = other.cloud(Flavour::Single, &[]);
    let mut on_single = single.env("vm");
    on_single.extend(["LC_ALL", "NO_COLOR"].map(|name| (name.to_owned(), vm[name].clone())));
    let legend = on_a_terminal(&other, &on_single, "pgentra doctor -v 2>/dev/null", "");
    assert!(legend.ok().contains("· no result: "), "{legend:?}");
    drop(single);
    drop(other);
    let done = on_a_terminal(&lab, &vm, "pgentra doctor -U nobody_here", "");
    assert_eq!(done.status.code(), Some(6), "{done:?}");
    assert_eq!(done.stdout.matches("is not mapped to Entra: the server").count(), 1, "{done:?}");
    assert_eq!(done.stdout.matches("hint:").count(), 1, "{done:?}");
    let last = done.stdout.trim_end().lines().last().unwrap();
    assert!(last.contains("✗ authentication: role-not-mapped"), "{done:?}");
    // The verdict names a command that works.
    let (_, next) = last.split_once("Next: ").unwrap();
    shell(&lab, &vm, next.trim()).ok();
    // A program that reads the report gets the message as well.
    let done = lab.pgentra(&["doctor", "-U", "nobody_here"]).envs(vm).done();
    assert!(done.stderr.contains("error: authentication.method: "), "{done:?}");
}

/// Results and messages fit terminals of 40, 60 and 120 columns, except what is there to copy; a
/// pipe gets every value in full.
#[test]
fn what_is_shown_fits_the_terminal() {
    if !have(&["script"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let mut admin = cloud.env("admin");
    admin.insert("LC_ALL".to_owned(), "C.UTF-8".to_owned());
    admin.insert("NO_COLOR".to_owned(), "1".to_owned());
    let sql = "select repeat('wide ', 60) as a, 1 as b";
    for words in [
        "pgentra doctor",
        "pgentra doctor -U nobody_here",
        "pgentra doctor --explain role-not-mapped",
        "pgentra doctor --explain",
        "pgentra role list",
        "pgentra identity find my --prefix",
        "pgentra identity server-admin list --server mydemoserver",
        &*format!("pgentra query -c \"{sql}\""),
        "pgentra query -c 'select * from pg_roles'",
        "pgentra query -h nowhere.invalid -c 'select 1'",
        "pgentra token --tenant 'a b'",
    ] {
        for width in [40, 60, 120] {
            let done = on_a_terminal(&lab, &admin, &format!("stty rows 40 cols {width}; {words}"), "");
            assert!(!done.stdout.is_empty(), "{done:?}");
            let wide: Vec<_> = done
                .stdout
                .lines()
                .filter(|line| line.trim_end().chars().count() > width)
                // A word that is wider than the line is not broken, and neither is a command.
                .filter(|line| line.split_whitespace().all(|word| word.chars().count() < width - 12))
                .filter(|line| !["pgentra ", "SELECT "].iter().any(|it| line.trim_start().starts_with(it)))
                .collect();
            assert!(wide.is_empty(), "{words}, {width} columns: {wide:#?}\n{done:?}");
        }
    }
    let listed = |words: &str| on_a_terminal(&lab, &admin, &format!("stty rows 40 cols 120; {words}"), "");
    let tenant = cloud.text("/tenant_id");
    let list = listed("pgentra role list");
    assert!(
        !list.ok().contains(&tenant) && list.stdout.contains("-v also shows: tenant, source"),
        "{list:?}"
    );
    assert!(listed("pgentra role list -v 2>/dev/null").ok().contains(&tenant));
    let piped = shell(&lab, &admin, "pgentra role list");
    assert!(piped.ok().contains(&tenant) && !piped.stdout.contains("-v also"), "{piped:?}");
    let wide = shell(&lab, &admin, &format!("pgentra query -c \"{sql}\""));
    assert!(wide.ok().contains(&"wide ".repeat(60)), "{wide:?}");
    // COLUMNS sets the width of a terminal, and of nothing else.
    let narrow = on_a_terminal(&lab, &admin, "COLUMNS=50 pgentra doctor --explain timeout", "");
    let mut prose = narrow.ok().lines().filter(|line| !line.starts_with("  pgentra"));
    assert!(prose.all(|line| line.trim_end().chars().count() <= 50), "{narrow:?}");
}

#[test]
fn a_finding_is_explained_without_marks() {
    let lab = Lab::new();
    let done = lab.pgentra(&["doctor", "--explain", "role-not-mapped"]).done();
    for mark in ["```", "*enterprise", "`pgentra", "]("] {
        assert!(!done.ok().contains(mark), "{mark} in {done:?}");
    }
    // Each command can be copied from its line.
    let commands: Vec<_> = done.stdout.lines().filter_map(|line| line.strip_prefix("  pgentra ")).collect();
    assert_eq!(commands[0], "whoami", "{done:?}");
}

#[test]
fn a_wait_shows_a_sign_of_life() {
    if !have(&["script"]) {
        return;
    }
    let lab = Lab::new();
    // A metadata service that fails each time: tries follow one another with growing waits.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(
                b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            );
        }
    });
    let mut variables = Variables::new();
    variables.insert("AZURE_POD_IDENTITY_AUTHORITY_HOST".to_owned(), format!("http://127.0.0.1:{port}"));
    variables.insert("NO_COLOR".to_owned(), "1".to_owned());
    let words = "pgentra token --source imds --token-timeout 4s";
    let done = on_a_terminal(&lab, &variables, words, "");
    assert_eq!(done.status.code(), Some(3), "{done:?}");
    assert!(done.stdout.contains("waiting for the metadata service, try 2 of 6"), "{done:?}");
    assert!(!done.stdout.contains("\u{1b}[3") && !done.stdout.contains("\u{1b}[1;3"), "colour: {done:?}");
    let piped = shell(&lab, &variables, words);
    assert!(!piped.stderr.contains("waiting for"), "{piped:?}");
}

#[test]
fn roles_are_changed_after_one_question() {
    if !have(&["script"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let admin = cloud.env("admin");
    let create = ["role", "create", "spare", "--object-id", "00000000-1111-2222-3333-444444444444"];
    lab.pgentra(&create).envs(admin.clone()).done().ok();
    let asked = lab.pgentra(&["role", "drop", "spare"]).envs(admin.clone()).done();
    assert_eq!(asked.status.code(), Some(USAGE), "{asked:?}");
    assert!(asked.stderr.contains("--yes") && asked.stderr.contains("nothing was changed"), "{asked:?}");
    let no = on_a_terminal(&lab, &admin, "pgentra role drop spare", "n\n");
    assert!(no.ok().contains("Carry this out? [y/N]") && no.stdout.contains("nothing was changed"), "{no:?}");
    let there = |name: &str| lab.pgentra(&["role", "list"]).envs(admin.clone()).done().ok().contains(name);
    assert!(there("spare"));
    let yes = on_a_terminal(&lab, &admin, "pgentra role drop spare", "y\n");
    assert!(yes.ok().contains("Done: 0 added, 0 changed, 1 removed."), "{yes:?}");
    assert!(!there("spare"));
    // The plan warns that clients of a renamed role must use its new name.
    let id = cloud.identity("system-assigned")["object_id"].as_str().unwrap().to_owned();
    let file = format!("[[role]]\nname = \"my-app\"\nkind = \"service\"\nobject_id = \"{id}\"\n");
    fs::write(lab.path().join("roles.toml"), file).unwrap();
    let path = lab.path().join("roles.toml").display().to_string();
    let plan = lab.pgentra(&["role", "plan", "-f", &path]).envs(admin.clone()).done();
    let warning = "clients that sign in as \"myVm\" have to sign in as \"my-app\"";
    assert!(plan.ok().contains(warning), "{plan:?}");
    lab.pgentra(&["role", "apply", "-f", &path, "--yes"]).envs(admin.clone()).done().ok();
    assert!(there("my-app"));
    // Without changes there is no question.
    lab.pgentra(&["role", "apply", "-f", &path]).envs(admin).done().ok();
}

//! The commands against a local cloud: their output, their exit codes, and the start and end of the
//! cloud.
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use e2e::{Flavour, Lab, User, have};
use eventually::{DEADLINE, eventually_blocking};
use rustix::process::{Pid, Signal, kill_process};

#[test]
fn token_prints_a_token() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    for (host, source) in [
        ("vm", "imds"),
        ("user-assigned", "imds"),
        ("app-service", "app-service"),
        ("aks", "workload-identity"),
        ("admin", "cloud-shell"),
    ] {
        let plain = lab.pgentra(&["token"]).envs(cloud.env(host)).token();
        assert!(plain.starts_with("eyJ"), "{host}");
        let script = "pgentra token -o json | jq -r '.source, .token_type, .resource, (.expires_on > now + 600), .access_token'";
        if !have(&["jq"]) {
            continue;
        }
        let lines = lab.shell(&format!("{script} | head -4")).envs(cloud.env(host)).done();
        let resource = "https://ossrdbms-aad.database.windows.net";
        assert_eq!(lines.ok(), format!("{source}\nBearer\n{resource}\ntrue\n"), "{host}");
        lab.shell(&format!("{script} | tail -1")).envs(cloud.env(host)).token();
    }
    // the verbose log has everything but the token
    let script = "pgentra -vv token | cut -d. -f1,2,3";
    lab.shell(script).envs(cloud.env("vm")).token();
}

/// On every host of the local cloud the identity is found, and its role can sign in.
#[test]
fn every_host_signs_in() {
    for flavour in Flavour::ALL {
        let lab = Lab::new();
        let cloud = lab.cloud(flavour, &[]);
        let hosts = cloud.description()["environments"].as_object().unwrap();
        assert!(hosts.len() >= 5, "{hosts:?}");
        for host in hosts.keys() {
            let variables = cloud.env(host);
            let role = variables["PGUSER"].clone();
            let asked =
                lab.pgentra(&["query", "-c", "SELECT current_user", "-o", "json"]).envs(variables).done();
            assert_eq!(asked.json()[0]["rows"][0][0], role.as_str(), "{flavour}, {host}");
        }
    }
}

#[test]
fn query_prints_results() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let vm = cloud.env("vm");
    let query = |words: &[&str]| lab.pgentra(&[&["query"], words].concat()).envs(vm.clone()).done();
    assert_eq!(
        query(&["-c", "SELECT 1 AS one, NULL AS nothing, 'ü' AS text"]).ok(),
        " one | nothing | text\n-----+---------+------\n 1   |         | ü\n(1 row)\n\n"
    );
    let all = query(&[
        "-o",
        "json",
        "-c",
        "CREATE TEMP TABLE t (n int); INSERT INTO t VALUES (1), (2)",
        "-c",
        "SELECT n, NULL FROM t ORDER BY n",
    ]);
    let all = all.json();
    assert_eq!(all[1]["affected"], 2, "{all}");
    assert_eq!(all[2]["rows"].to_string(), r#"[["1",null],["2",null]]"#, "{all}");
    // the second of several statements fails: the result of the first was printed
    let failing = query(&["-c", "SELECT 'before'", "-c", "SELECT 1/0"]);
    assert_eq!(failing.status.code(), Some(5));
    assert!(failing.stdout.contains("before"), "{failing:?}");
    // a URI and a conninfo string name the server as in psql, and override everything else
    let (port, ca) = (cloud.text("/server/port"), cloud.text("/server/sslrootcert"));
    for conninfo in [
        format!("postgres://myVm@localhost:{port}/postgres?sslmode=verify-full&sslrootcert={ca}"),
        format!("host=localhost port={port} user=myVm dbname=postgres sslrootcert='{ca}'"),
    ] {
        let done = lab
            .pgentra(&["query", "-c", "SELECT current_database()", &conninfo])
            .envs(vm.clone())
            .env("PGHOST", "no-such-host.invalid")
            .env("PGDATABASE", "nowhere")
            .env("PGPORT", "1")
            .env("PGUSER", "nobody_here")
            .done();
        assert!(done.ok().contains("postgres"), "{done:?}");
    }
}

#[test]
fn psql_and_exec_sign_programs_in() {
    if !have(&["psql"]) {
        return;
    }
    for flavour in Flavour::ALL {
        let lab = Lab::new();
        let cloud = lab.cloud(flavour, &[]);
        let vm = cloud.env("vm");
        let run = |words: &[&str]| lab.pgentra(words).envs(vm.clone());
        assert_eq!(run(&["psql", "--", "-tAc", "SELECT current_user"]).done().ok(), "myVm\n");
        assert_eq!(
            run(&["exec", "--", "psql", "-tAc", "SELECT ssl FROM pg_stat_ssl WHERE pid = -1"]).done().ok(),
            ""
        );
        // exit code and signal are those of the program
        assert_eq!(
            run(&["psql", "--", "-v", "ON_ERROR_STOP=1", "-c", "SELECT 1/0"]).done().status.code(),
            Some(1)
        );
        assert_eq!(run(&["exec", "--", "sh", "-c", "exit 42"]).done().status.code(), Some(42));
        assert_eq!(run(&["exec", "--", "sh", "-c", "kill -TERM $$"]).done().signal(), Some(15));
        let absent = run(&["exec", "--", "no-such-program"]).done();
        assert!(absent.fails(2).contains("no-such-program"), "{absent:?}");
    }
}

#[test]
fn a_local_cloud_describes_itself() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Single, &["--name", "named"]);
    let status = lab.pgentra(&["local", "status", "--name", "named", "-o", "json"]).done().json();
    assert_eq!(&status, cloud.description());
    assert_eq!(status["flavour"], "single");
    let text = lab.pgentra(&["local", "status", "--name", "named"]).done();
    for word in
        ["named", "single", &cloud.text("/metadata_url"), &cloud.text("/tenant_id"), "myVm", "myIdentity"]
    {
        assert!(text.ok().contains(word), "no {word} in\n{}", text.stdout);
    }
    // a shell's variables are those that a program reads
    for host in ["vm", "user-assigned", "app-service", "aks", "admin"] {
        let script = format!("eval \"$(pgentra local env --name named --host {host})\"; env");
        let shell = lab.shell(&script).done();
        for (name, value) in cloud.env(host) {
            assert!(
                shell.ok().lines().any(|line| line == format!("{name}={value}")),
                "{host}: {name}={value}"
            );
        }
    }
    // a second cloud of the same name
    let again = lab.pgentra(&["local", "up", "--name", "named"]).done();
    assert!(again.fails(2).contains("runs already"), "{again:?}");
    // there is no cloud of another name
    assert!(lab.pgentra(&["local", "status"]).done().fails(2).contains("pgentra local up"));
}

#[test]
fn several_run_side_by_side_and_detached() {
    let lab = Lab::new();
    let one = lab.pgentra(&["local", "up", "--detach", "--name", "one", "-o", "json"]).done().json();
    let two = lab.pgentra(&["local", "up", "--detach", "--name", "two", "--flavour", "single", "-vv"]).done();
    two.ok();
    assert!(two.stderr.contains("PostgreSQL started"), "the background process is as verbose: {two:?}");
    for (name, flavour) in [("one", "flexible"), ("two", "single")] {
        let status = lab.pgentra(&["local", "status", "--name", name, "-o", "json"]).done().json();
        assert_eq!(status["flavour"], flavour);
        let script = format!(
            "eval \"$(pgentra local env --name {name})\"; pgentra query -o json -c 'SELECT current_user'"
        );
        assert!(lab.shell(&script).done().ok().contains("myVm"));
    }
    let folder = PathBuf::from(one["folder"].as_str().unwrap());
    for name in ["one", "two"] {
        lab.pgentra(&["local", "down", "--name", name]).done().ok();
    }
    assert!(!folder.exists());
    lab.await_processes();
    lab.assert_nothing_left();
}

#[test]
fn an_ordinary_user_has_one() {
    let lab = Lab::of(User::Ordinary);
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let asked = lab
        .pgentra(&["query", "-c", "SELECT current_user", "-o", "json"])
        .envs(cloud.env("vm"))
        .done()
        .json();
    assert_eq!(asked[0]["rows"][0][0], "myVm");
}

/// Ids, ports and the certificate authority are those of the name; the key is its user's alone.
#[test]
fn a_local_cloud_is_the_same_again() {
    let lab = Lab::of(User::Ordinary);
    let up = || {
        let cloud = lab.pgentra(&["local", "up", "--detach", "--name", "one", "-o", "json"]).done();
        let status = cloud.json();
        let ca = std::fs::read_to_string(status["server"]["sslrootcert"].as_str().unwrap()).unwrap();
        (status, ca, cloud)
    };
    let down = || assert!(lab.pgentra(&["local", "down", "--name", "one"]).done().status.success());
    let (first, ca, _) = up();
    down();
    let (again, same_ca, _) = up();
    down();
    for key in ["server", "metadata_url", "authority_host", "management_url", "tenant_id", "identities"] {
        assert_eq!(first[key], again[key], "{key}");
    }
    assert_eq!(ca, same_ca);
    assert_ne!(first["instance"], again["instance"]);

    let state = lab.path().join("home/.local/state/pgentra/local");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&state), mode(&state.join("one.pem"))), (0o700, 0o600));

    // A port that is taken is replaced, and the user is told.
    let port = u16::try_from(first["server"]["port"].as_u64().unwrap()).unwrap();
    let _taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let (other, same_ca, told) = up();
    assert_ne!(other["server"]["port"], first["server"]["port"]);
    assert_eq!(other["metadata_url"], first["metadata_url"]);
    assert_eq!(ca, same_ca);
    assert!(told.stderr.contains("usual port is taken"), "{told:?}");
    let script = "eval \"$(pgentra local env --name one)\"; pgentra query -o json -c 'SELECT current_user'";
    assert!(lab.shell(script).done().ok().contains("myVm"));
    down();

    std::fs::set_permissions(state.join("one.pem"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let refused = lab.pgentra(&["local", "up", "--name", "one"]).done();
    assert!(refused.fails(1).contains("may be read by other users"), "{refused:?}");
}

#[test]
fn local_clouds_are_listed() {
    let lab = Lab::new();
    let none = lab.pgentra(&["local", "list"]).done();
    assert_eq!(none.ok(), "");
    assert!(none.stderr.contains("no local cloud runs"), "{none:?}");
    assert_eq!(lab.pgentra(&["local", "list", "-o", "json"]).done().json(), serde_json::json!([]));

    let cloud = lab.cloud(Flavour::Single, &["--name", "listed"]);
    let nothing = PathBuf::from(format!("{}x", cloud.folder().display()));
    std::fs::create_dir(&nothing).unwrap();
    let list = lab.pgentra(&["local", "list", "-o", "json"]).done().json();
    let [one] = list.as_array().unwrap().as_slice() else { panic!("{list}") };
    assert_eq!((&one["name"], &one["flavour"]), (&"listed".into(), &"single".into()));
    assert_eq!(one["port"], cloud.description()["server"]["port"]);
    assert_eq!(one["metadata_url"], cloud.description()["metadata_url"]);
    assert_eq!(one["started"], cloud.description()["started"]);
    assert!(one["started"].as_u64().unwrap() > 1_700_000_000, "{one}");
    let text = lab.pgentra(&["local", "list"]).done();
    for word in ["listed", "single", &format!("localhost:{}", one["port"]), "ago", "(1 row)"] {
        assert!(text.ok().contains(word), "no {word} in\n{}", text.stdout);
    }
    std::fs::remove_dir(nothing).unwrap();
}

/// Whether a shell is there. PowerShell is in no distribution's packages, so `have` does not know it.
fn installed(lab: &Lab, shell: &str) -> bool {
    if shell != "pwsh" || lab.shell("command -v pwsh").done().status.success() {
        return shell == "pwsh" || have(&[shell]);
    }
    // Not a print macro: those are captured by the test harness.
    let _ = std::io::stderr().write_all(b"e2e: left out of every_shell_is_set_up: pwsh is not installed\n");
    false
}

/// Each shell loads the variables and unsets them.
#[test]
fn every_shell_is_set_up() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let port = cloud.text("/server/port");
    for (shell, program, load, unset) in [
        (
            "bash",
            "bash",
            "eval \"$(pgentra local env --shell bash)\"",
            "eval \"$(pgentra local env --shell bash --unset)\"",
        ),
        (
            "zsh",
            "zsh",
            "eval \"$(pgentra local env --shell zsh)\"",
            "eval \"$(pgentra local env --shell zsh --unset)\"",
        ),
        (
            "fish",
            "fish",
            "pgentra local env --shell fish | source",
            "pgentra local env --shell fish --unset | source",
        ),
        (
            "powershell",
            "pwsh",
            "pgentra local env --shell powershell | Out-String | Invoke-Expression",
            "pgentra local env --shell powershell --unset | Out-String | Invoke-Expression",
        ),
    ] {
        if !installed(&lab, program) {
            continue;
        }
        let ask = "pgentra query -o json -c 'SELECT current_user'";
        let script =
            format!("{load}\nprintenv PGPORT\n{ask}\n{unset}\nprintenv PGPORT PGENTRA_LOCAL; echo gone");
        let done = lab.program(&[program, "-c", &script]).done();
        assert!(done.ok().starts_with(&format!("{port}\n")), "{shell}: {done:?}");
        assert!(done.ok().contains("myVm") && done.ok().ends_with("]\ngone\n"), "{shell}: {done:?}");
    }
    for (shell, line) in [("dotenv", format!("PGPORT='{port}'\n")), ("docker", format!("PGPORT={port}\n"))] {
        let file = lab.pgentra(&["local", "env", "--shell", shell]).done();
        assert!(file.ok().contains(&line), "{shell}: {file:?}");
        let unset = lab.pgentra(&["local", "env", "--shell", shell, "--unset"]).done();
        assert!(unset.fails(2).contains("--unset goes with"), "{shell}: {unset:?}");
    }
}

#[test]
fn ports_can_be_chosen() {
    let lab = Lab::new();
    let free =
        || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let (port, metadata) = (free(), free());
    let cloud = lab.cloud(Flavour::Flexible, &["--port", &port, "--metadata-port", &metadata]);
    assert_eq!(cloud.text("/server/port"), port);
    assert_eq!(cloud.text("/metadata_url"), format!("http://127.0.0.1:{metadata}"));
}

/// Invariant 9: a local cloud leaves no files and processes behind, however it ends.
#[test]
fn a_local_cloud_leaves_nothing() {
    let lab = Lab::new();
    for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::KILL] {
        let cloud = lab.cloud(Flavour::Flexible, &[]);
        let folder = cloud.folder();
        // with an open session
        let session = lab.pgentra(&["query", "-c", "SELECT pg_sleep(1000)"]).envs(cloud.env("vm"));
        let pid = cloud.pid();
        std::thread::scope(|scope| {
            let session = scope.spawn(|| session.done());
            eventually_blocking(DEADLINE, "the server runs the query", || {
                assert!(!session.is_finished(), "the query ended by itself");
                runs_query(&folder)
            });
            kill_process(pid, signal).unwrap();
            let status = cloud.ended();
            assert_eq!(status.success(), signal != Signal::KILL, "{signal:?}: {status}");
            let session = session.join().unwrap();
            assert!(matches!(session.status.code(), Some(4 | 5)), "{signal:?}: {session:?}");
        });
        lab.await_processes();
        assert!(!folder.exists(), "{signal:?}");
        lab.assert_nothing_left();
    }
}

/// Without its PostgreSQL the cloud reports an error and ends.
#[test]
fn a_local_cloud_notices_the_end_of_its_postgresql() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let lock_file = std::fs::read_to_string(cloud.folder().join("db/data/postmaster.pid")).unwrap();
    kill_process(Pid::from_raw(lock_file.lines().next().unwrap().parse().unwrap()).unwrap(), Signal::KILL)
        .unwrap();
    assert_eq!(cloud.ended().code(), Some(1));
}

#[test]
fn completions_and_the_manual_are_sound() {
    let lab = Lab::new();
    lab.shell("pgentra completions bash | bash -n").done().ok();
    for (shell, registers) in [
        ("zsh", "compdef "),
        ("fish", "complete "),
        ("elvish", "edit:completion:arg-completer"),
        ("powershell", "Register-ArgumentCompleter"),
    ] {
        assert!(lab.pgentra(&["completions", shell]).done().ok().contains(registers), "{shell}");
    }
    // the environment of a shell that never completes does not change a command
    let version = lab.pgentra(&["version"]).env("COMPLETE", "bash").done();
    assert_eq!(version.ok(), lab.pgentra(&["--version"]).done().ok());
    let page = lab.pgentra(&["man"]).done();
    assert!(page.ok().starts_with(".ie") && page.ok().contains(".TH pgentra"), "{}", page.stdout);
    // a closed pipe is not an error
    lab.shell("pgentra man | head -c 10 >/dev/null").done().ok();
}

/// Whether a session of the server in this folder runs a query.
fn runs_query(folder: &Path) -> bool {
    let lock_file = std::fs::read_to_string(folder.join("db/data/postmaster.pid")).unwrap();
    let children = format!(") S {} ", lock_file.lines().next().unwrap());
    std::fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path())).any(|process| {
        let file = |name| std::fs::read_to_string(process.join(name)).unwrap_or_default();
        file("stat").contains(&children) && file("cmdline").contains("SELECT")
    })
}

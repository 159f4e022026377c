//! `pgentra gateway init`: prepares a PostgreSQL for the gateway.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use pgentra_gateway::{Flavour, ServerScript, ServerScriptMethod, SigningAuthority};
use pgentra_session::login_error::chain;
use pgentra_system::System;
use secrecy::{ExposeSecret as _, SecretString};
use tokio_postgres::NoTls;
use tokio_postgres::config::Host;
use uuid::Uuid;

use super::arguments::{GatewayMethod, Init, InitFlavour};
use crate::blame::Blame;
use crate::output;
use crate::problem::{Outcome, Problem};

/// Longest file in bytes.
const LENGTH: usize = 64 * 1024;
/// The mode of files with a key or a password.
const PRIVATE: u32 = 0o600;
/// The mode of a certificate.
const PUBLIC: u32 = 0o644;

/// Prints the SQL and the lines, or runs the SQL and prints the lines.
pub(crate) async fn run(system: &System, arguments: Init) -> Outcome {
    let script = ServerScript {
        flavour: match arguments.flavour {
            InitFlavour::Flexible => Some(Flavour::Flexible),
            InitFlavour::Single => Some(Flavour::Single),
            InitFlavour::None => None,
        },
        tenant: arguments.tenant,
        method: method(system, &arguments)?,
        administrators: arguments.admin.iter().map(|admin| admin.0.clone()).collect(),
        gateways: arguments.gateway.clone(),
    };
    if script.flavour == Some(Flavour::Single) && arguments.method != GatewayMethod::Scram {
        return Err(Problem::new(Blame::Usage, "flavour single needs method scram").hint(
            "there, the password of a role is the id of its principal: --method scram --password-file FILE",
        ));
    }
    if script.flavour.is_none() && !script.administrators.is_empty() {
        return Err(Problem::new(Blame::Usage, "--admin is for a mapping in the database")
            .hint("with flavour none, write an [[admin]] table in the mapping file"));
    }
    if !script.gateways.is_empty() && arguments.method == GatewayMethod::Peer {
        return Err(Problem::new(Blame::Usage, "--gateway is for the methods cert and scram")
            .hint("with method peer, the gateway runs on the server's machine; or: --method cert"));
    }
    let sql = script.sql().map_err(|error| Problem::ours("cannot make the script", error))?;
    match &arguments.apply {
        Some(conninfo) => {
            let (version, roles) = apply(conninfo, &sql).await?;
            let ident = script.ident(version, &roles);
            output::result(&format!("the server is prepared\n\n{}", lines(&script, &ident, "")))
        }
        None => {
            let mut text = sql;
            text.push_str(&format!("\n{}", lines(&script, &script.ident(16, &[]), "-- ")));
            if matches!(script.method, ServerScriptMethod::Peer(_)) {
                text.push_str("-- Before PostgreSQL 16, pg_ident.conf needs a line for each role in the place of all: init --apply prints them.\n");
            }
            output::exact(&text)
        }
    }
}

/// The lines of the server's configuration files.
fn lines(script: &ServerScript, ident: &str, mark: &str) -> String {
    let mut text = format!("{mark}pg_hba.conf, above all other lines:\n");
    let mut add =
        |lines: &str| lines.lines().for_each(|line| text.push_str(&format!("{mark}{}\n", line.trim_end())));
    add(&script.hba());
    if !ident.is_empty() {
        add("pg_ident.conf:");
        add(ident);
    }
    text
}

fn method(system: &System, arguments: &Init) -> Outcome<ServerScriptMethod> {
    match (arguments.method, &arguments.authority, &arguments.password_file) {
        (GatewayMethod::Cert, Some(path), _) => {
            make_authority(system, path)?;
            Ok(ServerScriptMethod::Certificate)
        }
        (GatewayMethod::Scram, _, Some(path)) => Ok(ServerScriptMethod::Password(password(system, path)?)),
        // The arguments are required for the other methods.
        _ => Ok(ServerScriptMethod::Peer(arguments.user.clone().unwrap_or_default())),
    }
}

/// Makes the authority, unless there is one, and writes its certificate beside it.
fn make_authority(system: &System, path: &Path) -> Outcome {
    let authority = match system.files().read_private(path, LENGTH) {
        Ok(text) => SigningAuthority::from_pem(&text).map_err(|error| {
            Problem::new(Blame::Usage, format!("{}: {}", path.display(), chain(&error)))
                .hint("name a file that does not exist: a new authority is made")
        })?,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let authority = SigningAuthority::generate(system.clock().now())
                .map_err(|error| Problem::ours("cannot make an authority", error))?;
            write(path, authority.to_pem().expose_secret(), PRIVATE, true)?;
            authority
        }
        Err(error) => return Err(unreadable(path, &error)),
    };
    let mut certificate = path.as_os_str().to_owned();
    certificate.push(".crt");
    write(Path::new(&certificate), authority.certificate_pem(), PUBLIC, false)
}

/// The password in the file, or a new one.
fn password(system: &System, path: &Path) -> Outcome<SecretString> {
    match system.files().read_private(path, LENGTH) {
        Ok(text) => {
            let text = String::from_utf8(text).ok();
            let line = text.as_deref().and_then(|text| text.lines().next()).filter(|line| !line.is_empty());
            line.map(|line| line.to_owned().into()).ok_or_else(|| {
                Problem::new(Blame::Usage, format!("the first line of {} is no password", path.display()))
                    .hint("name a file that does not exist: a password is made")
            })
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let password = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
            write(path, &format!("{password}\n"), PRIVATE, true)?;
            Ok(password.into())
        }
        Err(error) => Err(unreadable(path, &error)),
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Problem {
    Problem::new(Blame::Usage, format!("{} cannot be read: {error}", path.display()))
        .hint("it is for one user alone: chmod 0600 FILE, and run this as that user")
}

fn write(path: &Path, text: &str, mode: u32, is_new: bool) -> Outcome {
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .create_new(is_new)
        .truncate(!is_new)
        .mode(mode)
        .open(path);
    opened.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| {
        Problem::new(Blame::Usage, format!("{} cannot be written: {error}", path.display()))
            .hint("name a file in a folder that this user may write")
    })
}

/// Runs the SQL. Returns the server's major version and the mapped roles.
async fn apply(conninfo: &str, sql: &str) -> Outcome<(u32, Vec<String>)> {
    let usage = |message: String| {
        Problem::new(Blame::Usage, message)
            .hint("run this on the server's machine: --apply 'host=/var/run/postgresql user=postgres'")
    };
    let mut config: tokio_postgres::Config =
        conninfo.parse().map_err(|_| usage("the conninfo string of --apply cannot be read".to_owned()))?;
    let is_local = |host: &Host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
        }
    };
    if config.get_hosts().is_empty() || !config.get_hosts().iter().all(is_local) {
        return Err(usage(
            "--apply needs a Unix socket or the loopback interface: the connection has no TLS".to_owned(),
        ));
    }
    config.dbname("postgres").application_name("pgentra gateway init");
    let refused = |error: &tokio_postgres::Error| match error.as_db_error() {
        Some(error) => format!("{} (SQLSTATE {})", error.message(), error.code().code()),
        None => chain(error),
    };
    let (client, connection) = config.connect(NoTls).await.map_err(|error| {
        let blame = if error.as_db_error().is_some() { Blame::Server } else { Blame::Network };
        Problem::new(blame, format!("cannot connect as the superuser: {}", refused(&error)))
            .hint("run it as the user that may: sudo -u postgres pgentra gateway init …")
    })?;
    tokio::spawn(connection);
    client.batch_execute(sql).await.map_err(|error| {
        Problem::new(Blame::Server, format!("the server cannot be prepared: {}", refused(&error)))
            .hint("the role of --apply has to be a superuser; nothing was changed")
    })?;
    let asked = "SELECT current_setting('server_version_num'),
                        array(SELECT r.rolname::text FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member
                              JOIN pg_roles g ON g.oid = m.roleid WHERE g.rolname = 'pgentra_principal' ORDER BY 1)";
    let row = client.query_one(asked, &[]).await.map_err(|error| {
        Problem::new(Blame::Server, format!("the roles cannot be read: {}", refused(&error)))
    })?;
    let version: u32 = row.get::<_, &str>(0).parse().unwrap_or_default();
    Ok((version / 10_000, row.get(1)))
}

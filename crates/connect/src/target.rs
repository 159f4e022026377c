//! The complete settings of a connection.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use crate::error::ConnectError;
use crate::keyword as word;
use crate::keyword::excerpt;
use crate::layers::Layers;
use crate::load_balance::LoadBalanceHosts;
use crate::origin::Origin;
use crate::quote;
use crate::roots::{RootSource, Roots};
use pgentra_wire::session_attrs::SessionAttrs;

/// How long one address may take from the first packet to a session that is ready, unless `connect_timeout` says
/// otherwise. A lost packet of the dial is sent again after 1, 3 and 7 seconds: three tries fit in.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// The longest `connect_timeout`; libpq's 0, "wait for ever", is refused.
const CONNECT_TIMEOUT_LIMIT: u64 = 3600;

const DEFAULT_PORT: u16 = 5432;

/// More hosts than this are likely a mistake, and each may take a whole `connect_timeout`.
const HOSTS_LIMIT: usize = 16;

/// The complete settings of a connection: hosts, role, database, TLS, timeouts.
///
/// `Display` is one line for a log: role, hosts, database, verification. Nothing in a target is secret. Equal
/// targets connect to the same hosts in the same way, and trust the same authorities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    endpoints: Vec<HostSpec>,
    user: String,
    database: String,
    ssl_mode: SslMode,
    ssl_negotiation: SslNegotiation,
    roots: Roots,
    system_bundle: Option<String>,
    connect_timeout: Duration,
    application_name: Option<String>,
    options: Option<String>,
    keep_alive: Option<KeepAlive>,
    user_timeout: Option<Duration>,
    session_attrs: SessionAttrs,
    load_balance_hosts: LoadBalanceHosts,
    decided: Vec<Decided>,
}

/// Name, address and port of a server; a connection may list several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSpec {
    /// The name or address that the certificate must be for.
    pub host: String,
    /// The address to dial instead of asking for the name's (`hostaddr`).
    pub address: Option<IpAddr>,
    /// The TCP port; 5432 by default.
    pub port: u16,
}

/// How a server proves who it is. Both names are libpq's; its weaker modes do not exist here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SslMode {
    /// A certificate of a trusted authority for the very name that was asked for.
    #[default]
    VerifyFull,
    /// A certificate of an authority that is named in `sslrootcert`, for whatever name. With the operating system's
    /// authorities any domain owner could get such a certificate, so it needs a file.
    VerifyCa,
}

/// How the client starts TLS: by an SSLRequest or at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SslNegotiation {
    /// The client asks for it first (`SSLRequest`): every server.
    #[default]
    Postgres,
    /// At once, with the protocol named in the handshake: PostgreSQL 17 and later, one round trip less.
    Direct,
}

/// TCP keep-alive, so that a gateway on the way does not forget an idle connection. Azure's forget after four minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepAlive {
    /// Idle time before the first probe. Default: one minute.
    pub idle: Duration,
    /// Time between probes. Default: ten seconds.
    pub interval: Duration,
    /// Probes without an answer before the connection counts as dead. Default: 6.
    pub count: u32,
}

/// Which layer decided a keyword.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// The keyword, such as `host`.
    pub keyword: &'static str,
    /// The value in force; never a secret.
    pub value: String,
    /// The layer that gave the value.
    pub origin: Origin,
}

impl Default for KeepAlive {
    fn default() -> Self {
        KeepAlive { idle: Duration::from_secs(60), interval: Duration::from_secs(10), count: 6 }
    }
}

impl Target {
    /// Resolves all settings from the layers, and reads the file that `sslrootcert` names.
    ///
    /// A host and a role must be named. The database defaults to the role's name, the port to 5432, `sslmode` to
    /// `verify-full`, `connect_timeout` to [`DEFAULT_CONNECT_TIMEOUT`], trust to the operating system's.
    ///
    /// # Errors
    /// A missing host or role; a value that cannot be; `sslmode` below `verify-ca`; a Unix socket, which has no TLS.
    pub fn resolve(layers: &Layers) -> Result<Target, ConnectError> {
        let target = Target::resolve_server(layers)?;
        if target.user.is_empty() { Err(no_role()) } else { Ok(target) }
    }

    /// The same where the role may be left open, for sessions whose start-up comes from elsewhere
    /// ([`Connector::open`](crate::Connector::open)). Where no role is named, [`Target::user`] is empty, and so is
    /// [`Target::database`] where none is named either.
    ///
    /// # Errors
    /// As [`Target::resolve`], but for the missing role.
    pub fn resolve_server(layers: &Layers) -> Result<Target, ConnectError> {
        let mut reading = KeywordReader { layers, decided: Vec::new() };
        let endpoints = reading.endpoints()?;
        let user = reading.text(word::USER).unwrap_or_default();
        let database = reading.or_default(word::DBNAME, &user);
        let ssl_mode = reading.ssl_mode()?;
        let roots = match reading.text(word::SSLROOTCERT) {
            Some(value) => Roots::from_setting(&value, layers.files())
                .map_err(|error| error.hinting(reading.trust(&value)))?,
            None => Roots::platform(),
        };
        if ssl_mode == SslMode::VerifyCa && matches!(roots.0, RootSource::Platform) {
            return Err(ConnectError::config(
                "sslmode=verify-ca needs the server's own authority in sslrootcert",
            )
            .hinting(format!(
                "{}, or name a file in sslrootcert: any public authority would do otherwise",
                reading.remedy(word::SSLMODE)
            )));
        }
        let application_name =
            reading.text(word::APPLICATION_NAME).or_else(|| reading.text(word::FALLBACK_APPLICATION_NAME));
        Ok(Target {
            endpoints,
            user,
            database,
            ssl_mode,
            ssl_negotiation: reading.ssl_negotiation()?,
            roots,
            system_bundle: layers.system_bundle().map(str::to_owned),
            connect_timeout: reading.connect_timeout()?,
            application_name,
            options: reading.text(word::OPTIONS),
            keep_alive: reading.keep_alive()?,
            user_timeout: reading.user_timeout()?,
            session_attrs: reading.session_attrs()?,
            load_balance_hosts: reading.load_balance_hosts()?,
            decided: reading.decided,
        })
    }

    /// The same target, checked against these authorities instead.
    #[must_use]
    pub fn with_roots(mut self, roots: Roots) -> Target {
        self.roots = roots;
        self
    }

    /// The same target, another database of it.
    #[must_use]
    pub fn with_database(mut self, database: &str) -> Target {
        database.clone_into(&mut self.database);
        self
    }

    /// The same target, servers of another kind.
    #[must_use]
    pub fn with_session_attrs(mut self, attrs: SessionAttrs) -> Target {
        self.session_attrs = attrs;
        self
    }

    /// The same servers, where role and database are the client's choice, as with
    /// [`Target::resolve_server`]: for [`Connector::open`](crate::Connector::open).
    #[must_use]
    pub fn for_any_role(mut self) -> Target {
        self.user.clear();
        self.database.clear();
        self.decided.retain(|decided| ![word::USER, word::DBNAME].contains(&decided.keyword));
        self
    }

    /// The servers, in the order in which they are named.
    pub fn endpoints(&self) -> &[HostSpec] {
        &self.endpoints
    }

    /// The database role that the session signs in as; empty if no layer names it.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The database that the session opens.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The role, if a layer names it.
    pub fn named_user(&self) -> Option<&str> {
        Some(&*self.user).filter(|user| !user.is_empty())
    }

    /// The database, if a layer names it.
    pub fn named_database(&self) -> Option<&str> {
        let named = |decided: &&Decided| decided.keyword == word::DBNAME && decided.origin != Origin::Default;
        self.decided.iter().find(named).map(|decided| &*decided.value)
    }

    /// How the server proves who it is.
    pub fn ssl_mode(&self) -> SslMode {
        self.ssl_mode
    }

    /// Whether TLS begins with an SSLRequest (`postgres`) or at once (`direct`).
    pub fn ssl_negotiation(&self) -> SslNegotiation {
        self.ssl_negotiation
    }

    /// The authorities that the server's certificate is checked against.
    pub fn roots(&self) -> &Roots {
        &self.roots
    }

    /// How long one address may take, from the first packet to a session that is ready.
    pub fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    /// The name that the server shows for the session.
    pub fn application_name(&self) -> Option<&str> {
        self.application_name.as_deref()
    }

    /// Command-line options for the server process.
    pub fn options(&self) -> Option<&str> {
        self.options.as_deref()
    }

    /// TCP keep-alive; `None` if it was turned off.
    pub fn keep_alive(&self) -> Option<KeepAlive> {
        self.keep_alive
    }

    /// How long what was sent may stay without an acknowledgement before the connection counts as dead; so long, too, a
    /// server may read nothing. `None`: as long as the system has it, about a quarter of an hour for the former. Keep-alive
    /// sees to idle connections alone. Linux only; elsewhere it is as the system has it (libpq, `tcp_user_timeout`).
    pub fn user_timeout(&self) -> Option<Duration> {
        self.user_timeout
    }

    /// Which of several servers is taken.
    pub fn session_attrs(&self) -> SessionAttrs {
        self.session_attrs
    }

    /// In which order the servers are tried.
    pub fn load_balance_hosts(&self) -> LoadBalanceHosts {
        self.load_balance_hosts
    }

    pub(crate) fn system_bundle(&self) -> Option<&str> {
        self.system_bundle.as_deref()
    }

    /// The deciding layer of each keyword that a layer names, or that has a default worth showing.
    pub fn decided(&self) -> &[Decided] {
        &self.decided
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "role {} on ", quote::name(&self.user))?;
        for (number, endpoint) in self.endpoints.iter().enumerate() {
            write!(f, "{}{endpoint}", if number == 0 { "" } else { ", " })?;
        }
        write!(f, ", database {}, sslmode={}", quote::name(&self.database), self.ssl_mode)
    }
}

impl fmt::Display for HostSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl SslMode {
    /// The value as libpq's `sslmode` spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            SslMode::VerifyFull => "verify-full",
            SslMode::VerifyCa => "verify-ca",
        }
    }
}

impl fmt::Display for SslMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl SslNegotiation {
    /// The value as libpq's `sslnegotiation` spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            SslNegotiation::Postgres => "postgres",
            SslNegotiation::Direct => "direct",
        }
    }
}

pub(crate) fn no_role() -> ConnectError {
    ConnectError::config("no database role is named").hinting("name the role with -U, or set PGUSER")
}

/// Reads keywords and keeps who decided them.
struct KeywordReader<'a> {
    layers: &'a Layers,
    decided: Vec<Decided>,
}

impl KeywordReader<'_> {
    fn text(&mut self, keyword: &'static str) -> Option<String> {
        let setting = self.layers.find(keyword)?;
        let (value, origin) = (setting.value.clone(), setting.origin.clone());
        self.decided.push(Decided { keyword, value: value.clone(), origin });
        Some(value)
    }

    fn or_default(&mut self, keyword: &'static str, default: &str) -> String {
        self.text(keyword).unwrap_or_else(|| {
            self.decided.push(Decided { keyword, value: default.to_owned(), origin: Origin::Default });
            default.to_owned()
        })
    }

    /// One host may have the port of all; several may have one each (PostgreSQL, "Specifying Multiple Hosts").
    fn endpoints(&mut self) -> Result<Vec<HostSpec>, ConnectError> {
        let hosts = self.text(word::HOST);
        let addresses = self.text(word::HOSTADDR);
        let ports = self.or_default(word::PORT, &DEFAULT_PORT.to_string());
        let Some(names) = hosts.as_deref().or(addresses.as_deref()) else {
            return Err(ConnectError::config("no server is named")
                .hinting("name it with -h, such as my-server.postgres.database.azure.com, or set PGHOST"));
        };
        let names: Vec<&str> = names.split(',').map(str::trim).collect();
        if names.len() > HOSTS_LIMIT {
            return Err(ConnectError::config(format!("more than {HOSTS_LIMIT} hosts are named"))
                .hinting(self.remedy(word::HOST)));
        }
        let addresses = each(addresses.as_deref(), names.len(), word::HOSTADDR)
            .map_err(|error| error.hinting(self.remedy(word::HOSTADDR)))?;
        let ports: Vec<&str> = ports.split(',').map(str::trim).collect();
        if ports.len() != 1 && ports.len() != names.len() {
            let message = format!("{} ports are named for {} hosts", ports.len(), names.len());
            let hint = format!("name one port, or one for each host; {}", self.remedy(word::PORT));
            return Err(ConnectError::config(message).hinting(hint));
        }
        let mut endpoints = Vec::new();
        for (number, name) in names.into_iter().enumerate() {
            let port = if ports.len() == 1 { ports[0] } else { ports[number] };
            endpoints.push(self.endpoint(name, addresses[number], port)?);
        }
        Ok(endpoints)
    }

    fn endpoint(&self, host: &str, address: Option<&str>, port: &str) -> Result<HostSpec, ConnectError> {
        if host.is_empty() {
            return Err(ConnectError::config("one of the hosts has no name").hinting(self.remedy(word::HOST)));
        }
        if host.starts_with('/') || host.starts_with('@') {
            return Err(ConnectError::config(
                "a Unix socket has no TLS, and a token is only sent inside verified TLS",
            )
            .hinting(format!("name the server by its host name with -h; {}", self.remedy(word::HOST))));
        }
        let address = match address {
            None | Some("") => None,
            Some(text) => Some(
                IpAddr::from_str(text)
                    .map_err(|_| self.not_a_value(word::HOSTADDR, text, "an IP address"))?,
            ),
        };
        let port = match port {
            "" => DEFAULT_PORT,
            text => match text.parse() {
                Ok(port) if port != 0 => port,
                _ => return Err(self.not_a_value(word::PORT, text, "a number from 1 to 65535")),
            },
        };
        Ok(HostSpec { host: host.to_owned(), address, port })
    }

    fn ssl_mode(&mut self) -> Result<SslMode, ConnectError> {
        match self.or_default(word::SSLMODE, SslMode::default().as_str()).as_str() {
            "verify-full" => Ok(SslMode::VerifyFull),
            "verify-ca" => Ok(SslMode::VerifyCa),
            weak @ ("disable" | "allow" | "prefer" | "require") => {
                let message = format!("sslmode={weak} would give the access token to an unverified server");
                Err(ConnectError::config(message).hinting(format!(
                    "{}; for a server with a private authority name its certificate with sslrootcert=FILE",
                    self.remedy(word::SSLMODE)
                )))
            }
            other => Err(self.not_a_value(word::SSLMODE, other, "verify-full or verify-ca")),
        }
    }

    fn ssl_negotiation(&mut self) -> Result<SslNegotiation, ConnectError> {
        match self.text(word::SSLNEGOTIATION).as_deref() {
            None | Some("postgres") => Ok(SslNegotiation::Postgres),
            Some("direct") => Ok(SslNegotiation::Direct),
            Some(other) => Err(self.not_a_value(word::SSLNEGOTIATION, other, "postgres or direct")),
        }
    }

    fn session_attrs(&mut self) -> Result<SessionAttrs, ConnectError> {
        let possible = "any, read-write, read-only, primary, standby or prefer-standby";
        let Some(text) = self.text(word::TARGET_SESSION_ATTRS) else { return Ok(SessionAttrs::default()) };
        let origin = self.decided.last().map(|decided| decided.origin.to_string()).unwrap_or_default();
        let possible = format!("{possible}; this comes from {origin}");
        text.parse().map_err(|()| not_a_value(word::TARGET_SESSION_ATTRS, &text, &possible))
    }

    fn load_balance_hosts(&mut self) -> Result<LoadBalanceHosts, ConnectError> {
        let Some(text) = self.text(word::LOAD_BALANCE_HOSTS) else { return Ok(LoadBalanceHosts::default()) };
        text.parse().map_err(|()| self.not_a_value(word::LOAD_BALANCE_HOSTS, &text, "disable or random"))
    }

    fn connect_timeout(&mut self) -> Result<Duration, ConnectError> {
        let Some(text) = self.text(word::CONNECT_TIMEOUT) else { return Ok(DEFAULT_CONNECT_TIMEOUT) };
        match text.parse() {
            Ok(seconds) if (1..=CONNECT_TIMEOUT_LIMIT).contains(&seconds) => Ok(Duration::from_secs(seconds)),
            _ => Err(self.not_a_value(word::CONNECT_TIMEOUT, &text, "1 to 3600 seconds")),
        }
    }

    fn keep_alive(&mut self) -> Result<Option<KeepAlive>, ConnectError> {
        let on = match self.text(word::KEEPALIVES).as_deref() {
            None | Some("1") => true,
            Some("0") => false,
            Some(other) => return Err(self.not_a_value(word::KEEPALIVES, other, "1 or 0")),
        };
        let default = KeepAlive::default();
        let mut seconds = |keyword, default: Duration| -> Result<Duration, ConnectError> {
            Ok(self.positive(keyword)?.map_or(default, |seconds| Duration::from_secs(seconds.into())))
        };
        let idle = seconds(word::KEEPALIVES_IDLE, default.idle)?;
        let interval = seconds(word::KEEPALIVES_INTERVAL, default.interval)?;
        let count = self.positive(word::KEEPALIVES_COUNT)?.map_or(default.count, u32::from);
        Ok(on.then_some(KeepAlive { idle, interval, count }))
    }

    /// 0 means the system's, as with libpq.
    fn user_timeout(&mut self) -> Result<Option<Duration>, ConnectError> {
        let Some(text) = self.text(word::TCP_USER_TIMEOUT) else { return Ok(None) };
        let limit = "a number of milliseconds, at most 2147483647";
        match text.parse::<u32>() {
            Ok(0) => Ok(None),
            Ok(milliseconds) if i32::try_from(milliseconds).is_ok() => {
                Ok(Some(Duration::from_millis(milliseconds.into())))
            }
            _ => Err(self.not_a_value(word::TCP_USER_TIMEOUT, &text, limit)),
        }
    }

    /// 0 means the default, as with libpq.
    fn positive(&mut self, keyword: &'static str) -> Result<Option<u16>, ConnectError> {
        let Some(text) = self.text(keyword) else { return Ok(None) };
        let number =
            text.parse().map_err(|_| self.not_a_value(keyword, &text, "a number from 0 to 65535"))?;
        Ok(Some(number).filter(|number| *number != 0))
    }

    /// How the value that was read for this keyword is taken away.
    fn remedy(&self, keyword: &str) -> String {
        let decided = self.decided.iter().rfind(|decided| decided.keyword == keyword);
        decided.map_or(&Origin::Default, |decided| &decided.origin).remedy(keyword)
    }

    /// What to do about a file in sslrootcert that is of no use.
    fn trust(&self, file: &str) -> String {
        format!(
            "{} to trust the operating system's authorities, or put a certificate in PEM into {file}",
            self.remedy(word::SSLROOTCERT)
        )
    }

    fn not_a_value(&self, keyword: &str, value: &str, possible: &str) -> ConnectError {
        let error = not_a_value(keyword, value, possible);
        error.hinting(format!("{keyword} is {possible}; {}", self.remedy(keyword)))
    }
}

/// A list that is absent, or as long as that of the hosts.
fn each<'a>(
    list: Option<&'a str>,
    hosts: usize,
    keyword: &str,
) -> Result<Vec<Option<&'a str>>, ConnectError> {
    let Some(list) = list else { return Ok(vec![None; hosts]) };
    let list: Vec<Option<&str>> = list.split(',').map(|value| Some(value.trim())).collect();
    if list.len() == hosts {
        return Ok(list);
    }
    Err(ConnectError::config(format!("{} values of {keyword} are named for {hosts} hosts", list.len())))
}

fn not_a_value(keyword: &str, value: &str, possible: &str) -> ConnectError {
    ConnectError::config(format!("{keyword} cannot be {}", quote::name(&excerpt(value))))
        .hinting(format!("{keyword} is {possible}"))
}

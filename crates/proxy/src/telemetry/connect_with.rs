//! What a person copies to connect to a listener.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use pgentra_connect::{Target, quote};
use serde::Serialize;

/// How clients on this machine connect to a listener.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct ConnectWith {
    listener: String,
    /// A command for a shell.
    psql: Option<String>,
    /// A JDBC URL; PostgreSQL's JDBC driver knows no Unix sockets.
    jdbc: Option<String>,
}

/// What a client needs to connect to a target.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientAccess {
    /// A role that it may name, if roles are mapped.
    pub(crate) role: Option<String>,
    /// A database that leads to the target, if several share the listener.
    pub(crate) database: Option<String>,
    /// Over TCP.
    pub(crate) has_tls: bool,
    pub(crate) asks_for_certificates: bool,
}

/// The database if the target leaves it to the client: every server of Azure has it.
const DATABASE: &str = "postgres";

impl ConnectWith {
    /// For the listener with this name. The role is that of the target; if the target leaves it to
    /// the client, the first role that fits the token. Nothing if a client needs a certificate.
    pub(super) fn new(
        listener: String,
        target: Option<&Target>,
        fitting: Option<&str>,
        access: &ClientAccess,
    ) -> Self {
        let role = access.role.as_deref().or_else(|| target.and_then(Target::named_user)).or(fitting);
        let named = target.and_then(Target::named_database).or(access.database.as_deref());
        let database = Some(named.unwrap_or(DATABASE));
        let place = place(&listener);
        let is_network = place.as_ref().is_some_and(|(host, _)| !host.starts_with('/'));
        let Some((host, port)) = place.filter(|_| !(is_network && access.asks_for_certificates)) else {
            return Self { listener, psql: None, jdbc: None };
        };
        // Also without TLS: PGSSLMODE may be set for the server itself.
        let ssl = Some(if access.has_tls { "require" } else { "disable" }).filter(|_| is_network);
        let words = [
            ("host", Some(host.as_str())),
            ("port", Some(port.as_str())),
            ("user", role),
            ("dbname", database),
            ("sslmode", ssl),
        ];
        let words: Vec<_> = words
            .into_iter()
            .filter_map(|(key, value)| Some(format!("{key}={}", conninfo_word(value?))))
            .collect();
        Self {
            psql: Some(format!("psql {}", quote::shell_word(&words.join(" ")))),
            jdbc: is_network.then(|| jdbc((&host, &port), role, database, ssl)),
            listener,
        }
    }
}

fn jdbc((host, port): (&str, &str), role: Option<&str>, database: Option<&str>, ssl: Option<&str>) -> String {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let query: Vec<_> = [("user", role), ("sslmode", ssl)]
        .into_iter()
        .filter_map(|(key, value)| Some(format!("{key}={}", encoded(value?))))
        .collect();
    let mark = if query.is_empty() { "" } else { "?" };
    format!(
        "jdbc:postgresql://{host}:{port}/{}{mark}{}",
        database.map(encoded).unwrap_or_default(),
        query.join("&")
    )
}

/// The host and port of a listener's name: an address, or the path of a socket.
fn place(listener: &str) -> Option<(String, String)> {
    if let Ok(address) = listener.parse::<SocketAddr>() {
        // Not every system connects to the address of all interfaces.
        let host = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        return Some((host.to_string(), address.port().to_string()));
    }
    let path = Path::new(listener);
    let port = path.file_name()?.to_str()?.strip_prefix(".s.PGSQL.")?;
    Some((path.parent()?.to_str()?.to_owned(), port.to_owned()))
}

/// A value of a conninfo string, in quotes where it needs them.
fn conninfo_word(value: &str) -> String {
    let is_plain = |char: char| char.is_alphanumeric() || "_-./:@%+,".contains(char);
    if !value.is_empty() && value.chars().all(is_plain) {
        value.to_owned()
    } else {
        quote::conninfo_value(value)
    }
}

fn encoded(value: &str) -> String {
    form_urlencoded::byte_serialize(value.as_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use pgentra_connect::Layers;
    use pgentra_system::{Env, Files};

    use super::*;

    fn of(listener: &str, target: &str, access: &ClientAccess) -> (Option<String>, Option<String>) {
        let env = Env::from_map::<String, String>([]);
        let layers = Layers::gather(Some(target), &[], &env, &Files::in_memory()).unwrap();
        let target = Target::resolve_server(&layers).unwrap();
        let ConnectWith { psql, jdbc, .. } =
            ConnectWith::new(listener.to_owned(), Some(&target), Some("myVm"), access);
        (psql, jdbc)
    }

    #[test]
    fn a_listener_is_reached_with_the_names_of_its_target() {
        let plain = ClientAccess::default();
        let tls = ClientAccess { has_tls: true, ..plain.clone() };
        let routed = ClientAccess { database: Some("orders".to_owned()), ..plain.clone() };
        let mapped = ClientAccess { role: Some("web".to_owned()), ..plain.clone() };
        for (listener, target, access, psql, jdbc) in [
            (
                "127.0.0.1:6432",
                "host=h user=app dbname=orders",
                &plain,
                "psql 'host=127.0.0.1 port=6432 user=app dbname=orders sslmode=disable'",
                Some("jdbc:postgresql://127.0.0.1:6432/orders?user=app&sslmode=disable"),
            ),
            (
                "0.0.0.0:6432",
                "host=h",
                &tls,
                "psql 'host=127.0.0.1 port=6432 user=myVm dbname=postgres sslmode=require'",
                Some("jdbc:postgresql://127.0.0.1:6432/postgres?user=myVm&sslmode=require"),
            ),
            (
                "127.0.0.1:6432",
                "host=h",
                &routed,
                "psql 'host=127.0.0.1 port=6432 user=myVm dbname=orders sslmode=disable'",
                Some("jdbc:postgresql://127.0.0.1:6432/orders?user=myVm&sslmode=disable"),
            ),
            (
                "[::]:6432",
                "host=h user='my app' dbname='a&b'",
                &plain,
                r"psql 'host=::1 port=6432 user='\''my app'\'' dbname='\''a&b'\'' sslmode=disable'",
                Some("jdbc:postgresql://[::1]:6432/a%26b?user=my+app&sslmode=disable"),
            ),
            (
                "/run/pgentra/.s.PGSQL.5432",
                "host=h user=app dbname=orders",
                &mapped,
                "psql 'host=/run/pgentra port=5432 user=web dbname=orders'",
                None,
            ),
        ] {
            assert_eq!(of(listener, target, access), (Some(psql.to_owned()), jdbc.map(str::to_owned)));
        }
        let certificate = ClientAccess { asks_for_certificates: true, ..tls };
        for (listener, access) in [("somewhere", &plain), ("127.0.0.1:6432", &certificate)] {
            assert_eq!(of(listener, "host=h", access), (None, None));
        }
    }
}

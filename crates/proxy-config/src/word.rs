//! Targets that are given as a single word.

use std::net::IpAddr;

/// The connection string of a target: the text itself, or that of the server which a word names.
/// `None`: the word names no server.
///
/// A word with a dot is the name of a server, and so are `localhost`, an address, and any of these
/// with `:PORT`. libpq would take any other word as a database on the server in the environment,
/// which is probably not meant.
pub(crate) fn connection_string(text: &str) -> Option<String> {
    if text.contains('=') || text.contains("://") {
        return Some(text.to_owned());
    }
    let servers: Vec<_> = text.split(',').map(server).collect::<Option<_>>()?;
    let hosts: Vec<_> = servers.iter().map(|(host, _)| *host).collect();
    let host = format!("host={}", hosts.join(","));
    if servers.iter().all(|(_, port)| port.is_empty()) {
        return Some(host);
    }
    let ports: Vec<_> = servers.iter().map(|(_, port)| *port).collect();
    Some(format!("{host} port={}", ports.join(",")))
}

/// A host and its port, which may be empty.
fn server(text: &str) -> Option<(&str, &str)> {
    if text.parse::<IpAddr>().is_ok() {
        return Some((text, ""));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => (host, port),
        Some(_) => return None,
        None => (text, ""),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let is_name = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
            && text.starts_with(|first: char| first.is_ascii_alphanumeric())
    };
    let is_server =
        host == "localhost" || host.parse::<IpAddr>().is_ok() || (host.contains('.') && is_name(host));
    is_server.then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_a_server_or_nothing() {
        for (word, string) in [
            ("my-server.postgres.database.azure.com", "host=my-server.postgres.database.azure.com"),
            ("db.example:6432", "host=db.example port=6432"),
            ("localhost", "host=localhost"),
            ("localhost:5433", "host=localhost port=5433"),
            ("10.0.0.4", "host=10.0.0.4"),
            ("::1", "host=::1"),
            ("[::1]:5433", "host=::1 port=5433"),
            ("a.example,b.example:1", "host=a.example,b.example port=,1"),
            ("dbname=app", "dbname=app"),
            ("postgresql:///app", "postgresql:///app"),
        ] {
            assert_eq!(connection_string(word).as_deref(), Some(string), "{word}");
        }
        for word in [
            "stats",
            "wiat",
            "hash-pasword",
            "maybe",
            "",
            "app:5432",
            "a.example:x",
            ".x",
            "a.example,b",
            "a b.c",
            "../x",
        ] {
            assert_eq!(connection_string(word), None, "{word}");
        }
    }
}

//! The messages after the first tokens: the identities, and how to connect.

use std::time::{Duration, SystemTime};

use pgentra_connect::{Connector, TokenState, quote};
use pgentra_proxy_config::{ListenAddr, RunningProxy, TargetSettings};

/// The identities, and how to connect to each listener.
pub(crate) fn lines(running: &RunningProxy) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for target in running.targets() {
        let identity = identity(&target.connector.token_state(), target.connector.now());
        if let Some(line) = identity.filter(|line| !lines.contains(line)) {
            lines.push(line);
        }
    }
    lines.extend(running.listeners().filter_map(|listener| {
        let target = listener.target;
        psql(listener.place, listener.address, (&target.connector, &target.settings))
    }));
    lines
}

/// The identity, source and remaining lifetime of a token. `None` without a token.
fn identity(state: &TokenState, now: SystemTime) -> Option<String> {
    let left = state.expires_on?.duration_since(now).unwrap_or_default();
    let name = match (state.role_names.first(), &state.identity) {
        (Some(name), _) => format!("of {name} "),
        (None, Some(identity)) => format!("of {identity} "),
        (None, None) => String::new(),
    };
    let source = state.source.as_deref().unwrap_or("an unknown source");
    Some(quote::line(&format!("there is a token {name}({source}), good for {}", hours(left))))
}

/// A command that connects to this listener. `None`: clients need a value that is not known here.
fn psql(
    place: &ListenAddr,
    address: &str,
    (connector, settings): (&Connector, &TargetSettings),
) -> Option<String> {
    let (host, port) = match place {
        ListenAddr::Tcp(_) => {
            let address: std::net::SocketAddr = address.parse().ok()?;
            let ip = match address.ip() {
                ip if ip.is_unspecified() => "localhost".to_owned(),
                ip => ip.to_string(),
            };
            (ip, address.port())
        }
        ListenAddr::Unix { folder, port } => (folder.display().to_string(), *port),
        ListenAddr::Systemd { .. } => return None,
    };
    let client_auth = &settings.client_auth;
    if client_auth.tls_client_ca.is_some() {
        return None;
    }
    let target = connector.target();
    let state = connector.token_state();
    let mapped = client_auth.role_map.first().map(|(theirs, _)| theirs.as_str());
    let user =
        mapped.or_else(|| target.named_user()).or_else(|| state.role_names.first().map(String::as_str));
    let port = port.to_string();
    let mut pairs = vec![("host", host.as_str()), ("port", &port)];
    pairs.extend(user.map(|user| ("user", user)));
    pairs.push(("dbname", target.named_database().unwrap_or("postgres")));
    if client_auth.tls_cert.is_some() && matches!(place, ListenAddr::Tcp(_)) {
        pairs.push(("sslmode", "require"));
    }
    if pairs.iter().any(|(_, value)| value.chars().any(char::is_control)) {
        return None;
    }
    let pairs: Vec<_> = pairs.into_iter().map(|(word, value)| format!("{word}={}", quoted(value))).collect();
    Some(format!("connect: psql '{}'", pairs.join(" ").replace('\'', r"'\''")))
}

/// A value of a conninfo string (libpq, "Keyword/Value Connection Strings").
fn quoted(value: &str) -> String {
    let is_plain = |char: char| !char.is_whitespace() && !matches!(char, '\'' | '\\' | '=');
    if !value.is_empty() && value.chars().all(is_plain) {
        return value.to_owned();
    }
    quote::conninfo_value(value)
}

fn hours(left: Duration) -> String {
    let minutes = left.as_secs() / 60;
    match minutes / 60 {
        0 => format!("{minutes} min"),
        hours => format!("{hours} h {} min", minutes % 60),
    }
}

/// A name in a token is chosen by others, so terminal control characters in it are escaped.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted_for_libpq() {
        assert_eq!(quoted("my-app"), "my-app");
        assert_eq!(quoted("My Group"), "'My Group'");
        assert_eq!(quoted(r"a'b\c"), r"'a\'b\\c'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn a_time_is_in_hours_and_minutes() {
        assert_eq!(hours(Duration::from_secs(86_399)), "23 h 59 min");
        assert_eq!(hours(Duration::from_secs(3_540)), "59 min");
    }
}

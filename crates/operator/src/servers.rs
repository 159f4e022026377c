//! Which servers the operator signs in to, and how.

use std::str::FromStr;

use pgentra_connect::{ConnectError, Connector, Layers, Target};
use pgentra_identity::{ConfigError, Credential, IdentityOptions, Resource};
use pgentra_roles::ServerSessions;
use pgentra_system::System;

use crate::claims::ServerNames;

/// A name of servers that resources may name: a host, or `*.` and a domain for every host below it.
///
/// A user who may make a resource could name any server, and the operator sends its token to the server that it signs in
/// to. So the administrator of the operator says which servers those may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ServerPattern {
    Host(String),
    Below(String),
}

/// A text that is no [`ServerPattern`].
#[derive(Debug, thiserror::Error)]
#[error("it is a host such as db.example.com, or *.DOMAIN for the hosts below a domain")]
pub(crate) struct InvalidPattern;

impl FromStr for ServerPattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let (name, make): (&str, fn(String) -> Self) = match text.strip_prefix("*.") {
            Some(domain) => (domain, Self::Below),
            None => (text, Self::Host),
        };
        let is_name = |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '.' | '_' | ':');
        match !name.is_empty() && name.chars().all(is_name) {
            true => Ok(make(plain(name))),
            false => Err(InvalidPattern),
        }
    }
}

impl ServerPattern {
    fn has(&self, host: &str) -> bool {
        let host = plain(host);
        match self {
            Self::Host(name) => host == *name,
            Self::Below(domain) => {
                host.strip_suffix(domain).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
        }
    }
}

/// A name as it is compared: DNS knows no case, and a dot at the end changes nothing here.
fn plain(host: &str) -> String {
    host.trim_end_matches('.').to_ascii_lowercase()
}

/// The operator's own identity, and the servers that it may sign in to.
#[derive(Debug)]
pub(crate) struct AllowedServers {
    system: System,
    allowed: Vec<ServerPattern>,
    credential: Credential,
    resource: Resource,
}

impl AllowedServers {
    /// With the identity that the options and the environment name.
    ///
    /// # Errors
    /// Options that contradict the environment.
    pub(crate) fn new(
        system: &System,
        identity: &IdentityOptions,
        allowed: Vec<ServerPattern>,
    ) -> Result<Self, ConfigError> {
        let credential = identity.credential(system)?;
        Ok(Self { system: system.clone(), allowed, credential, resource: identity.resource() })
    }

    /// The server of a connection string. No connection is opened.
    ///
    /// # Errors
    /// A string that cannot be read, or that lacks the host or the role.
    pub(crate) fn target(&self, server: &str) -> Result<Target, ConnectError> {
        Target::resolve(&Layers::gather(Some(server), &[], self.system.env(), self.system.files())?)
    }

    /// The hosts of a server that it may not name.
    pub(crate) fn forbidden<'a>(&self, target: &'a Target) -> Vec<&'a str> {
        let hosts = target.endpoints().iter().map(|endpoint| &*endpoint.host);
        hosts.filter(|host| !self.allowed.iter().any(|pattern| pattern.has(host))).collect()
    }

    /// Sessions with a server.
    ///
    /// # Errors
    /// A target that TLS cannot be set up for.
    pub(crate) fn sessions(&self, target: Target) -> Result<ServerSessions, ConnectError> {
        Ok(ServerSessions::new(Connector::new(target, self.credential.clone(), self.resource.clone())?))
    }
}

/// How a server is known to other resources.
pub(crate) fn names(target: &Target, identifier: Option<String>) -> ServerNames {
    let name = |endpoint: &pgentra_connect::HostSpec| format!("{}:{}", plain(&endpoint.host), endpoint.port);
    ServerNames { endpoints: target.endpoints().iter().map(name).collect(), identifier }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_a_host_or_a_domain() {
        let has = |pattern: &str, host: &str| pattern.parse::<ServerPattern>().unwrap().has(host);
        assert!(has("db.example.com", "DB.example.com."));
        assert!(!has("db.example.com", "evil-db.example.com"));
        let azure = "*.postgres.database.azure.com";
        assert!(has(azure, "my-server.postgres.database.azure.com"));
        for host in [
            "postgres.database.azure.com",
            ".postgres.database.azure.com",
            "xpostgres.database.azure.com",
            "a",
        ] {
            assert!(!has(azure, host), "{host}");
        }
        for text in ["", "*", "*.", "a*", "postgresql://a", "a b", "*.a/b"] {
            assert!(text.parse::<ServerPattern>().is_err(), "{text}");
        }
    }
}

//! Which servers the operator signs in to, and how.

use std::str::FromStr;

use pgentra_connect::{ConnectError, Connector, Layers, Roots, Target, quote, split_connection_string};
use pgentra_identity::{ConfigError, Credential, IdentityOptions, Resource};
use pgentra_roles::ServerSessions;
use pgentra_system::{Env, Files, System};

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

/// The keywords of libpq that a resource may name. Every other one could lead the token to another server: `hostaddr` and
/// a service name an address that is not compared with the allowed hosts, and a file is one of the operator's container.
const KEYWORDS: [&str; 8] = [
    "host",
    "port",
    "user",
    "dbname",
    "sslmode",
    "connect_timeout",
    "application_name",
    "target_session_attrs",
];

/// The longest file of certificates, in bytes: a bundle of every public authority has about a quarter of this.
const ROOTS_LIMIT: usize = 1024 * 1024;

/// Why the connection string of a resource is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerError {
    #[error("a resource may not name the connection keyword {}", quote::name(.0))]
    Keyword(String),
    #[error("sslmode={} is not possible: the name in the server's certificate must be the host", quote::line(.0))]
    SslMode(String),
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

impl ServerError {
    /// The next thing to try, in words.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Keyword(keyword) if keyword == "sslrootcert" => Some(
                "leave it out; roles.rootCertificates of the chart names the authority of the servers"
                    .to_owned(),
            ),
            Self::Keyword(_) => Some(format!("the keywords are {}", KEYWORDS.join(", "))),
            Self::SslMode(_) => Some("leave sslmode out: it is verify-full".to_owned()),
            Self::Connect(error) => error.hint().map(|hint| hint.to_string()),
        }
    }
}

/// Reads the authorities of servers with a private authority.
///
/// # Errors
/// No file that can be read, or one without a certificate.
pub(crate) fn roots(file: &str, files: &Files) -> Result<Roots, Box<dyn std::error::Error + Send + Sync>> {
    Ok(Roots::from_pem(files.read_text(file, ROOTS_LIMIT)?.as_bytes())?)
}

/// The operator's own identity, and the servers that it may sign in to.
#[derive(Debug)]
pub(crate) struct AllowedServers {
    system: System,
    allowed: Vec<ServerPattern>,
    /// The authorities of the servers. `None`: those of the operating system.
    roots: Option<Roots>,
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
        roots: Option<Roots>,
    ) -> Result<Self, ConfigError> {
        let credential = identity.credential(system)?;
        Ok(Self { system: system.clone(), allowed, roots, credential, resource: identity.resource() })
    }

    /// The server of a connection string. It is all in the string: no variable, no service and no file adds to it. No
    /// connection is opened.
    ///
    /// # Errors
    /// A string that cannot be read, that lacks the host or the role, or that names a keyword which a resource may not name.
    pub(crate) fn target(&self, server: &str) -> Result<Target, ServerError> {
        let (_, pairs) = split_connection_string(server, |_| true)?;
        for (keyword, value) in pairs {
            if keyword == "sslmode" && value != "verify-full" {
                return Err(ServerError::SslMode(value));
            }
            if !KEYWORDS.contains(&&*keyword) {
                return Err(ServerError::Keyword(keyword));
            }
        }
        let no_variables = Env::from_map::<String, String>([]);
        let layers = Layers::gather(Some(server), &[], &no_variables, self.system.files())?;
        let target = Target::resolve(&layers)?;
        Ok(match &self.roots {
            Some(roots) => target.with_roots(roots.clone()),
            None => target,
        })
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

    fn servers() -> AllowedServers {
        // The source is named: the machine of the test need not have an identity. No token is asked for.
        let source = Some(pgentra_identity::SourceName::Imds);
        let identity = IdentityOptions { source, ..IdentityOptions::default() };
        // Variables of the operator's environment say nothing of a resource's server.
        let variables = [("PGHOSTADDR", "192.0.2.9"), ("PGSERVICE", "mine"), ("PGSSLMODE", "verify-ca")];
        let system = System::builder().env(Env::from_map(variables)).build();
        let allowed = vec!["db.example.com".parse().unwrap(), "*.azure.example".parse().unwrap()];
        AllowedServers::new(&system, &identity, allowed, None).unwrap()
    }

    #[test]
    fn a_connection_string_says_nothing_that_leads_the_token_elsewhere() {
        let servers = servers();
        for (part, refused) in [
            ("hostaddr=192.0.2.1", "hostaddr"),
            ("service=other", "service"),
            ("servicefile=/tmp/file", "servicefile"),
            ("passfile=/tmp/file", "passfile"),
            ("password=x", "password"),
            ("sslrootcert=/etc/ssl/certs/ca-certificates.crt", "sslrootcert"),
            ("sslrootcert=system", "sslrootcert"),
            ("sslcert=/tmp/file", "sslcert"),
            ("sslkey=/tmp/file", "sslkey"),
            ("sslkeylogfile=/tmp/file", "sslkeylogfile"),
            ("channel_binding=disable", "channel_binding"),
            ("gssencmode=disable", "gssencmode"),
            ("krbsrvname=x", "krbsrvname"),
            ("require_auth=password", "require_auth"),
            ("options=-csearch_path%3Dx", "options"),
            ("nonsense=1", "nonsense"),
            ("sslmode=verify-ca", "sslmode"),
            ("sslmode=require", "sslmode"),
            ("sslmode=disable", "sslmode"),
            ("sslmode=Verify-Full", "sslmode"),
        ] {
            for server in [
                format!("postgresql://me@db.example.com/app?{part}"),
                format!("host=db.example.com user=me dbname=app {part}"),
                format!("{part} sslmode=verify-full host=db.example.com user=me dbname=app"),
            ] {
                let error = servers.target(&server).unwrap_err();
                assert!(error.to_string().contains(refused), "{server}: {error}");
                assert!(error.hint().is_some(), "{server}: {error}");
            }
        }
        assert!(servers.target("postgresql://me@db.example.com/app?host%61ddr=192.0.2.1").is_err());
        // A service's name is no server, and a database's name is no connection string.
        assert!(servers.target("app").is_err());
    }

    #[test]
    fn every_host_of_a_list_is_compared() {
        let servers = servers();
        let target = |server: &str| servers.target(server).unwrap();
        let forbidden = |server: &str| -> Vec<String> {
            servers.forbidden(&target(server)).into_iter().map(str::to_owned).collect()
        };
        let all = "postgresql://me@db.example.com:5432,one.azure.example:6432/app\
            ?sslmode=verify-full&connect_timeout=2&application_name=roles&target_session_attrs=read-write";
        assert_eq!(forbidden(all), [""; 0]);
        let endpoints = target(all).endpoints().to_vec();
        assert!(endpoints.iter().all(|endpoint| endpoint.address.is_none()), "{endpoints:?}");
        for (server, other) in [
            ("postgresql://me@db.example.com,evil.example/app", "evil.example"),
            ("postgresql://me@evil.example,db.example.com/app", "evil.example"),
            ("host=db.example.com,192.0.2.1 user=me", "192.0.2.1"),
            ("postgresql://me@db.example.com/app?host=evil.example", "evil.example"),
            ("host=db.example.com host=evil.example user=me", "evil.example"),
        ] {
            assert_eq!(forbidden(server), [other], "{server}");
        }
    }

    #[test]
    fn the_operator_says_who_signs_for_the_servers() {
        assert!(roots("/does/not/exist", &Files::real()).is_err());
        let key = rcgen::generate_simple_self_signed(["db.example.com".to_owned()]).unwrap();
        let authority = Roots::from_pem(key.cert.pem().as_bytes()).unwrap();
        let servers = AllowedServers { roots: Some(authority.clone()), ..servers() };
        let target = servers.target("postgresql://me@db.example.com/app").unwrap();
        assert_eq!((target.roots(), target.ssl_mode()), (&authority, pgentra_connect::SslMode::VerifyFull));
    }

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

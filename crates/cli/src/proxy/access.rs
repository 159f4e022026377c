//! How a program connects to a listener.

use std::net::SocketAddr;

use pgentra_connect::Connector;
use pgentra_proxy_config::{ListenAddr, TargetSettings};

/// The values that a program needs to connect to a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) host: ListenerHost,
    pub(crate) port: u16,
    /// `None`: neither the configuration nor a token names the role.
    pub(crate) user: Option<String>,
    pub(crate) database: String,
    /// Whether the listener asks for TLS.
    pub(crate) is_tls: bool,
    /// Whether the listener asks for a password.
    pub(crate) has_password: bool,
}

/// Where a listener is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ListenerHost {
    /// An IP address, or `localhost`.
    Tcp(String),
    /// The folder of a Unix socket.
    Unix(String),
}

impl Access {
    /// The values for the listener `place`, which is bound to `address` if it is a TCP address.
    /// `None`: clients need a value that is not known here, such as their certificate or a free
    /// port.
    pub(crate) fn of(
        place: &ListenAddr,
        address: Option<SocketAddr>,
        (connector, settings): (&Connector, &TargetSettings),
    ) -> Option<Self> {
        let client_auth = &settings.client_auth;
        if client_auth.tls_client_ca.is_some() {
            return None;
        }
        let (host, port) = match place {
            ListenAddr::Tcp(_) => {
                let address = address.filter(|address| address.port() != 0)?;
                let host = match address.ip() {
                    ip if ip.is_unspecified() => "localhost".to_owned(),
                    ip => ip.to_string(),
                };
                (ListenerHost::Tcp(host), address.port())
            }
            ListenAddr::Unix { folder, port } => (ListenerHost::Unix(folder.to_str()?.to_owned()), *port),
            ListenAddr::Systemd { .. } => return None,
        };
        let target = connector.target();
        let mapped = client_auth.role_map.first().map(|(theirs, _)| theirs.clone());
        let user = mapped
            .or_else(|| target.named_user().map(str::to_owned))
            .or_else(|| settings.route.roles.first().cloned())
            .or_else(|| connector.token_state().role_names.first().cloned());
        let routed = settings.route.databases.first();
        Some(Self {
            is_tls: client_auth.tls_cert.is_some() && matches!(host, ListenerHost::Tcp(_)),
            host,
            port,
            user,
            database: target.named_database().or(routed.map(String::as_str)).unwrap_or("postgres").to_owned(),
            has_password: client_auth.auth_file.is_some(),
        })
    }

    /// The value of `sslmode`. The proxy's certificate is not checked: its authority is not known
    /// here.
    pub(crate) fn sslmode(&self) -> &'static str {
        if self.is_tls { "require" } else { "disable" }
    }
}

impl ListenerHost {
    /// The value for programs that take an address or a folder in the same field.
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Tcp(host) | Self::Unix(host) => host,
        }
    }

    /// The address as part of a URI: an IPv6 address in brackets. `None` for a folder.
    pub(crate) fn in_uri(&self) -> Option<String> {
        match self {
            Self::Tcp(host) if host.contains(':') => Some(format!("[{host}]")),
            Self::Tcp(host) => Some(host.clone()),
            Self::Unix(_) => None,
        }
    }
}

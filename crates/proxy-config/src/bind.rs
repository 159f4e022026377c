//! Opens listeners, and says what to do where one cannot be opened.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use pgentra_connect::quote;
use pgentra_proxy::{ClientAuth, Listener};
#[cfg(unix)]
use pgentra_session::UnixSocket;
use pgentra_session::bind_tcp;
use pgentra_settings::{InheritedSocket, InheritedSockets, ListenAddr, SettingOrigin};

use crate::listener_kind::ListenerKind;

/// Opens a listener and returns its address.
pub(crate) async fn bind(
    place: &ListenAddr,
    inherited: &InheritedSockets,
    client_auth: &ClientAuth,
) -> io::Result<(Listener, String)> {
    match place {
        ListenAddr::Tcp(address) => bind_tcp(*address).and_then(|listener| {
            let address = listener.local_addr()?.to_string();
            Ok((Listener::tcp(listener, client_auth).map_err(io::Error::other)?, address))
        }),
        // Refused when it is read.
        #[cfg(not(unix))]
        ListenAddr::Unix { .. } => Err(io::ErrorKind::Unsupported.into()),
        #[cfg(unix)]
        ListenAddr::Unix { folder, port } => {
            // A Unix socket that other users may use.
            let is_shared = !client_auth.uids.is_empty();
            let socket = if is_shared {
                UnixSocket::bind_shared(folder, *port)
            } else {
                UnixSocket::bind(folder, *port)
            };
            socket.map(|socket| {
                let path = socket.path().display().to_string();
                (Listener::Unix(socket), path)
            })
        }
        ListenAddr::Systemd { name, number } => {
            let (socket, address) = inherited.open(name, *number)?;
            let listener = match socket {
                InheritedSocket::Tcp(listener) => {
                    Listener::tcp(listener, client_auth).map_err(io::Error::other)?
                }
                #[cfg(unix)]
                InheritedSocket::Unix(socket) => Listener::Unix(socket),
            };
            Ok((listener, address))
        }
    }
}

/// How the user changes a listen address.
#[derive(Clone, Copy)]
pub(crate) enum ListenChange<'a> {
    /// A flag of this name, which is stronger than the variable and the file.
    Flag(ListenerKind),
    /// The target's own setting, which is stronger than the flag.
    Target(&'a SettingOrigin),
}

impl<'a> ListenChange<'a> {
    pub(crate) fn of(kind: ListenerKind, own: Option<&'a SettingOrigin>) -> Self {
        own.map_or(Self::Flag(kind), Self::Target)
    }

    /// What to write for this address.
    fn to(self, place: &str) -> String {
        match self {
            Self::Flag(kind) => format!("--{} {place}", kind.key().replace('_', "-")),
            Self::Target(origin) => format!("{place}, at {origin}"),
        }
    }
}

impl std::fmt::Display for ListenChange<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flag(kind) => write!(f, "with --{}", kind.key().replace('_', "-")),
            Self::Target(origin) => write!(f, "at {origin}"),
        }
    }
}

/// The hint for a listener that cannot be opened.
pub(crate) fn not_bound(
    place: &ListenAddr,
    error: &io::Error,
    is_shared: bool,
    (number_of_targets, change): (usize, ListenChange<'_>),
) -> String {
    match (place, error.kind()) {
        (ListenAddr::Unix { folder, .. }, io::ErrorKind::PermissionDenied) => {
            let folder = quote::shell_word(&folder.to_string_lossy());
            let (mode, more) = match is_shared {
                true => ("go-w", ""),
                false => ("700", "; or name the users who may enter, with --listen-uids"),
            };
            format!("chmod {mode} {folder}, if it is yours alone to change{more}")
        }
        (ListenAddr::Unix { .. }, io::ErrorKind::InvalidInput) => {
            "give a folder with a shorter path: with the name of the socket it may have 107 bytes".to_owned()
        }
        (ListenAddr::Tcp(address), io::ErrorKind::AddrInUse) => in_use(*address, number_of_targets, change),
        (ListenAddr::Tcp(_), io::ErrorKind::PermissionDenied) => {
            format!("ports below 1024 are for privileged programs: give a higher one {change}")
        }
        _ => format!("give another address {change}; port 0 takes any free one"),
    }
}

/// PgBouncer's port, which few other programs use, and those after it.
const OTHERS: std::ops::RangeInclusive<u16> = 6432..=6451;

/// The hint for a port on which another program listens, such as a local PostgreSQL: a free port that
/// is followed by as many free ones as there are further targets that share the listen address.
fn in_use(address: SocketAddr, number_of_targets: usize, change: ListenChange<'_>) -> String {
    let number_of_targets = if let ListenChange::Target(_) = change { 1 } else { number_of_targets };
    let is_free = |port: u16| std::net::TcpListener::bind((address.ip(), port)).is_ok();
    let place = |port: u16| match address.ip() {
        IpAddr::V4(Ipv4Addr::LOCALHOST) => port.to_string(),
        ip => SocketAddr::from((ip, port)).to_string(),
    };
    let is_free = |first: &u16| {
        (0..number_of_targets).all(|further| {
            let port = u16::try_from(further).ok().and_then(|further| first.checked_add(further));
            port.is_some_and(|port| port != address.port() && is_free(port))
        })
    };
    match OTHERS.into_iter().find(is_free) {
        Some(free) => {
            format!("another program listens there; this one is free: {}", change.to(&place(free)))
        }
        None => format!("another program listens there; port 0 takes any free one: {}", change.to("0")),
    }
}

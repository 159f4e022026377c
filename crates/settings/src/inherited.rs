//! Sockets that systemd opens and passes on (sd_listen_fds(3), systemd.socket(5)).

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;

use listenfd::ListenFd;
use pgentra_connect::quote;
use pgentra_session::UnixSocket;
use pgentra_system::Env;

use crate::error::{ProblemKind, Problems, SettingsError};
use crate::listen_addr::ListenAddr;

/// The sockets, in the order of their units. They stay open, because the next configuration may use
/// one that the current one does not.
#[derive(Debug, Default)]
pub struct InheritedSockets {
    sockets: Vec<NamedSocket>,
    /// Accepts any name as one that systemd will pass on.
    is_assumed: bool,
}

/// A socket that can be served.
#[derive(Debug)]
pub enum InheritedSocket {
    /// A TCP socket.
    Tcp(tokio::net::TcpListener),
    /// A Unix socket.
    Unix(UnixSocket),
}

#[derive(Debug)]
struct NamedSocket {
    /// `FileDescriptorName=`, by default the unit's name.
    name: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener),
}

impl InheritedSockets {
    /// The sockets that were passed to this process. Call it once.
    ///
    /// # Errors
    /// A socket is of another kind.
    pub fn from_systemd(env: &Env) -> Result<Self, SettingsError> {
        // Sockets for another process are ignored: their numbers may be other files here.
        if env.get("LISTEN_PID") != Some(std::process::id().to_string()) {
            return Ok(Self::default());
        }
        let names = env.get("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut given = ListenFd::from_env();
        let mut sockets = Vec::new();
        for number in 0..given.len() {
            let name = names.next().filter(|name| !name.is_empty()).unwrap_or("unknown").to_owned();
            let kind = take(&mut given, number).map_err(|error| {
                let message = format!(
                    "the socket {name} that systemd hands over cannot be used: {error}",
                    name = quote::name(&name)
                );
                let hint = "the socket unit needs ListenStream=, with an IP address or a path, and Accept=no";
                SettingsError::one(ProblemKind::Setting, message, hint)
            })?;
            sockets.push(NamedSocket { name, kind });
        }
        Ok(Self { sockets, is_assumed: false })
    }

    /// For a check of the configuration outside of the service: systemd passes the sockets to the
    /// service alone, so each `systemd:NAME` is accepted.
    pub fn or_assumed(self) -> Self {
        let is_assumed = self.sockets.is_empty();
        Self { is_assumed, ..self }
    }

    /// Whether any `systemd:NAME` is accepted, because the sockets are not known.
    pub fn is_assumed(&self) -> bool {
        self.is_assumed
    }

    /// The listen addresses of the sockets.
    pub fn places(&self) -> impl Iterator<Item = ListenAddr> {
        self.sockets.iter().enumerate().map(|(at, socket)| ListenAddr::Systemd {
            name: socket.name.clone(),
            number: self.sockets[..at].iter().filter(|before| before.name == socket.name).count(),
        })
    }

    /// Puts all sockets of a name in the place of the name.
    #[must_use]
    pub fn find(&self, listen: &[ListenAddr], label: &str, problems: &mut Problems) -> Vec<ListenAddr> {
        let mut found = Vec::new();
        for place in listen {
            let name = match place {
                ListenAddr::Systemd { name, .. } if !self.is_assumed() => name,
                place => {
                    found.push(place.clone());
                    continue;
                }
            };
            let before = found.len();
            found.extend(
                self.places()
                    .filter(|place| matches!(place, ListenAddr::Systemd { name: it, .. } if it == name)),
            );
            if found.len() == before {
                problems.add_with_hint(
                    label,
                    format!("there is no {place}"),
                    "FileDescriptorName= in the socket unit gives a socket its name",
                );
            }
        }
        found
    }

    /// The listener with this name and number, and its address.
    ///
    /// # Errors
    /// There is no such socket, or it cannot be used twice.
    pub fn open(&self, name: &str, number: usize) -> io::Result<(InheritedSocket, String)> {
        let socket = self
            .sockets
            .iter()
            .filter(|socket| socket.name == name)
            .nth(number)
            .ok_or(io::ErrorKind::NotFound)?;
        match &socket.kind {
            Kind::Tcp(listener, address) => {
                let listener = listener.try_clone()?;
                listener.set_nonblocking(true)?;
                let listener = tokio::net::TcpListener::from_std(listener)?;
                Ok((InheritedSocket::Tcp(listener), address.to_string()))
            }
            Kind::Unix(listener) => {
                let socket = UnixSocket::inherit(listener.try_clone()?)?;
                let path = socket.path().display().to_string();
                Ok((InheritedSocket::Unix(socket), path))
            }
        }
    }

    /// Whether the listen address is reachable from this machine only.
    pub fn is_local(&self, place: &ListenAddr) -> bool {
        let is_it = |at: usize| self.places().nth(at).as_ref() == Some(place);
        self.sockets.iter().enumerate().all(|(at, socket)| match &socket.kind {
            Kind::Tcp(_, address) => !is_it(at) || address.ip().is_loopback(),
            Kind::Unix(_) => true,
        })
    }
}

fn take(given: &mut ListenFd, number: usize) -> io::Result<Kind> {
    if let Ok(Some(listener)) = given.take_tcp_listener(number) {
        let address = listener.local_addr()?;
        return Ok(Kind::Tcp(listener, address));
    }
    match given.take_unix_listener(number)? {
        Some(listener) => Ok(Kind::Unix(listener)),
        None => Err(io::ErrorKind::NotFound.into()),
    }
}

impl InheritedSockets {
    /// Sockets with these names on free ports of the loopback interface, as if systemd had passed
    /// them: for tests.
    ///
    /// # Errors
    /// A socket cannot be opened.
    pub fn of_names(names: &[&str]) -> io::Result<Self> {
        let socket = |name: &&str| {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let address = listener.local_addr()?;
            Ok(NamedSocket { name: (*name).to_owned(), kind: Kind::Tcp(listener, address) })
        };
        Ok(Self { sockets: names.iter().map(socket).collect::<io::Result<_>>()?, is_assumed: false })
    }
}

//! Sockets that systemd opens and passes on (sd_listen_fds(3), systemd.socket(5)).

use std::io;
use std::net::{SocketAddr, TcpListener};
#[cfg(unix)]
use std::os::unix::net::UnixListener;

use listenfd::ListenFd;
use pgentra_connect::quote;
use pgentra_proxy::{ClientAuth, Listener};
#[cfg(unix)]
use pgentra_session::UnixSocket;
use pgentra_system::Env;

use crate::error::{ProblemKind, ProxyConfigError};
use crate::listen_addr::ListenAddr;

/// The sockets, in the order of their units. They stay open, because the next configuration may use
/// one that the current one does not.
#[derive(Debug, Default)]
pub struct InheritedSockets {
    sockets: Vec<InheritedSocket>,
    /// Accepts any name as one that systemd will pass on.
    is_assumed: bool,
}

#[derive(Debug)]
struct InheritedSocket {
    /// `FileDescriptorName=`, by default the unit's name.
    name: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener, SocketAddr),
    #[cfg(unix)]
    Unix(UnixListener),
}

impl InheritedSockets {
    /// The sockets that were passed to this process. Call it once.
    pub fn from_systemd(env: &Env) -> Result<Self, ProxyConfigError> {
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
                ProxyConfigError::one(ProblemKind::Setting, message, hint)
            })?;
            sockets.push(InheritedSocket { name, kind });
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
    pub(crate) fn is_assumed(&self) -> bool {
        self.is_assumed
    }

    /// The listen addresses of the sockets.
    pub(crate) fn places(&self) -> impl Iterator<Item = ListenAddr> {
        self.sockets.iter().enumerate().map(|(at, socket)| ListenAddr::Systemd {
            name: socket.name.clone(),
            number: self.sockets[..at].iter().filter(|before| before.name == socket.name).count(),
        })
    }

    /// The listener with this name and number, and its address.
    pub(crate) fn open(
        &self,
        name: &str,
        number: usize,
        client_auth: &ClientAuth,
    ) -> io::Result<(Listener, String)> {
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
                let listener = Listener::tcp(tokio::net::TcpListener::from_std(listener)?, client_auth);
                Ok((listener.map_err(io::Error::other)?, address.to_string()))
            }
            #[cfg(unix)]
            Kind::Unix(listener) => {
                let socket = UnixSocket::inherit(listener.try_clone()?)?;
                let path = socket.path().display().to_string();
                Ok((Listener::Unix(socket), path))
            }
        }
    }

    /// Whether the listen address is reachable from this machine only.
    pub(crate) fn is_local(&self, place: &ListenAddr) -> bool {
        let is_it = |at: usize| self.places().nth(at).as_ref() == Some(place);
        self.sockets.iter().enumerate().all(|(at, socket)| match &socket.kind {
            Kind::Tcp(_, address) => !is_it(at) || address.ip().is_loopback(),
            #[cfg(unix)]
            Kind::Unix(_) => true,
        })
    }
}

fn take(given: &mut ListenFd, number: usize) -> io::Result<Kind> {
    if let Ok(Some(listener)) = given.take_tcp_listener(number) {
        let address = listener.local_addr()?;
        return Ok(Kind::Tcp(listener, address));
    }
    #[cfg(unix)]
    if let Some(listener) = given.take_unix_listener(number)? {
        return Ok(Kind::Unix(listener));
    }
    Err(io::ErrorKind::NotFound.into())
}

#[cfg(test)]
impl InheritedSockets {
    /// Sockets with these names on free ports, as if systemd had passed them.
    pub(crate) fn of_names(names: &[&str]) -> Self {
        let socket = |name: &&str| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            InheritedSocket { name: (*name).to_owned(), kind: Kind::Tcp(listener, address) }
        };
        Self { sockets: names.iter().map(socket).collect(), is_assumed: false }
    }
}

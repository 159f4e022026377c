//! Parses listen addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// PostgreSQL's default port.
const PORT: u16 = 5432;

/// Where a listener is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddr {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A socket `.s.PGSQL.PORT` in a folder.
    Unix {
        /// The folder of the socket.
        folder: PathBuf,
        /// The number in the name of the socket.
        port: u16,
    },
    /// A socket from systemd: the `number`th of this name.
    Systemd {
        /// `FileDescriptorName=` of the socket unit.
        name: String,
        /// The index among the sockets of this name.
        number: usize,
    },
}

/// The prefix of a socket from systemd.
const SYSTEMD: &str = "systemd:";

impl Default for ListenAddr {
    fn default() -> Self {
        Self::Tcp((Ipv4Addr::LOCALHOST, PORT).into())
    }
}

impl ListenAddr {
    /// The same address, `number` ports higher; port 0 stays 0. `None`: the port would be too
    /// large.
    pub fn further(&self, number: usize) -> Option<Self> {
        let next = |port: u16| match port {
            0 => Some(0),
            port => port.checked_add(u16::try_from(number).ok()?),
        };
        Some(match self {
            Self::Tcp(address) => Self::Tcp((address.ip(), next(address.port())?).into()),
            Self::Unix { folder, port } => Self::Unix { folder: folder.clone(), port: next(*port)? },
            Self::Systemd { .. } if number > 0 => return None,
            Self::Systemd { .. } => self.clone(),
        })
    }

    /// Whether the port is 0, which takes any free one.
    pub fn is_any(&self) -> bool {
        matches!(self, Self::Tcp(address) if address.port() == 0)
    }

    /// The address of a TCP listener.
    ///
    /// # Errors
    ///
    /// Another kind of listener, in a text that continues a sentence which begins with the setting.
    pub fn tcp(self) -> Result<SocketAddr, String> {
        match self {
            Self::Tcp(address) => Ok(address),
            other => Err(format!("cannot be {other}: write IP:PORT or PORT")),
        }
    }

    /// Whether the address itself shows that only this machine can reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix { .. } | Self::Systemd { .. } => true,
        }
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix { folder, port } => write!(f, "{}:{port}", folder.display()),
            Self::Systemd { name, .. } => write!(f, "{SYSTEMD}{name}"),
        }
    }
}

impl FromStr for ListenAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(name) = text.strip_prefix(SYSTEMD).filter(|name| !name.is_empty()) {
            return Ok(Self::Systemd { name: name.to_owned(), number: 0 });
        }
        if text.starts_with('/') {
            let (folder, port) = match text.rsplit_once(':') {
                Some((folder, text)) => (folder, self::port(text)?),
                None => (text, PORT),
            };
            if port == 0 {
                return Err("the port is part of a Unix socket's name: it cannot be 0".to_owned());
            }
            return Ok(Self::Unix { folder: folder.into(), port });
        }
        if text.starts_with(['.', '~']) || text.contains('/') {
            return Err("the folder of a Unix socket is named from the root, such as /run/pgentra".to_owned());
        }
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return port(text).map(|port| Self::Tcp((Ipv4Addr::LOCALHOST, port).into()));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Tcp((address, PORT).into()));
        }
        let Some((host, number)) = text.rsplit_once(':') else {
            return match text {
                "localhost" => Ok(Self::default()),
                _ => Err(FORMS.to_owned()),
            };
        };
        let host = match host {
            "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            // The wildcard address, as other programs write it.
            "" | "*" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            host => {
                let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
                bare.parse().map_err(|_| format!("`{host}` is no address of this machine: {FORMS}"))?
            }
        };
        port(number).map(|port| Self::Tcp((host, port).into()))
    }
}

const FORMS: &str = "write IP:PORT, PORT, /FOLDER[:PORT] or systemd:NAME";

fn port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| format!("`{text}` is no port: ports are 0 to 65535"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(text: &str) -> ListenAddr {
        ListenAddr::Tcp(text.parse().unwrap())
    }

    #[test]
    fn places() {
        let unix = |folder: &str, port| ListenAddr::Unix { folder: folder.into(), port };
        for (text, place) in [
            ("127.0.0.1:6432", tcp("127.0.0.1:6432")),
            ("[::1]:0", tcp("[::1]:0")),
            ("6432", tcp("127.0.0.1:6432")),
            ("localhost:6432", tcp("127.0.0.1:6432")),
            ("::1", tcp("[::1]:5432")),
            ("/run/pg", unix("/run/pg", 5432)),
            ("/run/pg:6432", unix("/run/pg", 6432)),
            ("systemd:pg", ListenAddr::Systemd { name: "pg".to_owned(), number: 0 }),
            ("localhost", tcp("127.0.0.1:5432")),
            (":6432", tcp("0.0.0.0:6432")),
            ("*:6432", tcp("0.0.0.0:6432")),
        ] {
            assert_eq!(text.parse(), Ok(place.clone()), "{text}");
            assert_eq!(place.to_string().parse(), Ok(place), "{text}");
        }
        for bad in ["", "host:1", "65536", "127.0.0.1:65536", "systemd:", "/run/pg:x", "/run/pg:0", "run/pg"]
        {
            assert!(bad.parse::<ListenAddr>().is_err(), "{bad}");
        }
        for (bad, says) in [
            ("99999", "`99999` is no port: ports are 0 to 65535"),
            ("127.0.0.1:99999", "ports are 0 to 65535"),
            ("/run/pg:99999", "ports are 0 to 65535"),
            ("./run", "named from the root"),
            ("~/run", "named from the root"),
            ("db.example:1", "`db.example` is no address of this machine"),
        ] {
            let error = bad.parse::<ListenAddr>().unwrap_err();
            assert!(error.contains(says), "{bad}: {error}");
        }
    }

    #[test]
    fn ports_count_up() {
        assert_eq!(ListenAddr::default().further(2), Some(tcp("127.0.0.1:5434")));
        assert_eq!(tcp("[::1]:0").further(2), Some(tcp("[::1]:0")));
        assert_eq!(tcp("127.0.0.1:65535").further(1), None);
    }

    #[test]
    fn what_only_this_machine_reaches() {
        for (text, local) in [
            ("127.1.2.3:1", true),
            ("[::1]:1", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("/run", true),
        ] {
            assert_eq!(text.parse::<ListenAddr>().unwrap().is_local(), local, "{text}");
        }
    }
}

//! Messages to systemd (sd_notify(3), systemd.service(5) `Type=notify-reload` and `WatchdogSec=`).
//!
//! The crate sd-notify (0.5.0) takes an abstract socket for a path, and it blocks while the service
//! manager does not read: clients would wait too.

use std::time::Duration;

use pgentra_system::Env;

use crate::platform::{ManagerSocket, monotonic};

/// The service manager's socket; without one every message is dropped.
#[derive(Debug)]
pub(crate) struct Notify {
    to: Option<ManagerSocket>,
    watchdog: Option<Duration>,
}

impl Notify {
    /// The socket in `NOTIFY_SOCKET`, and the watchdog that `WATCHDOG_USEC` sets for the process
    /// `WATCHDOG_PID`.
    pub(crate) fn from_env(env: &Env) -> Self {
        let to = env.get("NOTIFY_SOCKET").and_then(|name| match ManagerSocket::open(&name) {
            Ok(to) => Some(to),
            Err(error) => {
                tracing::warn!(%error, name, "the service manager cannot be told anything");
                None
            }
        });
        let ours = env.get("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let limit = env.get("WATCHDOG_USEC").and_then(|text| text.parse().ok()).filter(|limit| *limit > 0);
        let watchdog = limit.filter(|_| ours && to.is_some()).map(Duration::from_micros);
        Self { to, watchdog }
    }

    /// The interval for [`Notify::alive`]: half of the watchdog's time.
    pub(crate) fn beat(&self) -> Option<Duration> {
        self.watchdog.map(|limit| limit / 2)
    }

    /// Whether there is a service manager.
    pub(crate) fn is_heard(&self) -> bool {
        self.to.is_some()
    }

    /// Reports that the proxy serves.
    pub(crate) fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}"));
    }

    pub(crate) fn status(&self, status: &str) {
        self.send(&format!("STATUS={status}"));
    }

    /// Reports that the configuration is read again; [`Notify::ready`] ends that state.
    pub(crate) fn reloading(&self) {
        let micros = monotonic().as_micros();
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=reading the configuration"));
    }

    /// Reports that the shutdown has begun.
    pub(crate) fn stopping(&self, status: &str) {
        self.send(&format!("STOPPING=1\nSTATUS={status}"));
    }

    /// Resets the watchdog.
    pub(crate) fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, message: &str) {
        let Some(socket) = &self.to else { return };
        if let Err(error) = socket.send(message) {
            tracing::warn!(%error, "a message could not be sent to the service manager");
        }
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut message = [0; 256];
        let length = socket.recv(&mut message).unwrap();
        String::from_utf8(message[..length].to_vec()).unwrap()
    }

    fn say_all(notify: &Notify, socket: &UnixDatagram) {
        notify.ready("serving");
        assert_eq!(heard(socket), "READY=1\nSTATUS=serving");
        notify.reloading();
        let message = heard(socket);
        let time = message.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(time.split('\n').next().unwrap().parse::<u64>().unwrap() > 0, "{message}");
        notify.alive();
        assert_eq!(heard(socket), "WATCHDOG=1");
        notify.status("at work");
        assert_eq!(heard(socket), "STATUS=at work");
        notify.stopping("going");
        assert_eq!(heard(socket), "STOPPING=1\nSTATUS=going");
    }

    #[test]
    fn a_service_manager_hears_everything() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let env = Env::from_map([("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "3000000")]);
        let notify = Notify::from_env(&env);
        assert_eq!(notify.beat(), Some(Duration::from_millis(1500)));
        say_all(&notify, &socket);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn an_abstract_socket_too() {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::net::SocketAddr;

        let name = format!("pgentra-notify-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        say_all(&Notify::from_env(&Env::from_map([("NOTIFY_SOCKET", format!("@{name}"))])), &socket);
    }

    #[test]
    fn without_one_there_is_no_watchdog_either() {
        let beat =
            |variables: &[(&str, &str)]| Notify::from_env(&Env::from_map(variables.iter().copied())).beat();
        assert_eq!(beat(&[("WATCHDOG_USEC", "3000000")]), None);
        let socket = ("NOTIFY_SOCKET", "/nowhere");
        assert_eq!(
            beat(&[socket, ("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", "1")]),
            None,
            "it is for another process"
        );
        assert_eq!(beat(&[socket, ("WATCHDOG_USEC", "0")]), None);
        // Without a receiver the message is dropped, which is not an error.
        Notify::from_env(&Env::from_map([socket])).alive();
    }
}

//! How the program reaches the listener.

use std::process::Command;

use pgentra_connect::{ListenerEnvironment, Target};
use secrecy::{ExposeSecret as _, SecretString};

/// How the program reaches the listener.
pub(super) struct Reached {
    /// An address, or the folder of a Unix socket, which libpq takes as the host.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) password: Option<SecretString>,
}

impl Reached {
    /// Sets the environment of the program.
    pub(super) fn apply(&self, target: &Target, command: &mut Command) {
        ListenerEnvironment::new(target, &self.host, self.port).apply(command);
        if let Some(password) = &self.password {
            command.env("PGPASSWORD", password.expose_secret());
        }
    }
}

//! What a token command learns of the server.

use pgentra_identity::CommandServer;

use crate::target::Target;

impl Target {
    /// The server and role that a token command gets in its environment: the first host with its port, and the role if a
    /// layer names it.
    pub fn command_server(&self) -> CommandServer {
        let first = self.endpoints().first();
        CommandServer {
            host: first.map(|endpoint| endpoint.host.clone()),
            port: first.map(|endpoint| endpoint.port),
            role: self.named_user().map(str::to_owned),
        }
    }
}

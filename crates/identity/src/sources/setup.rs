use std::fmt;
use std::time::Duration;

use super::EntraAuthority;
use crate::{Resource, Selector, SourceName, TokenError};
use pgentra_system::System;

/// Settings that a source is built from.
#[derive(Debug, Clone)]
pub(crate) struct SourceSettings {
    pub(crate) system: System,
    pub(crate) selector: Selector,
    /// Did the program name the source? Then its absence is a failure, not a reason to ask another.
    pub(crate) named: bool,
    pub(crate) authority: EntraAuthority,
    pub(crate) tenant: Option<String>,
    /// The audience of federated assertions in this cloud.
    pub(crate) audience: &'static str,
    /// How an application's own assertions are signed.
    pub(crate) signature: AssertionSignature,
    /// The command of the source `exec`.
    pub(crate) command: CommandLine,
    /// The developer's tools that are asked if the others turn out not to apply here.
    pub(crate) tools: Vec<SourceName>,
}

impl SourceSettings {
    /// The client id of an application: the selector's, else a variable's.
    pub(super) fn client_id(&self, source: SourceName, variable: &str) -> Result<String, TokenError> {
        match &self.selector {
            Selector::ClientId(id) => Ok(id.to_string()),
            _ => self.need(source, variable),
        }
    }

    /// The tenant that the program named, else a variable's.
    pub(super) fn tenant(&self, source: SourceName, variable: &str) -> Result<String, TokenError> {
        match &self.tenant {
            Some(tenant) => Ok(tenant.clone()),
            None => self.need(source, variable),
        }
    }

    /// The value of a variable that a source cannot do without.
    pub(super) fn need(&self, source: SourceName, variable: &str) -> Result<String, TokenError> {
        self.system.env().get(variable).ok_or_else(|| {
            TokenError::config(source, format!("the environment variable {variable} is not set"))
        })
    }
}

/// A program of the user's and its arguments. `Debug` shows the program alone: arguments may be secrets.
#[derive(Clone, Default)]
pub(crate) struct CommandLine {
    pub(crate) words: Vec<String>,
    /// How long each of its tokens is valid; `None`: the token or the output says it.
    pub(crate) lifetime: Option<Duration>,
    /// The server that the tokens are for.
    pub(crate) server: CommandServer,
}

impl fmt::Debug for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} and {} arguments", self.words.first(), self.words.len().saturating_sub(1))
    }
}

/// The server and role for which a command prints a token: some token services issue a token for one server and one
/// role. Each part that is not known is an empty variable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct CommandServer {
    /// Name of the server, in [`CommandServer::HOST`].
    pub host: Option<String>,
    /// Port of the server, in [`CommandServer::PORT`].
    pub port: Option<u16>,
    /// Database role, in [`CommandServer::ROLE`].
    pub role: Option<String>,
}

impl CommandServer {
    /// The variable with what a token is for.
    pub const RESOURCE: &str = "PGENTRA_RESOURCE";
    /// The variable with the server's name.
    pub const HOST: &str = "PGENTRA_HOST";
    /// The variable with the server's port.
    pub const PORT: &str = "PGENTRA_PORT";
    /// The variable with the database role.
    pub const ROLE: &str = "PGENTRA_ROLE";

    /// The variables of a command. All are set, so that it never takes a value of another origin: Kubernetes sets
    /// `PGENTRA_PORT` in every pod if a Service is named pgentra.
    pub(crate) fn variables(&self, resource: &Resource) -> Vec<(String, String)> {
        let port = self.port.map(|port| port.to_string());
        let all = [
            (Self::RESOURCE, Some(resource.as_str().to_owned())),
            (Self::HOST, self.host.clone()),
            (Self::PORT, port),
            (Self::ROLE, self.role.clone()),
        ];
        all.into_iter().map(|(name, value)| (name.to_owned(), value.unwrap_or_default())).collect()
    }
}

/// How an application with a certificate signs its assertions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AssertionSignature {
    /// RSASSA-PSS with SHA-256, which Entra recommends. The default.
    #[default]
    Ps256,
    /// RSASSA-PKCS1-v1_5 with SHA-256, for servers that know nothing newer.
    Rs256,
}

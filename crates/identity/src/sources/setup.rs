use std::fmt;

use super::EntraAuthority;
use crate::{Selector, SourceName, TokenError};
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
pub(crate) struct CommandLine(pub(crate) Vec<String>);

impl fmt::Debug for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} and {} arguments", self.0.first(), self.0.len().saturating_sub(1))
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

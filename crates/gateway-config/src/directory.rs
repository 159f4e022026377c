//! Where a server's directory comes from: Microsoft Graph, asked with an identity of the program.

use std::fmt;
use std::sync::Arc;

use pgentra_gateway::PrincipalDirectory;
use pgentra_system::System;
use pgentra_verify::Cloud;

/// Makes directories: the program that serves the gateway has the identity that asks them.
#[derive(Clone)]
pub struct DirectorySource(Arc<MakeDirectory>);

type MakeDirectory = dyn Fn(&System, Cloud) -> Result<Arc<dyn PrincipalDirectory>, String> + Send + Sync;

impl DirectorySource {
    /// `make` gets the cloud of the tenant, and contacts nothing. Its error says what is wrong, in words.
    pub fn new(
        make: impl Fn(&System, Cloud) -> Result<Arc<dyn PrincipalDirectory>, String> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(make))
    }
}

impl fmt::Debug for DirectorySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectorySource").finish_non_exhaustive()
    }
}

impl DirectorySource {
    /// A directory of this cloud.
    pub(crate) fn make(&self, system: &System, cloud: Cloud) -> Result<Arc<dyn PrincipalDirectory>, String> {
        (self.0)(system, cloud)
    }
}

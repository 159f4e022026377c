//! The status of a resource, as the API server keeps it.

use kube::api::{Patch, PatchParams};
use kube::{Api, Resource as _, ResourceExt as _};
use serde_json::json;
use tokio::sync::Mutex;

use crate::answer::answer;
use crate::resource::{PostgresRoles, PostgresRolesStatus};

/// How often a status is written again because the resource has changed meanwhile.
const TRIES: usize = 5;

/// The status of one resource during a look.
///
/// The resource may come from a watch that is late. So the API server is told which version the status was made of: a
/// status that it has in the meantime is not overwritten with an older one.
pub(crate) struct StatusFile {
    api: Api<PostgresRoles>,
    name: String,
    uid: Option<String>,
    seen: Mutex<SeenStatus>,
}

/// What the API server had, as far as this process knows.
struct SeenStatus {
    version: Option<String>,
    status: Option<PostgresRolesStatus>,
}

impl SeenStatus {
    fn of(resource: &PostgresRoles) -> Self {
        Self { version: resource.resource_version(), status: resource.status.clone() }
    }
}

impl StatusFile {
    /// The status of this resource.
    pub(crate) fn new(client: kube::Client, resource: &PostgresRoles) -> Self {
        Self {
            api: Api::namespaced(client, &resource.namespace().unwrap_or_default()),
            name: resource.name_any(),
            uid: resource.uid(),
            seen: Mutex::new(SeenStatus::of(resource)),
        }
    }

    /// Writes the status. If only other parts of the resource have changed since it was read, it is written all the same.
    ///
    /// # Errors
    /// The API server refuses or does not answer; a conflict (409) if the status is another one than the one that this look
    /// began with or has written.
    pub(crate) async fn write(&self, status: &PostgresRolesStatus) -> Result<(), kube::Error> {
        let mut seen = self.seen.lock().await;
        let mut tries = 1;
        loop {
            let patch = json!({ "metadata": { "resourceVersion": seen.version }, "status": status });
            let (parameters, patch) = (PatchParams::default(), Patch::Merge(patch));
            let conflict = match answer(self.api.patch_status(&self.name, &parameters, &patch)).await {
                Ok(written) => {
                    *seen = SeenStatus::of(&written);
                    return Ok(());
                }
                Err(kube::Error::Api(refusal)) if refusal.code == 409 && tries < TRIES => refusal,
                Err(error) => return Err(error),
            };
            let now = answer(self.api.get(&self.name)).await?;
            if now.meta().uid != self.uid || now.status != seen.status {
                return Err(kube::Error::Api(conflict));
            }
            *seen = SeenStatus::of(&now);
            tries += 1;
        }
    }

    /// The finalizers of the resource become these.
    ///
    /// # Errors
    /// The API server refuses or does not answer; a conflict (409) if the resource has changed.
    pub(crate) async fn write_finalizers(&self, finalizers: &[String]) -> Result<(), kube::Error> {
        let mut seen = self.seen.lock().await;
        let metadata = json!({ "finalizers": finalizers, "resourceVersion": seen.version });
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        let written = answer(self.api.patch(&self.name, &PatchParams::default(), &patch)).await?;
        *seen = SeenStatus::of(&written);
        Ok(())
    }
}

#[cfg(test)]
mod tests;

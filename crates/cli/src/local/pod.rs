//! The token files of a local cloud's pod, which its kubelet renews, and the clock by which they
//! expire.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pgentra_emulator::LocalAzure;
use secrecy::ExposeSecret;

use super::environment::CloudFiles;
use super::folder::write;
use crate::problem::{Outcome, Problem};

/// How often the files are renewed; their tokens live an hour, as a kubelet's do.
const RENEWAL: Duration = Duration::from_secs(20 * 60);

/// The files and the signer of their tokens.
#[derive(Clone)]
pub(crate) struct Pod {
    places: Arc<CloudFiles>,
    azure: Arc<LocalAzure>,
}

impl Pod {
    pub(crate) fn new(places: CloudFiles, azure: Arc<LocalAzure>) -> Self {
        Self { places: Arc::new(places), azure }
    }

    pub(crate) fn write(&self) -> Outcome {
        let federation = self.azure.federation();
        for (file, token) in [
            (&self.places.pod_token, federation.service_account_token()),
            (&self.places.bound_pod_token, federation.bound_service_account_token()),
        ] {
            let token = token.map_err(|error| Problem::ours("cannot sign a pod's token", error))?;
            write(file, token.expose_secret())?;
        }
        Ok(())
    }

    /// Renews the tokens while the task lives, as a kubelet does.
    pub(crate) async fn keep(self) {
        loop {
            tokio::time::sleep(RENEWAL).await;
            self.renew();
        }
    }

    /// Advances the cloud's clock and returns its time. Renews the files, as a kubelet would have
    /// done meanwhile.
    pub(crate) fn advance(&self, by: Duration) -> SystemTime {
        self.azure.clock().advance(by);
        if !by.is_zero() {
            self.renew();
        }
        self.azure.clock().now()
    }

    fn renew(&self) {
        if let Err(problem) = self.write() {
            tracing::warn!(?problem, "the pod's token files could not be renewed");
        }
    }
}

//! The token files of the pod that a local cloud has, which its kubelet writes anew, and the clock that they end by.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pgentra_emulator::LocalAzure;
use secrecy::ExposeSecret;

use super::environment::CloudFiles;
use super::folder::write;
use crate::problem::{Outcome, Problem};

/// How often the files are written anew; the tokens in them live an hour, as a kubelet's do.
const RENEWAL: Duration = Duration::from_secs(20 * 60);

/// The files and who signs what is in them.
#[derive(Clone)]
pub(crate) struct Pod {
    places: Arc<CloudFiles>,
    azure: Arc<LocalAzure>,
}

impl Pod {
    pub(crate) fn new(places: CloudFiles, azure: Arc<LocalAzure>) -> Self {
        Self { places: Arc::new(places), azure }
    }

    /// Writes fresh tokens.
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

    /// Writes fresh tokens again and again as long as the task lives, as a kubelet does.
    pub(crate) async fn keep(self) {
        loop {
            tokio::time::sleep(RENEWAL).await;
            self.renew();
        }
    }

    /// Moves the cloud's clock ahead, and returns its time. A kubelet would have renewed the files in the time between.
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

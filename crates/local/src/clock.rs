//! The clock of a local cloud, and the token files of its pod, which its kubelet renews.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use pgentra_emulator::LocalAzure;
use secrecy::ExposeSecret;

use crate::environment::CloudFiles;
use crate::error::Failure;
use crate::folder::{write, write_shared};

/// The furthest step of the clock: a year, which is more than any token lives.
pub const FURTHEST: Duration = Duration::from_secs(366 * 24 * 3600);
/// How often the files are renewed; their tokens live an hour, as a kubelet's do.
const RENEWAL: Duration = Duration::from_secs(20 * 60);

/// The time of a local cloud: lifetimes of tokens follow it. Clones share one clock.
#[derive(Clone, Debug)]
pub struct CloudClock {
    files: Arc<CloudFiles>,
    azure: Arc<LocalAzure>,
    /// A second file for the pod's token, which every user can read.
    shared: Arc<OnceLock<PathBuf>>,
}

impl CloudClock {
    pub(crate) fn new(files: CloudFiles, azure: Arc<LocalAzure>) -> Self {
        Self { files: Arc::new(files), azure, shared: Arc::default() }
    }

    /// The cloud whose clock it is.
    pub(crate) fn azure(&self) -> &LocalAzure {
        &self.azure
    }

    /// The current time of the cloud.
    pub fn now(&self) -> SystemTime {
        self.azure.clock().now()
    }

    /// Advances the clock and returns its time. Renews the token files of the pod, as a kubelet
    /// would have done meanwhile.
    pub fn advance(&self, by: Duration) -> SystemTime {
        self.azure.clock().advance(by);
        if !by.is_zero() {
            self.renew();
        }
        self.now()
    }

    /// Writes the token files of the pod.
    pub(crate) fn write(&self) -> Result<(), Failure> {
        let federation = self.azure.federation();
        for (file, token) in [
            (&self.files.pod_token, federation.service_account_token()),
            (&self.files.bound_pod_token, federation.bound_service_account_token()),
        ] {
            let token = token.map_err(|error| Failure::machine("cannot sign a pod's token", error))?;
            write(file, token.expose_secret())?;
        }
        if let Some(file) = self.shared.get() {
            let token = federation.service_account_token();
            let token = token.map_err(|error| Failure::machine("cannot sign a pod's token", error))?;
            write_shared(file, token.expose_secret().as_bytes())?;
        }
        Ok(())
    }

    /// From now on writes the pod's token into this file too.
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "containers are of Linux"))]
    pub(crate) fn share(&self, file: PathBuf) -> Result<(), Failure> {
        // The first call decides.
        let _ = self.shared.set(file);
        self.write()
    }

    /// Renews the tokens while the task lives, as a kubelet does.
    pub(crate) async fn keep(self) {
        loop {
            tokio::time::sleep(RENEWAL).await;
            self.renew();
        }
    }

    fn renew(&self) {
        if let Err(error) = self.write() {
            tracing::warn!(?error, "the pod's token files could not be renewed");
        }
    }
}

impl pgentra_system::Clock for CloudClock {
    fn now(&self) -> SystemTime {
        self.azure.clock().now()
    }
}

//! A Kubernetes cluster whose service account tokens the local Entra takes.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::SystemTime;

use futures_util::FutureExt as _;
use pgentra_emulator::EXCHANGE_AUDIENCE;
use pgentra_emulator::options::TrustedCluster;
use pgentra_verify::{BoxFuture, FetchError, JWKS_LIMIT, KeySource, Policy, Verifier};

use crate::error::{Failure, FailureKind};

/// How to get the keys of a cluster.
const HINT: &str = "kubectl get --raw /openid/v1/jwks > keys.json writes the keys of a cluster";

/// The keys of an issuer in a file.
struct KeysFile(Vec<u8>);

impl KeySource for KeysFile {
    fn fetch(&self) -> BoxFuture<'_, Result<Vec<u8>, FetchError>> {
        Box::pin(async { Ok(self.0.clone()) })
    }
}

/// The cluster with this issuer, and the keys in this file, which is read once.
///
/// # Errors
/// The file cannot be read, or has no key that may sign tokens.
pub(crate) fn trusted(issuer: &str, keys: &Path) -> Result<TrustedCluster, Failure> {
    let unusable = |error: &dyn std::error::Error| {
        let text = format!("{} has no keys of a cluster: {error}", keys.display());
        Failure::new(FailureKind::Usage, text).with_hint(HINT)
    };
    let document = read(keys).map_err(|error| unusable(&error))?;
    let policy =
        Policy::of_issuer(issuer).audience(EXCHANGE_AUDIENCE).build().map_err(|error| unusable(&error))?;
    let verifier = Verifier::new(policy, KeysFile(document));
    // Nothing here waits: the keys are in memory.
    if let Some(Err(error)) = verifier.warm(SystemTime::UNIX_EPOCH).now_or_never() {
        return Err(unusable(&error));
    }
    Ok(TrustedCluster::new(issuer, move |token, now| {
        verifier.verify(token, now).now_or_never().is_some_and(|verified| verified.is_ok())
    }))
}

/// The text of the file, of at most [`JWKS_LIMIT`] bytes and one.
fn read(file: &Path) -> std::io::Result<Vec<u8>> {
    let mut document = Vec::new();
    File::open(file)?.take(JWKS_LIMIT as u64 + 1).read_to_end(&mut document)?;
    Ok(document)
}

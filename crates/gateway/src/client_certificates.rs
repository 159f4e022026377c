//! The client certificates with which the gateway signs in at the server: one for each role, made in
//! memory.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rcgen::KeyPair;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use crate::authority::{AuthorityError, SigningAuthority};

/// How long a certificate is valid. PostgreSQL checks it when a session begins, so it has to last
/// for one sign-in; an hour lets one certificate serve many.
pub const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(3600);

/// Certificates that are kept: roles that sign in within an hour. The oldest is dropped for a new
/// one, and made again when it is needed.
const KEPT: usize = 1024;

/// Makes and keeps the certificates. `Debug` shows none.
pub struct ClientCertificates {
    authority: SigningAuthority,
    /// One key for all: what differs is the name that the authority signs.
    key: KeyPair,
    clock: Arc<dyn Fn() -> SystemTime + Send + Sync>,
    made: Mutex<HashMap<String, RoleCertificate>>,
}

struct RoleCertificate {
    made: SystemTime,
    resolver: Arc<SingleCertAndKey>,
}

impl ClientCertificates {
    /// For one server; `clock` is the current time.
    ///
    /// # Errors
    /// If the crypto library fails.
    pub fn new(
        authority: SigningAuthority,
        clock: Arc<dyn Fn() -> SystemTime + Send + Sync>,
    ) -> Result<Self, AuthorityError> {
        Ok(Self { authority, key: SigningAuthority::key()?, clock, made: Mutex::default() })
    }

    /// The certificate of a role. It is renewed when half of its lifetime is over.
    pub(crate) fn of(&self, role: &str) -> Result<Arc<SingleCertAndKey>, AuthorityError> {
        let now = (self.clock)();
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = made.get(role).filter(|known| is_fresh(known.made, now)) {
            return Ok(Arc::clone(&known.resolver));
        }
        let certificate = self.authority.sign(role, &self.key, now, CERTIFICATE_LIFETIME)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let certified =
            CertifiedKey::from_der(vec![certificate], key, &provider).map_err(AuthorityError::unusable)?;
        let resolver = Arc::new(SingleCertAndKey::from(certified));
        if made.len() >= KEPT && !made.contains_key(role) {
            let oldest = made.iter().min_by_key(|(_, known)| known.made).map(|(role, _)| role.clone());
            oldest.and_then(|role| made.remove(&role));
        }
        made.insert(role.to_owned(), RoleCertificate { made: now, resolver: Arc::clone(&resolver) });
        Ok(resolver)
    }
}

/// Whether less than half of the lifetime is over. A clock that went back makes a new certificate.
fn is_fresh(made: SystemTime, now: SystemTime) -> bool {
    now.duration_since(made).is_ok_and(|age| age < CERTIFICATE_LIFETIME / 2)
}

impl fmt::Debug for ClientCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificates").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn a_certificate_serves_until_half_of_its_time_is_over() {
        let seconds = Arc::new(AtomicU64::new(1_800_000_000));
        let clock = Arc::clone(&seconds);
        let now = move || SystemTime::UNIX_EPOCH + Duration::from_secs(clock.load(Ordering::Relaxed));
        let authority = SigningAuthority::generate(now()).unwrap();
        let certificates = ClientCertificates::new(authority, Arc::new(now)).unwrap();
        let first = certificates.of("app").unwrap();
        assert!(Arc::ptr_eq(&first, &certificates.of("app").unwrap()));
        assert!(!Arc::ptr_eq(&first, &certificates.of("other").unwrap()));
        seconds.fetch_add(1799, Ordering::Relaxed);
        assert!(Arc::ptr_eq(&first, &certificates.of("app").unwrap()));
        seconds.fetch_add(1, Ordering::Relaxed);
        assert!(!Arc::ptr_eq(&first, &certificates.of("app").unwrap()));
        for role in 0..KEPT + 10 {
            certificates.of(&role.to_string()).unwrap();
        }
        assert_eq!(certificates.made.lock().unwrap().len(), KEPT);
    }
}

//! The certificate of the webhook, and the authority that signed it.

use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_cert::der::Decode as _;

/// A certificate is valid from this long before it was made: clocks of nodes differ.
const BACKDATED: Duration = Duration::from_secs(300);

/// The names under which an API server asks a Service of a namespace.
pub(super) fn names(service: &str, namespace: &str) -> Vec<String> {
    vec![format!("{service}.{namespace}.svc"), format!("{service}.{namespace}.svc.cluster.local")]
}

/// A certificate with its key, and the authorities that an API server is told to trust.
#[derive(Clone)]
pub(super) struct Bundle {
    /// PEM: the authority of the certificate first, then the one before, whose certificates other replicas may still serve.
    pub(super) authorities: String,
    /// PEM.
    pub(super) certificate: String,
    /// PEM.
    pub(super) key: String,
}

/// A certificate that cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub(super) enum WebhookCertificateError {
    #[error("the certificate cannot be made")]
    Make(#[from] rcgen::Error),
    #[error("the certificate cannot be read: {0}")]
    Read(String),
}

impl Bundle {
    /// A new certificate of a new authority, whose key is kept nowhere: the next certificate has another authority.
    pub(super) fn make(
        names: &[String],
        lifetime: Duration,
        now: SystemTime,
        before: Option<&Bundle>,
    ) -> Result<Self, WebhookCertificateError> {
        let valid = |params: &mut CertificateParams, common_name: &str| {
            params.not_before = (now - BACKDATED).into();
            params.not_after = (now + lifetime).into();
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, common_name);
        };
        let mut params = CertificateParams::new(Vec::new())?;
        valid(&mut params, "pgentra-operator authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let mut params = CertificateParams::new(names.to_vec())?;
        valid(&mut params, "pgentra-operator");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &authority)?;
        let before = before.and_then(|before| first(&before.authorities)).unwrap_or_default();
        let authorities = authority.pem() + &before;
        Ok(Self { authorities, certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// The moments from which and until which it is valid.
    ///
    /// # Errors
    /// It is no certificate.
    pub(super) fn validity(&self) -> Result<(SystemTime, SystemTime), WebhookCertificateError> {
        let read = |error: &dyn std::fmt::Display| WebhookCertificateError::Read(error.to_string());
        let der =
            CertificateDer::from_pem_slice(self.certificate.as_bytes()).map_err(|error| read(&error))?;
        let certificate = x509_cert::Certificate::from_der(&der).map_err(|error| read(&error))?;
        let validity = certificate.tbs_certificate().validity();
        let time = |time: x509_cert::time::Time| UNIX_EPOCH + time.to_unix_duration();
        Ok((time(validity.not_before), time(validity.not_after)))
    }

    /// Whether it is to be replaced: two thirds of its life are over, or it is for other names.
    pub(super) fn is_due(&self, names: &[String], now: SystemTime) -> bool {
        let Ok((from, until)) = self.validity() else { return true };
        let made = from + BACKDATED;
        let life = until.duration_since(made).unwrap_or_default();
        let is_over = now < from || now >= made + life * 2 / 3;
        is_over || !self.is_for(names) || self.certified().is_err() || first(&self.authorities).is_none()
    }

    fn is_for(&self, names: &[String]) -> bool {
        let Ok(der) = CertificateDer::from_pem_slice(self.certificate.as_bytes()) else { return false };
        let Ok(end) = webpki::EndEntityCert::try_from(&der) else { return false };
        names.iter().all(|name| end.valid_dns_names().any(|valid| valid == name))
    }

    /// The certificate as a server shows it.
    ///
    /// # Errors
    /// The PEM texts are none, or do not belong together.
    pub(super) fn certified(&self) -> Result<CertifiedKey, WebhookCertificateError> {
        let read = |error: &dyn std::fmt::Display| WebhookCertificateError::Read(error.to_string());
        let certificate =
            CertificateDer::from_pem_slice(self.certificate.as_bytes()).map_err(|error| read(&error))?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(|error| read(&error))?;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        CertifiedKey::from_der(vec![certificate], key, &provider).map_err(|error| read(&error))
    }
}

/// The first certificate of a PEM text, if it is one of an authority: an API server takes no other text.
fn first(text: &str) -> Option<String> {
    const END: &str = "-----END CERTIFICATE-----";
    let end = text.find(END)? + END.len();
    let der = CertificateDer::from_pem_slice(&text.as_bytes()[..end]).ok()?;
    webpki::anchor_from_trusted_cert(&der).is_ok().then(|| format!("{}\n", &text[..end]))
}

/// Seconds since 1970.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The certificate that new connections get.
#[derive(Debug, Default)]
pub(super) struct Served(RwLock<Option<Arc<CertifiedKey>>>);

impl Served {
    /// Shows this one from now on.
    pub(super) fn set(&self, key: CertifiedKey) {
        *self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(Arc::new(key));
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn it_is_due_after_two_thirds_or_for_other_names() {
        let names = names("webhook", "pgentra");
        let now = UNIX_EPOCH + DAY * 20_000;
        let bundle = Bundle::make(&names, DAY * 90, now, None).unwrap();
        assert!(!bundle.is_due(&names, now));
        assert!(!bundle.is_due(&names, now + DAY * 59));
        assert!(bundle.is_due(&names, now + DAY * 60));
        assert!(bundle.is_due(&names, now - DAY));
        assert!(bundle.is_due(&super::names("another", "pgentra"), now));
        let other = Bundle::make(&names, DAY, now, None).unwrap();
        assert!(
            Bundle { key: other.key, ..bundle.clone() }.is_due(&names, now),
            "a key of another certificate"
        );
        assert!(Bundle { certificate: "no PEM".to_owned(), ..bundle.clone() }.is_due(&names, now));
        let broken = bundle.authorities.replacen('A', "B", 9);
        let broken = Bundle { authorities: broken, ..bundle };
        assert!(broken.is_due(&names, now), "the API server would not take its authority");
        let next = Bundle::make(&names, DAY, now, Some(&broken)).unwrap();
        assert_eq!(next.authorities.matches("BEGIN").count(), 1);
    }

    #[test]
    fn the_authority_before_is_trusted_too_and_no_older_one() {
        let names = names("webhook", "pgentra");
        let now = UNIX_EPOCH + DAY * 20_000;
        let one = Bundle::make(&names, DAY, now, None).unwrap();
        let two = Bundle::make(&names, DAY, now, Some(&one)).unwrap();
        let three = Bundle::make(&names, DAY, now, Some(&two)).unwrap();
        let count = |bundle: &Bundle| bundle.authorities.matches("BEGIN CERTIFICATE").count();
        assert_eq!([&one, &two, &three].map(count), [1, 2, 2]);
        assert!(two.authorities.ends_with(&one.authorities));
        for (bundle, trusted) in [(&one, &two), (&two, &three), (&three, &three)] {
            assert!(verifies(bundle, &trusted.authorities));
        }
        assert!(!verifies(&one, &three.authorities));
    }

    /// Whether a client that trusts these authorities takes the certificate.
    fn verifies(bundle: &Bundle, authorities: &str) -> bool {
        let mut roots = rustls::RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
            roots.add(authority.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(roots.into(), provider)
            .build()
            .unwrap();
        let end = CertificateDer::from_pem_slice(bundle.certificate.as_bytes()).unwrap();
        let name = "webhook.pgentra.svc".try_into().unwrap();
        let now = rustls::pki_types::UnixTime::since_unix_epoch(DAY * 20_000);
        let verifier: &dyn rustls::client::danger::ServerCertVerifier = verifier.as_ref();
        verifier.verify_server_cert(&end, &[], &name, &[], now).is_ok()
    }
}

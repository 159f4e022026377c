//! Reads the names in a client's certificate and decides which roles it may use.

use std::collections::BTreeMap;

use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::Decode as _;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::oid::db::rfc4519::COMMON_NAME;
use x509_cert::ext::pkix::name::DirectoryString;

/// Which certificates of the authority may use which roles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CertificateRule {
    /// Each certificate may use every role.
    #[default]
    Any,
    /// The certificate's name must be the role's name, as with PostgreSQL's authentication method
    /// `cert`; with a map, the certificate may use only the roles that the map lists for its name.
    Named(CertificateName, Option<BTreeMap<String, Vec<String>>>),
}

/// A name in a certificate's subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateName {
    /// The common name, of which there must be exactly one.
    CommonName,
    /// The whole subject as RFC 4514 writes it: `CN=app,OU=team,O=Contoso`.
    DistinguishedName,
}

impl CertificateRule {
    /// Whether a certificate may use a role; the error is the certificate's name. A certificate
    /// whose name cannot be read may use none.
    pub(crate) fn check(&self, certificate: &CertificateDer<'_>, role: &[u8]) -> Result<(), Option<String>> {
        let Self::Named(which, map) = self else {
            return Ok(());
        };
        let name = which.of(certificate).ok_or(None)?;
        let opens = match map {
            None => name.as_bytes() == role,
            Some(map) => map.get(&name).is_some_and(|roles| roles.iter().any(|it| it.as_bytes() == role)),
        };
        if opens { Ok(()) } else { Err(Some(name)) }
    }
}

impl CertificateName {
    fn of(self, certificate: &CertificateDer<'_>) -> Option<String> {
        let certificate = Certificate::from_der(certificate).ok()?;
        let subject = certificate.tbs_certificate().subject();
        match self {
            Self::DistinguishedName => Some(subject.to_string()).filter(|name| !name.is_empty()),
            Self::CommonName => {
                let mut names = subject.iter().filter(|attribute| attribute.oid == COMMON_NAME).map(text);
                names.next().flatten().filter(|name| names.next().is_none() && !name.is_empty())
            }
        }
    }
}

fn text(attribute: &AttributeTypeAndValue) -> Option<String> {
    DirectoryString::try_from(&attribute.value).ok().map(|text| text.value().into_owned())
}

/// The algorithm with which a certificate was signed.
pub(crate) fn signature_algorithm(certificate: &CertificateDer<'_>) -> Option<ObjectIdentifier> {
    Some(Certificate::from_der(certificate).ok()?.signature_algorithm().oid)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    fn certificate(subject: &[(DnType, &str)]) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in subject {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    fn map(name: &str, roles: &[&str]) -> Option<BTreeMap<String, Vec<String>>> {
        let roles = roles.iter().map(|role| (*role).to_owned()).collect();
        Some(BTreeMap::from([(name.to_owned(), roles)]))
    }

    #[test]
    fn which_certificate_opens_which_role() {
        use CertificateName::{CommonName, DistinguishedName};
        let app = certificate(&[
            (DnType::OrganizationName, "Contoso, Ltd"),
            (DnType::OrganizationalUnitName, "team"),
            (DnType::CommonName, "app"),
        ]);
        let full = "CN=app,OU=team,O=Contoso\\, Ltd";
        for (rule, role, outcome) in [
            (CertificateRule::Any, "any", Ok(())),
            (CertificateRule::Named(CommonName, None), "app", Ok(())),
            (CertificateRule::Named(CommonName, None), "App", Err("app")),
            (CertificateRule::Named(CommonName, map("app", &["one", "two"])), "two", Ok(())),
            (CertificateRule::Named(CommonName, map("app", &["one", "two"])), "app", Err("app")),
            (CertificateRule::Named(CommonName, map("other", &["app"])), "app", Err("app")),
            (CertificateRule::Named(DistinguishedName, None), "app", Err(full)),
            (CertificateRule::Named(DistinguishedName, map(full, &["app"])), "app", Ok(())),
        ] {
            let outcome = outcome.map_err(|name| Some(name.to_owned()));
            assert_eq!(rule.check(&app, role.as_bytes()), outcome, "{rule:?}");
        }
    }

    #[test]
    fn a_name_that_is_not_clear_opens_nothing() {
        let named = CertificateRule::Named(CertificateName::CommonName, None);
        let none = certificate(&[(DnType::OrganizationName, "app")]);
        assert_eq!(named.check(&none, b"app"), Err(None));
        assert_eq!(named.check(&CertificateDer::from(&b"not a certificate"[..]), b""), Err(None));
        let empty = CertificateRule::Named(CertificateName::DistinguishedName, None);
        assert_eq!(empty.check(&certificate(&[]), b""), Err(None));
    }
}

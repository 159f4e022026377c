//! Applications: what is registered, with which secrets and federated credentials, and agent identities.

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Uri;
use http::uri::Scheme;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The most secrets and the most federated credentials of one application; Entra allows 20 of the latter.
pub(crate) const MOST: usize = 20;

/// An application registration, and its service principal in the tenant.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AppRegistration {
    pub(crate) name: String,
    pub(crate) client_id: Uuid,
    pub(crate) registration_id: Uuid,
    pub(crate) object_id: Option<Uuid>,
    pub(crate) is_blueprint: bool,
    pub(crate) secrets: Vec<ClientSecret>,
    pub(crate) credentials: Vec<ApplicationCredential>,
}

/// Whether a secret belongs to an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretCheck {
    /// It does.
    Good,
    /// It did, and its time is over.
    Expired,
    /// It does not, or its time has not begun.
    Wrong,
}

impl AppRegistration {
    /// An application without credentials. `registration_id` is the object id of the registration, `object_id` that of
    /// the service principal.
    pub fn new(name: &str, client_id: Uuid, registration_id: Uuid, object_id: Option<Uuid>) -> Self {
        Self {
            name: name.to_owned(),
            client_id,
            registration_id,
            object_id,
            is_blueprint: false,
            secrets: Vec::new(),
            credentials: Vec::new(),
        }
    }

    /// The same with a secret that does not expire.
    #[must_use]
    pub fn with_secret(mut self, secret: SecretString) -> Self {
        self.secrets.push(ClientSecret {
            key_id: Uuid::new_v4(),
            name: None,
            secret,
            starts: 0,
            ends: i64::MAX,
        });
        self
    }

    /// Display name, `displayName` in Graph.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Client id: `appid` in a token.
    pub fn client_id(&self) -> Uuid {
        self.client_id
    }

    /// Object id of the service principal; an application without one cannot sign in.
    pub fn object_id(&self) -> Option<Uuid> {
        self.object_id
    }

    /// Whether it is the blueprint of agent identities.
    pub fn is_blueprint(&self) -> bool {
        self.is_blueprint
    }

    /// Whose statements prove that a client is this application.
    pub fn credentials(&self) -> &[ApplicationCredential] {
        &self.credentials
    }

    /// Compares `offered` with every secret, at `now` in seconds since 1970.
    pub fn check_secret(&self, offered: &str, now: i64) -> SecretCheck {
        let same = |one: &&ClientSecret| {
            let expected = one.secret.expose_secret().as_bytes();
            aws_lc_rs::constant_time::verify_slices_are_equal(expected, offered.as_bytes()).is_ok()
        };
        match self.secrets.iter().find(same) {
            Some(secret) if now >= secret.ends => SecretCheck::Expired,
            Some(secret) if now >= secret.starts => SecretCheck::Good,
            _ => SecretCheck::Wrong,
        }
    }
}

/// A client secret of an application.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ClientSecret {
    pub(crate) key_id: Uuid,
    pub(crate) name: Option<String>,
    #[serde(with = "crate::exposed")]
    pub(crate) secret: SecretString,
    /// In seconds since 1970.
    pub(crate) starts: i64,
    pub(crate) ends: i64,
}

impl ClientSecret {
    /// A new secret of 40 characters, as Entra generates it; `None` if the crypto library fails.
    pub(crate) fn generate(name: Option<&str>, starts: i64, ends: i64) -> Option<Self> {
        let mut bytes = [0; 30];
        SystemRandom::new().fill(&mut bytes).ok()?;
        let secret = SecretString::from(URL_SAFE_NO_PAD.encode(bytes));
        Some(Self { key_id: Uuid::new_v4(), name: name.map(str::to_owned), secret, starts, ends })
    }

    /// Its first three characters, which Entra shows.
    pub(crate) fn hint(&self) -> &str {
        self.secret.expose_secret().get(..3).unwrap_or_default()
    }
}

/// A federated identity credential of an application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each field is what its name says in Graph")]
pub struct ApplicationCredential {
    pub id: Uuid,
    pub name: String,
    pub issuer: String,
    pub subject: String,
    pub audience: String,
    pub description: Option<String>,
}

/// The most characters of an issuer, a subject, an audience or a description of a federated credential
/// (Microsoft: federatedIdentityCredential).
const LONGEST: usize = 600;

/// What is wrong with a federated credential of an application or of a managed identity, if anything.
pub fn credential_flaw(name: &str, issuer: &str, subject: &str, audience: &str) -> Option<&'static str> {
    let is_name = (3..=120).contains(&name.len())
        && name.starts_with(|char: char| char.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if !is_name {
        return Some("the name has 3 to 120 letters, digits, hyphens and underscores");
    }
    let has_host = |issuer: &Uri| issuer.scheme() == Some(&Scheme::HTTPS) && issuer.host().is_some();
    if !issuer.parse().is_ok_and(|issuer| has_host(&issuer)) {
        return Some("issuer must be an https URL");
    }
    let fits = |text: &str| !text.is_empty() && is_short(text);
    if !(is_short(issuer) && fits(subject) && fits(audience)) {
        return Some("issuer, subject and audience have 1 to 600 characters");
    }
    None
}

/// Whether a text is not longer than a federated credential keeps it.
pub(crate) fn is_short(text: &str) -> bool {
    text.chars().count() <= LONGEST
}

/// An agent identity: a service principal without credentials, for which its blueprint signs in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentIdentity {
    pub(crate) name: String,
    pub(crate) object_id: Uuid,
    pub(crate) blueprint: Uuid,
}

impl AgentIdentity {
    /// An agent identity of the blueprint with this client id.
    pub fn new(name: &str, object_id: Uuid, blueprint: Uuid) -> Self {
        Self { name: name.to_owned(), object_id, blueprint }
    }

    /// Display name, `displayName` in Graph.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Object id, which is its client id too.
    pub fn object_id(&self) -> Uuid {
        self.object_id
    }

    /// Client id of its blueprint.
    pub fn blueprint(&self) -> Uuid {
        self.blueprint
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_federated_credential_has_a_name_an_issuer_and_bounds() {
        let long = "é".repeat(600);
        let url = format!("https://x/{}", "a".repeat(590));
        let longer = |text: &str| format!("{text}x");
        for (name, issuer, subject, audience, is_good) in [
            ("one", "https://issuer.example/x", "s", "a", true),
            ("one", &url, &long, &long, true),
            ("o", "https://issuer.example", "s", "a", false),
            ("-one", "https://issuer.example", "s", "a", false),
            ("one two", "https://issuer.example", "s", "a", false),
            ("one", "http://issuer.example", "s", "a", false),
            ("one", "https://", "s", "a", false),
            ("one", "issuer", "s", "a", false),
            ("one", "https://issuer.example/a b", "s", "a", false),
            ("one", &longer(&url), "s", "a", false),
            ("one", "https://issuer.example", "", "a", false),
            ("one", "https://issuer.example", &longer(&long), "a", false),
            ("one", "https://issuer.example", "s", &longer(&long), false),
        ] {
            let flaw = credential_flaw(name, issuer, subject, audience);
            assert_eq!(flaw.is_none(), is_good, "{name} {issuer}: {flaw:?}");
        }
    }

    #[test]
    fn a_secret_is_compared_expires_and_is_never_shown() {
        let mut app = AppRegistration::new("app", Uuid::nil(), Uuid::nil(), None).with_secret("first".into());
        let second = ClientSecret::generate(Some("second"), 10, 100).unwrap();
        let text = second.secret.expose_secret().to_owned();
        assert_eq!(text.len(), 40);
        app.secrets.push(second);
        assert_eq!(app.check_secret("first", 1_000), SecretCheck::Good);
        assert_eq!(app.check_secret(&text, 9), SecretCheck::Wrong);
        assert_eq!(app.check_secret(&text, 10), SecretCheck::Good);
        assert_eq!(app.check_secret(&text, 99), SecretCheck::Good);
        assert_eq!(app.check_secret(&text, 100), SecretCheck::Expired);
        assert_eq!(app.check_secret("first ", 0), SecretCheck::Wrong);
        let shown = format!("{app:?}");
        assert!(!shown.contains("first") && !shown.contains(&text));
    }
}

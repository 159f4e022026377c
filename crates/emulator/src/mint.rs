//! Access tokens, with the claims that Entra puts into them (Microsoft: access-token-claims-reference).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::{digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pgentra_directory::User;
use secrecy::SecretString;
use serde::Serialize;
use serde_json::{Map, Value, json};
use uuid::{Uuid, uuid};

use crate::clock::unix;
use crate::directory::{Application, Identity};
use crate::keys::{KeyError, SigningKey};
use crate::options::{ResourceApplication, TokenVersion};

/// The client id that users of Cloud Shell sign in with, "Azure Portal Console App".
const CONSOLE_APPLICATION: Uuid = uuid!("b677c290-cf4b-4a8e-a60e-91ba650a4abe");

/// Most groups that Entra puts into a token; beyond that it names where they are (Microsoft: groups overage claim).
const MOST_GROUPS: usize = 200;

/// Entra dates a token five minutes back, so that a client whose clock is a little behind accepts it.
const BACKDATED: i64 = 300;

/// An access token to be minted. Everything in it can be changed, also to something that Entra would never sign.
#[derive(Clone, Debug)]
pub struct Draft {
    pub(crate) who: TokenSubject,
    pub(crate) audience: String,
    pub(crate) lifetime: Option<Duration>,
    pub(crate) issued: Option<SystemTime>,
    pub(crate) version: Option<TokenVersion>,
    pub(crate) claims: BTreeMap<String, Value>,
    pub(crate) without: BTreeSet<String>,
    /// The client that a user has signed in with, and whether it has proved who it is. Default: Cloud Shell.
    pub(crate) client: Option<(Uuid, bool)>,
}

/// The subject of a token.
#[derive(Clone, Debug)]
pub(crate) enum TokenSubject {
    App { client_id: Uuid, object_id: Uuid, proof: Proof, resource_id: Option<String> },
    User(User),
}

/// How an application proved who it is: `appidacr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    Secret,
    Assertion,
}

/// A signed token and what is true of it.
#[derive(Clone, Debug)]
pub(crate) struct Minted {
    pub(crate) token: SecretString,
    pub(crate) not_before: i64,
    pub(crate) expires: i64,
    /// What it says, without the padding of a fault.
    pub(crate) claims: Arc<Map<String, Value>>,
}

/// What the tenant adds to every token.
pub(crate) struct Mint<'a> {
    pub(crate) key: Arc<SigningKey>,
    pub(crate) tenant: Uuid,
    pub(crate) authority: &'a str,
    pub(crate) now: i64,
    pub(crate) lifetime: Duration,
    pub(crate) resource: Option<&'a ResourceApplication>,
    pub(crate) least_bytes: usize,
}

impl Draft {
    /// A token of a managed identity for `resource`, the `aud` as it was asked for.
    pub fn of_identity(identity: &Identity, resource: impl Into<String>) -> Self {
        Self::of(
            TokenSubject::App {
                client_id: identity.client_id,
                object_id: identity.object_id,
                proof: Proof::Assertion,
                resource_id: Some(identity.resource_id.clone()),
            },
            resource,
        )
    }

    /// A token of an application that signed in with its secret.
    pub fn of_application(application: &Application, resource: impl Into<String>) -> Self {
        Self::of(
            TokenSubject::App {
                client_id: application.client_id,
                object_id: application.object_id,
                proof: Proof::Secret,
                resource_id: None,
            },
            resource,
        )
    }

    /// A delegated token of a user.
    pub fn of_user(user: &User, resource: impl Into<String>) -> Self {
        Self::of(TokenSubject::User(user.clone()), resource)
    }

    pub(crate) fn of(who: TokenSubject, resource: impl Into<String>) -> Self {
        Self {
            who,
            audience: resource.into(),
            lifetime: None,
            issued: None,
            version: None,
            claims: BTreeMap::new(),
            without: BTreeSet::new(),
            client: None,
        }
    }

    /// The client that a user has signed in with, and whether it has proved who it is.
    pub(crate) fn for_client(mut self, client: Uuid, is_confidential: bool) -> Self {
        self.client = Some((client, is_confidential));
        self
    }

    /// How long it lives from its issue. Default: the lifetime for its kind in
    /// [`Lifetimes`](crate::options::Lifetimes).
    #[must_use]
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = Some(lifetime);
        self
    }

    /// When it is issued. Default: now, by the clock of the local cloud.
    #[must_use]
    pub fn issued(mut self, at: SystemTime) -> Self {
        self.issued = Some(at);
        self
    }

    /// Its form. Default: what the resource takes; v1 for an unknown one.
    #[must_use]
    pub fn version(mut self, version: TokenVersion) -> Self {
        self.version = Some(version);
        self
    }

    /// Sets a claim, or replaces it.
    #[must_use]
    pub fn claim(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.claims.insert(name.into(), value.into());
        self
    }

    /// Omits a claim from the token.
    #[must_use]
    pub fn without(mut self, name: impl Into<String>) -> Self {
        self.without.insert(name.into());
        self
    }
}

#[derive(Serialize)]
struct JwsHeader<'a> {
    typ: &'static str,
    alg: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    x5t: Option<&'a str>,
    kid: &'a str,
}

/// The claims of every token.
#[derive(Serialize)]
struct Base<'a> {
    aud: String,
    iss: String,
    iat: i64,
    nbf: i64,
    exp: i64,
    aio: String,
    oid: Uuid,
    rh: String,
    sub: String,
    tid: Uuid,
    uti: String,
    ver: &'static str,
    #[serde(flatten)]
    kind: AccountClaims<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum AccountClaims<'a> {
    AppV1 {
        appid: Uuid,
        appidacr: &'static str,
        idp: String,
        idtyp: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        xms_mirid: Option<&'a str>,
    },
    AppV2 {
        azp: Uuid,
        azpacr: &'static str,
        idtyp: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        xms_mirid: Option<&'a str>,
    },
    UserV1 {
        acr: &'static str,
        amr: [&'static str; 2],
        appid: Uuid,
        appidacr: &'static str,
        groups: &'a [Uuid],
        idtyp: &'static str,
        ipaddr: &'static str,
        name: &'a str,
        scp: &'static str,
        unique_name: &'a str,
        upn: &'a str,
    },
    UserV2 {
        azp: Uuid,
        azpacr: &'static str,
        groups: &'a [Uuid],
        idtyp: &'static str,
        name: &'a str,
        preferred_username: &'a str,
        scp: &'static str,
    },
}

impl Mint<'_> {
    /// Signs a token for `draft`.
    pub(crate) fn sign(&self, draft: &Draft) -> Result<Minted, KeyError> {
        let now = draft.issued.map_or(self.now, unix);
        let life = draft.lifetime.unwrap_or(self.lifetime);
        let expires = now.saturating_add(i64::try_from(life.as_secs()).unwrap_or(i64::MAX));
        let not_before = now - BACKDATED;
        let version =
            draft.version.or(self.resource.map(|resource| resource.version)).unwrap_or(TokenVersion::V1);
        let base = self.claims(draft, version, (not_before, expires))?;
        let mut claims = match serde_json::to_value(base) {
            Ok(Value::Object(claims)) => claims,
            _ => return Err(KeyError("encode a token")),
        };
        if let TokenSubject::User(user) = &draft.who
            && user.groups().len() > MOST_GROUPS
        {
            claims.remove("groups");
            let endpoint = format!(
                "https://graph.windows.net/{}/users/{}/getMemberObjects",
                self.tenant,
                user.object_id()
            );
            claims.insert("_claim_names".to_owned(), json!({ "groups": "src1" }));
            claims.insert("_claim_sources".to_owned(), json!({ "src1": { "endpoint": endpoint } }));
        }
        // Last, so that a test can replace or remove what Entra always sets.
        claims.extend(draft.claims.clone());
        claims.retain(|name, _| !draft.without.contains(name));
        let said = Arc::new(claims.clone());
        self.pad(&mut claims)?;
        let id = self.key.id();
        // Entra's v2 tokens have no `x5t`; in v1 it repeats the key id.
        let x5t = (version == TokenVersion::V1).then_some(id);
        let token = self.key.sign(&JwsHeader { typ: "JWT", alg: "RS256", x5t, kid: id }, &claims)?;
        Ok(Minted { token: token.into(), not_before, expires, claims: said })
    }

    /// Signs a statement to a client of who has signed in.
    pub(crate) fn sign_id_token(
        &self,
        user: &User,
        client: &str,
        nonce: Option<&str>,
    ) -> Result<SecretString, KeyError> {
        let life = i64::try_from(self.lifetime.as_secs()).unwrap_or(i64::MAX);
        let not_before = self.now - BACKDATED;
        let mut claims = json!({
            "aud": client,
            "iss": format!("{}{}/v2.0", self.authority, self.tenant),
            "iat": not_before,
            "nbf": not_before,
            "exp": self.now.saturating_add(life),
            "name": user.name(),
            "oid": user.object_id(),
            "preferred_username": user.user_principal_name(),
            "sub": pairwise(user.object_id(), client),
            "tid": self.tenant,
            "uti": random(16)?,
            "ver": "2.0",
        });
        if let (Some(nonce), Some(claims)) = (nonce, claims.as_object_mut()) {
            claims.insert("nonce".to_owned(), json!(nonce));
        }
        let kid = self.key.id();
        Ok(self.key.sign(&JwsHeader { typ: "JWT", alg: "RS256", x5t: None, kid }, &claims)?.into())
    }

    fn claims<'a>(
        &self,
        draft: &'a Draft,
        version: TokenVersion,
        (not_before, expires): (i64, i64),
    ) -> Result<Base<'a>, KeyError> {
        let v1_issuer = format!("https://sts.windows.net/{}/", self.tenant);
        let kind = kind(draft, version, &v1_issuer);
        let (oid, sub) = match &draft.who {
            TokenSubject::App { object_id, .. } => (*object_id, object_id.to_string()),
            TokenSubject::User(user) => (user.object_id(), pairwise(user.object_id(), &draft.audience)),
        };
        let (aud, iss, ver) = match version {
            TokenVersion::V1 => (draft.audience.clone(), v1_issuer, "1.0"),
            // A v2 token is for the client id of the resource's application, whatever URI was asked for.
            TokenVersion::V2 => {
                let aud = self.resource.map(|resource| resource.application_id.to_string());
                let iss = format!("{}{}/v2.0", self.authority, self.tenant);
                (aud.unwrap_or_else(|| draft.audience.clone()), iss, "2.0")
            }
        };
        Ok(Base {
            aud,
            iss,
            iat: not_before,
            nbf: not_before,
            exp: expires,
            aio: random(30)?,
            oid,
            rh: format!("1.{}.", random(30)?),
            sub,
            tid: self.tenant,
            uti: random(16)?,
            ver,
            kind,
        })
    }

    /// Fills the token up to the size that a fault asks for.
    fn pad(&self, claims: &mut Map<String, Value>) -> Result<(), KeyError> {
        if self.least_bytes > 0 {
            claims.insert("padding".to_owned(), random(self.least_bytes)?.into());
        }
        Ok(())
    }
}

fn kind<'a>(draft: &'a Draft, version: TokenVersion, v1_issuer: &str) -> AccountClaims<'a> {
    let (client, is_confidential) = draft.client.unwrap_or((CONSOLE_APPLICATION, false));
    let client_acr = if is_confidential { "1" } else { "0" };
    match (&draft.who, version) {
        (TokenSubject::App { client_id, proof, resource_id, .. }, version) => {
            // Microsoft: access-token-claims-reference, `appidacr`: 1 is a secret, 2 a certificate or an assertion.
            let acr = match proof {
                Proof::Secret => "1",
                Proof::Assertion => "2",
            };
            let xms_mirid = resource_id.as_deref();
            if version == TokenVersion::V1 {
                let idp = v1_issuer.to_owned();
                AccountClaims::AppV1 { appid: *client_id, appidacr: acr, idp, idtyp: "app", xms_mirid }
            } else {
                AccountClaims::AppV2 { azp: *client_id, azpacr: acr, idtyp: "app", xms_mirid }
            }
        }
        (TokenSubject::User(user), TokenVersion::V1) => AccountClaims::UserV1 {
            acr: "1",
            amr: ["pwd", "mfa"],
            appid: client,
            appidacr: client_acr,
            groups: user.groups(),
            idtyp: "user",
            ipaddr: "127.0.0.1",
            name: user.name(),
            scp: "user_impersonation",
            unique_name: user.user_principal_name(),
            upn: user.user_principal_name(),
        },
        (TokenSubject::User(user), TokenVersion::V2) => AccountClaims::UserV2 {
            azp: client,
            azpacr: client_acr,
            groups: user.groups(),
            idtyp: "user",
            name: user.name(),
            preferred_username: user.user_principal_name(),
            scp: "user_impersonation",
        },
    }
}

/// A user's `sub` differs for each audience, and says nothing about the user.
fn pairwise(user: Uuid, audience: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, format!("{user}|{audience}").as_bytes()))
}

/// Opaque text out of `bytes` random bytes.
pub(crate) fn random(bytes: usize) -> Result<String, KeyError> {
    let mut filled = vec![0; bytes];
    rand::fill(&mut filled).map_err(|_| KeyError("draw random bytes"))?;
    Ok(URL_SAFE_NO_PAD.encode(filled))
}

//! The state behind all endpoints.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pgentra_directory::{Certificates, DeviceCodes, PrincipalKind, Principals, SignIns, User};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::arc_agent::Agent;
use crate::clock::Clock;
use crate::directory::{Identity, IdentityKind, Machine, TenantDirectory};
use crate::endpoint::Endpoint;
use crate::fault::Faults;
use crate::federation::Federation;
use crate::holders::Holders;
use crate::journal::Journal;
use crate::keys::{KeyError, KeyRing};
use crate::mint::{Draft, Mint, Minted, TokenSubject, random};
use crate::options::{DateText, Lifetimes, ResourceApplication, ServerOptions};
use crate::subscription::Subscription;
use crate::token_log::{TokenLog, TokenRecord};

/// How many tokens the platform remembers: identities times resources times endpoints, with room to spare.
const REMEMBERED_TOKENS: usize = 4096;

/// The state that all endpoints share, and the names under which some of them are reached.
#[derive(Debug)]
pub(crate) struct Cloud {
    pub(crate) addresses: Addresses,
    /// Names of hosts that requests may be for, besides those of this machine.
    pub(crate) host_names: Vec<String>,
    /// The host of the flexible server, in Resource Manager.
    pub(crate) server_host: String,
    pub(crate) state: Arc<CloudState>,
}

impl Deref for Cloud {
    type Target = CloudState;

    fn deref(&self) -> &CloudState {
        &self.state
    }
}

/// The state that all endpoints share, under any name.
#[derive(Debug)]
pub(crate) struct CloudState {
    pub(crate) clock: Clock,
    pub(crate) lifetimes: Lifetimes,
    pub(crate) resources: Vec<ResourceApplication>,
    pub(crate) directory: TenantDirectory,
    pub(crate) principals: Principals,
    pub(crate) machine: Machine,
    pub(crate) holders: Holders,
    pub(crate) subscription: Subscription,
    pub(crate) server: Option<ServerOptions>,
    pub(crate) operation_time: Duration,
    pub(crate) keys: KeyRing,
    pub(crate) federation: Federation,
    pub(crate) faults: Faults,
    pub(crate) journal: Journal,
    pub(crate) secrets: Secrets,
    pub(crate) certificates: Certificates,
    pub(crate) arc: Option<Agent>,
    pub(crate) legacy_dates: DateText,
    pub(crate) device_codes: DeviceCodes,
    pub(crate) sign_ins: SignIns,
    pub(crate) tokens: TokenLog,
    pub(crate) issued: Mutex<HashMap<(Endpoint, Uuid, String), CachedToken>>,
}

/// The token that was last given out somewhere to an identity for a resource.
#[derive(Debug)]
pub(crate) struct CachedToken {
    minted: Minted,
    /// It is as the platform makes it, without a fault.
    is_regular: bool,
}

/// Base URLs of the endpoints, and the certificates that clients need to verify them.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    /// `http://127.0.0.1:P`
    pub(crate) metadata: String,
    /// `https://localhost:P/`
    pub(crate) authority: String,
    /// The same for a browser on this machine, under whatever name the client knows it.
    pub(crate) sign_in: String,
    /// `https://localhost:P`
    pub(crate) federation: String,
    /// `https://localhost:P`
    pub(crate) service_fabric: String,
    /// SHA-1 of the Service Fabric node's certificate, in hexadecimal.
    pub(crate) thumbprint: String,
    /// `https://localhost:P`
    pub(crate) token_proxy: String,
    /// Certificate of the token proxy's authority.
    pub(crate) token_proxy_ca: String,
    /// `http://127.0.0.1:P`
    pub(crate) arc: Option<String>,
    /// `https://localhost:P`
    pub(crate) management: String,
    /// Of Graph, without the version; locally the same as Resource Manager's.
    pub(crate) graph: String,
}

/// The secrets that requests to the platforms' endpoints must carry.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Secrets {
    #[serde(with = "pgentra_directory::exposed")]
    pub(crate) app_service: SecretString,
    #[serde(with = "pgentra_directory::exposed")]
    pub(crate) service_fabric: SecretString,
    #[serde(with = "pgentra_directory::exposed")]
    pub(crate) machine_learning: SecretString,
    #[serde(with = "pgentra_directory::exposed")]
    pub(crate) github: SecretString,
    #[serde(with = "pgentra_directory::exposed")]
    pub(crate) pipelines: SecretString,
}

impl Secrets {
    pub(crate) fn generate() -> Result<Self, KeyError> {
        let secret = || random(24).map(SecretString::from);
        Ok(Self {
            app_service: secret()?,
            service_fabric: secret()?,
            machine_learning: secret()?,
            github: secret()?,
            pipelines: secret()?,
        })
    }
}

/// The changes that a fault makes to the token of one response.
#[derive(Clone, Debug, Default)]
pub(crate) struct TokenOverrides {
    pub(crate) skew: i64,
    pub(crate) lifetime: Option<Duration>,
    pub(crate) least_bytes: usize,
    pub(crate) same: bool,
}

impl TokenOverrides {
    fn is_none(&self) -> bool {
        self.skew == 0 && self.lifetime.is_none() && self.least_bytes == 0
    }
}

/// Whether an endpoint keeps tokens and gives them out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caching {
    /// The same token until it is near its expiry, as the platform does for managed identities.
    Platform,
    /// A new token each time, as Entra does.
    Never,
}

impl Cloud {
    /// The resource that `asked` names, with or without one slash at its end, or by its application id.
    pub(crate) fn resource(&self, asked: &str) -> Option<&ResourceApplication> {
        let trimmed = asked.strip_suffix('/').unwrap_or(asked);
        self.resources.iter().find(|resource| {
            resource.identifier == trimmed
                || Uuid::parse_str(asked).is_ok_and(|id| id == resource.application_id)
        })
    }

    /// The managed identities that have a service principal.
    pub(crate) fn managed_identities(&self) -> Vec<Identity> {
        let own = self.machine.system_assigned().into_iter().chain(self.holders.system_assigned());
        own.chain(self.subscription.identities()).collect()
    }

    /// The kind of the principal with this object id.
    pub(crate) fn principal_kind(&self, object_id: Uuid) -> Option<PrincipalKind> {
        let is_managed = || self.managed_identities().iter().any(|one| one.object_id == object_id);
        let kind = self.principals.kind(object_id);
        kind.or_else(|| is_managed().then_some(PrincipalKind::ServicePrincipal))
    }

    /// Deletes a user, a group, an application's principal, or a user-assigned identity, which no resource has then.
    pub(crate) fn delete_principal(&self, object_id: Uuid) {
        let identities = self.subscription.identities();
        if let Some(identity) = identities.iter().find(|one| one.object_id == object_id) {
            self.machine.unassign(identity);
            self.holders.unassign(identity);
            self.subscription.remove_identity(object_id);
        }
        self.principals.remove(object_id);
    }

    /// The service principal of a resource's own identity goes with the identity.
    pub(crate) fn forget_own(&self, before: &[Identity], after: &[Identity]) {
        let is_own = |one: &&Identity| one.kind == IdentityKind::SystemAssigned;
        for gone in before.iter().filter(is_own).filter(|one| !after.contains(one)) {
            self.principals.remove(gone.object_id);
        }
    }

    /// Whether the service principal of an identity may sign in.
    pub(crate) fn is_enabled(&self, identity: &Identity) -> bool {
        self.principals.is_enabled(identity.object_id)
    }

    /// A token for `draft`, out of the platform's cache where there is one. It is written down that it was given out.
    pub(crate) fn token(
        &self,
        endpoint: Endpoint,
        caching: Caching,
        draft: &Draft,
        tweaks: &TokenOverrides,
    ) -> Result<Minted, KeyError> {
        let who = match &draft.who {
            TokenSubject::App { object_id, .. } => *object_id,
            TokenSubject::User(user) => user.object_id(),
        };
        let given = |minted: Minted, is_repeated| {
            self.tokens.write(TokenRecord {
                number: 0,
                at: self.clock.now(),
                endpoint,
                object_id: who,
                resource: draft.audience.clone(),
                claims: minted.claims.clone(),
                is_repeated,
            });
            minted
        };
        let key = (endpoint, who, draft.audience.clone());
        let mut issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(CachedToken { minted, is_regular }) = issued.get(&key) {
            let left = minted.expires - self.clock.unix();
            let renewal = i64::try_from(self.lifetimes.platform_renewal.as_secs()).unwrap_or(i64::MAX);
            let is_kept = caching == Caching::Platform && *is_regular && left > renewal;
            if tweaks.same || is_kept && tweaks.is_none() {
                return Ok(given(minted.clone(), true));
            }
        }
        let minted = self.mint(draft, tweaks)?;
        if issued.len() >= REMEMBERED_TOKENS {
            issued.clear();
        }
        issued.insert(key, CachedToken { minted: minted.clone(), is_regular: tweaks.is_none() });
        Ok(given(minted, false))
    }

    /// Says to a client who has signed in (Microsoft: id-token-claims-reference).
    pub(crate) fn id_token(
        &self,
        user: &User,
        client: &str,
        nonce: Option<&str>,
    ) -> Result<SecretString, KeyError> {
        self.mint_of(None, &TokenOverrides::default(), self.lifetimes.user)?
            .sign_id_token(user, client, nonce)
    }

    /// A new token for `draft`.
    pub(crate) fn mint(&self, draft: &Draft, tweaks: &TokenOverrides) -> Result<Minted, KeyError> {
        let lifetime = match &draft.who {
            TokenSubject::User(_) => self.lifetimes.user,
            TokenSubject::App { resource_id: Some(_), .. } => self.lifetimes.managed_identity,
            TokenSubject::App { resource_id: None, .. } => self.lifetimes.application,
        };
        self.mint_of(self.resource(&draft.audience), tweaks, lifetime)?.sign(draft)
    }

    fn mint_of<'a>(
        &'a self,
        resource: Option<&'a ResourceApplication>,
        tweaks: &TokenOverrides,
        lifetime: Duration,
    ) -> Result<Mint<'a>, KeyError> {
        Ok(Mint {
            key: self.keys.signing()?,
            tenant: self.directory.ids.tenant,
            authority: &self.addresses.authority,
            now: self.clock.unix() + tweaks.skew,
            lifetime: tweaks.lifetime.unwrap_or(lifetime),
            resource,
            least_bytes: tweaks.least_bytes,
        })
    }
}

//! The state of a local Azure for a later run: who is in the tenant, its secrets, and the keys that it signs with.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use pgentra_directory::{
    Certificates, Principals, RefreshToken, RegisteredCertificate, SavedPrincipals, SignIns,
};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::cloud::{Addresses, Cloud, CloudState, Secrets};
use crate::directory::{Identity, Ids};
use crate::keys::{KeyError, SavedKey};
use crate::management::is_pgbouncer_setting;
use crate::subscription::{Holdings, Subscription};

/// The furthest that a clock is restored ahead, in seconds: 5,000 years. Dates end with the year 9999.
const FURTHEST: u64 = 5_000 * 366 * 86_400;

/// The state of a local Azure. Its serialized form has secrets and private keys in clear.
///
/// It has the tenant, the subscription, the secrets of the hosts and of the application, the keys that sign tokens, the
/// refresh tokens and how far the clock is ahead. Faults, operations, codes, and what is remembered of requests and
/// tokens are not in it.
#[derive(Clone, Serialize, Deserialize)]
pub struct SavedAzure {
    pub(crate) ids: Ids,
    #[serde(with = "pgentra_directory::exposed")]
    pub(crate) secret: SecretString,
    pub(crate) keys: Vec<SavedKey>,
    secrets: Secrets,
    service_connection: Uuid,
    /// In seconds.
    ahead: u64,
    machine: Vec<Identity>,
    holders: BTreeMap<String, Vec<Identity>>,
    /// The address of the issuers that credentials name.
    federation: String,
    /// The address of Entra, as the issuer of managed identities' tokens.
    authority: String,
    principals: SavedPrincipals,
    subscription: Holdings,
    refresh_tokens: Vec<RefreshToken>,
    certificates: Vec<RegisteredCertificate>,
}

impl SavedAzure {
    pub(crate) fn of(cloud: &Cloud) -> Result<Self, KeyError> {
        Ok(Self {
            ids: cloud.directory.ids.clone(),
            secret: cloud.directory.application.secret.clone(),
            keys: cloud.keys.saved()?,
            secrets: cloud.secrets.clone(),
            service_connection: cloud.federation.service_connection,
            ahead: cloud.clock.ahead().as_secs(),
            machine: cloud.machine.identities(),
            holders: cloud.holders.saved(),
            federation: cloud.addresses.federation.clone(),
            authority: cloud.addresses.authority.clone(),
            principals: cloud.principals.saved(),
            subscription: cloud.subscription.saved(),
            refresh_tokens: cloud.sign_ins.refresh_tokens(),
            certificates: cloud.certificates.all(),
        })
    }

    /// The ids of everything in the tenant.
    pub fn ids(&self) -> &Ids {
        &self.ids
    }

    /// Puts it into a state that has its ids and keys already; `addresses` are those of this run.
    pub(crate) fn restore(mut self, state: &mut CloudState, addresses: &Addresses) {
        // A person may have changed the file: what Resource Manager would refuse is left out.
        self.subscription.pgbouncer.retain(|name, value| is_pgbouncer_setting(name, value));
        let moved = [(self.federation, &addresses.federation), (self.authority, &addresses.authority)];
        let issuer_now = |issuer: &str| {
            let mut moved = moved.iter();
            moved.find_map(|(before, now)| Some(format!("{now}{}", issuer.strip_prefix(before.as_str())?)))
        };
        let ahead = Duration::from_secs(self.ahead.min(FURTHEST));
        state.clock.advance(ahead.saturating_sub(state.clock.ahead()));
        state.secrets = self.secrets;
        state.federation.service_connection = self.service_connection;
        state.machine.set(self.machine);
        state.holders.restore(self.holders);
        state.principals = Principals::restore(self.principals, issuer_now);
        state.subscription = Subscription::restore(self.subscription, state.server.as_ref(), issuer_now);
        state.sign_ins = SignIns::of(self.refresh_tokens);
        state.certificates = Certificates::of(self.certificates);
    }
}

impl fmt::Debug for SavedAzure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SavedAzure").field("tenant", &self.ids.tenant).finish_non_exhaustive()
    }
}

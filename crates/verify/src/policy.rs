//! Which tokens are accepted.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use crate::claims::{Claims, excerpt};
use crate::principal::{Principal, VerifiedClaims};
use crate::rejection::Rejection;

/// How far the clocks of issuer and verifier may differ: five minutes, as Microsoft's own token libraries allow
/// (`TokenValidationParameters.DefaultClockSkew` is 300 seconds).
pub const DEFAULT_LEEWAY: Duration = Duration::from_secs(300);

/// The least time between two fetches of the keys that unknown key ids can cause.
pub const DEFAULT_REFETCH_INTERVAL: Duration = Duration::from_secs(60);

/// A leeway beyond this hides a broken clock instead of bridging a difference.
const LEEWAY_LIMIT: Duration = Duration::from_secs(3600);

/// Which tokens are accepted: one tenant, its issuers, one or more audiences, and a leeway.
#[derive(Debug, Clone)]
pub struct Policy {
    tenant: Uuid,
    issuers: Vec<String>,
    audiences: Vec<String>,
    leeway: Duration,
    refetch_interval: Duration,
}

/// A national cloud, as far as tokens differ between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Cloud {
    /// The worldwide cloud; the default.
    #[default]
    Public,
    /// Azure Government (United States).
    UsGov,
    /// Azure operated by 21Vianet in China.
    China,
}

/// What a [`Policy`] cannot be made of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// An audience is empty, or nothing but a slash.
    #[error("an audience of the policy is empty")]
    EmptyAudience,
    /// An issuer is the empty string.
    #[error("an issuer of the policy is empty")]
    EmptyIssuer,
    /// The tenant is the nil GUID, which is what an unset value looks like.
    #[error("the tenant of the policy is the nil GUID")]
    NilTenant,
    /// The leeway is over one hour.
    #[error("the leeway of the policy is over one hour")]
    Leeway,
}

/// Settings of a [`Policy`]. A list that stays empty is derived from cloud and tenant.
#[derive(Debug, Clone)]
pub struct PolicyBuilder {
    tenant: Uuid,
    cloud: Cloud,
    issuers: Vec<String>,
    audiences: Vec<String>,
    leeway: Duration,
    refetch_interval: Duration,
}

impl Policy {
    /// Begins a policy for one tenant. Everything else has a default.
    pub fn builder(tenant: Uuid) -> PolicyBuilder {
        PolicyBuilder {
            tenant,
            cloud: Cloud::default(),
            issuers: Vec::new(),
            audiences: Vec::new(),
            leeway: DEFAULT_LEEWAY,
            refetch_interval: DEFAULT_REFETCH_INTERVAL,
        }
    }

    /// The tenant whose tokens are accepted.
    pub fn tenant(&self) -> Uuid {
        self.tenant
    }

    /// The issuers accepted, byte for byte.
    pub fn issuers(&self) -> &[String] {
        &self.issuers
    }

    /// The audiences accepted, byte for byte.
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// How far clocks may differ.
    pub fn leeway(&self) -> Duration {
        self.leeway
    }

    /// The least time between two fetches that unknown key ids can cause.
    pub fn refetch_interval(&self) -> Duration {
        self.refetch_interval
    }

    /// Judges claims whose signature was verified. The order is the one in which Azure's error messages make sense: time,
    /// audience, issuer and tenant, then who it is.
    pub(crate) fn judge(&self, claims: &Claims<'_>, now: SystemTime) -> Result<Principal, Rejection> {
        let expires_on = claims.time("exp")?;
        let not_before = claims.time("nbf")?;
        self.check_time(not_before, expires_on, now)?;
        let audience = claims.text("aud")?;
        if !self.audiences.iter().any(|known| known == audience) {
            return Err(Rejection::Audience { found: excerpt(audience) });
        }
        let issuer = claims.text("iss")?;
        if !self.issuers.iter().any(|known| known == issuer) {
            return Err(Rejection::Issuer);
        }
        // A version that is not known may give the claims another meaning.
        if !matches!(claims.text("ver")?, "1.0" | "2.0") {
            return Err(Rejection::Issuer);
        }
        // The issuer names the tenant too, but an issuer that the operator configured need not.
        let tenant = claims.guid("tid")?;
        if tenant != self.tenant {
            return Err(Rejection::Tenant);
        }
        let object_id = claims.guid("oid")?;
        Ok(Principal(Arc::new(VerifiedClaims {
            tenant,
            object_id,
            app_id: claims.app_id()?,
            kind: claims.kind(object_id)?,
            groups: claims.groups()?,
            app_roles: claims.app_roles(),
            user_principal_name: claims.user_principal_name()?,
            multi_factor: claims.multi_factor()?,
            not_before,
            expires_on,
            audience: audience.to_owned(),
            issuer: issuer.to_owned(),
        })))
    }

    /// The part of the judgement that changes while a token stays the same.
    pub(crate) fn check_time(
        &self,
        not_before: SystemTime,
        expires_on: SystemTime,
        now: SystemTime,
    ) -> Result<(), Rejection> {
        // `duration_since` fails if the other time is later: then the time is not past.
        if now.duration_since(expires_on).is_ok_and(|overdue| overdue >= self.leeway) {
            return Err(Rejection::Expired);
        }
        if not_before.duration_since(now).is_ok_and(|early| early > self.leeway) {
            return Err(Rejection::NotYetValid);
        }
        Ok(())
    }
}

impl PolicyBuilder {
    /// The cloud that derives issuers and audience. Default: [`Cloud::Public`].
    #[must_use]
    pub fn cloud(mut self, cloud: Cloud) -> PolicyBuilder {
        self.cloud = cloud;
        self
    }

    /// Accepts this issuer, and no longer those derived from cloud and tenant. May be repeated.
    #[must_use]
    pub fn issuer(mut self, issuer: impl Into<String>) -> PolicyBuilder {
        self.issuers.push(issuer.into());
        self
    }

    /// Accepts this audience, and no longer the cloud's PostgreSQL resource. May be repeated, for a cloud whose tokens
    /// come with and without a slash at the end: Azure's servers compare byte for byte, and so does this.
    #[must_use]
    pub fn audience(mut self, audience: &str) -> PolicyBuilder {
        self.audiences.push(audience.to_owned());
        self
    }

    /// How far clocks may differ, at most one hour. Default: [`DEFAULT_LEEWAY`], five minutes.
    #[must_use]
    pub fn leeway(mut self, leeway: Duration) -> PolicyBuilder {
        self.leeway = leeway;
        self
    }

    /// The least time between two fetches that unknown key ids can cause. Default: [`DEFAULT_REFETCH_INTERVAL`], one
    /// minute.
    #[must_use]
    pub fn refetch_interval(mut self, interval: Duration) -> PolicyBuilder {
        self.refetch_interval = interval;
        self
    }

    /// Builds the policy, or returns the first setting that is invalid.
    pub fn build(self) -> Result<Policy, PolicyError> {
        if self.tenant.is_nil() {
            return Err(PolicyError::NilTenant);
        }
        if self.audiences.iter().any(|audience| audience.trim_matches('/').is_empty()) {
            return Err(PolicyError::EmptyAudience);
        }
        if self.issuers.iter().any(String::is_empty) {
            return Err(PolicyError::EmptyIssuer);
        }
        if self.leeway > LEEWAY_LIMIT {
            return Err(PolicyError::Leeway);
        }
        let derived = |given: Vec<String>, default: fn(Cloud, Uuid) -> Vec<String>| {
            if given.is_empty() { default(self.cloud, self.tenant) } else { given }
        };
        Ok(Policy {
            tenant: self.tenant,
            issuers: derived(self.issuers, |cloud, tenant| cloud.issuers(tenant).into()),
            audiences: derived(self.audiences, |cloud, _| vec![cloud.postgres_audience().to_owned()]),
            leeway: self.leeway,
            refetch_interval: self.refetch_interval,
        })
    }
}

impl Cloud {
    /// The issuers of version 1 and version 2 tokens.
    pub fn issuers(self, tenant: Uuid) -> [String; 2] {
        let sts = match self {
            Cloud::Public | Cloud::UsGov => "https://sts.windows.net",
            Cloud::China => "https://sts.chinacloudapi.cn",
        };
        [format!("{sts}/{tenant}/"), format!("{}/{tenant}/v2.0", self.authority())]
    }

    /// The audience of tokens for PostgreSQL (`ossrdbms_resource_id` in the Azure command line's table of clouds).
    pub fn postgres_audience(self) -> &'static str {
        match self {
            Cloud::Public => "https://ossrdbms-aad.database.windows.net",
            Cloud::UsGov => "https://ossrdbms-aad.database.usgovcloudapi.net",
            Cloud::China => "https://ossrdbms-aad.database.chinacloudapi.cn",
        }
    }

    /// Where the tenant publishes its signing keys (`jwks_uri` of its OpenID configuration).
    pub fn keys_url(self, tenant: Uuid) -> String {
        format!("{}/{tenant}/discovery/v2.0/keys", self.authority())
    }

    fn authority(self) -> &'static str {
        match self {
            Cloud::Public => "https://login.microsoftonline.com",
            Cloud::UsGov => "https://login.microsoftonline.us",
            Cloud::China => "https://login.partner.microsoftonline.cn",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cloud_derives_its_names() {
        let tenant = Uuid::from_u128(0x11111111_2222_3333_4444_555555555555);
        let cases = [
            (Cloud::Public, "https://sts.windows.net/", "https://login.microsoftonline.com/"),
            (Cloud::UsGov, "https://sts.windows.net/", "https://login.microsoftonline.us/"),
            (Cloud::China, "https://sts.chinacloudapi.cn/", "https://login.partner.microsoftonline.cn/"),
        ];
        for (cloud, sts, authority) in cases {
            let policy = Policy::builder(tenant).cloud(cloud).build().unwrap();
            assert_eq!(policy.issuers(), [format!("{sts}{tenant}/"), format!("{authority}{tenant}/v2.0")]);
            assert_eq!(policy.audiences(), [cloud.postgres_audience()]);
            assert_eq!(cloud.keys_url(tenant), format!("{authority}{tenant}/discovery/v2.0/keys"));
            assert_eq!(policy.leeway(), Duration::from_secs(300));
            assert_eq!(policy.refetch_interval(), Duration::from_secs(60));
        }
    }

    #[test]
    fn explicit_names_replace_the_derived_ones() {
        let policy =
            Policy::builder(Uuid::from_u128(1)).issuer("https://i/").audience("https://a/").build().unwrap();
        assert_eq!(policy.issuers(), ["https://i/"]);
        assert_eq!(policy.audiences(), ["https://a/"]);
    }

    #[test]
    fn nonsense_is_no_policy() {
        let good = Policy::builder(Uuid::from_u128(1));
        assert_eq!(Policy::builder(Uuid::nil()).build().unwrap_err(), PolicyError::NilTenant);
        assert_eq!(good.clone().audience("").build().unwrap_err(), PolicyError::EmptyAudience);
        assert_eq!(good.clone().audience("/").build().unwrap_err(), PolicyError::EmptyAudience);
        assert_eq!(good.clone().issuer("").build().unwrap_err(), PolicyError::EmptyIssuer);
        assert_eq!(good.leeway(Duration::from_secs(3601)).build().unwrap_err(), PolicyError::Leeway);
    }

    #[test]
    fn leeway_reaches_exactly_that_far() {
        let policy = Policy::builder(Uuid::from_u128(1)).leeway(Duration::from_secs(10)).build().unwrap();
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let check = |now| policy.check_time(at(100), at(200), at(now));
        assert!(matches!(check(89), Err(Rejection::NotYetValid)));
        assert!(check(90).is_ok());
        assert!(check(209).is_ok());
        assert!(matches!(check(210), Err(Rejection::Expired)));
    }
}

//! Which tokens are accepted.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{Context, SHA256};
use uuid::{Builder, Uuid};

use crate::algorithm::Algorithm;
use crate::claims::{Claims, excerpt, guid};
use crate::jwks::KeyRules;
use crate::principal::{Groups, Principal, SubjectKind, VerifiedClaims};
use crate::rejection::Rejection;

/// How far the clocks of issuer and verifier may differ: five minutes, as Microsoft's own token libraries allow
/// (`TokenValidationParameters.DefaultClockSkew` is 300 seconds).
pub const DEFAULT_LEEWAY: Duration = Duration::from_secs(300);

/// The least time between two fetches of the keys that unknown key ids can cause.
pub const DEFAULT_REFETCH_INTERVAL: Duration = Duration::from_secs(60);

/// A leeway beyond this hides a broken clock instead of bridging a difference.
const LEEWAY_LIMIT: Duration = Duration::from_secs(3600);

/// Which tokens are accepted: of one issuer or one Entra tenant, for one or more audiences, with a leeway.
#[derive(Debug, Clone)]
pub struct Policy {
    tenant: Option<Uuid>,
    algorithms: Vec<Algorithm>,
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
    /// An issuer other than Entra was named without an audience, for which there is no default.
    #[error("the policy names no audience: which tokens of the issuer are for this server?")]
    NoAudience,
    /// The tenant is the nil GUID, which is what an unset value looks like.
    #[error("the tenant of the policy is the nil GUID")]
    NilTenant,
    /// The leeway is over one hour.
    #[error("the leeway of the policy is over one hour")]
    Leeway,
}

/// Settings of a [`Policy`]. For Entra, a list that stays empty is derived from cloud and tenant.
#[derive(Debug, Clone)]
pub struct PolicyBuilder {
    tenant: Option<Uuid>,
    algorithms: Vec<Algorithm>,
    cloud: Cloud,
    issuers: Vec<String>,
    audiences: Vec<String>,
    leeway: Duration,
    refetch_interval: Duration,
}

impl Policy {
    /// Begins a policy for one Entra tenant. Everything else has a default.
    pub fn builder(tenant: Uuid) -> PolicyBuilder {
        PolicyBuilder::new(Some(tenant), Vec::new())
    }

    /// Begins a policy for another OpenID Connect issuer, whose tokens are JSON Web Tokens (RFC 9068, or alike). An
    /// audience must be named; everything else has a default.
    pub fn of_issuer(issuer: impl Into<String>) -> PolicyBuilder {
        PolicyBuilder::new(None, vec![issuer.into()])
    }

    /// The Entra tenant whose tokens are accepted; `None` for another issuer.
    pub fn tenant(&self) -> Option<Uuid> {
        self.tenant
    }

    /// The signature algorithms accepted.
    pub fn algorithms(&self) -> &[Algorithm] {
        &self.algorithms
    }

    /// Which keys of the issuer's document are usable.
    pub(crate) fn key_rules(&self) -> KeyRules {
        KeyRules { tenant: self.tenant, algorithms: self.algorithms.clone() }
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
        match self.tenant {
            Some(tenant) => self.judge_entra(claims, now, tenant),
            None => self.judge_other(claims, now),
        }
    }

    fn judge_entra(
        &self,
        claims: &Claims<'_>,
        now: SystemTime,
        wanted: Uuid,
    ) -> Result<Principal, Rejection> {
        let expires_on = claims.time("exp")?;
        let not_before = claims.time("nbf")?;
        self.check_time(not_before, expires_on, now)?;
        // A list is refused: Entra's `aud` is one text.
        let audience = self.check_audience([claims.text("aud")?])?;
        let issuer = self.check_issuer(claims)?;
        // A version that is not known may give the claims another meaning.
        if !matches!(claims.text("ver")?, "1.0" | "2.0") {
            return Err(Rejection::Issuer);
        }
        // The issuer names the tenant too, but an issuer that the operator configured need not.
        let tenant = claims.guid("tid")?;
        if tenant != wanted {
            return Err(Rejection::Tenant);
        }
        let object_id = claims.guid("oid")?;
        let app_id = claims.app_id()?;
        Ok(Principal(Arc::new(VerifiedClaims {
            tenant: Some(tenant),
            object_id,
            subject: claims.optional_text("sub")?.unwrap_or_default().to_owned(),
            app_id,
            client: app_id.map(|id| id.to_string()),
            kind: claims.kind(object_id)?,
            groups: claims.groups()?,
            group_names: claims.texts("groups")?,
            app_roles: claims.texts("roles")?,
            user_principal_name: claims.user_principal_name()?,
            multi_factor: claims.multi_factor()?,
            not_before,
            expires_on,
            audience,
            issuer,
        })))
    }

    /// RFC 9068 section 4, less what issuers in use do not send: `nbf` is optional there, and `aud` may be a list.
    fn judge_other(&self, claims: &Claims<'_>, now: SystemTime) -> Result<Principal, Rejection> {
        let expires_on = claims.time("exp")?;
        let not_before = match claims.optional_time("nbf")? {
            Some(not_before) => not_before,
            None => claims.optional_time("iat")?.unwrap_or(SystemTime::UNIX_EPOCH),
        };
        self.check_time(not_before, expires_on, now)?;
        let audiences = claims.text_or_texts("aud")?;
        let audience = self.check_audience(audiences.iter().map(String::as_str))?;
        let issuer = self.check_issuer(claims)?;
        let subject = claims.text("sub")?.to_owned();
        let client = claims.client()?;
        // RFC 9068 section 2.2: without a user, the subject is the client.
        let is_client = client.as_deref() == Some(&*subject);
        let groups = claims.texts("groups")?;
        Ok(Principal(Arc::new(VerifiedClaims {
            tenant: None,
            object_id: derived_object_id(&issuer, &subject),
            app_id: client.as_deref().and_then(guid),
            client,
            kind: if is_client { SubjectKind::App } else { SubjectKind::User },
            groups: match claims.has("groups") {
                true => Groups::Listed(groups.iter().filter_map(guid).collect()),
                false => Groups::Absent,
            },
            group_names: groups,
            app_roles: claims.texts("roles")?,
            user_principal_name: claims.optional_text("preferred_username")?.map(str::to_owned),
            multi_factor: claims.multi_factor()?,
            subject,
            not_before,
            expires_on,
            audience,
            issuer,
        })))
    }

    /// The first audience of the token that the policy knows, byte for byte.
    fn check_audience<'c>(&self, found: impl IntoIterator<Item = &'c str>) -> Result<String, Rejection> {
        let mut first = None;
        for audience in found {
            if self.audiences.iter().any(|known| known == audience) {
                return Ok(audience.to_owned());
            }
            first = first.or(Some(audience));
        }
        Err(Rejection::Audience { found: excerpt(first.unwrap_or_default()) })
    }

    fn check_issuer(&self, claims: &Claims<'_>) -> Result<String, Rejection> {
        let issuer = claims.text("iss")?;
        if !self.accepts_issuer(issuer) {
            return Err(Rejection::Issuer);
        }
        Ok(issuer.to_owned())
    }

    /// Whether tokens of this issuer are accepted.
    pub(crate) fn accepts_issuer(&self, issuer: &str) -> bool {
        self.issuers.iter().any(|known| known == issuer)
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

/// What stands for the object id of a principal of another issuer than Entra: a GUID of version 8 (RFC 9562 section 5.8)
/// of the SHA-256 of issuer, line feed and subject. It cannot be one of Entra's, which are of version 4, and no two
/// principals share one.
fn derived_object_id(issuer: &str, subject: &str) -> Uuid {
    let mut context = Context::new(&SHA256);
    context.update(issuer.as_bytes());
    context.update(b"\n");
    context.update(subject.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&context.finish().as_ref()[..16]);
    Builder::from_custom_bytes(bytes).into_uuid()
}

impl PolicyBuilder {
    fn new(tenant: Option<Uuid>, issuers: Vec<String>) -> PolicyBuilder {
        PolicyBuilder {
            tenant,
            cloud: Cloud::default(),
            algorithms: Vec::new(),
            issuers,
            audiences: Vec::new(),
            leeway: DEFAULT_LEEWAY,
            refetch_interval: DEFAULT_REFETCH_INTERVAL,
        }
    }

    /// Accepts this signature algorithm. May be repeated. Default: RS256 for Entra, all for another issuer.
    #[must_use]
    pub fn algorithm(mut self, algorithm: Algorithm) -> PolicyBuilder {
        if !self.algorithms.contains(&algorithm) {
            self.algorithms.push(algorithm);
        }
        self
    }

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
        if self.tenant.is_some_and(|tenant| tenant.is_nil()) {
            return Err(PolicyError::NilTenant);
        }
        if self.tenant.is_none() && self.audiences.is_empty() {
            return Err(PolicyError::NoAudience);
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
        let (mut issuers, mut audiences) = (self.issuers, self.audiences);
        let mut algorithms = self.algorithms;
        if let Some(tenant) = self.tenant {
            if issuers.is_empty() {
                issuers = self.cloud.issuers(tenant).into();
            }
            if audiences.is_empty() {
                audiences.push(self.cloud.postgres_audience().to_owned());
            }
        }
        if algorithms.is_empty() {
            algorithms = match self.tenant {
                Some(_) => vec![Algorithm::Rs256],
                None => Algorithm::ALL.into(),
            };
        }
        Ok(Policy {
            tenant: self.tenant,
            algorithms,
            issuers,
            audiences,
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
        assert_eq!(Policy::of_issuer("https://i").build().unwrap_err(), PolicyError::NoAudience);
        assert_eq!(Policy::of_issuer("").audience("a").build().unwrap_err(), PolicyError::EmptyIssuer);
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

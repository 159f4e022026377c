//! Client assertions (RFC 7523 section 2.2): a signed statement of the client's identity, by the client or by a
//! federated issuer.

use uuid::Uuid;

use super::jws::{Parsed, forged, malformed, parse, within};
use super::refusal::EntraError;
use super::{agent, certificate};
use crate::cloud::Cloud;
use crate::federation::FederatedCredential;

const HOW: &str = "Please check your federated identity credential Subject, Audience and Issuer against the presented \
                   assertion. https://learn.microsoft.com/entra/workload-id/workload-identity-federation";

/// Whose statement proves a client.
pub(super) struct Trusted<'a> {
    /// The client's id, and whether a certificate can be registered for it.
    pub(super) client: &'a str,
    pub(super) own: bool,
    /// Federated credentials that are registered with the client.
    pub(super) federated: &'a [FederatedCredential],
}

/// Believes an assertion of the client itself, or of an issuer that is registered with it.
pub(super) fn check(cloud: &Cloud, token: &str, trusted: &Trusted<'_>) -> Result<(), EntraError> {
    let parsed = parse(token).ok_or_else(malformed)?;
    if trusted.own && parsed.claims.iss.eq_ignore_ascii_case(trusted.client) {
        return certificate::self_signed(cloud, &parsed, trusted.client);
    }
    federated(cloud, token, &parsed, trusted)
}

/// Checks a federated token against the credentials, in the order in which Entra complains.
fn federated(
    cloud: &Cloud,
    token: &str,
    parsed: &Parsed<'_>,
    trusted: &Trusted<'_>,
) -> Result<(), EntraError> {
    let claims = &parsed.claims;
    let is_own = claims.iss == agent::own_issuer(cloud);
    let shown = |one| if is_own { agent::audience(cloud, one) } else { one };
    let audiences: Vec<&str> = claims.aud.list().iter().map(|one| shown(one.as_str())).collect();
    let of_issuer: Vec<_> = trusted.federated.iter().filter(|one| one.issuer == claims.iss).collect();
    let of_subject: Vec<_> = of_issuer.iter().filter(|one| one.subject == claims.sub).collect();
    if of_issuer.is_empty() {
        return Err(no_record(700_211, "issuer", &claims.iss));
    }
    if of_subject.is_empty() {
        return Err(no_record(700_213, "subject", &claims.sub));
    }
    if !of_subject.iter().any(|one| audiences.contains(&one.audience.as_str())) {
        return Err(no_record(700_212, "audience", &audiences.join(", ")));
    }
    within(cloud, claims, &[cloud.clock.unix()])?;
    if is_own {
        // A user-assigned identity's token for the exchange audience proves an application, and no other token of Entra
        // proves anything (Microsoft: workload-identity-federation-config-app-trust-managed-identity).
        if !agent::is_own(cloud, parsed) {
            return Err(forged());
        }
        let identities = cloud.subscription.identities();
        let client = Uuid::parse_str(trusted.client).ok();
        let is_managed = identities.iter().any(|one| Some(one.client_id) == client);
        let is_identitys = identities.iter().any(|one| one.object_id.to_string() == claims.sub);
        if is_managed || !is_identitys {
            let sentence = "AADSTS700222: AAD-issued tokens may not be used for federated identity flows.";
            return Err(EntraError::new(700_222, "invalid_client", sentence));
        }
        return Ok(());
    }
    if let Some(cluster) = cloud.federation.trusted_cluster().filter(|one| one.issuer == claims.iss) {
        return if (cluster.verifies)(token, cloud.clock.now()) { Ok(()) } else { Err(forged()) };
    }
    let issuer = cloud.federation.issuer(&claims.iss).ok_or_else(unreachable_issuer)?;
    let key = issuer.key().map_err(|_| unreachable_issuer())?;
    let genuine = parsed.header.alg == "RS256"
        && parsed.header.kid == key.id()
        && key.verifies(parsed.message.as_bytes(), &parsed.signature);
    if genuine { Ok(()) } else { Err(forged()) }
}

fn unreachable_issuer() -> EntraError {
    EntraError::new(90061, "invalid_request", "AADSTS90061: Request to External OIDC endpoint failed.")
}

fn no_record(number: u32, what: &str, presented: &str) -> EntraError {
    let sentence = format!(
        "AADSTS{number}: No matching federated identity record found for presented assertion {what} '{presented}'. {HOW}"
    );
    EntraError::new(number, "invalid_client", sentence)
}

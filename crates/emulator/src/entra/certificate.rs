//! Assertions that a client signs itself, with a certificate that is registered for it
//! (Microsoft: certificate-credentials).

use aws_lc_rs::signature::{self, UnparsedPublicKey};

use super::jws::{Parsed, forged, malformed, within};
use super::refusal::EntraError;
use crate::cloud::Cloud;

/// Checks that `client` signed the assertion itself, for this tenant, just now.
pub(super) fn self_signed(cloud: &Cloud, parsed: &Parsed<'_>, client: &str) -> Result<(), EntraError> {
    if !parsed.claims.sub.eq_ignore_ascii_case(client) {
        let sentence =
            "AADSTS700021: Client assertion application identifier doesn't match 'client_id' parameter.";
        return Err(EntraError::new(700_021, "invalid_client", sentence));
    }
    let header = &parsed.header;
    let Some(registered) = cloud.certificates.find(header.x5t.as_deref(), header.x5t_sha256.as_deref())
    else {
        let used = header.x5t_sha256.as_deref().or(header.x5t.as_deref()).unwrap_or_default();
        let sentence = format!(
            "AADSTS700027: Client assertion contains an invalid signature. [Reason - The key was not found., \
             Thumbprint of key used by client: '{used}', Please visit the Azure Portal, Graph Explorer or directly use \
             MS Graph to see configured keys for app Id '{client}'.]"
        );
        return Err(EntraError::new(700_027, "invalid_client", sentence));
    };
    let algorithm = match &*header.alg {
        "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
        "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
        _ => return Err(malformed()),
    };
    UnparsedPublicKey::new(algorithm, registered.public_key())
        .verify(parsed.message.as_bytes(), &parsed.signature)
        .map_err(|_| forged())?;
    if !parsed.claims.aud.list().iter().any(|audience| is_this_tenant(cloud, audience)) {
        let sentence = "AADSTS700023: Client assertion audience claim does not match Realm issuer. Review the \
                        documentation at https://learn.microsoft.com/entra/identity-platform/certificate-credentials .";
        return Err(EntraError::new(700_023, "invalid_client", sentence));
    }
    // The client wrote the times of its assertion by its own clock, which does not move with the local cloud's.
    within(cloud, &parsed.claims, &[cloud.clock.unix(), cloud.clock.outside()])
}

/// Whether `audience` is the tenant's issuer or its token endpoint, in either version.
fn is_this_tenant(cloud: &Cloud, audience: &str) -> bool {
    let Some(rest) = audience.strip_prefix(&*cloud.addresses.authority) else {
        return audience == format!("https://sts.windows.net/{}/", cloud.directory.ids.tenant);
    };
    let (tenant, rest) = rest.split_once('/').unwrap_or((rest, ""));
    super::is_tenant(cloud, tenant) && ["v2.0", "oauth2/v2.0/token", "oauth2/token"].contains(&rest)
}

//! Agent identities (Microsoft: agent-autonomous-app-oauth-flow, agent-token-claims): the blueprint proves who it is and
//! gets an exchange token for one of its agent identities, which `fmi_path` names. The exchange token is the client
//! assertion of the agent identity, which has no credentials of its own.

use pgentra_directory::AgentIdentity;
use uuid::Uuid;

use super::jws::{Parsed, forged, malformed, parse, presented, within};
use super::refusal::{EntraError, enabled, missing, unknown_client};
use crate::cloud::Cloud;
use crate::exchange::Parameters;
use crate::federation::EXCHANGE_AUDIENCE;
use crate::mint::{Draft, Proof, TokenSubject};

/// What a token says of an agent identity beside what it says of each application: its kind as actor and as subject, that
/// of the tenant, and the relation of subject and tenant. The values are those of Microsoft's example.
const FACETS: [(&str, &str); 4] =
    [("xms_act_fct", "3 9 11"), ("xms_sub_fct", "9 3 11"), ("xms_tnt_fct", "3 9"), ("xms_idrel", "7 10")];

/// `iss` of the tokens of this tenant that Entra takes as assertions.
pub(super) fn own_issuer(cloud: &Cloud) -> String {
    format!("{}{}/v2.0", cloud.addresses.authority, cloud.directory.ids.tenant)
}

/// Whether a key of this tenant has signed.
pub(super) fn is_own(cloud: &Cloud, parsed: &Parsed<'_>) -> bool {
    let key = cloud.keys.published().into_iter().find(|key| key.id() == parsed.header.kid);
    key.is_some_and(|key| key.verifies(parsed.message.as_bytes(), &parsed.signature))
}

/// The audience as federated credentials write it: a token of this tenant names the application behind it.
pub(super) fn audience<'a>(cloud: &Cloud, audience: &'a str) -> &'a str {
    let exchange = cloud.resource(EXCHANGE_AUDIENCE);
    let is_exchange = exchange.is_some_and(|it| it.application_id.to_string() == audience);
    if is_exchange { EXCHANGE_AUDIENCE } else { audience }
}

/// The agent identity with this client id.
pub(super) fn find(cloud: &Cloud, client: Option<Uuid>) -> Option<AgentIdentity> {
    cloud.principals.agents().into_iter().find(|agent| Some(agent.object_id()) == client)
}

/// The agent identity, if the assertion is an exchange token that its blueprint got for it.
pub(super) fn authenticated(
    cloud: &Cloud,
    form: &Parameters,
    agent: &AgentIdentity,
) -> Result<TokenSubject, EntraError> {
    let token = presented(form)?.ok_or_else(|| missing("client_assertion"))?;
    let parsed = parse(token).ok_or_else(malformed)?;
    let audiences = parsed.claims.aud.list();
    let fits = parsed.claims.iss == own_issuer(cloud)
        && parsed.claims.sub == subject(cloud, agent)
        && audiences.iter().any(|one| audience(cloud, one) == EXCHANGE_AUDIENCE);
    if !fits {
        let sentence = format!(
            "AADSTS700213: No matching federated identity record found for presented assertion subject '{}'. An agent \
             identity signs in with the token that its blueprint gets with 'fmi_path'.",
            parsed.claims.sub
        );
        return Err(EntraError::new(700_213, "invalid_client", sentence));
    }
    if !is_own(cloud, &parsed) {
        return Err(forged());
    }
    within(cloud, &parsed.claims, &[cloud.clock.unix()])?;
    let id = agent.object_id();
    // Without a blueprint that may sign in, an agent identity may not either.
    let blueprint = agent.blueprint().to_string();
    let principal = cloud.principals.registration(agent.blueprint()).and_then(|one| one.object_id());
    enabled(cloud, &blueprint, principal.ok_or_else(|| unknown_client(cloud, &blueprint))?)?;
    Ok(TokenSubject::App { client_id: id, object_id: id, proof: Proof::Assertion, resource_id: None })
}

/// The token of an application, of a blueprint for an agent identity, or of an agent identity.
pub(super) fn draft(
    cloud: &Cloud,
    form: &Parameters,
    who: TokenSubject,
    resource: &str,
) -> Result<Draft, EntraError> {
    let client = match &who {
        TokenSubject::App { client_id, .. } => Some(*client_id),
        TokenSubject::User(_) => None,
    };
    let draft = Draft::of(who, resource);
    if let Some(path) = form.get("fmi_path") {
        let child = path.parse().ok().and_then(|id| find(cloud, Some(id)));
        let child = child.filter(|agent| Some(agent.blueprint()) == client && resource == EXCHANGE_AUDIENCE);
        let child = child.ok_or_else(|| unknown_client(cloud, path))?;
        return Ok(draft.claim("sub", subject(cloud, &child)));
    }
    let Some(agent) = find(cloud, client) else { return Ok(draft) };
    let draft = draft.claim("xms_par_app_azp", agent.blueprint().to_string());
    Ok(FACETS.into_iter().fold(draft, |draft, (name, value)| draft.claim(name, value)))
}

/// `sub` of an exchange token. Its form is not documented; clients do not read it.
fn subject(cloud: &Cloud, agent: &AgentIdentity) -> String {
    let tenant = cloud.directory.ids.tenant;
    format!("/eid1/c/pub/t/{tenant}/a/{}/{}", agent.blueprint(), agent.object_id())
}

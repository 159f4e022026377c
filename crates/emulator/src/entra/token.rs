//! The token endpoint (Microsoft: v2-oauth2-client-creds-grant-flow): an application proves itself and gets a token.

use hyper::{Method, StatusCode};
use pgentra_directory::{AppRegistration, SecretCheck};
use secrecy::ExposeSecret as _;
use serde_json::json;
use uuid::Uuid;

use super::assertion::Trusted;
use super::delegated::{self, Delegated};
use super::jws::presented;
use super::refusal::{EntraError, enabled, missing, unknown_client, unknown_resource, unknown_tenant};
use super::scope::scoped;
use super::{agent, assertion, device, is_tenant, is_tenant_of_users, split_tenant};
use crate::cloud::{Caching, Cloud, TokenOverrides};
use crate::directory::Identity;
use crate::endpoint::Endpoint;
use crate::exchange::{Answer, Call, Object, Parameters};
use crate::federation::FederatedCredential;
use crate::keys::KeyError;
use crate::mint::{Draft, Minted, Proof, TokenSubject};
use crate::token_proxy::PROXY_PREFIX;

/// `POST /{tenant}/oauth2/v2.0/token` with `scope`, or `POST /{tenant}/oauth2/token` with `resource`.
pub(crate) fn token(cloud: &Cloud, call: &Call, tweaks: &TokenOverrides) -> Result<Answer, KeyError> {
    let door = Door { endpoint: Endpoint::EntraToken, path: &call.path };
    answer(cloud, call, tweaks, &door)
}

/// The same behind the token proxy of AKS identity bindings, which takes tokens that are meant for it.
pub(crate) fn proxied_token(cloud: &Cloud, call: &Call, tweaks: &TokenOverrides) -> Result<Answer, KeyError> {
    let path = call.path.strip_prefix(PROXY_PREFIX).unwrap_or(&call.path);
    let door = Door { endpoint: Endpoint::TokenProxy, path };
    answer(cloud, call, tweaks, &door)
}

/// How a request came in.
struct Door<'a> {
    endpoint: Endpoint,
    path: &'a str,
}

impl Door<'_> {
    /// Whose statements prove an identity here, or the application.
    fn federated(&self, cloud: &Cloud, identity: Option<&Identity>) -> Vec<FederatedCredential> {
        match (self.endpoint, identity) {
            (Endpoint::TokenProxy, Some(identity))
                if identity.object_id != cloud.directory.ids.user_assigned_object =>
            {
                Vec::new()
            }
            (Endpoint::TokenProxy, _) => vec![cloud.federation.binding()],
            (_, None) => cloud.federation.credentials(),
            (_, Some(identity)) => {
                let registered = cloud.subscription.federated(identity.object_id);
                registered.into_iter().map(|one| one.credential).collect()
            }
        }
    }
}

fn answer(cloud: &Cloud, call: &Call, tweaks: &TokenOverrides, door: &Door<'_>) -> Result<Answer, KeyError> {
    if call.method != Method::POST {
        let method = &call.method;
        let sentence =
            format!("AADSTS900561: The endpoint only accepts POST requests. Received a {method} request.");
        return Ok(EntraError::new(900_561, "invalid_request", sentence).answer(cloud, call));
    }
    let v2 = door.path.contains("/oauth2/v2.0/");
    let form = call.form();
    let GrantedToken { draft, person } = match granted(cloud, &form, door, v2) {
        Ok(grant) => grant,
        Err(refusal) => return Ok(refusal.answer(cloud, call)),
    };
    let minted = cloud.token(door.endpoint, Caching::Never, &draft, tweaks)?;
    let mut body = if v2 { v2_body(cloud, &minted) } else { v1_body(cloud, &draft.audience, &minted) };
    if let Some(person) = person {
        body.extend(person.more(cloud, &form)?);
    }
    Ok(Answer::json(StatusCode::OK, body)
        .with_header("Cache-Control", "no-store, no-cache")
        .with_header("x-ms-request-id", Uuid::new_v4().to_string()))
}

/// What a request is granted.
struct GrantedToken {
    draft: Draft,
    /// A person has signed in.
    person: Option<Delegated>,
}

/// Whose token it will be, and for which resource.
fn granted(cloud: &Cloud, form: &Parameters, door: &Door<'_>, v2: bool) -> Result<GrantedToken, EntraError> {
    let (tenant, _) = split_tenant(door.path);
    let grant = form.get("grant_type").ok_or_else(|| missing("grant_type"));
    let of_person: Option<GrantReader> = match grant {
        Ok(device::GRANT | device::MSAL_GRANT) => Some(device::redeem),
        Ok("authorization_code") => Some(delegated::of_code),
        Ok("refresh_token") => Some(delegated::of_refresh_token),
        Ok(delegated::ON_BEHALF_OF) => Some(delegated::on_behalf_of),
        Ok("password") => Some(delegated::of_password),
        _ => None,
    };
    let of_person = of_person.filter(|_| v2 && door.endpoint == Endpoint::EntraToken);
    if !(is_tenant(cloud, tenant) || of_person.is_some() && is_tenant_of_users(cloud, tenant)) {
        return Err(unknown_tenant(tenant));
    }
    let grant = grant?;
    if let Some(read) = of_person {
        return of_a_person(cloud, form, door, read);
    }
    if grant != "client_credentials" {
        let sentence = format!("AADSTS70003: The app requested an unsupported grant type '{grant}'.");
        return Err(EntraError::new(70003, "unsupported_grant_type", sentence));
    }
    let client = form.get("client_id").ok_or_else(|| missing("client_id"))?;
    let resource =
        if v2 { scoped(form)? } else { form.get("resource").ok_or_else(|| missing("resource"))? };
    // Before the resource is looked up, as at Entra: a client that fails to prove itself learns nothing of the tenant.
    let who = authenticated(cloud, form, client, door)?;
    if cloud.resource(resource).is_none() {
        return Err(EntraError::new(500_011, "invalid_resource", unknown_resource(cloud, resource)));
    }
    Ok(GrantedToken { draft: agent::draft(cloud, form, who, resource)?, person: None })
}

/// Reads the grant of a person's token for a client.
type GrantReader = fn(&Cloud, &Parameters, &str) -> Result<Delegated, EntraError>;

/// A token of a person. An application of the tenant that has credentials proves who it is, unless it is registered as a
/// public client. On behalf of a person, each client has to. Client ids that the tenant does not know are public.
fn of_a_person(
    cloud: &Cloud,
    form: &Parameters,
    door: &Door<'_>,
    read: GrantReader,
) -> Result<GrantedToken, EntraError> {
    let client = form.get("client_id").ok_or_else(|| missing("client_id"))?;
    let id = Uuid::parse_str(client).ok();
    if id.is_some_and(|id| cloud.principals.is_deleted_application(id)) {
        return Err(unknown_client(cloud, client));
    }
    let registered = id.and_then(|id| cloud.principals.registration(id));
    let has_to = registered.as_ref().is_some_and(|one| {
        let has_certificate = is_first(cloud, one) && !cloud.certificates.all().is_empty();
        cloud.principals.is_confidential(one, has_certificate)
    });
    let is_confidential = form.get("client_secret").or(form.get("client_assertion")).is_some()
        || form.get("grant_type") == Some(delegated::ON_BEHALF_OF)
        || has_to;
    if is_confidential {
        authenticated(cloud, form, client, door)?;
    } else if let Some(object_id) = registered.and_then(|one| one.object_id()) {
        enabled(cloud, client, object_id)?;
    }
    let person = read(cloud, form, client)?;
    Ok(GrantedToken { draft: person.draft(cloud, is_confidential)?, person: Some(person) })
}

/// Whether it is the application that the token proxy and certificates know.
fn is_first(cloud: &Cloud, registered: &AppRegistration) -> bool {
    registered.client_id() == cloud.directory.application.client_id
}

/// The client that `client` names, if it proves that it is it and may sign in.
fn authenticated(
    cloud: &Cloud,
    form: &Parameters,
    client: &str,
    door: &Door<'_>,
) -> Result<TokenSubject, EntraError> {
    let who = identified(cloud, form, client, door)?;
    if let TokenSubject::App { object_id, .. } = &who {
        enabled(cloud, client, *object_id)?;
    }
    Ok(who)
}

fn identified(
    cloud: &Cloud,
    form: &Parameters,
    client: &str,
    door: &Door<'_>,
) -> Result<TokenSubject, EntraError> {
    let named = Uuid::parse_str(client).ok();
    let managed = cloud.subscription.identities().into_iter().find(|one| Some(one.client_id) == named);
    if let Some(managed) = managed {
        let federated = &door.federated(cloud, Some(&managed));
        // A managed identity has no client secret or certificate, so every one is refused.
        let trusted = Trusted { client, own: false, federated };
        let proof = proven(cloud, form, &trusted, |_| SecretCheck::Wrong)?;
        let resource_id = Some(managed.resource_id);
        return Ok(TokenSubject::App {
            client_id: managed.client_id,
            object_id: managed.object_id,
            proof,
            resource_id,
        });
    }
    let is_entra = door.endpoint == Endpoint::EntraToken;
    if let Some(found) = agent::find(cloud, named).filter(|_| is_entra) {
        return agent::authenticated(cloud, form, &found);
    }
    let registered = named.and_then(|id| cloud.principals.registration(id));
    let registered = registered.ok_or_else(|| unknown_client(cloud, client))?;
    let own = is_first(cloud, &registered);
    let mut federated = if own { door.federated(cloud, None) } else { Vec::new() };
    // The token proxy takes none of an application's own credentials.
    if is_entra {
        federated.extend(registered.credentials().iter().map(|one| FederatedCredential {
            issuer: one.issuer.clone(),
            subject: one.subject.clone(),
            audience: one.audience.clone(),
        }));
    }
    let now = cloud.clock.unix();
    let trusted = Trusted { client, own: own && is_entra, federated: &federated };
    let check = |secret: &str| match is_entra {
        true => registered.check_secret(secret, now),
        false => SecretCheck::Wrong,
    };
    let proof = proven(cloud, form, &trusted, check)?;
    let object_id = registered.object_id().ok_or_else(|| no_service_principal(client))?;
    Ok(TokenSubject::App { client_id: registered.client_id(), object_id, proof, resource_id: None })
}

fn no_service_principal(client: &str) -> EntraError {
    let sentence = format!(
        "AADSTS7000229: The client application {client} is missing service principal in the tenant. See instructions here: \
         https://go.microsoft.com/fwlink/?linkid=2225119"
    );
    EntraError::new(7_000_229, "unauthorized_client", sentence)
}

fn proven(
    cloud: &Cloud,
    form: &Parameters,
    trusted: &Trusted<'_>,
    check: impl Fn(&str) -> SecretCheck,
) -> Result<Proof, EntraError> {
    if let Some(token) = presented(form)? {
        return assertion::check(cloud, token, trusted).map(|()| Proof::Assertion);
    }
    let Some(secret) = form.get("client_secret") else {
        let sentence = "AADSTS7000218: The request body must contain the following parameter: 'client_assertion' or \
                        'client_secret'.";
        return Err(EntraError::new(7_000_218, "invalid_client", sentence));
    };
    let (number, sentence) = match check(secret) {
        SecretCheck::Good => return Ok(Proof::Secret),
        SecretCheck::Expired => (
            7_000_222,
            format!(
                "AADSTS7000222: The provided client secret keys for app '{}' are expired. Visit the Azure portal to create \
                 new keys for your app, or consider using certificate credentials for added security.",
                trusted.client
            ),
        ),
        SecretCheck::Wrong => (
            7_000_215,
            format!(
                "AADSTS7000215: Invalid client secret provided. Ensure the secret being sent in the request is the client \
                 secret value, not the client secret ID, for a secret added to app '{}'.",
                trusted.client
            ),
        ),
    };
    Err(EntraError::new(number, "invalid_client", sentence))
}

/// Numbers are numbers, and there is no `expires_on`.
fn v2_body(cloud: &Cloud, minted: &Minted) -> Object {
    let left = (minted.expires - cloud.clock.unix()).max(0);
    let mut body =
        vec![("token_type", json!("Bearer")), ("expires_in", json!(left)), ("ext_expires_in", json!(left))];
    if let Some(refresh_in) = cloud.lifetimes.refresh_in {
        body.push(("refresh_in", json!(refresh_in.as_secs())));
    }
    body.push(("access_token", json!(minted.token.expose_secret())));
    body
}

/// The response of the v1 endpoint, in which numbers are strings.
fn v1_body(cloud: &Cloud, resource: &str, minted: &Minted) -> Object {
    let left = (minted.expires - cloud.clock.unix()).max(0).to_string();
    vec![
        ("token_type", json!("Bearer")),
        ("expires_in", json!(left)),
        ("ext_expires_in", json!(left)),
        ("expires_on", json!(minted.expires.to_string())),
        ("not_before", json!(minted.not_before.to_string())),
        ("resource", json!(resource)),
        ("access_token", json!(minted.token.expose_secret())),
    ]
}

//! Whose tokens are taken for a user-assigned identity
//! (Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials).

use hyper::StatusCode;
use pgentra_directory::credential_flaw;
use serde_json::{Value, json};

use super::answers::{body, collection, json_answer, not_found, refusal, with_status};
use super::identities;
use crate::cloud::Cloud;
use crate::directory::Identity;
use crate::exchange::{Answer, Call};
use crate::federation::FederatedCredential;
use crate::subscription::NamedCredential;

const KIND: &str = "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials";

/// How many an identity can have (Microsoft: workload-identity-federation-considerations).
const MOST: usize = 20;

/// `GET …/federatedIdentityCredentials`
pub(super) fn list(cloud: &Cloud, (group, identity): (&str, &str)) -> Result<Answer, Answer> {
    let identity = identities::named(cloud, group, identity)?;
    let all = cloud.subscription.federated(identity.object_id);
    Ok(collection(all.iter().map(|one| shown(&identity, one)).collect()))
}

/// `GET …/federatedIdentityCredentials/{name}`
pub(super) fn show(cloud: &Cloud, (group, identity): (&str, &str), name: &str) -> Result<Answer, Answer> {
    let identity = identities::named(cloud, group, identity)?;
    let found = cloud.subscription.federated(identity.object_id).into_iter().find(|one| one.name == name);
    match found {
        Some(one) => Ok(json_answer(shown(&identity, &one))),
        None => Err(not_found(KIND, name, group)),
    }
}

/// `PUT …/federatedIdentityCredentials/{name}`
pub(super) fn create(
    cloud: &Cloud,
    call: &Call,
    (group, identity): (&str, &str),
    name: &str,
) -> Result<Answer, Answer> {
    let identity = identities::named(cloud, group, identity)?;
    let body = body(call)?;
    let properties = &body["properties"];
    let text = |member: &str| properties[member].as_str().unwrap_or_default().to_owned();
    let (issuer, subject) = (text("issuer"), text("subject"));
    let audiences = properties["audiences"].as_array().map(Vec::as_slice).unwrap_or_default();
    let [Value::String(audience)] = audiences else { return Err(invalid("audiences must have one value")) };
    if let Some(flaw) = credential_flaw(name, &issuer, &subject, audience) {
        return Err(invalid(flaw));
    }
    let new = NamedCredential {
        name: name.to_owned(),
        credential: FederatedCredential { issuer, subject, audience: audience.clone() },
    };
    let present = cloud.subscription.federated(identity.object_id);
    let same = |one: &&NamedCredential| {
        (&one.credential.issuer, &one.credential.subject) == (&new.credential.issuer, &new.credential.subject)
    };
    if present.iter().filter(|one| one.name != name).any(|one| same(&one)) {
        let message = "Issuer and subject combination already exists for this Managed Identity.";
        return Err(refusal(StatusCode::CONFLICT, "Conflict", message));
    }
    let is_new = !present.iter().any(|one| one.name == name);
    if is_new && present.len() >= MOST {
        let message = "Too many Federated Identity Credentials for this Managed Identity.";
        return Err(refusal(StatusCode::BAD_REQUEST, "BadRequest", message));
    }
    let answer = shown(&identity, &new);
    cloud.subscription.set_federated(identity.object_id, new);
    Ok(with_status(if is_new { StatusCode::CREATED } else { StatusCode::OK }, answer))
}

/// `DELETE …/federatedIdentityCredentials/{name}`
pub(super) fn delete(cloud: &Cloud, (group, identity): (&str, &str), name: &str) -> Result<Answer, Answer> {
    let identity = identities::named(cloud, group, identity)?;
    let is_gone = cloud.subscription.remove_federated(identity.object_id, name);
    Ok(Answer::text(if is_gone { StatusCode::OK } else { StatusCode::NO_CONTENT }, ""))
}

fn invalid(why: &str) -> Answer {
    refusal(StatusCode::BAD_REQUEST, "BadRequest", &format!("The request is invalid: {why}."))
}

fn shown(identity: &Identity, one: &NamedCredential) -> Value {
    let NamedCredential { name, credential } = one;
    json!({
        "id": format!("{}/federatedIdentityCredentials/{name}", identity.resource_id),
        "name": name,
        "type": KIND,
        "properties": {
            "issuer": credential.issuer,
            "subject": credential.subject,
            "audiences": [credential.audience],
        },
    })
}

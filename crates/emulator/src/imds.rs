//! The instance metadata service of a virtual machine (Microsoft: how-to-use-vm-token, instance-metadata-service).

use hyper::{Method, StatusCode};
use serde_json::json;

use crate::cloud::{Caching, Cloud, TokenOverrides};
use crate::directory::{Identity, IdentitySelector, RESOURCE_GROUP};
use crate::endpoint::Endpoint;
use crate::entra::unknown_resource;
use crate::exchange::{Answer, Call, Object};
use crate::keys::KeyError;
use crate::mint::{Draft, Minted};

/// The versions that the instance endpoint names when none is given, newest first.
const VERSIONS: [&str; 3] = ["2023-07-01", "2021-12-13", "2021-11-15"];

/// The first version that knows managed identities.
const FIRST_VERSION: &str = "2018-02-01";

pub(crate) fn endpoint(path: &str) -> Option<Endpoint> {
    match path.trim_end_matches('/') {
        "/metadata/identity/oauth2/token" => Some(Endpoint::ImdsToken),
        "/metadata/identity/info" => Some(Endpoint::ImdsInfo),
        "/metadata/instance" => Some(Endpoint::ImdsInstance),
        _ => None,
    }
}

/// `GET /metadata/identity/oauth2/token`
pub(crate) fn token(cloud: &Cloud, call: &Call, tweaks: &TokenOverrides) -> Result<Answer, KeyError> {
    let (identity, resource) = match accepted(cloud, call) {
        Ok(accepted) => accepted,
        Err(refusal) => return Ok(refusal),
    };
    // In the API specification alone (imds.json 2023-07-01), and promised nowhere.
    let bypass = call.query.get("bypass_cache").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let caching = if bypass { Caching::Never } else { Caching::Platform };
    let draft = Draft::of_identity(&identity, resource);
    let minted = cloud.token(Endpoint::ImdsToken, caching, &draft, tweaks)?;
    let mut body = token_body(cloud, &identity, resource, &minted);
    // IMDS repeats the parameter that selected the identity; the client id is in every answer.
    for (key, name) in [("object_id", "object_id"), ("msi_res_id", "msi_res_id")] {
        if let Some(named) = call.query.get(key) {
            body.push((name, json!(named)));
        }
    }
    Ok(with_server(Answer::json(StatusCode::OK, body)))
}

/// Every value is text, numbers too.
pub(crate) fn token_body(cloud: &Cloud, identity: &Identity, resource: &str, minted: &Minted) -> Object {
    use secrecy::ExposeSecret as _;
    let left = (minted.expires - cloud.clock.unix()).max(0).to_string();
    vec![
        ("access_token", json!(minted.token.expose_secret())),
        ("client_id", json!(identity.client_id)),
        ("expires_in", json!(left)),
        ("expires_on", json!(minted.expires.to_string())),
        ("ext_expires_in", json!(left)),
        ("not_before", json!(minted.not_before.to_string())),
        ("resource", json!(resource)),
        ("token_type", json!("Bearer")),
    ]
}

/// `GET /metadata/identity/info`
pub(crate) fn info(cloud: &Cloud, call: &Call) -> Answer {
    match permitted(call) {
        Err(refusal) => refusal,
        Ok(()) => {
            let tenant = json!(cloud.directory.ids.tenant);
            with_server(Answer::json(StatusCode::OK, vec![("tenantId", tenant)]))
        }
    }
}

/// `GET /metadata/instance`: the part about compute that identifies the machine.
pub(crate) fn instance(cloud: &Cloud, call: &Call) -> Answer {
    if !call.has_metadata_header() {
        let error = json!("Bad request. Required metadata header not specified");
        return with_server(Answer::json(StatusCode::BAD_REQUEST, vec![("error", error)]));
    }
    if call.query.get("api-version").is_none() {
        let error = "Bad request. api-version was not specified in the request. For more information refer to \
                     aka.ms/azureimds";
        let body = vec![("error", json!(error)), ("newest-versions", json!(VERSIONS))];
        return with_server(Answer::json(StatusCode::BAD_REQUEST, body));
    }
    let directory = &cloud.directory;
    let compute = json!({
        "azEnvironment": "AzurePublicCloud",
        "location": "westeurope",
        "name": directory.vm.name,
        "osType": "Linux",
        "resourceGroupName": RESOURCE_GROUP,
        "resourceId": directory.vm.resource_id,
        "subscriptionId": directory.ids.subscription,
        "vmId": directory.ids.vm_id,
        "vmSize": "Standard_B1s",
    });
    with_server(Answer::json(StatusCode::OK, vec![("compute", compute)]))
}

/// 401 for a path that the service does not know.
pub(crate) fn unknown_source(call: &Call) -> Answer {
    refusal(StatusCode::UNAUTHORIZED, "unknown_source", &format!("Unknown Source {}", call.path))
}

/// The identity and resource that an accepted request names; else the refusal.
fn accepted<'a>(cloud: &Cloud, call: &'a Call) -> Result<(Identity, &'a str), Answer> {
    permitted(call)?;
    let Some(resource) = call.query.get("resource") else {
        return Err(invalid("Required query variable 'resource' is missing"));
    };
    let identity = identity(cloud, call)?;
    if !cloud.is_enabled(&identity) {
        return Err(invalid("Identity not found"));
    }
    if cloud.resource(resource).is_none() {
        let description = unknown_resource(cloud, resource);
        return Err(refusal(StatusCode::BAD_REQUEST, "invalid_resource", &description));
    }
    Ok((identity, resource))
}

/// What every identity request must have: the header, no sign of a proxy, the method, a version.
pub(crate) fn permitted(call: &Call) -> Result<(), Answer> {
    if !call.has_metadata_header() {
        let description = "Required metadata header not specified";
        return Err(refusal(StatusCode::BAD_REQUEST, "bad_request_102", description));
    }
    // Microsoft: instance-metadata-service, "Proxies": such a request is refused. The text is not documented.
    if call.headers.contains_key("x-forwarded-for") {
        return Err(refusal(StatusCode::BAD_REQUEST, "bad_request", "X-Forwarded-For header is not allowed"));
    }
    if call.method != Method::GET {
        let description = "The requested method is not allowed";
        return Err(refusal(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", description));
    }
    match call.query.get("api-version") {
        None => Err(invalid("Required query variable 'api-version' is missing")),
        Some(version) if !is_version(version) => {
            Err(invalid("Query variable 'api-version' is not supported"))
        }
        Some(_) => Ok(()),
    }
}

/// The named identity; without a name the system-assigned one, else the only user-assigned one
/// (Microsoft: managed-identities-faq).
fn identity(cloud: &Cloud, call: &Call) -> Result<Identity, Answer> {
    let client_ids = call.query.all("client_id").map(IdentitySelector::Client);
    let object_ids = call.query.all("object_id").map(IdentitySelector::Object);
    let resource_ids =
        call.query.all("msi_res_id").chain(call.query.all("mi_res_id")).map(IdentitySelector::Resource);
    let selectors: Vec<IdentitySelector<'_>> = client_ids.chain(object_ids).chain(resource_ids).collect();
    let not_found = || invalid("Identity not found");
    match selectors[..] {
        [] => {
            let mut user_assigned = cloud.machine.user_assigned();
            match (cloud.machine.system_assigned(), user_assigned.len()) {
                (Some(identity), _) => Ok(identity),
                (None, 0 | 1) => user_assigned.pop().ok_or_else(not_found),
                (None, _) => Err(invalid(
                    "Multiple user assigned identities exist, please specify the clientId / resourceId of the \
                     identity in the token request",
                )),
            }
        }
        [selector] => cloud
            .machine
            .identities()
            .into_iter()
            .find(|identity| selector.matches(identity))
            .ok_or_else(not_found),
        _ => Err(invalid("Only one of client_id, object_id and msi_res_id may be specified")),
    }
}

fn is_version(text: &str) -> bool {
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let date = text.get(..10).unwrap_or_default();
    let shape: Vec<usize> = date.split('-').filter(|part| digits(part)).map(str::len).collect();
    shape == [4, 2, 2] && date >= FIRST_VERSION && matches!(&text[10..], "" | "-preview")
}

fn invalid(description: &str) -> Answer {
    refusal(StatusCode::BAD_REQUEST, "invalid_request", description)
}

pub(crate) fn refusal(status: StatusCode, error: &str, description: &str) -> Answer {
    with_server(Answer::json(
        status,
        vec![("error", json!(error)), ("error_description", json!(description))],
    ))
}

/// Clients recognise the service by its `Server` header.
fn with_server(answer: Answer) -> Answer {
    answer.with_header("Server", "IMDS/150.870.65.1854")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_dates_since_managed_identities_exist() {
        for (text, good) in [
            ("2018-02-01", true),
            ("2019-08-01", true),
            ("2023-07-01", true),
            ("2020-01-01-preview", true),
            ("2017-12-01", false),
            ("2018-2-1", false),
            ("latest", false),
            ("2023-07-01x", false),
            ("２０２３-07-01", false),
            ("", false),
        ] {
            assert_eq!(is_version(text), good, "{text}");
        }
    }
}

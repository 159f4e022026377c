//! App Service, Functions and Container Apps (Microsoft: overview-managed-identity, "REST endpoint reference").

use hyper::{Method, StatusCode};
use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use serde_json::json;
use uuid::Uuid;

use crate::cloud::{Caching, Cloud, TokenOverrides};
use crate::directory::{Identity, IdentitySelector};
use crate::endpoint::Endpoint;
use crate::exchange::{Answer, Call};
use crate::keys::KeyError;
use crate::mint::Draft;
use crate::options::DateText;

/// A protocol: its version, the name of the header that carries the secret, and the names of its selectors.
struct Protocol {
    version: &'static str,
    header: &'static str,
    client_id: &'static str,
    object_ids: &'static [&'static str],
    resource_ids: &'static [&'static str],
}

const CURRENT: Protocol = Protocol {
    version: "2019-08-01",
    header: "X-IDENTITY-HEADER",
    client_id: "client_id",
    object_ids: &["principal_id", "object_id"],
    resource_ids: &["mi_res_id"],
};

const LEGACY: Protocol = Protocol {
    version: "2017-09-01",
    header: "Secret",
    client_id: "clientid",
    object_ids: &[],
    resource_ids: &[],
};

/// `GET /MSI/token`
pub(crate) fn token(cloud: &Cloud, call: &Call, tweaks: &TokenOverrides) -> Result<Answer, KeyError> {
    let legacy = call.query.get("api-version") == Some(LEGACY.version);
    let (identity, resource) = match accepted(cloud, call, if legacy { &LEGACY } else { &CURRENT }) {
        Ok(accepted) => accepted,
        Err(refusal) => return Ok(refusal),
    };
    let draft = Draft::of_identity(&identity, resource);
    let minted = cloud.token(Endpoint::AppService, Caching::Platform, &draft, tweaks)?;
    let expires = if legacy { date(cloud.legacy_dates, minted.expires) } else { minted.expires.to_string() };
    let mut body = vec![
        ("access_token", json!(minted.token.expose_secret())),
        ("expires_on", json!(expires)),
        ("resource", json!(resource)),
        ("token_type", json!("Bearer")),
    ];
    if !legacy {
        body.push(("client_id", json!(identity.client_id)));
    }
    Ok(Answer::json(StatusCode::OK, body))
}

fn accepted<'a>(cloud: &Cloud, call: &'a Call, protocol: &Protocol) -> Result<(Identity, &'a str), Answer> {
    if call.method != Method::GET {
        return Err(refusal(
            StatusCode::METHOD_NOT_ALLOWED,
            "The requested resource does not support this method.",
        ));
    }
    if call.header(protocol.header) != Some(cloud.secrets.app_service.expose_secret()) {
        let message = format!("The header '{}' is missing or wrong.", protocol.header);
        return Err(refusal(StatusCode::UNAUTHORIZED, &message));
    }
    if call.query.get("api-version") != Some(protocol.version) {
        return Err(refusal(StatusCode::BAD_REQUEST, "The api-version is missing or not supported."));
    }
    let Some(resource) = call.query.get("resource") else {
        return Err(refusal(StatusCode::BAD_REQUEST, "The parameter 'resource' is required."));
    };
    let identity = identity(cloud, call, protocol)?;
    // App Service answers 500 without a reason for a resource that Entra does not know.
    if cloud.resource(resource).is_none() {
        let message = "An unexpected error occurred while fetching the AAD token.";
        return Err(refusal(StatusCode::INTERNAL_SERVER_ERROR, message));
    }
    Ok((identity, resource))
}

/// The named user-assigned identity; without a name the system-assigned one and no other, unlike on a virtual machine.
fn identity(cloud: &Cloud, call: &Call, protocol: &Protocol) -> Result<Identity, Answer> {
    let all = |names: &'static [&'static str]| names.iter().flat_map(|name| call.query.all(name));
    let client_ids = call.query.all(protocol.client_id).map(IdentitySelector::Client);
    let object_ids = all(protocol.object_ids).map(IdentitySelector::Object);
    let resource_ids = all(protocol.resource_ids).map(IdentitySelector::Resource);
    let selectors: Vec<IdentitySelector<'_>> = client_ids.chain(object_ids).chain(resource_ids).collect();
    let bad = |message| refusal(StatusCode::BAD_REQUEST, message);
    match selectors[..] {
        [] => {
            let own = cloud.machine.system_assigned().filter(|identity| cloud.is_enabled(identity));
            own.ok_or_else(|| bad("Unable to load the proper Managed Identity."))
        }
        [selector] => {
            let mut identities = cloud.machine.user_assigned().into_iter();
            let fits = |identity: &Identity| selector.matches(identity) && cloud.is_enabled(identity);
            identities.find(fits).ok_or_else(|| {
                bad("No User Assigned or Delegated Managed Identity found for specified ClientId/ResourceId/PrincipalId.")
            })
        }
        _ => Err(bad("Only one of client_id, principal_id and mi_res_id may be specified.")),
    }
}

/// The expiry as the protocol of 2017 writes it on each system.
fn date(form: DateText, expires: i64) -> String {
    let format = match form {
        DateText::Linux => "%m/%d/%Y %H:%M:%S +00:00",
        DateText::Windows => "%-m/%-d/%Y %-I:%M:%S %p +00:00",
        DateText::Unpadded => "%-m/%-d/%Y %-I:%-M:%-S %p +00:00",
    };
    Timestamp::from_second(expires).map(|at| at.strftime(format).to_string()).unwrap_or_default()
}

fn refusal(status: StatusCode, message: &str) -> Answer {
    let body = vec![
        ("statusCode", json!(status.as_u16())),
        ("message", json!(message)),
        ("correlationId", json!(Uuid::new_v4())),
    ];
    Answer::json(status, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_they_were_seen() {
        for (form, unix, text) in [
            (DateText::Linux, 1_560_987_721, "06/19/2019 23:42:01 +00:00"),
            (DateText::Windows, 1_579_152_252, "1/16/2020 5:24:12 AM +00:00"),
            (DateText::Windows, 1_579_198_452, "1/16/2020 6:14:12 PM +00:00"),
            (DateText::Unpadded, 1_579_132_812, "1/16/2020 12:0:12 AM +00:00"),
        ] {
            assert_eq!(date(form, unix), text);
        }
    }
}

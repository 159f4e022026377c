//! Checks the bearer token of a request, and makes the refusal of a token that does not fit.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;
use uuid::Uuid;

use super::answers::refusal;
use crate::cloud::Cloud;
use crate::exchange::{Answer, Call};

/// The audiences that Resource Manager takes; each with and without a slash at its end.
const RESOURCE_MANAGER: [&str; 2] = ["https://management.core.windows.net", "https://management.azure.com"];

/// The audiences that Graph takes, besides its own address: its name and its application id.
const GRAPH: [&str; 2] = ["https://graph.microsoft.com", "00000003-0000-0000-c000-000000000000"];

/// The principal in a token.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) object_id: Uuid,
    client_id: Option<String>,
    upn: Option<String>,
    is_app: bool,
}

impl Caller {
    /// How Resource Manager calls it in a refusal.
    pub(super) fn name(&self) -> &str {
        self.upn.as_deref().or(self.client_id.as_deref()).unwrap_or_default()
    }

    /// Whether it is an owner of the subscription.
    pub(super) fn is_owner(&self, cloud: &Cloud) -> bool {
        let directory = &cloud.directory;
        [directory.administrator.object_id(), directory.application.object_id].contains(&self.object_id)
    }

    /// Whether it may read the directory: every user may, and the application was given the permission.
    pub(super) fn may_read_directory(&self, cloud: &Cloud) -> bool {
        !self.is_app || self.object_id == cloud.directory.application.object_id
    }
}

/// Why a token is not taken.
enum Flaw {
    Missing,
    Invalid,
    Audience(String),
    Expired(i64),
}

/// The part of a token's claims that decides.
#[derive(Deserialize)]
struct Claims {
    aud: String,
    exp: i64,
    tid: Uuid,
    oid: Uuid,
    appid: Option<String>,
    upn: Option<String>,
    idtyp: Option<String>,
}

/// The caller of Resource Manager.
pub(super) fn at_resource_manager(cloud: &Cloud, call: &Call) -> Result<Caller, Answer> {
    read(cloud, call, &RESOURCE_MANAGER).map_err(|flaw| {
        let (code, message) = match flaw {
            Flaw::Missing => (
                "AuthenticationFailed",
                "Authentication failed. The 'Authorization' header is missing.".to_owned(),
            ),
            Flaw::Invalid => ("InvalidAuthenticationToken", "The access token is invalid.".to_owned()),
            Flaw::Audience(audience) => {
                let allowed = RESOURCE_MANAGER.map(|one| format!("'{one}/','{one}'")).join(",");
                let message = format!(
                    "The access token has been obtained for wrong audience or resource '{audience}'. It should exactly \
                     match with one of the allowed audiences {allowed}."
                );
                ("InvalidAuthenticationTokenAudience", message)
            }
            Flaw::Expired(at) => {
                let (at, now) = (time(at), time(cloud.clock.unix()));
                let message = format!(
                    "The access token expiry UTC time '{at}' is earlier than current UTC time '{now}'."
                );
                ("ExpiredAuthenticationToken", message)
            }
        };
        let authority = format!("{}{}", cloud.addresses.authority, cloud.directory.ids.tenant);
        let challenge = format!(
            "Bearer authorization_uri=\"{authority}\", error=\"invalid_token\", error_description=\"{message}\""
        );
        refusal(StatusCode::UNAUTHORIZED, code, &message).with_header("WWW-Authenticate", challenge)
    })
}

/// The caller of Graph, or what is wrong in Graph's words.
pub(super) fn at_graph(cloud: &Cloud, call: &Call) -> Result<Caller, &'static str> {
    let own = cloud.addresses.graph.as_str();
    read(cloud, call, &[GRAPH[0], GRAPH[1], own]).map_err(|flaw| match flaw {
        Flaw::Missing => "Access token is empty.",
        Flaw::Invalid => "Access token validation failure.",
        Flaw::Audience(_) => "Access token validation failure. Invalid audience.",
        Flaw::Expired(_) => "Lifetime validation failed, the token is expired.",
    })
}

fn read(cloud: &Cloud, call: &Call, audiences: &[&str]) -> Result<Caller, Flaw> {
    let token = call.bearer().filter(|token| !token.is_empty()).ok_or(Flaw::Missing)?;
    let claims = signed(cloud, token).ok_or(Flaw::Invalid)?;
    if claims.tid != cloud.directory.ids.tenant {
        return Err(Flaw::Invalid);
    }
    if claims.exp <= cloud.clock.unix() {
        return Err(Flaw::Expired(claims.exp));
    }
    let audience = claims.aud.strip_suffix('/').unwrap_or(&claims.aud);
    if !audiences.contains(&audience) {
        return Err(Flaw::Audience(claims.aud));
    }
    Ok(Caller {
        object_id: claims.oid,
        client_id: claims.appid,
        is_app: claims.idtyp.as_deref() == Some("app"),
        upn: claims.upn,
    })
}

/// The claims of a token that one of the tenant's keys signed.
fn signed(cloud: &Cloud, token: &str) -> Option<Claims> {
    let (message, signature) = token.rsplit_once('.')?;
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    let keys = cloud.keys.published();
    keys.iter().find(|key| key.verifies(message.as_bytes(), &signature))?;
    let (_, claims) = message.split_once('.')?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
}

/// `1/31/2026 1:45:00 PM`
fn time(unix: i64) -> String {
    Timestamp::from_second(unix)
        .map(|at| at.strftime("%-m/%-d/%Y %-I:%M:%S %p").to_string())
        .unwrap_or_default()
}

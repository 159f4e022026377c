//! The device authorization flow (RFC 8628; Microsoft: v2-oauth2-device-code): a program without a browser shows a code,
//! and the user confirms it elsewhere. Here the user is the tenant's administrator, and opening the address confirms.

use std::time::Duration;

use hyper::{Method, StatusCode};
use pgentra_directory::DeviceCode;
use serde_json::json;

use super::delegated::{Delegated, user};
use super::refusal::{EntraError, missing, unknown_resource, unknown_tenant};
use super::scope::delegated;
use super::{is_tenant_of_users, split_tenant};
use crate::cloud::Cloud;
use crate::exchange::{Answer, Call, Parameters};
use crate::keys::KeyError;
use crate::mint::random;

/// The grant at the token endpoint (RFC 8628 section 3.4).
pub(super) const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// The same in the words of MSAL for JavaScript, which Entra takes too.
pub(super) const MSAL_GRANT: &str = "device_code";

/// How long a code can be used: 15 minutes, as at Entra.
const LIFE: Duration = Duration::from_secs(900);

/// How often a client may ask, in seconds: Entra says 5, which a local user need not wait for.
const INTERVAL: u64 = 1;

/// `POST /{tenant}/oauth2/v2.0/devicecode`
pub(crate) fn device_code(cloud: &Cloud, call: &Call) -> Result<Answer, KeyError> {
    let (tenant, _) = split_tenant(&call.path);
    let asked = || -> Result<(String, String), EntraError> {
        if !is_tenant_of_users(cloud, tenant) {
            return Err(unknown_tenant(tenant));
        }
        let form = call.form();
        let client = form.get("client_id").ok_or_else(|| missing("client_id"))?;
        let scope = form.get("scope").ok_or_else(|| missing("scope"))?;
        let resource = delegated(scope)?;
        if cloud.resource(resource).is_none() {
            return Err(EntraError::new(500_011, "invalid_resource", unknown_resource(cloud, resource)));
        }
        Ok((client.to_owned(), scope.to_owned()))
    };
    let (client, scope) = match asked() {
        Ok(asked) => asked,
        Err(refusal) => return Ok(refusal.answer(cloud, call)),
    };
    // Nine characters, as at Entra; only `-` and `_` of base64url are hard to read out.
    let user: String = random(24)?.chars().filter(char::is_ascii_alphanumeric).take(9).collect();
    let user = user.to_ascii_uppercase();
    let device = random(48)?;
    let address = format!("{}{}/oauth2/deviceauth", cloud.addresses.sign_in, cloud.directory.ids.tenant);
    let complete = format!("{address}?user_code={user}");
    let life = LIFE.as_secs();
    let body = vec![
        ("user_code", json!(user)),
        ("device_code", json!(device)),
        ("verification_uri", json!(address)),
        ("verification_uri_complete", json!(complete)),
        ("expires_in", json!(life)),
        ("interval", json!(INTERVAL)),
        ("message", json!(format!("To sign in, open {complete}"))),
    ];
    let expires = cloud.clock.unix().saturating_add_unsigned(life);
    let code = DeviceCode { device, user, client, scope, expires, is_confirmed: false };
    cloud.device_codes.add(code);
    Ok(Answer::json(StatusCode::OK, body).with_header("Cache-Control", "no-store, no-cache"))
}

/// `GET /{tenant}/oauth2/deviceauth?user_code=…`: the administrator confirms the code, unless deleted or disabled.
pub(crate) fn device_auth(cloud: &Cloud, call: &Call) -> Answer {
    if call.method != Method::GET {
        return Answer::text(StatusCode::METHOD_NOT_ALLOWED, "").with_header("Allow", "GET");
    }
    let Some(typed) = call.query.get("user_code") else {
        return Answer::text(StatusCode::OK, "Add the code to this address: ?user_code=CODE\n");
    };
    let now = cloud.clock.unix();
    let mut codes = cloud.device_codes.waiting();
    match codes.iter_mut().find(|code| code.user.eq_ignore_ascii_case(typed) && now < code.expires) {
        Some(code) => match user(cloud, cloud.directory.administrator.object_id()) {
            Ok(user) => {
                code.is_confirmed = true;
                let name = user.user_principal_name();
                Answer::text(
                    StatusCode::OK,
                    format!("You are signed in as {name}. Go back to your program.\n"),
                )
            }
            Err(refusal) => Answer::text(StatusCode::FORBIDDEN, format!("{}\n", refusal.sentence())),
        },
        None => Answer::text(StatusCode::NOT_FOUND, "There is no such code, or it has expired.\n"),
    }
}

/// The token of a confirmed code, which is used up.
pub(super) fn redeem(cloud: &Cloud, form: &Parameters, client: &str) -> Result<Delegated, EntraError> {
    let device = form.get("device_code").ok_or_else(|| missing("device_code"))?;
    let mut codes = cloud.device_codes.waiting();
    let Some(at) = codes.iter().position(|code| code.device == device && code.client == client) else {
        let sentence = "AADSTS70018: Verification code is not correct or was used.";
        return Err(EntraError::new(70018, "bad_verification_code", sentence));
    };
    if cloud.clock.unix() >= codes[at].expires {
        codes.remove(at);
        let sentence = "AADSTS70020: The provided value for the input parameter 'device_code' is not valid. This device \
                        code has expired.";
        return Err(EntraError::new(70020, "expired_token", sentence));
    }
    if !codes[at].is_confirmed {
        let sentence =
            "AADSTS70016: OAuth 2.0 device flow error. Authorization is pending. Continue polling.";
        return Err(EntraError::new(70016, "authorization_pending", sentence));
    }
    let user = user(cloud, cloud.directory.administrator.object_id())?;
    let scope = codes.remove(at).map(|code| code.scope).unwrap_or_default();
    Ok(Delegated { user, client: client.to_owned(), scope, nonce: None })
}

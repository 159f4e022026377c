//! Tokens of people at the token endpoint: for an authorization code, a refresh token, or the token that a person has sent
//! to an application (Microsoft: v2-oauth2-auth-code-flow, v2-oauth2-on-behalf-of-flow).

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pgentra_directory::{RefreshToken, User};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use uuid::Uuid;

use super::jws::{forged, parse};
use super::refusal::{EntraError, missing, unknown_resource};
use super::scope::delegated;
use crate::cloud::Cloud;
use crate::exchange::{Object, Parameters};
use crate::keys::KeyError;
use crate::mint::{Draft, random};

/// The grant of the on-behalf-of flow (RFC 7523 section 2.1).
pub(super) const ON_BEHALF_OF: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// How long a refresh token can be used, in seconds: 90 days (Microsoft: refresh-tokens).
const LIFE: i64 = 90 * 24 * 3600;

/// A person's token for a client.
pub(super) struct Delegated {
    pub(super) user: User,
    pub(super) client: String,
    pub(super) scope: String,
    pub(super) nonce: Option<String>,
}

impl Delegated {
    /// The access token for the resource in the scope.
    pub(super) fn draft(&self, cloud: &Cloud, is_confidential: bool) -> Result<Draft, EntraError> {
        let resource = delegated(&self.scope)?;
        if cloud.resource(resource).is_none() {
            return Err(EntraError::new(500_011, "invalid_resource", unknown_resource(cloud, resource)));
        }
        let draft = Draft::of_user(&self.user, resource);
        // Entra's clients have ids. Programs of PostgreSQL may use any text here.
        Ok(match self.client.parse() {
            Ok(client) => draft.for_client(client, is_confidential),
            Err(_) => draft,
        })
    }

    /// What is answered beside the access token.
    pub(super) fn more(&self, cloud: &Cloud, form: &Parameters) -> Result<Object, KeyError> {
        let asks = |wanted| self.scope.split_whitespace().any(|scope| scope == wanted);
        let mut more = vec![("scope", json!(self.scope))];
        if asks("offline_access") {
            let (token, user, client) = (random(96)?, self.user.object_id(), self.client.clone());
            more.push(("refresh_token", json!(token)));
            cloud.sign_ins.add_refresh_token(RefreshToken {
                token: token.into(),
                user,
                client,
                expires: cloud.clock.unix() + LIFE,
            });
        }
        if asks("openid") {
            let token = cloud.id_token(&self.user, &self.client, self.nonce.as_deref())?;
            more.push(("id_token", json!(token.expose_secret())));
        }
        if form.get("client_info") == Some("1") {
            let info = json!({ "uid": self.user.object_id(), "utid": cloud.directory.ids.tenant });
            more.push(("client_info", json!(URL_SAFE_NO_PAD.encode(info.to_string()))));
        }
        Ok(more)
    }
}

/// Redeems an authorization code.
pub(super) fn of_code(cloud: &Cloud, form: &Parameters, client: &str) -> Result<Delegated, EntraError> {
    let typed = form.get("code").ok_or_else(|| missing("code"))?;
    let redirect_uri = form.get("redirect_uri").ok_or_else(|| missing("redirect_uri"))?;
    let code = cloud.sign_ins.use_code(typed).filter(|code| code.client == client);
    let code = code.ok_or_else(|| invalid(70000, "Provided grant is invalid or malformed."))?;
    if code.is_used {
        return Err(invalid(
            54005,
            "OAuth2 Authorization code was already redeemed, please retry with a new valid code or use an existing \
             refresh token.",
        ));
    }
    if cloud.clock.unix() >= code.expires {
        return Err(invalid(
            70008,
            "The provided authorization code or refresh token has expired due to inactivity.",
        ));
    }
    if code.redirect_uri != redirect_uri {
        let sentence = format!(
            "The reply address '{redirect_uri}' does not match the reply address '{}' provided when requesting \
             Authorization code.",
            code.redirect_uri
        );
        return Err(invalid(500_112, &sentence));
    }
    let verifier = form.get("code_verifier").unwrap_or_default();
    let of_verifier = || URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()));
    if code.challenge.is_some_and(|challenge| challenge != of_verifier()) {
        return Err(invalid(
            501_481,
            "The Code_Verifier does not match the code_challenge supplied in the authorization request.",
        ));
    }
    let scope = form.get("scope").unwrap_or(&code.scope).to_owned();
    Ok(Delegated { user: user(cloud, code.user)?, client: client.to_owned(), scope, nonce: code.nonce })
}

/// Redeems a refresh token.
pub(super) fn of_refresh_token(
    cloud: &Cloud,
    form: &Parameters,
    client: &str,
) -> Result<Delegated, EntraError> {
    let typed = form.get("refresh_token").ok_or_else(|| missing("refresh_token"))?;
    let found = cloud.sign_ins.refresh_token(typed).filter(|token| token.client == client);
    let found =
        found.ok_or_else(|| invalid(9_002_313, "Invalid request. Request is malformed or invalid."))?;
    if cloud.clock.unix() >= found.expires {
        return Err(invalid(
            700_082,
            "The refresh token has expired due to inactivity. The token was inactive for 90.00:00:00.",
        ));
    }
    let scope = form.get("scope").ok_or_else(|| missing("scope"))?.to_owned();
    Ok(Delegated { user: user(cloud, found.user)?, client: client.to_owned(), scope, nonce: None })
}

/// A token for the person whose token the application presents.
pub(super) fn on_behalf_of(cloud: &Cloud, form: &Parameters, client: &str) -> Result<Delegated, EntraError> {
    if form.get("requested_token_use") != Some("on_behalf_of") {
        return Err(missing("requested_token_use"));
    }
    let assertion = form.get("assertion").ok_or_else(|| missing("assertion"))?;
    let parsed = parse(assertion).ok_or_else(forged)?;
    let key = cloud.keys.published().into_iter().find(|key| key.id() == parsed.header.kid);
    if !key.is_some_and(|key| key.verifies(parsed.message.as_bytes(), &parsed.signature)) {
        return Err(invalid(50013, "Assertion failed signature validation."));
    }
    let own = [client.to_owned(), format!("api://{client}")];
    if !parsed.claims.aud.list().iter().any(|audience| own.contains(audience)) {
        return Err(invalid(
            500_131,
            "Assertion audience does not match the Client app presenting the assertion. The audience in the assertion \
             was not the client's id.",
        ));
    }
    let claims: Value = claims(assertion);
    let now = cloud.clock.unix();
    if claims["exp"].as_i64().is_none_or(|expires| now >= expires) {
        return Err(invalid(500_133, "Assertion is not within its valid time range."));
    }
    if claims["idtyp"] == "app" {
        return Err(invalid(7_000_114, "Application is not allowed to make application on-behalf-of calls."));
    }
    let person = claims["oid"].as_str().and_then(|id| id.parse().ok()).unwrap_or_default();
    let scope = form.get("scope").ok_or_else(|| missing("scope"))?.to_owned();
    Ok(Delegated { user: user(cloud, person)?, client: client.to_owned(), scope, nonce: None })
}

/// A password is no second factor, and each user of the tenant has to give one (Microsoft: v2-oauth-ropc).
pub(super) fn of_password(_: &Cloud, form: &Parameters, _: &str) -> Result<Delegated, EntraError> {
    let scope = form.get("scope").ok_or_else(|| missing("scope"))?;
    form.get("username").ok_or_else(|| missing("username"))?;
    let resource = delegated(scope)?;
    let sentence = format!(
        "Due to a configuration change made by your administrator, or because you moved to a new location, you must use \
         multi-factor authentication to access '{resource}'."
    );
    Err(invalid(50076, &sentence))
}

/// The claims of a token whose form is known to be right.
fn claims(token: &str) -> Value {
    let body = token.split('.').nth(1).and_then(|body| URL_SAFE_NO_PAD.decode(body).ok());
    body.and_then(|body| serde_json::from_slice(&body).ok()).unwrap_or_default()
}

/// The person as the directory has it now.
///
/// # Errors
/// If the person was deleted, or the account is disabled.
pub(crate) fn user(cloud: &Cloud, object_id: Uuid) -> Result<User, EntraError> {
    let found = cloud.principals.user(object_id);
    let found = found.ok_or_else(|| {
        invalid(50034, "The user account does not exist in the directory. To sign into this application, the account must be added to the directory.")
    })?;
    if !cloud.principals.is_enabled(object_id) {
        return Err(invalid(50057, "The user account is disabled."));
    }
    Ok(found)
}

fn invalid(number: u32, sentence: &str) -> EntraError {
    EntraError::new(number, "invalid_grant", format!("AADSTS{number}: {sentence}"))
}

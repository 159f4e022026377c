//! An Entra tenant: discovery, keys and the token endpoint.

mod agent;
mod assertion;
mod authorize;
mod certificate;
mod delegated;
mod device;
mod jws;
mod refusal;
mod scope;
mod token;

use hyper::StatusCode;
use hyper::http::uri::Authority;
use serde_json::json;

pub(crate) use authorize::authorize;
pub(crate) use delegated::user;
pub(crate) use device::{device_auth, device_code};
pub(crate) use refusal::unknown_resource;
pub(crate) use token::{proxied_token, token};

use crate::azure_names::ENTRA_NAMES;
use crate::cloud::Cloud;
use crate::endpoint::Endpoint;
use crate::exchange::{Answer, Body, Call};
use crate::token_proxy::PROXY_PREFIX;

/// The endpoint behind `path`; whether the tenant in it exists is for the endpoint to say.
pub(crate) fn endpoint(path: &str) -> Option<Endpoint> {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match parts[..] {
        [_, "discovery", "instance"] => Some(Endpoint::InstanceDiscovery),
        [_, ".well-known", "openid-configuration"] | [_, "v2.0", ".well-known", "openid-configuration"] => {
            Some(Endpoint::OpenIdConfiguration)
        }
        ["discovery", "keys"] | [_, "discovery", "keys"] | [_, "discovery", "v2.0", "keys"] => {
            Some(Endpoint::Keys)
        }
        [_, "oauth2", "v2.0", "devicecode"] => Some(Endpoint::DeviceCode),
        [_, "oauth2", "v2.0", "authorize"] => Some(Endpoint::Authorize),
        [_, "oauth2", "deviceauth"] => Some(Endpoint::DeviceAuth),
        [_, "oauth2", "token"] | [_, "oauth2", "v2.0", "token"] => Some(Endpoint::EntraToken),
        _ => None,
    }
}

/// `GET /common/discovery/instance`: under a name of this machine, the authority stands for itself alone; under Azure's
/// name, for the names that Azure has for it.
pub(crate) fn instance_discovery(cloud: &Cloud, call: &Call) -> Answer {
    let asked = call.query.get("authorization_endpoint").unwrap_or_default();
    let prefix = &address(cloud, call);
    let Some(tenant) = asked.strip_prefix(&**prefix).and_then(|path| path.split('/').next()) else {
        let description = "AADSTS50049: Unknown or invalid instance.";
        return refusal::EntraError::new(50049, "invalid_instance", description).answer(cloud, call);
    };
    let host = prefix.trim_start_matches("https://").trim_end_matches('/');
    let is_azure = host == ENTRA_NAMES[0];
    // Entra's own answer prefers the second name for caches.
    let (cache, aliases) = if is_azure { (ENTRA_NAMES[1], &ENTRA_NAMES[..]) } else { (host, &[host][..]) };
    let metadata = json!([{"preferred_network": host, "preferred_cache": cache, "aliases": aliases}]);
    let version = if asked.contains("/v2.0/") { "v2.0/" } else { "" };
    let body = vec![
        (
            "tenant_discovery_endpoint",
            json!(format!("{prefix}{tenant}/{version}.well-known/openid-configuration")),
        ),
        ("api-version", json!("1.1")),
        ("metadata", metadata),
    ];
    Answer::json(StatusCode::OK, body)
}

/// `GET /{tenant}/.well-known/openid-configuration`, and its v2.0 form.
pub(crate) fn openid_configuration(cloud: &Cloud, call: &Call) -> Answer {
    // The token proxy is asked under both names. MSAL for Go wants the issuer of the name that it asks for.
    let is_azure = call.header("host").is_some_and(|host| ENTRA_NAMES.contains(&host));
    let azures = is_azure.then(|| cloud.under_azure_names());
    let cloud = azures.as_ref().unwrap_or(cloud);
    let path = call.path.strip_prefix(PROXY_PREFIX).unwrap_or(&call.path);
    let (named, rest) = split_tenant(path);
    if !is_tenant_of_users(cloud, named) {
        return refusal::unknown_tenant(named).answer(cloud, call);
    }
    let v2 = rest.starts_with("v2.0/");
    let tenant = cloud.directory.ids.tenant;
    let base = format!("{}{tenant}", address(cloud, call));
    let (issuer, infix) = if v2 {
        // As in every token, whatever the name that it was asked for under.
        (format!("{}{tenant}/v2.0", cloud.addresses.authority), "v2.0/")
    } else {
        (format!("https://sts.windows.net/{tenant}/"), "")
    };
    let body = vec![
        ("token_endpoint", json!(format!("{base}/oauth2/{infix}token"))),
        (
            "token_endpoint_auth_methods_supported",
            json!([
                "client_secret_post",
                "private_key_jwt",
                "client_secret_basic",
                "self_signed_tls_client_auth"
            ]),
        ),
        ("jwks_uri", json!(format!("{base}/discovery/{infix}keys"))),
        ("response_modes_supported", json!(["query", "fragment", "form_post"])),
        ("subject_types_supported", json!(["pairwise"])),
        ("id_token_signing_alg_values_supported", json!(["RS256"])),
        ("response_types_supported", json!(["code", "id_token", "code id_token", "id_token token"])),
        ("scopes_supported", json!(["openid", "profile", "email", "offline_access"])),
        ("issuer", json!(issuer)),
        ("device_authorization_endpoint", json!(format!("{base}/oauth2/v2.0/devicecode"))),
        ("authorization_endpoint", json!(format!("{base}/oauth2/{infix}authorize"))),
        ("tenant_region_scope", json!("EU")),
        ("cloud_instance_name", json!(host(cloud))),
    ];
    Answer::json(StatusCode::OK, body)
}

/// `GET /{tenant}/discovery/keys`, and its v2.0 form.
pub(crate) fn keys(cloud: &Cloud, call: &Call) -> Answer {
    let (named, rest) = split_tenant(&call.path);
    if !(is_tenant_of_users(cloud, named) || named == "discovery") {
        return refusal::unknown_tenant(named).answer(cloud, call);
    }
    let Body::Object(set) = key_set(cloud, rest.contains("v2.0")) else {
        return Answer::text(StatusCode::INTERNAL_SERVER_ERROR, "");
    };
    Answer::json(StatusCode::OK, set).with_header("Cache-Control", "max-age=86400, private")
}

/// The published keys; in the v2.0 form each names its issuer.
pub(crate) fn key_set(cloud: &Cloud, v2: bool) -> Body {
    let tenant = cloud.directory.ids.tenant;
    let issuer = v2.then(|| format!("{}{tenant}/v2.0", cloud.addresses.authority));
    let keys: Vec<_> = cloud.keys.published().iter().map(|key| key.public(issuer.clone())).collect();
    Body::Object(vec![("keys", json!(keys))])
}

/// Entra's address for the client of a request: on another machine, the name under which the client has reached it.
fn address(cloud: &Cloud, call: &Call) -> String {
    let is_other = |host: &&str| {
        let host = host.parse::<Authority>();
        host.is_ok_and(|it| cloud.host_names.iter().any(|name| name.eq_ignore_ascii_case(it.host())))
    };
    match call.header("host").filter(is_other) {
        Some(host) => format!("https://{host}/"),
        None => cloud.addresses.authority.clone(),
    }
}

/// The first part of a path, and what follows it.
fn split_tenant(path: &str) -> (&str, &str) {
    let path = path.trim_start_matches('/');
    path.split_once('/').unwrap_or((path, ""))
}

/// Whether `named` is this tenant, by id or by domain.
fn is_tenant(cloud: &Cloud, named: &str) -> bool {
    let ids = &cloud.directory.ids;
    named.eq_ignore_ascii_case(&ids.tenant.to_string()) || named.eq_ignore_ascii_case(&cloud.directory.domain)
}

/// Whether people of this tenant can sign in under `named`.
fn is_tenant_of_users(cloud: &Cloud, named: &str) -> bool {
    is_tenant(cloud, named) || ["common", "organizations"].iter().any(|it| named.eq_ignore_ascii_case(it))
}

fn host(cloud: &Cloud) -> &str {
    cloud.addresses.authority.trim_start_matches("https://").trim_end_matches('/')
}

//! Checks that a token is for the requested resource. The claims are not verified: the check only keeps a token of
//! another audience from being sent to a server that it was not issued for.

use serde_json::Value;
use uuid::Uuid;

use crate::{Resource, UnverifiedClaims};

/// APIs whose tokens name the application's id in place of its URI (Microsoft: access-token-claims-reference, `aud`; version
/// 2.0 always, version 1.0 sometimes). The id is the same in every cloud.
const KNOWN: &[(&str, &[&str])] = &[
    (
        "123cd850-d9df-40bd-94d5-c9f07b7fa203",
        &[
            "https://ossrdbms-aad.database.windows.net",
            "https://ossrdbms-aad.database.usgovcloudapi.net",
            "https://ossrdbms-aad.database.chinacloudapi.cn",
        ],
    ),
    (
        "00000003-0000-0000-c000-000000000000",
        &[
            "https://graph.microsoft.com",
            "https://graph.microsoft.us",
            "https://dod-graph.microsoft.us",
            "https://microsoftgraph.chinacloudapi.cn",
        ],
    ),
    (
        "797f4846-ba00-4fd7-ba43-dac1f8f63013",
        &[
            "https://management.azure.com",
            "https://management.core.windows.net",
            "https://management.usgovcloudapi.net",
            "https://management.core.usgovcloudapi.net",
            "https://management.chinacloudapi.cn",
            "https://management.core.chinacloudapi.cn",
        ],
    ),
];

/// What a token is for, where that is not what was asked for.
///
/// Decided by the `aud` claim; by what the answer states where the token cannot be read or has no such claim. A token of
/// which neither is known is taken: by contract it is opaque.
pub(crate) fn other_than(
    asked: &Resource,
    claims: Option<&UnverifiedClaims>,
    stated: Option<&str>,
) -> Option<String> {
    let claimed = claims.and_then(|claims| claims.payload().get("aud"));
    let audiences: Vec<&str> = match claimed {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        Some(_) => Vec::new(),
        None => stated.filter(|stated| !stated.is_empty()).map_or_else(Vec::new, |stated| vec![stated]),
    };
    let is_known = claimed.is_some() || !audiences.is_empty();
    if !is_known || audiences.iter().any(|audience| is_same(asked.as_str(), audience)) {
        return None;
    }
    Some(if audiences.is_empty() {
        "an audience that is not a text".to_owned()
    } else {
        audiences.join(", ")
    })
}

/// Do both name the same API?
///
/// Case makes no difference, nor does one slash at the end: Entra repeats in `aud` what was asked for, but the metadata
/// service states some resources with a slash, and one sovereign cloud wants it. An id stands for `api://ID` and for the URIs
/// of an API of Microsoft's. Any other id may be that of any other URI: only their tenant knows.
fn is_same(asked: &str, audience: &str) -> bool {
    let (asked, audience) = (without_slash(asked), without_slash(audience));
    if asked.eq_ignore_ascii_case(audience) {
        return true;
    }
    match (id_of(asked), id_of(audience)) {
        (Some(asked), Some(audience)) => asked == audience,
        (Some(id), None) => is_of(audience, id),
        (None, Some(id)) => is_of(asked, id),
        (None, None) => false,
    }
}

fn without_slash(text: &str) -> &str {
    text.strip_suffix('/').unwrap_or(text)
}

/// The id in `ID`, `api://ID` or `spn:ID`.
fn id_of(text: &str) -> Option<Uuid> {
    let text = text.strip_prefix("api://").or_else(|| text.strip_prefix("spn:")).unwrap_or(text);
    Uuid::try_parse(text).ok()
}

/// May this URI be that of the application with this id?
fn is_of(uri: &str, id: Uuid) -> bool {
    let uri = uri.to_ascii_lowercase();
    match KNOWN.iter().find(|(_, uris)| uris.contains(&uri.as_str())) {
        Some((known, _)) => known.parse() == Ok(id),
        None => !uri.is_empty() && uris_of(id).is_empty(),
    }
}

fn uris_of(id: Uuid) -> &'static [&'static str] {
    KNOWN.iter().find(|(known, _)| known.parse() == Ok(id)).map_or(&[], |(_, uris)| uris)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cloud;

    #[test]
    fn the_resources_of_every_cloud_are_known() {
        for cloud in Cloud::ALL {
            let postgres = cloud.postgres_resource();
            for (uri, id) in [
                (postgres.as_str(), "123cd850-d9df-40bd-94d5-c9f07b7fa203"),
                (cloud.graph(), "00000003-0000-0000-c000-000000000000"),
                (cloud.resource_manager(), "797f4846-ba00-4fd7-ba43-dac1f8f63013"),
            ] {
                assert!(is_same(uri, id) && is_same(id, uri), "{uri}");
                assert!(!is_same(uri, "853b9a84-5bfa-4b22-a3f3-0b9a43d9ad8a"), "{uri}");
            }
        }
    }

    #[test]
    fn two_names_are_of_one_api_or_of_two() {
        let other = "853b9a84-5bfa-4b22-a3f3-0b9a43d9ad8a";
        let own = format!("api://{other}");
        for (asked, audience, same) in [
            ("https://a.example", "https://a.example", true),
            ("https://a.example", "https://A.example/", true),
            ("https://a.example/", "https://a.example", true),
            ("https://a.example", "https://a.example//", false),
            ("https://a.example", "https://a.example.evil", false),
            ("https://a.example", "https://b.example", false),
            ("https://a.example", "http://a.example", false),
            ("https://a.example/b", "https://a.example", false),
            (own.as_str(), other, true),
            (other, own.as_str(), true),
            (other, "853B9A84-5BFA-4B22-A3F3-0B9A43D9AD8A", true),
            (other, "797f4846-ba00-4fd7-ba43-dac1f8f63013", false),
            // Which application has the URI is known to its tenant alone; that it is not one of Microsoft's is known here.
            ("api://my-api", other, true),
            ("api://my-api", "00000003-0000-0000-c000-000000000000", false),
            ("https://graph.microsoft.com", "797f4846-ba00-4fd7-ba43-dac1f8f63013", false),
            (other, "api://my-api", true),
            (other, "https://management.azure.com", false),
            ("https://a.example", "", false),
            (other, "", false),
        ] {
            assert_eq!(is_same(asked, audience), same, "{asked} and {audience}");
        }
    }
}

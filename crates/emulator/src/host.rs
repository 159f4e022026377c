//! Which requests come from a program on this machine, and not from a page in a browser.
//!
//! Loopback keeps other machines out. A page in a browser on this machine is inside, and reaches a loopback port in two
//! ways: under a name of its own that resolves to 127.0.0.1 (then `Host` has that name), or by a request to another
//! origin (then `Origin` or `Sec-Fetch-Site` says so). The local cloud answers neither.

use std::net::IpAddr;

use hyper::header::{HOST, ORIGIN};
use hyper::http::uri::Authority;
use hyper::{HeaderMap, StatusCode, Uri};

use crate::azure_names::ENTRA_NAMES;
use crate::door::Door;
use crate::exchange::Answer;
use crate::listen::LINK_LOCAL;
use crate::token_proxy::PROXY_NAME;

/// The refusal of a request that is not for this machine, or that a page in a browser sent.
pub(crate) fn check(door: Door, names: &[String], (uri, headers): (&Uri, &HeaderMap)) -> Result<(), Answer> {
    if headers.contains_key(ORIGIN) || is_of_another_site(uri, headers) {
        return Err(Answer::text(StatusCode::FORBIDDEN, "the local cloud answers no page in a browser\n"));
    }
    let mut named = 0;
    for value in headers.get_all(HOST) {
        let authority = value.to_str().ok().and_then(|text| text.parse::<Authority>().ok());
        if !authority.is_some_and(|authority| is_ours(door, names, authority.host())) {
            return Err(misdirected());
        }
        named += 1;
    }
    match uri.authority() {
        Some(authority) if !is_ours(door, names, authority.host()) => Err(misdirected()),
        None if named == 0 => Err(misdirected()),
        _ => Ok(()),
    }
}

fn misdirected() -> Answer {
    let text = "the local cloud answers for localhost and loopback addresses only, and the header Host names another host\n";
    Answer::text(StatusCode::MISDIRECTED_REQUEST, text)
}

/// A browser says where a request comes from (Fetch Metadata); `none` is an address that a person typed, `same-origin` a
/// link on the page to sign in.
fn is_of_another_site(uri: &Uri, headers: &HeaderMap) -> bool {
    let is_page = uri.path().ends_with("/oauth2/v2.0/authorize");
    headers.get("sec-fetch-site").is_some_and(|site| site != "none" && !(is_page && site == "same-origin"))
}

/// Whether `host`, without a port, is a name of this machine behind `door`.
fn is_ours(door: Door, names: &[String], host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host);
    let is_named = names.iter().any(|name| name.eq_ignore_ascii_case(bare));
    if let Ok(address) = bare.parse::<IpAddr>() {
        let is_own =
            address.to_canonical().is_loopback() || door == Door::LinkLocal && address == LINK_LOCAL.ip();
        return is_own || is_named;
    }
    host == "localhost"
        || host.ends_with(".localhost")
        // The SDK for Go keeps the authority's name in the header.
        || door == Door::TokenProxy && (host == PROXY_NAME || ENTRA_NAMES.contains(&&*host))
        || is_named
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_this_machine_or_a_configured_name() {
        let names = ["Emulator.Example".to_owned()];
        for (door, host, ours) in [
            (Door::Metadata, "localhost", true),
            (Door::Metadata, "LOCALHOST.", true),
            (Door::Metadata, "cloud.localhost", true),
            (Door::Metadata, "127.0.0.1", true),
            (Door::Metadata, "127.8.0.1", true),
            (Door::Metadata, "[::1]", true),
            (Door::Metadata, "[::ffff:127.0.0.1]", true),
            (Door::Metadata, "emulator.example", true),
            (Door::Metadata, "localhost.evil.example", false),
            (Door::Metadata, "notlocalhost", false),
            (Door::Metadata, "127.0.0.1.evil.example", false),
            (Door::Metadata, "169.254.169.254", false),
            (Door::Metadata, "0.0.0.0", false),
            (Door::Metadata, "", false),
            (Door::LinkLocal, "169.254.169.254", true),
            (Door::LinkLocal, "evil.example", false),
            (Door::TokenProxy, PROXY_NAME, true),
            (Door::Entra, PROXY_NAME, false),
            (Door::TokenProxy, "login.microsoftonline.com", true),
            (Door::Entra, "login.microsoftonline.com", false),
        ] {
            assert_eq!(is_ours(door, &names, host), ours, "{door:?} {host}");
        }
    }
}

//! Rejects cross-origin requests: a page of another site must neither read nor change anything
//! here.

use hyper::header::{HOST, HeaderMap, ORIGIN};
use hyper::http::uri::Authority;

/// Whether the Host header is a loopback name or address. With DNS rebinding, it is the name of the
/// attacker's page.
pub(super) fn names_loopback(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let Some(authority) = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()) else {
        return false;
    };
    // An authority with user information is rejected.
    if authority.as_str().contains('@') {
        return false;
    }
    let name = authority.host();
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost")
        || address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether a page of another site sent the request: browsers then send its origin. Each of several
/// Origin headers must be allowed.
pub fn is_foreign(headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).map_or(&b""[..], |host| host.as_bytes());
    headers.get_all(ORIGIN).iter().any(|origin| origin.as_bytes().strip_prefix(b"http://") != Some(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn only_this_machine_is_named() {
        for (host, good) in [
            ("localhost", true),
            ("LOCALHOST:9090", true),
            ("127.0.0.1:9090", true),
            ("127.8.8.8", true),
            ("[::1]:9090", true),
            ("", false),
            ("evil.example:9090", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("evil.example@localhost", false),
            ("10.0.0.1:9090", false),
            ("0.0.0.0:9090", false),
            ("[::]:9090", false),
            ("[::1", false),
            ("2130706433", false),
        ] {
            assert_eq!(names_loopback(&headers(&[("host", host)])), good, "{host}");
        }
        assert!(!names_loopback(&headers(&[])));
        assert!(!names_loopback(&headers(&[("host", "localhost"), ("host", "evil.example")])));
    }

    #[test]
    fn a_page_of_another_site_is_told_apart() {
        let host = ("host", "127.0.0.1:9090");
        for (origin, foreign) in [
            ("http://127.0.0.1:9090", false),
            ("http://127.0.0.1:8080", true),
            ("https://127.0.0.1:9090", true),
            ("http://evil.example", true),
            ("null", true),
        ] {
            assert_eq!(is_foreign(&headers(&[host, ("origin", origin)])), foreign, "{origin}");
        }
        assert!(!is_foreign(&headers(&[host])), "no browser");
        let (own, other) = (("origin", "http://127.0.0.1:9090"), ("origin", "http://evil.example"));
        assert!(is_foreign(&headers(&[host, own, other])) && is_foreign(&headers(&[host, other, own])));
    }
}

use std::net::IpAddr;

/// Is this host this machine?
pub(super) fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse::<IpAddr>().map_or_else(|_| is_localhost(host), |address| address.to_canonical().is_loopback())
}

/// Is this host on this machine or its link? Such hosts are never reached through a proxy.
pub(super) fn is_local(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_link_local(),
        Ok(IpAddr::V6(address)) => address.is_loopback() || address.is_unicast_link_local(),
        Err(_) => is_localhost(host),
    }
}

pub(super) fn is_localhost(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.to_ascii_lowercase().ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_a_loopback_address_or_localhost() {
        for (host, here) in [
            ("localhost", true),
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("[::1]", true),
            ("::ffff:127.0.0.1", true),
            ("169.254.169.254", false),
            ("10.0.0.1", false),
            ("login.microsoftonline.com", false),
            ("localhost.example", false),
        ] {
            assert_eq!(is_loopback(host), here, "{host}");
        }
    }
}

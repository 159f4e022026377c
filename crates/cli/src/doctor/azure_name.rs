//! The host names of Azure's servers.

use pgentra_identity::Cloud;

/// The cloud of a server's name.
pub(crate) fn cloud_of(host: &str) -> Option<Cloud> {
    let host = host.to_ascii_lowercase();
    let is_below = |suffix: &str| host.strip_suffix(suffix).is_some_and(|name| name.ends_with('.'));
    Cloud::ALL.into_iter().find(|cloud| is_below(cloud.host_suffix()))
}

/// The server's name, as az wants it, if it is one of Azure's.
pub(crate) fn azure_server(host: &str) -> Option<&str> {
    cloud_of(host)?;
    host.split('.').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_of_azure_is_known_by_its_name() {
        for (host, cloud, server) in [
            ("My-Server.postgres.database.azure.com", Some(Cloud::Public), Some("My-Server")),
            ("x.private.postgres.database.azure.com", Some(Cloud::Public), Some("x")),
            ("x.postgres.database.chinacloudapi.cn", Some(Cloud::China), Some("x")),
            ("postgres.database.azure.com", None, None),
            ("xpostgres.database.azure.com", None, None),
            ("localhost", None, None),
        ] {
            assert_eq!((cloud_of(host), azure_server(host)), (cloud, server), "{host}");
        }
    }
}

use pgentra_identity::{Cloud, Resource};

/// Where Azure Resource Manager and Microsoft Graph answer, and what their tokens are for.
///
/// A token is sent to these addresses and to no others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    pub(crate) resource_manager: ServiceUrl,
    pub(crate) graph: ServiceUrl,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServiceUrl {
    /// An https URL without a slash at its end.
    pub(crate) base: String,
    pub(crate) resource: Resource,
}

/// Why a URL is not accepted as an address that tokens are sent to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{url}` is no address for a management API: {why}")]
pub struct InvalidEndpoint {
    url: String,
    why: &'static str,
}

impl Endpoints {
    /// Those of a cloud.
    ///
    /// # Errors
    /// None for the clouds that this version knows.
    pub fn of(cloud: Cloud) -> Result<Self, InvalidEndpoint> {
        Ok(Self {
            resource_manager: ServiceUrl::new(cloud.resource_manager())?,
            graph: ServiceUrl::new(cloud.graph())?,
        })
    }

    /// Resource Manager at another address, for the same tokens: a private cloud, or a local one.
    ///
    /// # Errors
    /// Unless it is an https URL of a host alone; plain http is taken for this machine.
    pub fn with_resource_manager(mut self, url: &str) -> Result<Self, InvalidEndpoint> {
        self.resource_manager.base = base(url)?;
        Ok(self)
    }

    /// Graph at another address, for the same tokens.
    ///
    /// # Errors
    /// As [`Endpoints::with_resource_manager`].
    pub fn with_graph(mut self, url: &str) -> Result<Self, InvalidEndpoint> {
        self.graph.base = base(url)?;
        Ok(self)
    }
}

impl ServiceUrl {
    fn new(url: &str) -> Result<Self, InvalidEndpoint> {
        let resource = url
            .parse()
            .map_err(|_| InvalidEndpoint { url: url.to_owned(), why: "tokens cannot be asked for it" })?;
        Ok(Self { base: base(url)?, resource })
    }

    /// Whether a URL that a service named is its own: on the same host, or on one below it, and no less protected.
    pub(crate) fn owns(&self, url: &str) -> bool {
        let (Some((scheme, host)), Some((own_scheme, own))) = (split(url), split(&self.base)) else {
            return false;
        };
        let host = host.split(['/', '?', '#']).next().unwrap_or_default().to_ascii_lowercase();
        let own = own.to_ascii_lowercase();
        scheme == own_scheme && !host.contains('@') && (host == own || host.ends_with(&format!(".{own}")))
    }
}

fn split(url: &str) -> Option<(&str, &str)> {
    url.split_once("://")
}

fn base(url: &str) -> Result<String, InvalidEndpoint> {
    let refuse = |why| Err(InvalidEndpoint { url: url.to_owned(), why });
    let trimmed = url.strip_suffix('/').unwrap_or(url);
    let Some((scheme, host)) = split(trimmed) else { return refuse("it is not a URL") };
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    if host.is_empty() || host.contains(['/', '?', '#', '@']) || host.chars().any(char::is_whitespace) {
        return refuse("it must be a scheme and a host, and a port where needed, and nothing else");
    }
    match scheme {
        "https" => Ok(trimmed.to_owned()),
        "http" if ["localhost", "127.0.0.1", "[::1]"].contains(&name) => Ok(trimmed.to_owned()),
        _ => refuse("it does not start with https://"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_to_https_or_to_this_machine() {
        for (url, good) in [
            ("https://management.example", true),
            ("https://management.example:8443/", true),
            ("http://localhost:1", true),
            ("http://[::1]:1", true),
            ("http://management.example", false),
            ("http://localhost.example", false),
            ("https://user@management.example", false),
            ("https://management.example/path", false),
            ("management.example", false),
            ("https://", false),
        ] {
            let endpoints = Endpoints::of(Cloud::Public).unwrap();
            assert_eq!(endpoints.clone().with_resource_manager(url).is_ok(), good, "{url}");
            assert_eq!(endpoints.with_graph(url).is_ok(), good, "{url}");
        }
    }

    #[test]
    fn a_service_cannot_send_a_token_elsewhere() {
        for cloud in Cloud::ALL {
            assert!(Endpoints::of(cloud).unwrap().graph.owns(&format!("{}/v1.0/x", cloud.graph())));
        }
        let endpoint = Endpoints::of(Cloud::Public).unwrap().resource_manager;
        for (url, own) in [
            ("https://management.azure.com/subscriptions/x", true),
            ("https://westeurope.Management.azure.com?x", true),
            ("https://management.azure.com:8443/", false),
            ("https://management.azure.com.example/", false),
            ("https://xmanagement.azure.com/", false),
            ("https://management.azure.com@example/", false),
            ("http://management.azure.com/", false),
            ("/subscriptions", false),
        ] {
            assert_eq!(endpoint.owns(url), own, "{url}");
        }
    }
}

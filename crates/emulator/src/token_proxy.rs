//! Where the token proxy of AKS identity bindings is found.

/// The name that the token proxy's certificate is for.
pub(crate) const PROXY_NAME: &str = "token-proxy.identity-bindings.local";

/// Where the token proxy puts the authority's paths.
pub(crate) const PROXY_PREFIX: &str = "/token-proxy";

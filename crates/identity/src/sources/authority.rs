use http::Uri;
use http::uri::Scheme;

use crate::ConfigError;

/// Entra's address: an https URL without a path, kept with a trailing slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EntraAuthority(String);

impl EntraAuthority {
    /// Plain http is accepted for loopback only, because the request contains an assertion or a secret.
    pub(crate) fn parse(text: &str, from: &str) -> Result<Self, ConfigError> {
        let refuse =
            |why: &str| ConfigError::new(format!("{from} is not the address of an authority: {why}"));
        let uri: Uri = text.parse().map_err(|_| refuse("it is not a URL"))?;
        let host = uri.host().unwrap_or_default();
        let is_local = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
        match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => {}
            Some(scheme) if *scheme == Scheme::HTTP && is_local => {}
            _ => return Err(refuse("it does not start with https://")),
        }
        let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
        if authority.is_empty() || authority.contains('@') || uri.query().is_some() || uri.path() != "/" {
            return Err(refuse("it must be a scheme and a host, and a port where needed, and nothing else"));
        }
        Ok(Self(format!("{}://{authority}/", uri.scheme_str().unwrap_or("https"))))
    }

    /// Where an application asks for tokens; also the audience of its own assertions.
    pub(super) fn token_url(&self, tenant: &str) -> String {
        format!("{}{}", self.0.trim_end_matches('/'), Self::token_path(tenant))
    }

    pub(super) fn token_path(tenant: &str) -> String {
        format!("/{tenant}/oauth2/v2.0/token")
    }
}

/// Can this be a tenant: a GUID or a domain name?
pub(crate) fn is_tenant(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    // Domain names are at most 253 bytes long. A hyphen at the start would be an option of a program.
    !text.is_empty() && text.len() <= 253 && !text.starts_with(['-', '.']) && text.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_https_or_this_machine() {
        for (text, expected) in [
            ("https://login.microsoftonline.com", Some("https://login.microsoftonline.com/")),
            ("https://login.microsoftonline.com/", Some("https://login.microsoftonline.com/")),
            ("https://localhost:8443/", Some("https://localhost:8443/")),
            ("http://127.0.0.1:80", Some("http://127.0.0.1:80/")),
            ("http://login.microsoftonline.com/", None),
            ("https://login.microsoftonline.com/tenant", None),
            ("https://user:pw@login.microsoftonline.com/", None),
            ("login.microsoftonline.com", None),
            ("", None),
        ] {
            let parsed = EntraAuthority::parse(text, "x").ok();
            assert_eq!(parsed.as_ref().map(|authority| authority.0.as_str()), expected, "{text}");
        }
    }
}

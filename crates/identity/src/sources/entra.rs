use std::sync::Arc;

use http::Uri;
use http::uri::Scheme;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;

use super::{Setup, is_tenant};
use crate::retry::Policy;
use crate::{AccessToken, ConfigError, SourceName, TokenError, TokenRequest, answer};
use pgentra_system::http::Request;

/// Entra's address: an https URL without a path, kept with a trailing slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Authority(String);

impl Authority {
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

/// A request to Entra's token endpoint for an application (OAuth 2.0 client credentials; Microsoft:
/// v2-oauth2-client-creds-grant-flow).
pub(super) struct Exchange<'a> {
    pub(super) source: SourceName,
    pub(super) tenant: &'a str,
    pub(super) client_id: &'a str,
    pub(super) proof: Proof<'a>,
    /// Another place that takes the same request, with its own trust.
    pub(super) through: Option<&'a Detour>,
}

/// The credential of the application.
pub(super) enum Proof<'a> {
    /// A signed assertion (RFC 7523).
    Assertion(&'a str),
    Secret(&'a str),
}

/// A proxy for token requests with its own URL, name and authorities.
pub(super) struct Detour {
    pub(super) url: String,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) name: Option<ServerName<'static>>,
}

impl Exchange<'_> {
    pub(super) async fn send(
        &self,
        setup: &Setup,
        request: TokenRequest<'_>,
    ) -> Result<AccessToken, TokenError> {
        if !is_tenant(self.tenant) {
            return Err(TokenError::config(self.source, "the tenant is neither a GUID nor a domain name"));
        }
        let system = &setup.system;
        let url = match self.through {
            Some(detour) => detour.url.clone(),
            None => setup.authority.token_url(self.tenant),
        };
        let scope = request.resource.scope();
        let mut form =
            vec![("grant_type", "client_credentials"), ("client_id", self.client_id), ("scope", &scope)];
        let secret = match self.proof {
            Proof::Assertion(assertion) => {
                form.push((
                    "client_assertion_type",
                    "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
                ));
                form.push(("client_assertion", assertion));
                assertion
            }
            Proof::Secret(secret) => {
                form.push(("client_secret", secret));
                secret
            }
        };
        let make = || {
            let made = Request::post(&url).and_then(|made| made.header("accept", "application/json"));
            let made = made.map_err(|cause| {
                TokenError::config(self.source, "the authority's address cannot be used").caused_by(cause)
            })?;
            let made = made.form(&form).secret(secret);
            Ok(match self.through {
                Some(detour) => made.tls(detour.tls.clone(), detour.name.clone()),
                None => made,
            })
        };
        let response = Policy::ENTRA.send(system.http(), self.source, request.deadline, make).await?;
        answer::read_token(self.source, request.resource, &response, system.clock().now())
    }
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
            let parsed = Authority::parse(text, "x").ok();
            assert_eq!(parsed.as_ref().map(|authority| authority.0.as_str()), expected, "{text}");
        }
    }
}

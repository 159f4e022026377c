use std::sync::Arc;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;

use super::SourceSettings;
use super::authority::is_tenant;
use crate::retry::RetryPolicy;
use crate::{AccessToken, SourceName, TokenError, TokenRequest, answer};
use pgentra_system::http::Request;

/// A request to Entra's token endpoint for an application (OAuth 2.0 client credentials; Microsoft:
/// v2-oauth2-client-creds-grant-flow).
pub(super) struct EntraRequest<'a> {
    pub(super) source: SourceName,
    pub(super) tenant: &'a str,
    pub(super) client_id: &'a str,
    pub(super) proof: ClientCredential<'a>,
    /// Another place that takes the same request, with its own trust.
    pub(super) through: Option<&'a Detour>,
}

/// The credential of the application.
pub(super) enum ClientCredential<'a> {
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

impl EntraRequest<'_> {
    pub(super) async fn send(
        &self,
        setup: &SourceSettings,
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
            ClientCredential::Assertion(assertion) => {
                form.push((
                    "client_assertion_type",
                    "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
                ));
                form.push(("client_assertion", assertion));
                assertion
            }
            ClientCredential::Secret(secret) => {
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
        let response = RetryPolicy::ENTRA.send(system.http(), self.source, request.deadline, make).await?;
        answer::read_token(self.source, request.resource, &response, system.clock().now())
    }
}

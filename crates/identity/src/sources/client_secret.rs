use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use zeroize::Zeroizing;

use super::SourceSettings;
use super::entra::{ClientCredential, EntraRequest};
use crate::{AccessToken, NoToken, SourceName, TokenRequest, TokenSource};

const NAME: SourceName = SourceName::ClientSecret;

/// An application with a secret (Microsoft: v2-oauth2-client-creds-grant-flow, "First case").
#[derive(Debug)]
pub(super) struct ClientSecretSource {
    setup: SourceSettings,
}

impl ClientSecretSource {
    pub(super) fn new(setup: SourceSettings) -> Self {
        Self { setup }
    }

    async fn ask(&self, request: TokenRequest<'_>) -> Result<AccessToken, NoToken> {
        let client_id = self.setup.client_id(NAME, "AZURE_CLIENT_ID")?;
        let tenant = self.setup.tenant(NAME, "AZURE_TENANT_ID")?;
        let secret = Zeroizing::new(self.setup.need(NAME, "AZURE_CLIENT_SECRET")?);
        let proof = ClientCredential::Secret(&secret);
        let exchange =
            EntraRequest { source: NAME, tenant: &tenant, client_id: &client_id, proof, through: None };
        Ok(exchange.send(&self.setup, request).await?)
    }
}

impl TokenSource for ClientSecretSource {
    fn name(&self) -> SourceName {
        NAME
    }

    fn token<'a>(&'a self, request: TokenRequest<'a>) -> BoxFuture<'a, Result<AccessToken, NoToken>> {
        self.ask(request).boxed()
    }
}

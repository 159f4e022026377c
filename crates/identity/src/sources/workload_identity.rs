use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use zeroize::Zeroizing;

use super::entra::{ClientCredential, EntraRequest};
use super::token_proxy::BindingProxy;
use super::{EntraAuthority, SourceSettings};
use crate::{AccessToken, NoToken, SourceName, TokenError, TokenRequest, TokenSource};

/// Where the webhook of Azure Workload Identity mounts the token if `AZURE_FEDERATED_TOKEN_FILE` does not say.
const DEFAULT_FILE: &str = "/var/run/secrets/azure/tokens/azure-identity-token";

/// Service account tokens are about 1 KiB long.
const MAX_ASSERTION: usize = 64 * 1024;

/// A federated service account token, exchanged at Entra (azure-workload-identity; Microsoft:
/// v2-oauth2-client-creds-grant-flow, "Third case").
///
/// The file is read anew for each exchange, because the kubelet replaces its content long before it expires.
#[derive(Debug)]
pub(super) struct WorkloadIdentitySource {
    setup: SourceSettings,
    proxy: BindingProxy,
}

impl WorkloadIdentitySource {
    pub(super) fn new(setup: SourceSettings) -> Self {
        Self { setup, proxy: BindingProxy::default() }
    }

    async fn ask(&self, request: TokenRequest<'_>) -> Result<AccessToken, NoToken> {
        let source = SourceName::WorkloadIdentity;
        let client_id = self.setup.client_id(source, "AZURE_CLIENT_ID")?;
        let tenant = self.setup.tenant(source, "AZURE_TENANT_ID")?;
        let assertion = self.assertion()?;
        let proof = ClientCredential::Assertion(&assertion);
        let detour = self.proxy.detour(&self.setup, &EntraAuthority::token_path(&tenant))?;
        let exchange =
            EntraRequest { source, tenant: &tenant, client_id: &client_id, proof, through: detour.as_ref() };
        Ok(exchange.send(&self.setup, request).await?)
    }

    fn assertion(&self) -> Result<Zeroizing<String>, TokenError> {
        let source = SourceName::WorkloadIdentity;
        let path = self
            .setup
            .system
            .env()
            .get("AZURE_FEDERATED_TOKEN_FILE")
            .unwrap_or_else(|| DEFAULT_FILE.to_owned());
        let hint = "Check that the pod has the label azure.workload.identity/use: \"true\" and was created after its \
                    service account was annotated.";
        let text = self.setup.system.files().read_text(&path, MAX_ASSERTION).map(Zeroizing::new).map_err(
            |cause| {
                TokenError::config(source, format!("the service account token file {path} cannot be read"))
                    .caused_by(cause)
                    .with_hint(hint)
            },
        )?;
        let assertion = text.trim();
        if assertion.is_empty() {
            let message = format!("the service account token file {path} is empty");
            return Err(TokenError::config(source, message).with_hint(hint));
        }
        Ok(Zeroizing::new(assertion.to_owned()))
    }
}

impl TokenSource for WorkloadIdentitySource {
    fn name(&self) -> SourceName {
        SourceName::WorkloadIdentity
    }

    fn token<'a>(&'a self, request: TokenRequest<'a>) -> BoxFuture<'a, Result<AccessToken, NoToken>> {
        self.ask(request).boxed()
    }
}

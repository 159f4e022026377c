use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::SourceSettings;
use super::entra::{ClientCredential, EntraRequest};
use crate::retry::RetryPolicy;
use crate::{AccessToken, NoToken, SourceName, TokenError, TokenRequest, TokenSource, answer};
use pgentra_system::http::{HttpError, Request, Response};

/// The version of the OIDC token request of Azure Pipelines that the Azure SDKs use.
const PIPELINES_API_VERSION: &str = "7.1";

/// A job of GitHub Actions or Azure Pipelines: the service issues an assertion about the job, Entra exchanges it.
///
/// An assertion lives for minutes and jobs for hours, so each exchange begins with a fresh one (Azure/login#180).
#[derive(Debug)]
pub(super) struct BuildServiceSource {
    setup: SourceSettings,
    name: SourceName,
}

/// What the two services answer with.
#[derive(Deserialize)]
struct IssuedToken {
    /// The token in the response of GitHub Actions.
    value: Option<Zeroizing<String>>,
    /// The token in the response of Azure Pipelines.
    #[serde(rename = "oidcToken")]
    oidc_token: Option<Zeroizing<String>>,
}

impl BuildServiceSource {
    pub(super) fn new(name: SourceName, setup: SourceSettings) -> Self {
        Self { setup, name }
    }

    async fn ask(&self, request: TokenRequest<'_>) -> Result<AccessToken, NoToken> {
        let variables = match self.name {
            SourceName::AzurePipelines => ["AZURESUBSCRIPTION_CLIENT_ID", "AZURESUBSCRIPTION_TENANT_ID"],
            _ => ["AZURE_CLIENT_ID", "AZURE_TENANT_ID"],
        };
        let client_id = self.setup.client_id(self.name, variables[0])?;
        let tenant = self.setup.tenant(self.name, variables[1])?;
        let http = self.setup.system.http();
        let response = RetryPolicy::ISSUER.send(http, self.name, request.deadline, || self.request()).await?;
        let assertion = self.assertion(&response)?;
        let proof = ClientCredential::Assertion(&assertion);
        let exchange =
            EntraRequest { source: self.name, tenant: &tenant, client_id: &client_id, proof, through: None };
        Ok(exchange.send(&self.setup, request).await?)
    }

    fn request(&self) -> Result<Request, TokenError> {
        let (url, token, connection) = match self.name {
            SourceName::AzurePipelines => (
                self.setup.need(self.name, "SYSTEM_OIDCREQUESTURI")?,
                self.setup.need(self.name, "SYSTEM_ACCESSTOKEN")?,
                self.setup.need(self.name, "AZURESUBSCRIPTION_SERVICE_CONNECTION_ID")?,
            ),
            _ => (
                self.setup.need(self.name, "ACTIONS_ID_TOKEN_REQUEST_URL")?,
                self.setup.need(self.name, "ACTIONS_ID_TOKEN_REQUEST_TOKEN")?,
                String::new(),
            ),
        };
        let bearer = Zeroizing::new(format!("Bearer {token}"));
        let make = || -> Result<Request, HttpError> {
            match self.name {
                SourceName::AzurePipelines => Request::post(&url)?
                    .header("content-type", "application/json")?
                    // Without it a request that is not allowed is sent to a sign-in page.
                    .header("x-tfs-fedauthredirect", "Suppress")?
                    .query(&[("api-version", PIPELINES_API_VERSION), ("serviceConnectionId", &connection)]),
                _ => Request::get(&url)?.query(&[("audience", self.setup.audience)]),
            }?
            .secret(&token)
            .secret_header("authorization", &bearer)
        };
        make().map_err(|cause| {
            TokenError::config(self.name, "the address of the job's token issuer cannot be used")
                .caused_by(cause)
        })
    }

    fn assertion(&self, response: &Response) -> Result<Zeroizing<String>, TokenError> {
        let bad = |error: TokenError| error.endpoint_is(response.endpoint());
        let issued: IssuedToken = serde_json::from_slice(response.body())
            .map_err(|_| bad(answer::not_json(self.name, response)))?;
        issued.value.or(issued.oidc_token).filter(|text| !text.is_empty()).ok_or_else(|| {
            bad(TokenError::bad_answer(self.name, "the job's token issuer answered without an assertion"))
        })
    }
}

impl TokenSource for BuildServiceSource {
    fn name(&self) -> SourceName {
        self.name
    }

    fn token<'a>(&'a self, request: TokenRequest<'a>) -> BoxFuture<'a, Result<AccessToken, NoToken>> {
        self.ask(request).boxed()
    }
}

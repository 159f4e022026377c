use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::SourceSettings;
use crate::retry::RetryPolicy;
use crate::{AccessToken, NoToken, Selector, SourceName, TokenError, TokenRequest, TokenSource, answer};
use pgentra_system::http::Request;

const API_VERSION: &str = "2017-09-01";

/// The two token services that are asked with `MSI_ENDPOINT` and `MSI_SECRET`: Azure Machine Learning, and App Service by
/// its older protocol, whose expiry is a date text.
///
/// Machine Learning wants a client id even for the default identity: `DEFAULT_IDENTITY_CLIENT_ID`
/// (microsoft-authentication-library-for-dotnet, `MachineLearningManagedIdentitySource`).
#[derive(Debug)]
pub(super) struct MsiSecretSource {
    setup: SourceSettings,
    name: SourceName,
}

impl MsiSecretSource {
    pub(super) fn new(name: SourceName, setup: SourceSettings) -> Self {
        Self { setup, name }
    }

    async fn ask(&self, request: TokenRequest<'_>) -> Result<AccessToken, NoToken> {
        let system = &self.setup.system;
        let make = || self.request(request.resource.as_str());
        let response = RetryPolicy::LOCAL.send(system.http(), self.name, request.deadline, make).await?;
        Ok(answer::read_token(self.name, request.resource, &response, system.clock().now())?)
    }

    fn request(&self, resource: &str) -> Result<Request, TokenError> {
        let endpoint = self.setup.need(self.name, "MSI_ENDPOINT")?;
        let secret = self.setup.need(self.name, "MSI_SECRET")?;
        let client_id = match &self.setup.selector {
            Selector::ClientId(id) => Some(id.to_string()),
            _ if self.name == SourceName::AzureMl => {
                Some(self.setup.need(self.name, "DEFAULT_IDENTITY_CLIENT_ID")?)
            }
            _ => None,
        };
        let make = || {
            let request = Request::get(&endpoint)?.secret_header("secret", &secret)?;
            let request = request.query(&[("api-version", API_VERSION), ("resource", resource)])?;
            match &client_id {
                Some(id) => request.query(&[("clientid", id)]),
                None => Ok(request),
            }
        };
        make().map_err(|cause| {
            TokenError::config(self.name, "MSI_ENDPOINT or MSI_SECRET cannot be used").caused_by(cause)
        })
    }
}

impl TokenSource for MsiSecretSource {
    fn name(&self) -> SourceName {
        self.name
    }

    fn token<'a>(&'a self, request: TokenRequest<'a>) -> BoxFuture<'a, Result<AccessToken, NoToken>> {
        self.ask(request).boxed()
    }
}

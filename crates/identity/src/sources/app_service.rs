use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::SourceSettings;
use crate::retry::RetryPolicy;
use crate::{AccessToken, NoToken, Selector, SourceName, TokenError, TokenRequest, TokenSource, answer};
use pgentra_system::http::{HttpError, Request};

const API_VERSION: &str = "2019-08-01";

/// The token service of App Service, Functions and Container Apps (Microsoft: overview-managed-identity, "REST endpoint
/// reference").
///
/// Both variables are read at each request: the platform changes the header's value.
#[derive(Debug)]
pub(super) struct AppServiceSource {
    setup: SourceSettings,
}

impl AppServiceSource {
    pub(super) fn new(setup: SourceSettings) -> Self {
        Self { setup }
    }

    async fn ask(&self, request: TokenRequest<'_>) -> Result<AccessToken, NoToken> {
        let system = &self.setup.system;
        let make = || self.request(request.resource.as_str());
        let response =
            RetryPolicy::LOCAL.send(system.http(), SourceName::AppService, request.deadline, make).await?;
        Ok(answer::read_token(SourceName::AppService, request.resource, &response, system.clock().now())?)
    }

    fn request(&self, resource: &str) -> Result<Request, TokenError> {
        let endpoint = self.setup.need(SourceName::AppService, "IDENTITY_ENDPOINT")?;
        let header = self.setup.need(SourceName::AppService, "IDENTITY_HEADER")?;
        let make = || -> Result<Request, HttpError> {
            let request = Request::get(&endpoint)?.secret_header("x-identity-header", &header)?;
            let request = request.query(&[("api-version", API_VERSION), ("resource", resource)])?;
            match &self.setup.selector {
                Selector::Default => Ok(request),
                Selector::ClientId(id) => request.query(&[("client_id", &id.to_string())]),
                Selector::ObjectId(id) => request.query(&[("principal_id", &id.to_string())]),
                Selector::ResourceId(id) => request.query(&[("mi_res_id", id)]),
            }
        };
        make().map_err(|cause| {
            TokenError::config(SourceName::AppService, "IDENTITY_ENDPOINT or IDENTITY_HEADER cannot be used")
                .caused_by(cause)
        })
    }
}

impl TokenSource for AppServiceSource {
    fn name(&self) -> SourceName {
        SourceName::AppService
    }

    fn token<'a>(&'a self, request: TokenRequest<'a>) -> BoxFuture<'a, Result<AccessToken, NoToken>> {
        self.ask(request).boxed()
    }
}

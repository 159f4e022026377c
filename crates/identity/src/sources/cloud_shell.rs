use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::SourceSettings;
use crate::retry::RetryPolicy;
use crate::{AccessToken, NoToken, SourceName, TokenError, TokenRequest, TokenSource, answer};
use pgentra_system::http::Request;

/// The token service of Azure Cloud Shell (Microsoft: cloud-shell, msi-authorization): the token is the signed-in user's.
#[derive(Debug)]
pub(super) struct CloudShellSource {
    setup: SourceSettings,
}

impl CloudShellSource {
    pub(super) fn new(setup: SourceSettings) -> Self {
        Self { setup }
    }

    async fn ask(&self, request: TokenRequest<'_>) -> Result<AccessToken, NoToken> {
        let system = &self.setup.system;
        let endpoint = self.setup.need(SourceName::CloudShell, "MSI_ENDPOINT")?;
        let form = [("resource", request.resource.as_str())];
        let make = || {
            let made = Request::post(&endpoint).and_then(|made| made.header("metadata", "true"));
            made.map(|made| made.form(&form)).map_err(|cause| {
                TokenError::config(SourceName::CloudShell, "MSI_ENDPOINT cannot be used").caused_by(cause)
            })
        };
        let response =
            RetryPolicy::LOCAL.send(system.http(), SourceName::CloudShell, request.deadline, make).await?;
        Ok(answer::read_token(SourceName::CloudShell, request.resource, &response, system.clock().now())?)
    }
}

impl TokenSource for CloudShellSource {
    fn name(&self) -> SourceName {
        SourceName::CloudShell
    }

    fn token<'a>(&'a self, request: TokenRequest<'a>) -> BoxFuture<'a, Result<AccessToken, NoToken>> {
        self.ask(request).boxed()
    }
}

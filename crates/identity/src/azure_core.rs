//! Both ways between this crate and the Azure SDK for Rust (feature `azure-core`).
//!
//! A [`Credential`] is a `TokenCredential`, so that clients of the Azure SDK can use its sources, cache and refresh. A
//! `TokenCredential` in an [`SdkSource`] is a source, for [`CredentialBuilder::custom`](crate::CredentialBuilder::custom).

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use azure_core::credentials::{AccessToken as SdkToken, TokenCredential, TokenRequestOptions};
use azure_core::error::ErrorKind;
use azure_core::time::OffsetDateTime;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::time::timeout_at;

use crate::answer::UncheckedToken;
use crate::{
    AccessToken, Credential, NoToken, Resource, SourceName, TokenError, TokenErrorKind, TokenRequest,
    TokenSource, answer,
};
use pgentra_system::excerpt;
use pgentra_system::{Clock, System};

/// A credential of the Azure SDK for Rust as a [`TokenSource`]; its name is `external`.
///
/// Its tokens get the cache and the refresh of a [`Credential`]. Its failures are failures, never "does not apply here".
#[derive(Debug, Clone)]
pub struct SdkSource {
    credential: Arc<dyn TokenCredential>,
    clock: Arc<dyn Clock>,
}

impl SdkSource {
    /// This credential as a source; the system's clock decides how long a token is valid.
    pub fn new(credential: Arc<dyn TokenCredential>, system: &System) -> Self {
        Self { credential, clock: system.clock().clone() }
    }

    async fn ask(&self, request: TokenRequest<'_>) -> Result<AccessToken, TokenError> {
        let scope = request.resource.scope();
        let asked = timeout_at(request.deadline, self.credential.get_token(&[&scope], None)).await;
        let failed = |kind, message: &str| TokenError::new(kind, message).at(SourceName::External);
        let token = match asked {
            Ok(Ok(token)) => token,
            // Only the text, shortened and redacted: the error value may contain a whole response with a token.
            Ok(Err(error)) => {
                let status = error.http_status().map_or(0, u16::from);
                let said = excerpt(&error.to_string(), &[]);
                return Err(failed(TokenErrorKind::Refused { status }, &said));
            }
            Err(_) => {
                return Err(failed(TokenErrorKind::Timeout, "the credential of the Azure SDK took too long"));
            }
        };
        let now = self.clock.now();
        let unchecked = UncheckedToken {
            text: token.token.secret().to_owned().into(),
            resource: None,
            expires_on: Some(SystemTime::from(token.expires_on)),
            refresh_in: None,
            now,
        };
        unchecked
            .check(SourceName::External, request.resource)
            .inspect(|token| answer::warn_of_clock(token, now))
    }
}

impl TokenSource for SdkSource {
    fn name(&self) -> SourceName {
        SourceName::External
    }

    fn token<'a>(&'a self, request: TokenRequest<'a>) -> BoxFuture<'a, Result<AccessToken, NoToken>> {
        async move { Ok(self.ask(request).await?) }.boxed()
    }
}

#[async_trait]
impl TokenCredential for Credential {
    /// A token for exactly one scope. The options concern the SDK's own HTTP pipeline and are not used.
    async fn get_token(
        &self,
        scopes: &[&str],
        _options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<SdkToken> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            azure_core::Error::new(ErrorKind::Credential, error)
        };
        let [scope] = scopes else { return Err(failed("exactly one scope is needed".into())) };
        let resource: Resource = scope.parse().map_err(|error| failed(Box::new(error)))?;
        let token = self.token(&resource).await.map_err(|error| failed(Box::new(error)))?;
        let expires_on = OffsetDateTime::from(token.expires_on());
        Ok(SdkToken::new(token.expose_secret().to_owned(), expires_on))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use azure_core::credentials::Secret;

    use super::*;
    use crate::Refreshed;
    use pgentra_system::SystemClock;

    /// A credential of the SDK that gives this token, or fails.
    #[derive(Debug)]
    struct Fixed(Option<SystemTime>);

    #[async_trait]
    impl TokenCredential for Fixed {
        async fn get_token(
            &self,
            scopes: &[&str],
            _: Option<TokenRequestOptions<'_>>,
        ) -> azure_core::Result<SdkToken> {
            assert_eq!(scopes, ["https://a.example/.default"]);
            let secret = "eyJhbGciOiJub25lIn0.eyJhIjoxfQ.c2ln";
            match self.0 {
                Some(end) => Ok(SdkToken::new(Secret::new(secret), OffsetDateTime::from(end))),
                None => {
                    Err(azure_core::Error::with_message(ErrorKind::Credential, format!("refused {secret}")))
                }
            }
        }
    }

    fn credential(end: Option<SystemTime>) -> Credential {
        let system = System::builder().build();
        let source = SdkSource::new(Arc::new(Fixed(end)), &system);
        Credential::builder(system).custom(Arc::new(source)).build().unwrap()
    }

    #[tokio::test]
    async fn a_token_comes_through_both_ways_unchanged() {
        let end = SystemClock.now() + Duration::from_secs(3600);
        let credential = credential(Some(end));
        let resource: Resource = "https://a.example".parse().unwrap();
        let ours = credential.token(&resource).await.unwrap();
        assert_eq!((ours.expires_on(), ours.source()), (end, SourceName::External));
        let sdk: &dyn TokenCredential = &credential;
        let theirs = sdk.get_token(&["https://a.example/.default"], None).await.unwrap();
        assert_eq!(theirs.token.secret(), ours.expose_secret());
        assert_eq!(SystemTime::from(theirs.expires_on), end);
        assert!(matches!(credential.refresh(&resource, &ours).await.unwrap(), Refreshed::Same(_)));
    }

    #[tokio::test]
    async fn failures_come_through_without_the_token() {
        let credential = credential(None);
        let error = credential.token(&"https://a.example".parse().unwrap()).await.unwrap_err();
        assert_eq!(error.to_string(), "no token from external: refused [redacted]");
        assert!(!format!("{error:?}").contains("eyJ"));
        let sdk: &dyn TokenCredential = &credential;
        let error = sdk.get_token(&["https://a.example/.default"], None).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Credential), "{error}");
        assert!(sdk.get_token(&[], None).await.is_err());
        assert!(sdk.get_token(&["a", "b"], None).await.is_err());
    }
}

//! The signing keys of a tenant, fetched where the tenant publishes them.

use futures_util::future::BoxFuture;
use pgentra_system::http::HttpClient;
use pgentra_verify::{FetchError, KeySource};

/// The JWKS document behind one URL.
pub(crate) struct PublishedKeys {
    http: HttpClient,
    url: String,
}

impl PublishedKeys {
    /// Keys at `url`, fetched through `http`, which bounds time and size and follows no redirect.
    pub(crate) fn new(http: HttpClient, url: impl Into<String>) -> Self {
        Self { http, url: url.into() }
    }
}

impl KeySource for PublishedKeys {
    fn fetch(&self) -> BoxFuture<'_, Result<Vec<u8>, FetchError>> {
        Box::pin(async {
            let response = self.http.get(&self.url).await.map_err(FetchError::new)?;
            if !response.is_success() {
                return Err(FetchError::new(std::io::Error::other(format!(
                    "{} answered status {}",
                    self.url,
                    response.status()
                ))));
            }
            Ok(response.body().to_vec())
        })
    }
}

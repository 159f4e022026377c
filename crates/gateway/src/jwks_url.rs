//! The signing keys of a tenant, from the URL where it publishes them.

use futures_util::future::BoxFuture;
use pgentra_system::http::HttpClient;
use pgentra_verify::{FetchError, KeySource};

/// The JSON Web Key Set (RFC 7517) at a URL. [`Verifier`](pgentra_verify::Verifier) decides when it
/// is fetched.
#[derive(Debug)]
pub struct JwksUrl {
    http: HttpClient,
    url: String,
}

impl JwksUrl {
    /// Keys at `url`, fetched through `http`, which bounds time and size and follows no redirect.
    pub fn new(http: HttpClient, url: impl Into<String>) -> Self {
        Self { http, url: url.into() }
    }
}

impl KeySource for JwksUrl {
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

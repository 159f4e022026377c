//! The signing keys of an issuer, from the URL where it publishes them.

use futures_util::future::BoxFuture;
use pgentra_system::http::HttpClient;
use pgentra_verify::{Discovery, FetchError, KeySource};

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
        Box::pin(get(&self.http, &self.url))
    }
}

/// The JSON Web Key Set of an OpenID Connect issuer, at the address that its metadata names. The
/// metadata is fetched before each key set, so that an issuer can move its keys.
#[derive(Debug)]
pub struct IssuerKeys {
    http: HttpClient,
    issuer: String,
}

impl IssuerKeys {
    /// Keys of `issuer`, written as in the claim `iss`, fetched through `http` as by [`JwksUrl`].
    pub fn new(http: HttpClient, issuer: impl Into<String>) -> Self {
        Self { http, issuer: issuer.into() }
    }
}

impl KeySource for IssuerKeys {
    fn fetch(&self) -> BoxFuture<'_, Result<Vec<u8>, FetchError>> {
        Box::pin(async {
            let document = get(&self.http, &Discovery::url(&self.issuer)).await?;
            let metadata = Discovery::read(&document, &self.issuer).map_err(FetchError::new)?;
            get(&self.http, metadata.jwks_uri()).await
        })
    }
}

async fn get(http: &HttpClient, url: &str) -> Result<Vec<u8>, FetchError> {
    let response = http.get(url).await.map_err(FetchError::new)?;
    if !response.is_success() {
        return Err(FetchError::new(std::io::Error::other(format!(
            "{url} answered status {}",
            response.status()
        ))));
    }
    Ok(response.body().to_vec())
}

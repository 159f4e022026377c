use std::sync::{Arc, Mutex, PoisonError};

use http::Uri;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;

use super::SourceSettings;
use super::entra::Detour;
use crate::{SourceName, TokenError};
use pgentra_system::http::authorities;

/// The authorities of a cluster are one or two certificates.
const MAX_CA: usize = 256 * 1024;

const NAME: SourceName = SourceName::WorkloadIdentity;

/// The token proxy of AKS identity bindings (MicrosoftDocs/azure-aks-docs, `identity-bindings-concepts`): it takes the
/// same request as Entra, below its own path, under its own name and with the cluster's authority alone.
///
/// AKS sets the variables in pods that ask for it; they are honoured where they are set.
#[derive(Debug, Default)]
pub(super) struct BindingProxy {
    /// The authorities last read, so that a file which is empty while it is being replaced does no harm.
    trusted: Mutex<Option<(Vec<u8>, Arc<ClientConfig>)>>,
}

impl BindingProxy {
    /// The way through the proxy, if the variables name one; `path` is that of the request at Entra.
    pub(super) fn detour(&self, setup: &SourceSettings, path: &str) -> Result<Option<Detour>, TokenError> {
        let env = setup.system.env();
        let Some(url) = env.get("AZURE_KUBERNETES_TOKEN_PROXY") else { return Ok(None) };
        let refuse = |why: &str| TokenError::config(NAME, format!("AZURE_KUBERNETES_TOKEN_PROXY {why}"));
        let parsed: Uri = url.parse().map_err(|_| refuse("is not a URL"))?;
        let authority = parsed.authority().map(|authority| authority.as_str()).unwrap_or_default();
        if parsed.scheme_str() != Some("https") || authority.is_empty() {
            return Err(refuse("does not start with https://"));
        }
        if authority.contains('@') || url.contains(['?', '#']) {
            return Err(refuse("carries a user name, a query or a fragment"));
        }
        let name = match env.get("AZURE_KUBERNETES_SNI_NAME") {
            Some(name) => Some(ServerName::try_from(name).map_err(|cause| {
                TokenError::config(NAME, "AZURE_KUBERNETES_SNI_NAME is not a host name").caused_by(cause)
            })?),
            None => None,
        };
        let tls = self.trust(setup)?;
        let url = format!("https://{authority}{}{path}", parsed.path().trim_end_matches('/'));
        Ok(Some(Detour { url, tls, name }))
    }

    fn trust(&self, setup: &SourceSettings) -> Result<Arc<ClientConfig>, TokenError> {
        let env = setup.system.env();
        let pem = match (env.get("AZURE_KUBERNETES_CA_FILE"), env.get("AZURE_KUBERNETES_CA_DATA")) {
            (Some(path), None) => setup.system.files().read(&path, MAX_CA).map_err(|cause| {
                TokenError::config(
                    NAME,
                    format!("the file {path} of AZURE_KUBERNETES_CA_FILE cannot be read"),
                )
                .caused_by(cause)
            })?,
            (None, Some(data)) => data.into_bytes(),
            _ => {
                let message =
                    "exactly one of AZURE_KUBERNETES_CA_FILE and AZURE_KUBERNETES_CA_DATA must be set";
                return Err(TokenError::config(NAME, message));
            }
        };
        let mut trusted = self.trusted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, config)) = &*trusted
            && (*known == pem || pem.trim_ascii().is_empty())
        {
            return Ok(config.clone());
        }
        let config = authorities(&pem).map_err(|cause| {
            TokenError::config(NAME, "the authorities of the token proxy cannot be used").caused_by(cause)
        })?;
        *trusted = Some((pem, config.clone()));
        Ok(config)
    }
}

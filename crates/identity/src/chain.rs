use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

use crate::{
    AccessToken, NoToken, Reason, Resource, Selector, SourceName, TokenError, TokenErrorKind, TokenRequest,
    TokenSource, hint,
};

/// Sources that are asked one after the other. The next source is asked only if the previous does not apply here.
#[derive(Debug)]
pub(crate) struct Chain {
    sources: Vec<Arc<dyn TokenSource>>,
    selector: Selector,
}

impl Chain {
    pub(crate) fn new(sources: Vec<Arc<dyn TokenSource>>, selector: Selector) -> Self {
        Self { sources, selector }
    }

    pub(crate) async fn token(
        &self,
        resource: &Resource,
        deadline: Instant,
    ) -> Result<AccessToken, TokenError> {
        let mut reasons = Vec::new();
        for source in &self.sources {
            match source.token(TokenRequest { resource, deadline }).await {
                Ok(token) => return Ok(token),
                Err(NoToken::NotApplicable(reason)) => {
                    tracing::debug!(source = %source.name(), %reason, "the source does not apply here");
                    reasons.push((source.name(), reason));
                }
                Err(NoToken::Failed(error)) => {
                    return Err(hint::add(error, &self.selector).with_reasons(reasons));
                }
            }
        }
        let waits = match reasons.iter().any(|(source, _)| *source == SourceName::Imds) {
            true => {
                " The metadata service of a machine that is just starting may be late: --source imds, or \
                 AZURE_TOKEN_CREDENTIALS=ManagedIdentityCredential, waits for it."
            }
            false => "",
        };
        Err(TokenError::new(TokenErrorKind::NoSource, "no token source applies on this host")
            .caused_by(Reasons(reasons.clone()))
            .with_reasons(reasons)
            .with_hint(format!(
                "On a virtual machine, enable its identity.{waits} On a laptop, sign in with az login, or use a local \
                 Azure. AZURE_POD_IDENTITY_AUTHORITY_HOST names a metadata service elsewhere.",
            )))
    }
}

#[derive(Debug)]
struct Reasons(Vec<(SourceName, Reason)>);

impl fmt::Display for Reasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (source, reason)) in self.0.iter().enumerate() {
            write!(f, "{}{source}: {reason}", if index > 0 { "; " } else { "" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Reasons {}

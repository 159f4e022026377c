use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

use crate::{
    AccessToken, NoToken, Reason, Resource, Selector, SourceName, TokenError, TokenErrorKind, TokenRequest,
    TokenSource, hint,
};

/// Sources that are asked one after the other: the next only after one has said that it does not apply here.
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
        Err(TokenError::new(TokenErrorKind::NoSource, "no token source applies on this host")
            .caused_by(Reasons(reasons.clone()))
            .with_reasons(reasons)
            .with_hint(
                "On a laptop, sign in with az login, or use a local Azure. On a virtual machine, enable its identity. A \
                 machine or pod that has just started may have a metadata service that does not answer yet: name the \
                 source, which then waits for it (--source imds, or AZURE_TOKEN_CREDENTIALS=ManagedIdentityCredential).",
            ))
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

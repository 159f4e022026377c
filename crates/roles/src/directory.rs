//! The interface to the tenant's directory, implemented outside of this crate. It is optional: without it, client ids
//! cannot be resolved and orphaned roles are not found.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;

use uuid::Uuid;

use crate::ObjectType;

/// What an asynchronous method of a trait object returns.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A tenant that can be asked.
pub trait Directory: Send + Sync {
    /// The service principal (of an application or a managed identity) with this client id; `None` if the tenant has none.
    fn service_principal(
        &self,
        client_id: Uuid,
    ) -> BoxFuture<'_, Result<Option<ServicePrincipal>, DirectoryError>>;

    /// Those of the object ids that the tenant has, users, groups and service principals alike.
    fn existing<'a>(
        &'a self,
        object_ids: &'a [Uuid],
    ) -> BoxFuture<'a, Result<BTreeSet<Uuid>, DirectoryError>>;

    /// What the principal with this object id is, in the words of roles. `None` if the tenant has none, or if this
    /// directory does not tell, which is the default.
    fn kind(&self, object_id: Uuid) -> BoxFuture<'_, Result<Option<ObjectType>, DirectoryError>> {
        let _ = object_id;
        Box::pin(std::future::ready(Ok(None)))
    }
}

/// What an application or a managed identity is in a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePrincipal {
    /// The object id: what roles are mapped to on Flexible Server.
    pub object_id: Uuid,
    /// The client (application) id of the service principal.
    pub client_id: Uuid,
    /// The display name; for a managed identity that of the resource.
    pub name: String,
}

/// Why the tenant did not answer.
pub struct DirectoryError {
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl DirectoryError {
    /// An error that says this.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, source: None }
    }

    /// The same with the next thing to try.
    #[must_use]
    pub fn hinting(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same with its cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The next thing to try, in words.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for DirectoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for DirectoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectoryError")
            .field("message", &self.message)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

impl Error for DirectoryError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as &(dyn Error + 'static))
    }
}

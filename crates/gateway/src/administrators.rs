//! What Resource Manager and the directory of a tenant change in a database that is prepared already.

use uuid::Uuid;

use super::init::{InitError, replace_directory};
use super::principal::Principal;
use super::{ServiceAccount, Upstream, control};

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// The database refuses it, in the words that Azure has for it.
    #[error("{0}")]
    Refused(String),
    /// The connection as the service account failed, or a statement did.
    #[error("changing the administrators of the server failed")]
    Postgres(#[from] tokio_postgres::Error),
}

/// Makes a principal an administrator of the server, as Resource Manager does it: with a role of its own. Flexible Server
/// only.
///
/// # Errors
/// [`ChangeError::Refused`] if the principal has a role already, or the name is taken; nothing is changed then. An
/// administrator that is there already under this name is no error.
pub async fn add_administrator(
    upstream: &Upstream,
    service: &ServiceAccount,
    administrator: &Principal,
) -> Result<(), ChangeError> {
    let client = control::connect(upstream, service).await?;
    let Principal { name, object_id, kind } = administrator;
    let sql = "SELECT pgentra.add_administrator($1, $2, $3)";
    let row = client.query_one(sql, &[name, &object_id.to_string(), &kind.as_str()]).await?;
    row.get::<_, Option<String>>(0).map_or(Ok(()), |words| Err(ChangeError::Refused(words)))
}

/// Takes an administrator away, with the role that [`add_administrator`] or the preparation made. A role that owns
/// something stays, without a principal and without a login. Other roles of the same principal are left alone.
///
/// # Errors
/// If the connection or the statement fails.
pub async fn remove_administrator(
    upstream: &Upstream,
    service: &ServiceAccount,
    object_id: Uuid,
) -> Result<(), ChangeError> {
    let client = control::connect(upstream, service).await?;
    client.query_one("SELECT pgentra.remove_administrator($1)", &[&object_id.to_string()]).await?;
    Ok(())
}

/// Replaces what the database knows of who exists in the tenant.
///
/// # Errors
/// If the connection or a statement fails. Nothing is changed then.
pub async fn set_directory(
    upstream: &Upstream,
    service: &ServiceAccount,
    directory: &[Principal],
) -> Result<(), InitError> {
    let mut client = control::connect(upstream, service).await?;
    let transaction = client.transaction().await?;
    replace_directory(&transaction, directory).await?;
    Ok(transaction.commit().await?)
}

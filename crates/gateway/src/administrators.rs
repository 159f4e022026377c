//! Changes that Resource Manager and the tenant's directory make in a prepared database.

use uuid::Uuid;

use super::control::ControlError;
use super::init::{InitError, replace_directory};
use super::principal::{GroupMembership, Principal};
use super::{ServiceAccount, UpstreamAddress, UpstreamMethod, control};

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// The database refuses the change; the message is Azure's.
    #[error("{0}")]
    Refused(String),
    /// The connection as the service account failed, or a statement did.
    #[error("changing the administrators of the server failed")]
    Postgres(#[from] tokio_postgres::Error),
    /// The server cannot be reached.
    #[error("the server cannot be reached")]
    Control(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<ControlError> for ChangeError {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Postgres(error) => Self::Postgres(error),
            other => Self::Control(Box::new(other)),
        }
    }
}

/// Makes a principal an administrator of the server, as Resource Manager does: with a role of its
/// own. Flexible Server only.
///
/// # Errors
///
/// [`ChangeError::Refused`] if the principal has a role already, or the name is taken; nothing is
/// changed then. If the principal is an administrator under this name already, the call succeeds.
pub async fn add_administrator(
    upstream: &UpstreamAddress,
    service: &ServiceAccount,
    administrator: &Principal,
) -> Result<(), ChangeError> {
    let client = control::connect(upstream, &UpstreamMethod::Password, service).await?;
    let Principal { name, object_id, kind } = administrator;
    let sql = "SELECT pgentra.add_administrator($1, $2, $3)";
    let row = client.query_one(sql, &[name, &object_id.to_string(), &kind.as_str()]).await?;
    row.get::<_, Option<String>>(0).map_or(Ok(()), |words| Err(ChangeError::Refused(words)))
}

/// Removes an administrator and the role that [`add_administrator`] or the preparation made. A role
/// that owns objects stays, without a principal and without a login. Other roles of the same
/// principal are not changed.
///
/// # Errors
/// If the connection or the statement fails.
pub async fn remove_administrator(
    upstream: &UpstreamAddress,
    service: &ServiceAccount,
    object_id: Uuid,
) -> Result<(), ChangeError> {
    let client = control::connect(upstream, &UpstreamMethod::Password, service).await?;
    client.query_one("SELECT pgentra.remove_administrator($1)", &[&object_id.to_string()]).await?;
    Ok(())
}

/// Replaces the database's lists of the tenant's principals and of the members of its groups.
///
/// # Errors
/// If the connection or a statement fails. Nothing is changed then.
pub async fn set_directory(
    upstream: &UpstreamAddress,
    service: &ServiceAccount,
    directory: &[Principal],
    memberships: &[GroupMembership],
) -> Result<(), InitError> {
    let mut client = control::connect(upstream, &UpstreamMethod::Password, service).await?;
    let transaction = client.transaction().await?;
    replace_directory(&transaction, directory, memberships).await?;
    Ok(transaction.commit().await?)
}

/// The server parameter of group sync.
pub const GROUP_SYNC: &str = "pgaadauth.enable_group_sync";

/// Switches group sync on or off ([`GROUP_SYNC`]), for sessions that begin now. Flexible Server only.
///
/// # Errors
/// If the connection or the statement fails.
pub async fn set_group_sync(
    upstream: &UpstreamAddress,
    service: &ServiceAccount,
    is_on: bool,
) -> Result<(), ChangeError> {
    let client = control::connect(upstream, &UpstreamMethod::Password, service).await?;
    client.execute("SELECT pgentra.set_group_sync($1)", &[&is_on]).await?;
    Ok(())
}

/// Makes roles for the members of mapped groups, and removes those of former members. Does nothing
/// while group sync is off. Flexible Server only.
///
/// # Errors
/// If the connection or the statement fails.
pub async fn sync_groups(upstream: &UpstreamAddress, service: &ServiceAccount) -> Result<(), ChangeError> {
    let client = control::connect(upstream, &UpstreamMethod::Password, service).await?;
    client.execute("SELECT pgentra.sync_groups() WHERE pgentra.group_sync_is_on()", &[]).await?;
    Ok(())
}

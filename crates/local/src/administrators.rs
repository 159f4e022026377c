//! Applies changes in Resource Manager and the directory to the database: its administrators and
//! the kinds of its principals.

use std::sync::Arc;

use pgentra_emulator::{AdministratorChange, AdministratorEdit, LocalAzure, PrincipalKind};
use pgentra_gateway::{ChangeError, ServiceAccount, UpstreamAddress};
use tokio::sync::{mpsc, watch};

/// A direct connection to the PostgreSQL server, without the gateway: the change may remove the
/// last administrator.
#[derive(Clone)]
pub(crate) struct Database {
    pub(crate) upstream: UpstreamAddress,
    pub(crate) service: ServiceAccount,
}

/// Applies the changes of administrators while the task lives.
pub(crate) async fn follow(database: Database, mut changes: mpsc::UnboundedReceiver<AdministratorChange>) {
    while let Some(change) = changes.recv().await {
        match make(&database, change.change()).await {
            Ok(()) => change.done(),
            Err(ChangeError::Refused(words)) => change.refused(words),
            Err(error) => {
                tracing::error!(?error, "PostgreSQL did not change the server's administrators");
                change.refused("The database of the local cloud did not make the change.");
            }
        }
    }
}

async fn make(database: &Database, change: &AdministratorEdit) -> Result<(), ChangeError> {
    let Database { upstream, service } = database;
    match change {
        AdministratorEdit::Add(new) => {
            let new = principal(&new.name, new.object_id, new.kind);
            pgentra_gateway::add_administrator(upstream, service, &new).await
        }
        AdministratorEdit::Remove(object_id) => {
            pgentra_gateway::remove_administrator(upstream, service, *object_id).await
        }
    }
}

/// Sends the tenant's directory to the database after each change, while the task lives.
pub(crate) async fn know(database: Database, azure: Arc<LocalAzure>, mut changed: watch::Receiver<()>) {
    while changed.changed().await.is_ok() {
        let told =
            pgentra_gateway::set_directory(&database.upstream, &database.service, &directory(&azure)).await;
        if let Err(error) = told {
            tracing::error!(?error, "PostgreSQL does not know who is in the tenant");
        }
    }
}

/// The principals of the tenant in the gateway's type.
pub(crate) fn directory(azure: &LocalAzure) -> Vec<pgentra_gateway::Principal> {
    azure.principals().iter().map(|one| principal(&one.name, one.object_id, one.kind)).collect()
}

fn principal(name: &str, object_id: uuid::Uuid, kind: PrincipalKind) -> pgentra_gateway::Principal {
    let kind = match kind {
        PrincipalKind::User => pgentra_gateway::PrincipalKind::User,
        PrincipalKind::Group => pgentra_gateway::PrincipalKind::Group,
        PrincipalKind::ServicePrincipal | PrincipalKind::Unknown => pgentra_gateway::PrincipalKind::Service,
    };
    pgentra_gateway::Principal { name: name.to_owned(), object_id, kind }
}

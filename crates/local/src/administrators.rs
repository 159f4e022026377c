//! Applies changes in Resource Manager and the directory to the database: its administrators, its
//! parameters, the principals of the tenant and the members of groups.

use std::sync::Arc;
use std::time::Duration;

use pgentra_emulator::{LocalAzure, PrincipalKind, ServerChange, ServerEdit};
use pgentra_gateway::{ChangeError, GroupMembership, ServiceAccount, UpstreamAddress};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::error::Failure;
use crate::pgbouncer::CloudPgBouncer;

/// How often Azure synchronises groups.
const SYNC_PERIOD: Duration = Duration::from_secs(30 * 60);
/// How often the cloud's clock is looked at, which people advance.
const LOOK_PERIOD: Duration = Duration::from_millis(500);

/// Time for a change that was begun when the cloud stops; each takes less than a second.
const CHANGE_TIME: Duration = Duration::from_secs(10);

/// A direct connection to the PostgreSQL server, without the gateway: the change may remove the
/// last administrator.
#[derive(Clone)]
pub(crate) struct Database {
    pub(crate) upstream: UpstreamAddress,
    pub(crate) service: ServiceAccount,
}

/// Ends [`follow`]. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct ChangesEnd {
    asked: CancellationToken,
    ended: CancellationToken,
}

impl ChangesEnd {
    /// Waits until the changes are made that were begun, at most [`CHANGE_TIME`].
    pub(crate) async fn reach(&self) {
        self.asked.cancel();
        if tokio::time::timeout(CHANGE_TIME, self.ended.cancelled()).await.is_err() {
            tracing::warn!("a change of the server has not ended, and is not in the state");
        }
    }
}

/// Applies the changes of administrators while the task lives, and until `end` is asked for and all are made.
pub(crate) async fn follow(
    database: Database,
    pgbouncer: Option<CloudPgBouncer>,
    mut changes: mpsc::UnboundedReceiver<ServerChange>,
    end: ChangesEnd,
) {
    let _ended = end.ended.drop_guard();
    loop {
        let change = tokio::select! {
            biased;
            change = changes.recv() => change,
            () = end.asked.cancelled() => None,
        };
        let Some(change) = change else { return };
        if let ServerEdit::PgBouncer { parameter, value } = change.change() {
            match set(pgbouncer.as_ref(), parameter, value).await {
                Ok(()) => change.done(),
                Err(error) => {
                    let words = error.words();
                    tracing::error!(?error, "the server parameter has no effect");
                    change.refused(words);
                }
            }
            continue;
        }
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

async fn make(database: &Database, change: &ServerEdit) -> Result<(), ChangeError> {
    let Database { upstream, service } = database;
    match change {
        ServerEdit::Add(new) => {
            let new = principal(&new.name, new.object_id, new.kind);
            pgentra_gateway::add_administrator(upstream, service, &new).await
        }
        ServerEdit::Remove(object_id) => {
            pgentra_gateway::remove_administrator(upstream, service, *object_id).await
        }
        ServerEdit::GroupSync(is_on) => pgentra_gateway::set_group_sync(upstream, service, *is_on).await,
        ServerEdit::PgBouncer { .. } => Ok(()),
    }
}

async fn set(pgbouncer: Option<&CloudPgBouncer>, parameter: &str, value: &str) -> Result<(), Failure> {
    match pgbouncer {
        Some(pgbouncer) => pgbouncer.set(parameter, value).await,
        None => Ok(()),
    }
}

/// Sends the tenant's directory to the database after each change, while the task lives.
pub(crate) async fn know(database: Database, azure: Arc<LocalAzure>, mut changed: watch::Receiver<()>) {
    while changed.changed().await.is_ok() {
        let told = pgentra_gateway::set_directory(
            &database.upstream,
            &database.service,
            &directory(&azure),
            &memberships(&azure),
        )
        .await;
        if let Err(error) = told {
            tracing::error!(?error, "PostgreSQL does not know who is in the tenant");
        }
    }
}

/// Synchronises groups every half an hour of the cloud's clock, where that is switched on.
pub(crate) async fn sync(database: Database, azure: Arc<LocalAzure>) {
    let mut next = azure.clock().now() + SYNC_PERIOD;
    let mut looks = tokio::time::interval(LOOK_PERIOD);
    loop {
        looks.tick().await;
        let now = azure.clock().now();
        if now < next {
            continue;
        }
        next = now + SYNC_PERIOD;
        if let Err(error) = pgentra_gateway::sync_groups(&database.upstream, &database.service).await {
            tracing::error!(?error, "the groups could not be synchronised");
        }
    }
}

/// The members of the tenant's groups in the gateway's type.
pub(crate) fn memberships(azure: &LocalAzure) -> Vec<GroupMembership> {
    azure.memberships().into_iter().map(|(group, member)| GroupMembership { group, member }).collect()
}

/// The principals of the tenant in the gateway's type.
pub(crate) fn directory(azure: &LocalAzure) -> Vec<pgentra_gateway::Principal> {
    azure.principals().iter().map(|one| principal(&one.name, one.object_id, one.kind)).collect()
}

pub(crate) fn principal(
    name: &str,
    object_id: uuid::Uuid,
    kind: PrincipalKind,
) -> pgentra_gateway::Principal {
    let kind = match kind {
        PrincipalKind::User => pgentra_gateway::PrincipalKind::User,
        PrincipalKind::Group => pgentra_gateway::PrincipalKind::Group,
        PrincipalKind::ServicePrincipal | PrincipalKind::Unknown => pgentra_gateway::PrincipalKind::Service,
    };
    pgentra_gateway::Principal { name: name.to_owned(), object_id, kind }
}

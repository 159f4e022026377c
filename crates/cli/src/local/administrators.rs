//! Whoever Resource Manager makes an administrator of the server becomes a role of PostgreSQL, as on Azure.

use pgentra_connect::Connector;
use pgentra_emulator::{Administrator, PrincipalKind};
use tokio::sync::watch;

use crate::command::query;
use crate::problem::Outcome;

/// Follows the list as long as the task lives. The connector signs in as an administrator.
pub(crate) async fn follow(connector: Connector, mut list: watch::Receiver<Vec<Administrator>>) {
    let mut known = list.borrow_and_update().clone();
    while list.changed().await.is_ok() {
        let wanted = list.borrow_and_update().clone();
        if let Err(problem) = run(&connector, &statements(&known, &wanted)).await {
            tracing::warn!(?problem, "the server's administrators are not what Resource Manager says");
        }
        known = wanted;
    }
}

async fn run(connector: &Connector, statements: &[String]) -> Outcome {
    let session = connector.connect().await?;
    for statement in statements {
        query::results(&session, statement).await?;
    }
    Ok(session.close().await?)
}

/// What leads from one list to another.
fn statements(known: &[Administrator], wanted: &[Administrator]) -> Vec<String> {
    let text = |name: &str| format!("'{}'", name.replace('\'', "''"));
    let gone = known.iter().filter(|one| !wanted.contains(one));
    // One administrator may not drop another by DROP ROLE.
    let drop = gone.map(|one| format!("SELECT pgaadauth_drop_principal_if_exists({})", text(&one.name)));
    let new = wanted.iter().filter(|one| !known.contains(one));
    let create = new.map(|one| {
        let kind = match one.kind {
            PrincipalKind::User => "user",
            PrincipalKind::Group => "group",
            PrincipalKind::ServicePrincipal | PrincipalKind::Unknown => "service",
        };
        let (name, id) = (text(&one.name), one.object_id);
        format!("SELECT pgaadauth_create_principal_with_oid({name}, '{id}', '{kind}', true, false)")
    });
    drop.chain(create).collect()
}

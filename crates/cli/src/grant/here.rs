//! Detects whether this is the virtual machine, and signs in as it.

use std::time::Duration;

use pgentra_connect::{Connector, Layers, Target};
use pgentra_identity::{Cloud, Credential, Selector, SourceName};
use pgentra_system::System;
use pgentra_system::http::Request;
use serde_json::Value;
use uuid::Uuid;

use super::role::RoleDatabase;
use crate::problem::Outcome;
use crate::sql;

/// Time for the answer of a metadata service, which takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether the metadata service reports that this machine has this resource id.
pub(super) async fn is_here(system: &System, id: &str) -> bool {
    let base = system.env().get("AZURE_POD_IDENTITY_AUTHORITY_HOST");
    let base = base.unwrap_or_else(|| "http://169.254.169.254".to_owned());
    let url = format!("{}/metadata/instance?api-version=2021-02-01", base.trim_end_matches('/'));
    let request = Request::get(&url).and_then(|request| request.header("metadata", "true"));
    let Ok(request) = request else { return false };
    let answer = system.http().send(request.limit(PATIENCE).connect_limit(PATIENCE)).await;
    let told = answer.ok().and_then(|answer| serde_json::from_slice::<Value>(answer.body()).ok());
    told.is_some_and(|told| {
        told["compute"]["resourceId"].as_str().is_some_and(|here| here.eq_ignore_ascii_case(id))
    })
}

/// Signs in as the role with the machine's token.
pub(super) async fn sign_in(
    system: &System,
    database: &RoleDatabase,
    role: &str,
    client_id: Option<Uuid>,
    cloud: Cloud,
) -> Outcome {
    let flags = [
        ("host", database.host()),
        ("port", database.port().to_string()),
        ("user", database.user_of(role)),
        ("dbname", "postgres".to_owned()),
    ];
    let target = Target::resolve(&Layers::gather(None, &flags, system.env(), system.files())?)?;
    let selector = client_id.map_or(Selector::Default, Selector::ClientId);
    let credential =
        Credential::builder(system.clone()).source(SourceName::Imds).selector(selector).build()?;
    let session = Connector::new(target, credential, cloud.postgres_resource())?.connect().await?;
    sql::results(&session, "SELECT current_user").await?;
    Ok(session.close().await?)
}

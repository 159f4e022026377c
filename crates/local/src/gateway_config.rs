//! The configuration of a local cloud's gateway.

use std::sync::Arc;

use pgentra_emulator::LocalAzure;
use pgentra_gateway::{
    ClientTls, Config, Flavour, GatewayTelemetry, RoleSource, SessionAttrs, SessionExpiry, Unmapped,
    UpstreamMethod, WarmSessions,
};
use pgentra_session::Limits;
use tokio_util::sync::CancellationToken;

use crate::administrators::Database;
use crate::error::Failure;
use crate::gateway;
use crate::local_cloud::SERVER_NAME;

/// The configuration of the gateway in front of this database.
pub(crate) fn config(
    azure: &LocalAzure,
    database: &Database,
    (flavour, limits): (Flavour, Limits),
    tls: ClientTls,
) -> Result<Config, Failure> {
    let verifier = gateway::verifier(azure)?;
    let clock = azure.clock().clone();
    let now = clock.clone();
    Ok(Config {
        name: SERVER_NAME.to_owned(),
        tls,
        upstream: database.upstream.clone(),
        pooler: None,
        further: Vec::new(),
        target_session_attrs: SessionAttrs::Any,
        method: UpstreamMethod::Password,
        service: database.service.clone(),
        roles: RoleSource::Database(flavour),
        unmapped: Unmapped::Password,
        server_name: SERVER_NAME.to_owned(),
        oauth: gateway::oauth(azure, verifier.policy()),
        verifiers: vec![Arc::new(verifier)],
        clock: Arc::new(move || clock.now()),
        expiry: SessionExpiry::Off,
        directory: None,
        warm: WarmSessions::default(),
        limits,
        telemetry: GatewayTelemetry::new(move || now.now(), CancellationToken::new(), None),
    })
}

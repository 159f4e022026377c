//! What the page reads and changes.

use std::sync::Arc;

use pgentra_emulator::LocalAzure;
use pgentra_gateway::{Flavour, GatewayTelemetry};

use super::connection_strings::HostStrings;
use crate::clock::CloudClock;
use crate::faults::CloudFaults;

/// The parts of a local cloud that its page is about.
pub(crate) struct PageSource {
    /// The name of the local cloud.
    pub(crate) name: String,
    pub(crate) flavour: Flavour,
    /// The version of PostgreSQL.
    pub(crate) postgres: String,
    pub(crate) azure: Arc<LocalAzure>,
    pub(crate) clock: CloudClock,
    pub(crate) faults: CloudFaults,
    /// That of the gateway, with the last logins.
    pub(crate) telemetry: GatewayTelemetry,
    /// What programs on each host write.
    pub(crate) access: Vec<HostStrings>,
}

//! What the controller counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::failure::LookFailure;
use crate::look::LookOutcome;

/// Metrics of the resources `PostgresRoles`.
#[derive(Debug, Clone, Default)]
pub(crate) struct RolesMetrics {
    looks: Family<[(&'static str, &'static str); 1], Counter>,
    changes: Counter,
    leads: Gauge,
}

impl RolesMetrics {
    /// Adds them.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "roles_looks",
            "Comparisons of a server with a resource, by the reason of the condition Ready",
            self.looks.clone(),
        );
        registry.register("roles_changes", "Changes made on servers", self.changes.clone());
        registry.register("roles_leads", "1 if this replica works on resources", self.leads.clone());
    }

    /// A look has ended.
    pub(crate) fn looked(&self, found: &Result<LookOutcome, LookFailure>) {
        let reason = match found {
            Ok(LookOutcome::NoDifference) => "NoDifference",
            Ok(LookOutcome::Applied(_)) => "Applied",
            Ok(LookOutcome::Differences(_)) => "Differences",
            Err(failure) => failure.reason,
        };
        self.looks.get_or_create(&[("reason", reason)]).inc();
    }

    /// A server was changed.
    pub(crate) fn changed(&self, count: usize) {
        self.changes.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
    }

    /// Whether this replica leads.
    pub(crate) fn lead(&self, leads: bool) {
        self.leads.set(i64::from(leads));
    }
}

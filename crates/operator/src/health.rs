//! Probes and metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pgentra_observe::Exposition;
use pgentra_observe::http::Observable;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

/// What the probes and the metrics show: each part of the process says how it is.
#[derive(Debug, Clone)]
pub(crate) struct PartsHealth {
    shared: Arc<PartsState>,
}

#[derive(Debug)]
struct PartsState {
    parts: Mutex<BTreeMap<&'static str, Result<String, String>>>,
    registry: Mutex<Registry>,
    stop: CancellationToken,
}

/// How one part is.
#[derive(Debug, Clone)]
pub(crate) struct PartHealth {
    health: PartsHealth,
    name: &'static str,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is one assignment: a panic leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PartsHealth {
    /// Without parts. `stop` ends the process.
    pub(crate) fn new(stop: CancellationToken) -> Self {
        let registry = Mutex::new(Registry::with_prefix("pgentra_operator"));
        Self { shared: Arc::new(PartsState { parts: Mutex::default(), registry, stop }) }
    }

    /// A part of this name. It is not ready until it says so.
    pub(crate) fn part(&self, name: &'static str) -> PartHealth {
        let part = PartHealth { health: self.clone(), name };
        part.is_not_ready("starting");
        part
    }

    /// Adds metrics.
    pub(crate) fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut held(&self.shared.registry));
    }
}

impl PartHealth {
    /// It works, in this state.
    pub(crate) fn is_ready(&self, state: impl Into<String>) {
        held(&self.health.shared.parts).insert(self.name, Ok(state.into()));
    }

    /// It does not work, for this reason.
    pub(crate) fn is_not_ready(&self, reason: impl Into<String>) {
        held(&self.health.shared.parts).insert(self.name, Err(reason.into()));
    }
}

impl Observable for PartsHealth {
    fn has_started(&self) -> bool {
        held(&self.shared.parts).values().all(Result::is_ok)
    }

    async fn readiness(&self) -> Result<String, String> {
        let parts = held(&self.shared.parts);
        let lines: Vec<String> = parts
            .iter()
            .map(|(name, state)| match state {
                Ok(state) => format!("{name}: {state}"),
                Err(reason) => format!("{name}: not ready: {reason}"),
            })
            .collect();
        let text = lines.join("\n");
        if self.shared.stop.is_cancelled() || parts.values().any(Result::is_err) {
            return Err(text);
        }
        Ok(text)
    }

    fn metrics(&self, accept: &str) -> Exposition {
        Exposition::of(&held(&self.shared.registry), accept)
    }

    fn stop(&self) -> &CancellationToken {
        &self.shared.stop
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_parts_must_be_ready() {
        let stop = CancellationToken::new();
        let health = PartsHealth::new(stop.clone());
        let (one, two) = (health.part("one"), health.part("two"));
        one.is_ready("serving");
        assert_eq!(health.readiness().await, Err("one: serving\ntwo: not ready: starting".to_owned()));
        assert!(!health.has_started());
        two.is_ready("standby");
        assert_eq!(health.readiness().await, Ok("one: serving\ntwo: standby".to_owned()));
        assert!(health.has_started());
        stop.cancel();
        assert!(health.readiness().await.is_err());
    }
}

//! The faults of the emulator that a person can switch on.

use std::time::Duration;

use pgentra_emulator::{ActiveFault, Endpoint, Fault};

/// The most requests that a fault can be switched on for; without a number it lasts.
pub(crate) const MOST_TIMES: usize = 1000;

/// A fault with a name.
pub(crate) struct KnownFault {
    /// Its name in requests.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// What a program sees.
    pub(crate) what: &'static str,
    make: fn() -> Fault,
}

/// An endpoint that gives out access tokens.
pub(crate) struct KnownEndpoint {
    pub(crate) endpoint: Endpoint,
    pub(crate) title: &'static str,
}

/// The faults in the order in which a person is offered them.
pub(crate) static FAULTS: [KnownFault; 8] = [
    KnownFault {
        name: "throttled",
        title: "429 with Retry-After",
        what: "Too many requests; the client waits 2 s and tries again.",
        make: || Fault::throttled(Duration::from_secs(2)),
    },
    KnownFault {
        name: "slow",
        title: "a slow answer",
        what: "The right answer, 5 s late.",
        make: || Fault::Slow(Duration::from_secs(5)),
    },
    KnownFault {
        name: "html",
        title: "HTML instead of JSON",
        what: "Status 200 with the log-in page of a network, as behind a captive portal.",
        make: Fault::captive_portal,
    },
    KnownFault {
        name: "identity-not-found",
        title: "400, identity not found",
        what: "The machine has no such identity, or does not know it yet: some clients try again.",
        make: || {
            let body = r#"{"error":"invalid_request","error_description":"Identity not found"}"#;
            Fault::status(400, body)
        },
    },
    KnownFault {
        name: "clock-ahead",
        title: "a clock 1 h ahead",
        what: "The token is not valid yet, and PostgreSQL refuses it.",
        make: || Fault::ClockAhead(Duration::from_secs(3600)),
    },
    KnownFault {
        name: "clock-behind",
        title: "a clock 25 h behind",
        what: "The token has expired already, and PostgreSQL refuses it.",
        make: || Fault::ClockBehind(Duration::from_secs(25 * 3600)),
    },
    KnownFault {
        name: "roll-over",
        title: "new signing key",
        what: "Each request makes the tenant sign with a new key; the last ones stay published.",
        make: || Fault::RollOver,
    },
    KnownFault {
        name: "short-life",
        title: "a short life",
        what: "The token lives 2 min.",
        make: || Fault::ShortLife(Duration::from_secs(120)),
    },
];

/// The endpoints in the order in which a person is offered them.
pub(crate) static ENDPOINTS: [KnownEndpoint; 8] = [
    KnownEndpoint { endpoint: Endpoint::ImdsToken, title: "metadata service (vm, user-assigned)" },
    KnownEndpoint { endpoint: Endpoint::EntraToken, title: "Entra (aks, workflows, applications)" },
    KnownEndpoint { endpoint: Endpoint::AppService, title: "App Service" },
    KnownEndpoint { endpoint: Endpoint::CloudShell, title: "Cloud Shell (admin)" },
    KnownEndpoint { endpoint: Endpoint::TokenProxy, title: "token proxy (aks-binding)" },
    KnownEndpoint { endpoint: Endpoint::ServiceFabric, title: "Service Fabric" },
    KnownEndpoint { endpoint: Endpoint::MachineLearning, title: "Azure ML" },
    KnownEndpoint { endpoint: Endpoint::Arc, title: "agent of Azure Arc" },
];

impl KnownFault {
    /// The fault of this name.
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        FAULTS.iter().find(|known| known.name == name)
    }

    /// The known form of a fault, which a test may have switched on too.
    pub(crate) fn of(active: &ActiveFault) -> Option<&'static Self> {
        FAULTS.iter().find(|known| known.fault() == active.fault)
    }

    pub(crate) fn fault(&self) -> Fault {
        (self.make)()
    }
}

impl KnownEndpoint {
    /// The endpoint of this name.
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        ENDPOINTS.iter().find(|known| known.endpoint.to_string() == name)
    }

    /// The title of an endpoint; of another one, its name.
    pub(crate) fn title(endpoint: Endpoint) -> String {
        let known = ENDPOINTS.iter().find(|known| known.endpoint == endpoint);
        known.map_or_else(|| endpoint.to_string(), |known| known.title.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_has_a_name_of_its_own() {
        for known in &FAULTS {
            let active = |fault| KnownFault::of(&fault).map(|it| it.name);
            let faults = pgentra_emulator::Faults::default();
            faults.push(Endpoint::ImdsToken, known.fault());
            assert_eq!(faults.active().into_iter().next().and_then(active), Some(known.name));
            assert_eq!(KnownFault::named(known.name).map(|it| it.title), Some(known.title));
        }
        for known in &ENDPOINTS {
            let found = KnownEndpoint::named(&known.endpoint.to_string());
            assert_eq!(found.map(|it| it.endpoint), Some(known.endpoint));
        }
    }
}

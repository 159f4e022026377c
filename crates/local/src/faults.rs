//! The faults of the emulator that a person can switch on: on the page, or by `pgentra local fault`.

use std::time::Duration;

use pgentra_emulator::{ActiveFault, Endpoint, Fault, LocalAzure};
use serde::{Deserialize, Serialize};

/// The most requests that a fault can be switched on for; without a number it lasts.
pub const MOST_TIMES: usize = 1000;

/// A fault with a name.
#[derive(Debug)]
pub struct KnownFault {
    /// Its name in requests.
    pub name: &'static str,
    /// What it is, in some words.
    pub title: &'static str,
    /// What a program sees.
    pub what: &'static str,
    make: fn() -> Fault,
}

/// An endpoint that a fault can be switched on at.
#[derive(Debug)]
pub struct KnownEndpoint {
    pub(crate) endpoint: Endpoint,
    /// What it is, and which hosts use it.
    pub title: &'static str,
}

/// The faults of a local cloud: those that are switched on, and what can be switched on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FaultList {
    /// The faults that are switched on.
    pub active: Vec<ActiveRow>,
    /// The faults that can be switched on.
    pub known: Vec<FaultRow>,
    /// Where they can be switched on.
    pub endpoints: Vec<EndpointRow>,
}

/// A fault that is switched on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ActiveRow {
    /// Its name. `None`: it has none, and can only be removed with all others.
    pub fault: Option<String>,
    /// What it is, in some words.
    pub title: String,
    /// The endpoint's name. `None`: any endpoint.
    pub endpoint: Option<String>,
    /// What the endpoint is.
    pub endpoint_title: String,
    /// How many more requests suffer it. `None`: all, until it is switched off.
    pub left: Option<usize>,
}

/// A fault that can be switched on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FaultRow {
    /// Its name.
    pub name: String,
    /// What it is, in some words.
    pub title: String,
    /// What a program sees.
    pub what: String,
}

/// An endpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EndpointRow {
    /// Its name.
    pub name: String,
    /// What it is, and which hosts use it.
    pub title: String,
}

/// The faults in the order in which a person is offered them.
pub static FAULTS: [KnownFault; 12] = [
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
        name: "gone",
        title: "410, restarting",
        what: "The metadata service restarts, for 70 s at most; the client tries again.",
        make: Fault::gone,
    },
    KnownFault {
        name: "down",
        title: "503, not available",
        what: "The service is down. Tokens that a program has stay valid.",
        make: || {
            let body = r#"{"error":"temporarily_unavailable","error_description":"The service is temporarily unavailable."}"#;
            Fault::status(503, body)
        },
    },
    KnownFault {
        name: "hang",
        title: "no answer",
        what: "The connection stays open without an answer, until the client gives up.",
        make: || Fault::Hang,
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
    KnownFault {
        name: "huge-token",
        title: "a token of 70 kB",
        what: "A valid token, longer than the 65,535 bytes that PostgreSQL takes as a password.",
        make: || Fault::HugeToken { bytes: 70_000 },
    },
];

/// The endpoints in the order in which a person is offered them.
pub static ENDPOINTS: [KnownEndpoint; 13] = [
    KnownEndpoint { endpoint: Endpoint::ImdsToken, title: "metadata service (vm, user-assigned)" },
    KnownEndpoint { endpoint: Endpoint::EntraToken, title: "Entra (aks, workflows, applications)" },
    KnownEndpoint { endpoint: Endpoint::AppService, title: "App Service" },
    KnownEndpoint { endpoint: Endpoint::CloudShell, title: "Cloud Shell (admin)" },
    KnownEndpoint { endpoint: Endpoint::TokenProxy, title: "token proxy (aks-binding)" },
    KnownEndpoint { endpoint: Endpoint::ServiceFabric, title: "Service Fabric" },
    KnownEndpoint { endpoint: Endpoint::MachineLearning, title: "Azure ML" },
    KnownEndpoint { endpoint: Endpoint::Arc, title: "agent of Azure Arc" },
    KnownEndpoint { endpoint: Endpoint::InstanceDiscovery, title: "Entra's instance discovery" },
    KnownEndpoint { endpoint: Endpoint::OpenIdConfiguration, title: "Entra's discovery document" },
    KnownEndpoint { endpoint: Endpoint::Keys, title: "Entra's signing keys" },
    KnownEndpoint { endpoint: Endpoint::FlexibleServer, title: "Resource Manager, the server" },
    KnownEndpoint { endpoint: Endpoint::Graph, title: "Microsoft Graph" },
];

/// Switches a fault on, for a number of requests or until it is switched off. The same fault again
/// replaces the one before.
pub(crate) fn set(azure: &LocalAzure, known: &KnownFault, at: &KnownEndpoint, times: Option<usize>) {
    let (faults, endpoint) = (azure.faults(), at.endpoint);
    faults.remove(Some(endpoint), &known.fault());
    match times {
        None => faults.push_lasting(endpoint, known.fault()),
        Some(times) => (0..times).for_each(|_| faults.push(endpoint, known.fault())),
    }
    tracing::info!(fault = known.name, %endpoint, "a fault was switched on");
}

/// Switches a fault off, at one endpoint or at all.
pub(crate) fn clear(azure: &LocalAzure, known: &KnownFault, at: Option<&KnownEndpoint>) {
    for endpoint in ENDPOINTS.iter().map(|it| it.endpoint) {
        if at.is_none_or(|at| at.endpoint == endpoint) {
            azure.faults().remove(Some(endpoint), &known.fault());
        }
    }
}

impl FaultList {
    pub(crate) fn of(azure: &LocalAzure) -> Self {
        // Only a cloud that is an Arc server has that agent.
        let is_there = |known: &&KnownEndpoint| known.endpoint != Endpoint::Arc || azure.arc().is_some();
        let active = azure.faults().active().into_iter().map(|active| {
            let known = KnownFault::of(&active);
            let endpoint = active.endpoint;
            ActiveRow {
                fault: known.map(|it| it.name.to_owned()),
                title: known.map_or_else(|| "another fault".to_owned(), |it| it.title.to_owned()),
                endpoint: endpoint.map(|it| it.to_string()),
                endpoint_title: endpoint.map_or_else(|| "any endpoint".to_owned(), KnownEndpoint::title),
                left: active.left,
            }
        });
        Self {
            active: active.collect(),
            known: FAULTS
                .iter()
                .map(|it| FaultRow {
                    name: it.name.to_owned(),
                    title: it.title.to_owned(),
                    what: it.what.to_owned(),
                })
                .collect(),
            endpoints: ENDPOINTS
                .iter()
                .filter(is_there)
                .map(|it| EndpointRow { name: it.name(), title: it.title.to_owned() })
                .collect(),
        }
    }
}

impl KnownFault {
    /// The fault of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
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
    pub fn named(name: &str) -> Option<&'static Self> {
        ENDPOINTS.iter().find(|known| known.name() == name)
    }

    /// Its name in requests.
    pub fn name(&self) -> String {
        self.endpoint.to_string()
    }

    /// Whether the fault changes what the endpoint answers: only some give out tokens.
    pub fn suits(&self, known: &KnownFault) -> bool {
        let changes_tokens = matches!(known.fault(), Fault::ShortLife(_) | Fault::HugeToken { .. });
        let gives_tokens = !matches!(
            self.endpoint,
            Endpoint::InstanceDiscovery
                | Endpoint::OpenIdConfiguration
                | Endpoint::Keys
                | Endpoint::FlexibleServer
                | Endpoint::Graph
        );
        gives_tokens || !changes_tokens
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
        let suits = |fault, at| KnownEndpoint::named(at).unwrap().suits(KnownFault::named(fault).unwrap());
        assert!(suits("huge-token", "arc") && suits("down", "keys") && !suits("huge-token", "keys"));
        for known in &ENDPOINTS {
            let found = KnownEndpoint::named(&known.endpoint.to_string());
            assert_eq!(found.map(|it| it.endpoint), Some(known.endpoint));
        }
    }
}

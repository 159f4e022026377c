//! The faults that a person can switch on: on the page, or by `pgentra local fault`.

use std::sync::Arc;
use std::time::Duration;

use pgentra_emulator::{ActiveFault, Endpoint, Fault, LocalAzure};
use pgentra_local_state::SavedFault;
use serde::{Deserialize, Serialize};

use crate::server_faults::{ServerFault, ServerFaults};

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
    make: FaultMaker,
}

/// What a fault is in the part that suffers it.
#[derive(Debug)]
enum FaultMaker {
    /// An answer of Azure.
    Answer(fn() -> Fault),
    /// An answer of Entra's token endpoint.
    Entra(fn() -> Fault),
    /// PostgreSQL.
    Server(ServerFault),
}

/// An endpoint that a fault can be switched on at.
#[derive(Debug)]
pub struct KnownEndpoint {
    /// `None`: PostgreSQL.
    endpoint: Option<Endpoint>,
    /// What it is, and which hosts use it.
    pub title: &'static str,
}

/// The name of PostgreSQL among the endpoints.
const POSTGRESQL: &str = "postgresql";

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
    /// The one endpoint where it can be switched on. `None`: there are several.
    pub endpoint: Option<String>,
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
pub static FAULTS: [KnownFault; 17] = [
    KnownFault {
        name: "throttled",
        title: "429 with Retry-After",
        what: "Too many requests; the client waits 2 s and tries again.",
        make: FaultMaker::Answer(|| Fault::throttled(Duration::from_secs(2))),
    },
    KnownFault {
        name: "slow",
        title: "a slow answer",
        what: "The right answer, 5 s late.",
        make: FaultMaker::Answer(|| Fault::Slow(Duration::from_secs(5))),
    },
    KnownFault {
        name: "gone",
        title: "410, restarting",
        what: "The metadata service restarts, for 70 s at most; the client tries again.",
        make: FaultMaker::Answer(Fault::gone),
    },
    KnownFault {
        name: "down",
        title: "503, not available",
        what: "The service is down. Tokens that a program has stay valid.",
        make: FaultMaker::Answer(|| {
            let body = r#"{"error":"temporarily_unavailable","error_description":"The service is temporarily unavailable."}"#;
            Fault::status(503, body)
        }),
    },
    KnownFault {
        name: "hang",
        title: "no answer",
        what: "The connection stays open without an answer, until the client gives up.",
        make: FaultMaker::Answer(|| Fault::Hang),
    },
    KnownFault {
        name: "html",
        title: "HTML instead of JSON",
        what: "Status 200 with the log-in page of a network, as behind a captive portal.",
        make: FaultMaker::Answer(Fault::captive_portal),
    },
    KnownFault {
        name: "identity-not-found",
        title: "400, identity not found",
        what: "The machine has no such identity, or does not know it yet: some clients try again.",
        make: FaultMaker::Answer(|| {
            let body = r#"{"error":"invalid_request","error_description":"Identity not found"}"#;
            Fault::status(400, body)
        }),
    },
    KnownFault {
        name: "clock-ahead",
        title: "a clock 1 h ahead",
        what: "The token is not valid yet, and PostgreSQL refuses it.",
        make: FaultMaker::Answer(|| Fault::ClockAhead(Duration::from_secs(3600))),
    },
    KnownFault {
        name: "clock-behind",
        title: "a clock 25 h behind",
        what: "The token has expired already, and PostgreSQL refuses it.",
        make: FaultMaker::Answer(|| Fault::ClockBehind(Duration::from_secs(25 * 3600))),
    },
    KnownFault {
        name: "roll-over",
        title: "new signing key",
        what: "Each request makes the tenant sign with a new key; the last ones stay published.",
        make: FaultMaker::Answer(|| Fault::RollOver),
    },
    KnownFault {
        name: "short-life",
        title: "a short life",
        what: "The token lives 2 min.",
        make: FaultMaker::Answer(|| Fault::ShortLife(Duration::from_secs(120))),
    },
    KnownFault {
        name: "huge-token",
        title: "a token of 70 kB",
        what: "A valid token, longer than the 65,535 bytes that PostgreSQL takes as a password.",
        make: FaultMaker::Answer(|| Fault::HugeToken { bytes: 70_000 }),
    },
    KnownFault {
        name: "mfa-required",
        title: "a second factor is required",
        what: "Entra refuses with AADSTS50076 and the claims that the client has to ask for.",
        make: FaultMaker::Entra(|| {
            let sentence = "Due to a configuration change made by your administrator, or because you moved to a new location, you must use multi-factor authentication to access the resource.";
            conditional_access("interaction_required", "basic_action", 50076, sentence)
        }),
    },
    KnownFault {
        name: "access-blocked",
        title: "blocked by Conditional Access",
        what: "Entra refuses with AADSTS53003: a policy does not allow the token.",
        make: FaultMaker::Entra(|| {
            let sentence = "Access has been blocked by Conditional Access policies. The access policy does not allow token issuance.";
            conditional_access("invalid_grant", "message_only", 53003, sentence)
        }),
    },
    KnownFault {
        name: "tenant-throttled",
        title: "the tenant is throttled",
        what: "Entra refuses every client of the tenant with 429, Retry-After and AADSTS90055.",
        make: FaultMaker::Entra(|| {
            let body = r#"{"error":"temporarily_unavailable","error_description":"AADSTS90055: There are too many incoming requests. This exception is thrown for blocked tenants.","error_codes":[90055]}"#;
            let headers = [("Content-Type", "application/json; charset=utf-8"), ("Retry-After", "2")];
            let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
            Fault::Answer { status: 429, headers, body: body.to_owned() }
        }),
    },
    KnownFault {
        name: "failover",
        title: "failover",
        what: "PostgreSQL ends every session, and takes no new ones for 5 s. It happens once, and at once.",
        make: FaultMaker::Server(ServerFault::Failover),
    },
    KnownFault {
        name: "connection-limit",
        title: "no connection left",
        what: "PostgreSQL has as many sessions as it takes, and refuses new ones.",
        make: FaultMaker::Server(ServerFault::ConnectionLimit),
    },
];

/// The refusal of a policy, with the claims for the next request (Microsoft: v2-conditional-access-dev-guide,
/// reference-error-codes).
fn conditional_access(error: &str, suberror: &str, number: u32, sentence: &str) -> Fault {
    let policy = "3fa85f64-5717-4562-b3fc-2c963f66afa6";
    let claims = format!(r#"{{"access_token":{{"capolids":{{"essential":true,"values":["{policy}"]}}}}}}"#);
    let body = serde_json::json!({
        "error": error,
        "error_description": format!("AADSTS{number}: {sentence}"),
        "error_codes": [number],
        "suberror": suberror,
        "claims": claims,
    });
    Fault::status(400, body.to_string())
}

/// The endpoints in the order in which a person is offered them.
pub static ENDPOINTS: [KnownEndpoint; 14] = [
    KnownEndpoint { endpoint: Some(Endpoint::ImdsToken), title: "metadata service (vm, user-assigned)" },
    KnownEndpoint { endpoint: Some(Endpoint::EntraToken), title: "Entra (aks, workflows, applications)" },
    KnownEndpoint { endpoint: Some(Endpoint::AppService), title: "App Service" },
    KnownEndpoint { endpoint: Some(Endpoint::CloudShell), title: "Cloud Shell (admin)" },
    KnownEndpoint { endpoint: Some(Endpoint::TokenProxy), title: "token proxy (aks-binding)" },
    KnownEndpoint { endpoint: Some(Endpoint::ServiceFabric), title: "Service Fabric" },
    KnownEndpoint { endpoint: Some(Endpoint::MachineLearning), title: "Azure ML" },
    KnownEndpoint { endpoint: Some(Endpoint::Arc), title: "agent of Azure Arc" },
    KnownEndpoint { endpoint: Some(Endpoint::InstanceDiscovery), title: "Entra's instance discovery" },
    KnownEndpoint { endpoint: Some(Endpoint::OpenIdConfiguration), title: "Entra's discovery document" },
    KnownEndpoint { endpoint: Some(Endpoint::Keys), title: "Entra's signing keys" },
    KnownEndpoint { endpoint: Some(Endpoint::FlexibleServer), title: "Resource Manager, the server" },
    KnownEndpoint { endpoint: Some(Endpoint::Graph), title: "Microsoft Graph" },
    KnownEndpoint { endpoint: None, title: "PostgreSQL" },
];

/// What the faults of a local cloud are switched on and off with. Clones share it.
#[derive(Clone, Debug)]
pub struct CloudFaults {
    azure: Arc<LocalAzure>,
    server: ServerFaults,
}

impl CloudFaults {
    pub(crate) fn new(azure: Arc<LocalAzure>, server: ServerFaults) -> Self {
        Self { azure, server }
    }

    /// Switches a fault on, for a number of requests or until it is switched off. The same fault again
    /// replaces the one before.
    ///
    /// # Errors
    /// In words for a person: the fault does not suit the endpoint, or this cloud does not have it.
    pub(crate) async fn set(
        &self,
        known: &KnownFault,
        at: &KnownEndpoint,
        times: Option<usize>,
    ) -> Result<(), String> {
        known.check(at, times)?;
        if !self.has(at) {
            return Err(format!("this local cloud has no `{}`: it was started without --arc", at.name()));
        }
        match (&known.make, at.endpoint) {
            (FaultMaker::Server(fault), _) => self.server.set(*fault).await?,
            (FaultMaker::Answer(make) | FaultMaker::Entra(make), endpoint) => {
                let (faults, fault) = (self.azure.faults(), make());
                faults.remove(endpoint, &fault);
                match times {
                    None => faults.push_lasting(endpoint, fault),
                    Some(times) => (0..times).for_each(|_| faults.push(endpoint, fault.clone())),
                }
            }
        }
        tracing::info!(fault = known.name, endpoint = at.name(), "a fault was switched on");
        Ok(())
    }

    /// Switches a fault off, at one endpoint or at all.
    pub(crate) fn clear(&self, known: &KnownFault, at: Option<&KnownEndpoint>) {
        match &known.make {
            FaultMaker::Server(fault) => {
                if at.is_none_or(|at| at.endpoint.is_none()) {
                    self.server.clear(*fault);
                }
            }
            FaultMaker::Answer(make) | FaultMaker::Entra(make) => {
                for endpoint in ENDPOINTS.iter().filter_map(|it| it.endpoint) {
                    if at.is_none_or(|at| at.endpoint == Some(endpoint)) {
                        self.azure.faults().remove(Some(endpoint), &make());
                    }
                }
            }
        }
    }

    /// Switches all faults off.
    pub(crate) fn clear_all(&self) {
        self.azure.faults().clear();
        for known in &FAULTS {
            if let FaultMaker::Server(fault) = known.make {
                self.server.clear(fault);
            }
        }
    }

    /// Switches on what a saved state names. A fault that this cloud does not have is left out.
    pub(crate) async fn restore(&self, saved: &[SavedFault]) {
        for SavedFault { fault: name, endpoint, left } in saved {
            let set = match (KnownFault::named(name), KnownEndpoint::named(endpoint)) {
                (Some(fault), Some(at)) => self.set(fault, at, left.map(|left| left.min(MOST_TIMES))).await,
                _ => Err("it is unknown".to_owned()),
            };
            if let Err(reason) = set {
                tracing::warn!(
                    fault = name,
                    endpoint,
                    reason,
                    "a fault of the saved state is not switched on"
                );
            }
        }
    }

    /// Waits for the end of a failover, and switches the faults of PostgreSQL off.
    pub(crate) async fn finish(&self) {
        self.server.finish().await;
    }

    /// Ends what faults of PostgreSQL do.
    pub(crate) async fn end(&self) {
        self.server.end().await;
    }

    /// Only a cloud that is an Arc server has that agent.
    fn has(&self, at: &KnownEndpoint) -> bool {
        at.endpoint != Some(Endpoint::Arc) || self.azure.arc().is_some()
    }

    /// The faults that are on, and those that can be switched on.
    pub(crate) fn list(&self) -> FaultList {
        let of_answers = self.azure.faults().active().into_iter().map(|active| {
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
        let on = self.server.active();
        let is_on = |it: &&KnownFault| matches!(it.make, FaultMaker::Server(fault) if on.contains(&fault));
        let of_server = FAULTS.iter().filter(is_on).map(|it| ActiveRow {
            fault: Some(it.name.to_owned()),
            title: it.title.to_owned(),
            endpoint: Some(POSTGRESQL.to_owned()),
            endpoint_title: "PostgreSQL".to_owned(),
            left: None,
        });
        FaultList {
            active: of_answers.chain(of_server).collect(),
            known: FAULTS
                .iter()
                .map(|it| FaultRow {
                    name: it.name.to_owned(),
                    title: it.title.to_owned(),
                    what: it.what.to_owned(),
                    endpoint: it.only_endpoint().map(KnownEndpoint::name),
                })
                .collect(),
            endpoints: ENDPOINTS
                .iter()
                .filter(|it| self.has(it))
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
        FAULTS.iter().find(|known| known.answer().is_some_and(|fault| fault == active.fault))
    }

    /// The answer of Azure that it is.
    fn answer(&self) -> Option<Fault> {
        match self.make {
            FaultMaker::Answer(make) | FaultMaker::Entra(make) => Some(make()),
            FaultMaker::Server(_) => None,
        }
    }

    /// The one endpoint where it can be switched on. `None`: there are several.
    fn only_endpoint(&self) -> Option<&'static KnownEndpoint> {
        let only = match self.make {
            FaultMaker::Answer(_) => return None,
            FaultMaker::Entra(_) => Some(Endpoint::EntraToken),
            FaultMaker::Server(_) => None,
        };
        ENDPOINTS.iter().find(|it| it.endpoint == only)
    }

    /// The endpoint where it is switched on if none is named.
    pub fn usual_endpoint(&self) -> &'static KnownEndpoint {
        self.only_endpoint().unwrap_or(&ENDPOINTS[0])
    }

    /// Whether the fault changes what the endpoint does: only some give out tokens, and PostgreSQL has faults of its
    /// own, which do not count requests.
    ///
    /// # Errors
    /// In words for a person.
    pub fn check(&self, at: &KnownEndpoint, times: Option<usize>) -> Result<(), String> {
        let (name, place) = (self.name, at.name());
        let gives_tokens = !matches!(
            at.endpoint,
            Some(
                Endpoint::InstanceDiscovery
                    | Endpoint::OpenIdConfiguration
                    | Endpoint::Keys
                    | Endpoint::FlexibleServer
                    | Endpoint::Graph
            )
        );
        match (&self.make, at.endpoint) {
            (FaultMaker::Server(_), Some(_)) => {
                Err(format!("`{name}` is a fault of PostgreSQL: `{place}` cannot have it"))
            }
            (FaultMaker::Entra(_), endpoint) if endpoint != Some(Endpoint::EntraToken) => {
                Err(format!("`{name}` is a fault of `entra-token`: `{place}` cannot have it"))
            }
            (FaultMaker::Answer(_), None) => {
                Err(format!("`{name}` is a fault of answers over HTTP: `{place}` cannot have it"))
            }
            (FaultMaker::Server(_), None) if times.is_some() => {
                Err(format!("`{name}` does not end after a number of requests"))
            }
            (FaultMaker::Answer(make), Some(_))
                if !gives_tokens && matches!(make(), Fault::ShortLife(_) | Fault::HugeToken { .. }) =>
            {
                Err(format!("`{name}` changes tokens, and `{place}` gives out none"))
            }
            _ => Ok(()),
        }
    }
}

impl KnownEndpoint {
    /// The endpoint of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        ENDPOINTS.iter().find(|known| known.name() == name)
    }

    /// Its name in requests.
    pub fn name(&self) -> String {
        self.endpoint.map_or_else(|| POSTGRESQL.to_owned(), |endpoint| endpoint.to_string())
    }

    /// The title of an endpoint; of another one, its name.
    pub(crate) fn title(endpoint: Endpoint) -> String {
        let known = ENDPOINTS.iter().find(|known| known.endpoint == Some(endpoint));
        known.map_or_else(|| endpoint.to_string(), |known| known.title.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_has_a_name_of_its_own() {
        for known in &FAULTS {
            assert_eq!(KnownFault::named(known.name).map(|it| it.title), Some(known.title));
            assert!(known.check(known.usual_endpoint(), None).is_ok());
            let Some(fault) = known.answer() else { continue };
            let active = |fault| KnownFault::of(&fault).map(|it| it.name);
            let faults = pgentra_emulator::Faults::default();
            faults.push(Endpoint::ImdsToken, fault);
            assert_eq!(faults.active().into_iter().next().and_then(active), Some(known.name));
        }
        for known in &ENDPOINTS {
            let found = KnownEndpoint::named(&known.name());
            assert_eq!(found.map(|it| it.endpoint), Some(known.endpoint));
        }
    }

    #[test]
    fn a_fault_suits_some_endpoints() {
        let check = |fault, at, times| {
            KnownFault::named(fault).unwrap().check(KnownEndpoint::named(at).unwrap(), times)
        };
        for (fault, at, times) in
            [("huge-token", "arc", None), ("down", "keys", Some(2)), ("failover", "postgresql", None)]
        {
            assert_eq!(check(fault, at, times), Ok(()));
        }
        for (fault, at, times, says) in [
            ("huge-token", "keys", None, "`keys` gives out none"),
            ("failover", "keys", None, "is a fault of PostgreSQL"),
            ("mfa-required", "imds-token", None, "is a fault of `entra-token`"),
            ("mfa-required", "postgresql", None, "is a fault of `entra-token`"),
            ("slow", "postgresql", None, "is a fault of answers over HTTP"),
            ("connection-limit", "postgresql", Some(1), "does not end after a number of requests"),
        ] {
            let refused = check(fault, at, times).unwrap_err();
            assert!(refused.contains(says), "{refused}");
        }
    }
}

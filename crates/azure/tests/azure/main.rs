//! Resource Manager and Graph, asked as in production: over TLS, at the local Azure. What depends on time is in `waiting`, on
//! a paused clock.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod federation;
mod graph;
mod hosts;
mod machine;
mod server;
mod trouble;
mod waiting;

use std::time::{Duration, UNIX_EPOCH};

use pgentra_azure::Endpoints;
use pgentra_azure::arm::ResourceManager;
use pgentra_azure::graph::Graph;
use pgentra_emulator::{Clock, LocalAzure, Options};
use pgentra_identity::{Cloud, Credential};
use pgentra_system::http::HttpClient;
use pgentra_system::{Env, Files, ManualClock, System};

/// A local Azure, and the credential and system of a client.
struct Setting {
    azure: LocalAzure,
    system: System,
    credential: Credential,
    endpoints: Endpoints,
}

/// A local Azure whose clock is tokio's, and its administrator.
async fn administrator() -> Setting {
    setting(|azure| ("MSI_ENDPOINT", azure.cloud_shell().to_owned())).await
}

/// The same, and its machine, which has no role anywhere.
async fn machine() -> Setting {
    setting(|azure| ("AZURE_POD_IDENTITY_AUTHORITY_HOST", azure.metadata_url().to_owned())).await
}

async fn setting(variable: impl Fn(&LocalAzure) -> (&'static str, String)) -> Setting {
    let now = UNIX_EPOCH + Duration::from_secs(1_900_000_000);
    let mut options = Options::new(Clock::fixed(now));
    options.operation_time = Duration::ZERO;
    let azure = LocalAzure::start(options).await.unwrap();
    let env = Env::from_map([variable(&azure)]);
    let http =
        HttpClient::new(&env, &Files::in_memory()).with_extra_roots(azure.ca_pem().as_bytes()).unwrap();
    let system = System::builder().env(env).http(http).clock(ManualClock::at(now)).build();
    let credential = Credential::builder(system.clone()).build().unwrap();
    let endpoints = Endpoints::of(Cloud::Public).unwrap();
    let endpoints = endpoints.with_resource_manager(azure.resource_manager()).unwrap();
    let endpoints = endpoints.with_graph(azure.graph()).unwrap();
    Setting { azure, system, credential, endpoints }
}

impl Setting {
    async fn manager(&self) -> ResourceManager {
        ResourceManager::new(&self.system, &self.credential, &self.endpoints, None).await.unwrap()
    }

    /// The same for an identity that cannot list its subscriptions.
    async fn manager_of(&self, subscription: &str) -> ResourceManager {
        let new = ResourceManager::new(&self.system, &self.credential, &self.endpoints, Some(subscription));
        new.await.unwrap()
    }

    fn graph(&self) -> Graph {
        Graph::new(&self.system, &self.credential, &self.endpoints)
    }

    /// How many requests of this method were made.
    fn count(&self, method: &str) -> usize {
        self.azure.journal().entries().iter().filter(|entry| entry.method == method).count()
    }
}

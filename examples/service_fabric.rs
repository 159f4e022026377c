//! An application on a Service Fabric managed cluster.
//!
//! On Azure, in the application's template and its manifest:
//!
//! ```text
//! "type": "Microsoft.ServiceFabric/managedClusters/applications", "identity": { "type": "SystemAssigned" }
//! <IdentityBindingPolicy ServiceIdentityRef="web" ApplicationIdentityRef="SystemAssigned" />
//! ```
//!
//! and `pgaadauth_create_principal_with_oid` with the object id of that identity, as its name is the application's.
//!
//! On a laptop:
//!
//! ```console
//! $ eval "$(pgentra local env --host service-fabric)"
//! $ cargo run --package pgentra-connect --example service_fabric
//! ```
//!
//! Particular to it: the node's certificate is self-signed; the certificate with the thumbprint in a variable is trusted,
//! for this connection only. The application manifest fixes the identity: to select one is an error before any request.
#![expect(clippy::print_stdout, reason = "an example talks to the person who runs it")]

mod sign_in;

use std::error::Error;

use pgentra_identity::{Credential, Selector, SourceName};
use pgentra_system::System;
use uuid::Uuid;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let system = System::real();
    let credential = || Credential::builder(system.clone()).source(SourceName::ServiceFabric);
    if let Err(error) = credential().selector(Selector::ClientId(Uuid::nil())).build() {
        println!("{error}");
    }
    sign_in::sign_in(&system, &credential().build()?, None).await
}

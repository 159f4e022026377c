//! A virtual machine, scale set or container instance, with one of several user-assigned identities.
//!
//! On Azure:
//!
//! ```console
//! $ az identity create --resource-group myGroup --name myIdentity
//! $ az vm identity assign --resource-group myGroup --name myVm --identities myIdentity
//! postgres=> select * from pgaadauth_create_principal('myIdentity', false, false);
//! ```
//!
//! On a laptop, with the client id that `pgentra local status` shows; without one it is the machine's own identity:
//!
//! ```console
//! $ eval "$(pgentra local env --host vm)"
//! $ PGUSER=myIdentity cargo run --package pgentra-connect --example vm -- CLIENT_ID
//! ```
//!
//! Particular to it: a machine can have many identities, and the metadata service finds one by its client id, its object
//! id (`Selector::ObjectId`) or its resource id (`Selector::ResourceId`). Without a selector it takes the system-assigned
//! one; where there is none and several others, it refuses.
#![expect(clippy::print_stdout, reason = "an example talks to the person who runs it")]

mod sign_in;

use std::error::Error;

use pgentra_identity::{Credential, Selector, SourceName};
use pgentra_system::System;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let selector = match std::env::args().nth(1) {
        Some(client_id) => Selector::ClientId(client_id.parse()?),
        None => Selector::Default,
    };
    println!("asking the metadata service for {selector}");
    let system = System::real();
    let credential =
        Credential::builder(system.clone()).source(SourceName::Imds).selector(selector).build()?;
    sign_in::sign_in(&system, &credential, None).await
}

//! A server outside Azure, connected through Azure Arc.
//!
//! On the server, and as the server's Entra administrator:
//!
//! ```console
//! $ sudo azcmagent connect --resource-group myGroup --location westeurope --subscription-id ID --tenant-id ID
//! $ sudo usermod --append --groups himds USER
//! postgres=> select * from pgaadauth_create_principal('my-server', false, false);
//! ```
//!
//! On a laptop with Linux, as root; the agent's folder is created, and removed with the local cloud:
//!
//! ```console
//! # pgentra local up --detach --arc
//! # eval "$(pgentra local env --host azure-arc)"
//! # cargo run --package pgentra-connect --example azure_arc
//! ```
//!
//! Particular to it: the agent writes a key into a file that only root and the group `himds` can read, and gives a token to
//! a client that sends this key. The agent has the server's own identity; recent versions also have user-assigned
//! identities, by resource id only. If an agent ignores the requested id, the result is an error and not a token of another
//! identity.
#![expect(clippy::print_stdout, reason = "an example talks to the person who runs it")]

mod sign_in;

use std::error::Error;

use pgentra_identity::{Credential, Selector, SourceName};
use pgentra_system::System;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let selector = std::env::args().nth(1).map_or(Selector::Default, Selector::ResourceId);
    println!("asking the agent for {selector}");
    let system = System::real();
    let credential =
        Credential::builder(system.clone()).source(SourceName::AzureArc).selector(selector).build()?;
    sign_in::sign_in(&system, &credential, None).await
}

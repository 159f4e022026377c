//! A compute of Azure Machine Learning.
//!
//! On Azure:
//!
//! ```console
//! $ az ml compute create --resource-group myGroup --workspace-name myWorkspace --file compute.yml    # identity: { type: system_assigned }
//! postgres=> select * from pgaadauth_create_principal_with_oid('myCompute', 'OBJECT_ID', 'service', false, false);
//! ```
//!
//! On a laptop:
//!
//! ```console
//! $ eval "$(pgentra local env --host azure-ml)"
//! $ cargo run --package pgentra-connect --example azure_ml
//! ```
//!
//! Particular to it: its endpoint requires a client id in every request. The id of the compute's own identity is in
//! `DEFAULT_IDENTITY_CLIENT_ID`; another identity is selected by client id only.
#![expect(clippy::print_stdout, reason = "an example talks to the person who runs it")]

mod sign_in;

use std::error::Error;

use pgentra_identity::{Credential, Selector, SourceName};
use pgentra_system::System;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let system = System::real();
    let named = std::env::args().nth(1).or_else(|| system.env().get("DEFAULT_IDENTITY_CLIENT_ID"));
    let selector = Selector::ClientId(named.ok_or("no client id is named")?.parse()?);
    println!("asking the compute for {selector}");
    let credential =
        Credential::builder(system.clone()).source(SourceName::AzureMl).selector(selector).build()?;
    sign_in::sign_in(&system, &credential, None).await
}

//! A job of Azure Pipelines, through a service connection with workload identity federation.
//!
//! On Azure, a service connection of that kind for `myIdentity`, and
//!
//! ```console
//! postgres=> select * from pgaadauth_create_principal('myIdentity', false, false);
//! ```
//!
//! In the pipeline, a task that knows the connection sets `AZURESUBSCRIPTION_*`; the job's own token must be mapped by hand:
//!
//! ```yaml
//! - task: AzureCLI@2
//!   inputs: { azureSubscription: my-connection, scriptType: bash, scriptLocation: inlineScript, inlineScript: ./job }
//!   env: { SYSTEM_ACCESSTOKEN: $(System.AccessToken) }
//! ```
//!
//! On a laptop:
//!
//! ```console
//! $ eval "$(pgentra local env --host azure-pipelines)"
//! $ cargo run --package pgentra-connect --example azure_pipelines
//! ```
//!
//! Particular to it: client and tenant are the service connection's, `AZURESUBSCRIPTION_CLIENT_ID` and
//! `AZURESUBSCRIPTION_TENANT_ID`; a selector by client id goes before the former.
#![expect(clippy::print_stdout, reason = "an example talks to the person who runs it")]

mod sign_in;

use std::error::Error;

use pgentra_identity::{Credential, SourceName};
use pgentra_system::System;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let system = System::real();
    let connection = system.env().get("AZURESUBSCRIPTION_SERVICE_CONNECTION_ID");
    println!("the service connection is {}", connection.ok_or("no task has set a service connection")?);
    let credential = Credential::builder(system.clone()).source(SourceName::AzurePipelines).build()?;
    sign_in::sign_in(&system, &credential, None).await
}

//! App Service, Functions or Container Apps.
//!
//! On Azure:
//!
//! ```console
//! $ az webapp identity assign --resource-group myGroup --name my-app      # or az functionapp, az containerapp
//! postgres=> select * from pgaadauth_create_principal('my-app', false, false);
//! ```
//!
//! On a laptop:
//!
//! ```console
//! $ eval "$(pgentra local env --host app-service)"
//! $ cargo run --package pgentra-connect --example app_service
//! ```
//!
//! Particular to it: such a program serves for days, so it keeps one credential for all its connections. The first asks
//! the platform, the others find the token in memory, and none waits when it is time for the next one. The endpoint and
//! its secret header change while the program runs; both are read at each request. Every selector works.
#![expect(clippy::print_stdout, reason = "an example talks to the person who runs it")]

mod sign_in;

use std::error::Error;

use pgentra_identity::{Cloud, Credential, SourceName};
use pgentra_system::System;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let system = System::real();
    let credential = Credential::builder(system.clone()).source(SourceName::AppService).build()?;
    let resource = Cloud::Public.postgres_resource();
    let before = credential.with_cached(&resource, |_| ()).is_some();
    sign_in::sign_in(&system, &credential, None).await?;
    let after = credential.with_cached(&resource, |_| ()).is_some();
    println!("a token in memory: {before} before the first connection, {after} after it");
    sign_in::sign_in(&system, &credential, None).await
}

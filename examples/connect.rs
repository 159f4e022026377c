//! The example application of "Connect with Managed Identity to Azure Database for PostgreSQL", in Rust.
//!
//! It gets an access token for the identity of the host it runs on, signs in with the token as the password, and asks for
//! the server's version. Server, role and database come from `PGHOST`, `PGUSER` and `PGDATABASE`. On a laptop:
//!
//! ```console
//! $ pgentra local up --detach
//! $ eval "$(pgentra local env)"
//! $ cargo run --package pgentra-connect --example connect
//! ```
#![expect(clippy::print_stdout, reason = "an example talks to the person who runs it")]

use std::error::Error;

use pgentra_connect::{Connector, Layers, Target};
use pgentra_identity::{Cloud, Credential};
use pgentra_system::System;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let system = System::real();
    let layers = Layers::gather(None, &[], system.env(), system.files())?;
    let target = Target::resolve(&layers)?;

    println!("Getting access token from Azure AD...");
    let credential = Credential::builder(system).build()?;
    let resource = Cloud::Public.postgres_resource();
    credential.token(&resource).await?;

    println!("Opening connection using access token...");
    let session = Connector::new(target, credential, resource)?.connect().await?;
    let row = session.client().query_one("SELECT version()", &[]).await?;

    println!("\nConnected!\n\nPostgres version: {}", row.get::<_, &str>(0));
    session.close().await?;
    Ok(())
}

//! The program of the article, as it is deployed on Azure: nothing in it knows of a local cloud.
//!
//! Usage: `on_azure ROLE` prints the role that it is. Without ROLE the server comes from `PGHOST`, `PGUSER`, …
#![expect(clippy::print_stdout, reason = "it prints its result")]

use std::error::Error;

use pgentra_connect::{Connector, Layers, Target};
use pgentra_identity::{Cloud, Credential};
use pgentra_system::System;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let system = System::real();
    let server = "host=mydemoserver.postgres.database.azure.com dbname=postgres sslmode=verify-full";
    let deployed = std::env::args().nth(1).map(|role| format!("{server} user={role}"));
    let target = Target::resolve(&Layers::gather(deployed.as_deref(), &[], system.env(), system.files())?)?;
    let credential = Credential::builder(system).build()?;
    let session = Connector::new(target, credential, Cloud::Public.postgres_resource())?.connect().await?;
    let row = session.client().query_one("SELECT current_user", &[]).await?;
    println!("{}", row.get::<_, &str>(0));
    session.close().await?;
    Ok(())
}

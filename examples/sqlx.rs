//! A pool of sqlx, each of whose connections signs in with a fresh token. On a laptop:
//!
//! ```console
//! $ pgentra local up --detach
//! $ eval "$(pgentra local env)"
//! $ cargo run --package pgentra-connect --features sqlx --example sqlx
//! ```
#![expect(clippy::print_stdout, reason = "an example talks to the person who runs it")]

use std::error::Error;

use pgentra_connect::adapter::sqlx::Pool;
use pgentra_connect::{Connector, Layers, Target};
use pgentra_identity::{Cloud, Credential};
use pgentra_system::System;
use sqlx::postgres::PgPoolOptions;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let pool = Pool::connect(connector()?, PgPoolOptions::new().max_connections(10)).await?;

    let user: String = sqlx::query_scalar("SELECT current_user::text").fetch_one(pool.pool()).await?;
    println!("signed in as {user}");
    pool.close().await;
    Ok(())
}

/// Signs in to the server that `PGHOST`, `PGUSER` and so on name, with the identity of the host this runs on.
fn connector() -> Result<Connector, Box<dyn Error>> {
    let system = System::real();
    let layers = Layers::gather(None, &[], system.env(), system.files())?;
    let credential = Credential::builder(system).build()?;
    Ok(Connector::new(Target::resolve(&layers)?, credential, Cloud::Public.postgres_resource())?)
}

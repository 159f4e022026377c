//! A pool of deadpool-postgres, each of whose connections signs in with a fresh token. On a laptop:
//!
//! ```console
//! $ pgentra local up --detach
//! $ eval "$(pgentra local env)"
//! $ cargo run --package pgentra-connect --features deadpool --example deadpool
//! ```
#![expect(clippy::print_stdout, reason = "an example talks to the person who runs it")]

use std::error::Error;

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use pgentra_connect::{Connector, Layers, Target};
use pgentra_identity::{Cloud, Credential};
use pgentra_system::System;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let config = ManagerConfig { recycling_method: RecyclingMethod::Verified };
    let manager = Manager::from_connect(Default::default(), connector()?, config);
    let pool = Pool::builder(manager).max_size(10).build()?;

    let client = pool.get().await?;
    let row = client.query_one("SELECT current_user", &[]).await?;
    println!("signed in as {}", row.get::<_, &str>(0));
    Ok(())
}

/// Signs in to the server that `PGHOST`, `PGUSER` and so on name, with the identity of the host this runs on.
fn connector() -> Result<Connector, Box<dyn Error>> {
    let system = System::real();
    let layers = Layers::gather(None, &[], system.env(), system.files())?;
    let credential = Credential::builder(system).build()?;
    Ok(Connector::new(Target::resolve(&layers)?, credential, Cloud::Public.postgres_resource())?)
}

//! A pool of bb8, each of whose connections signs in with a fresh token. On a laptop:
//!
//! ```console
//! $ pgentra local up --detach
//! $ eval "$(pgentra local env)"
//! $ cargo run --package pgentra-connect --features bb8 --example bb8
//! ```
#![expect(clippy::print_stdout, reason = "an example talks to the person who runs it")]

use std::error::Error;

use pgentra_connect::adapter::bb8::Pool;
use pgentra_connect::{Connector, Layers, Target};
use pgentra_identity::{Cloud, Credential};
use pgentra_system::System;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let pool = Pool::new(bb8::Pool::builder().max_size(10), connector()?);

    let session = pool.get().await?;
    let row = session.client().query_one("SELECT current_user", &[]).await?;
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

//! A pool of diesel-async, each of whose connections signs in with a fresh token. On a laptop:
//!
//! ```console
//! $ pgentra local up --detach
//! $ eval "$(pgentra local env)"
//! $ cargo run --package pgentra-connect --features diesel-async --example diesel_async
//! ```
#![expect(clippy::print_stdout, reason = "an example talks to the person who runs it")]

use std::error::Error;

use diesel::sql_types::Text;
use diesel_async::pooled_connection::AsyncDieselConnectionManager;
use diesel_async::pooled_connection::deadpool::Pool;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use pgentra_connect::{Connector, Layers, Target};
use pgentra_identity::{Cloud, Credential};
use pgentra_system::System;

#[derive(diesel::QueryableByName)]
struct User {
    #[diesel(sql_type = Text)]
    name: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let manager = AsyncDieselConnectionManager::new_with_config("", connector()?.into());
    let pool = Pool::<AsyncPgConnection>::builder(manager).max_size(10).build()?;

    let mut connection = pool.get().await?;
    let query = diesel::sql_query("SELECT current_user::text AS name");
    let user: User = query.get_result(&mut connection).await?;
    println!("signed in as {}", user.name);
    Ok(())
}

/// Signs in to the server that `PGHOST`, `PGUSER` and so on name, with the identity of the host this runs on.
fn connector() -> Result<Connector, Box<dyn Error>> {
    let system = System::real();
    let layers = Layers::gather(None, &[], system.env(), system.files())?;
    let credential = Credential::builder(system).build()?;
    Ok(Connector::new(Target::resolve(&layers)?, credential, Cloud::Public.postgres_resource())?)
}

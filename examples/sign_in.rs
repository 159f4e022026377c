//! What the examples share: signing in with a credential, and asking the server who that is.

use std::error::Error;

use pgentra_connect::{Connector, Layers, Target};
use pgentra_identity::{Cloud, Credential};
use pgentra_system::System;

/// Signs in to the server that `PGHOST`, `PGDATABASE` and so on name, and prints the role; `role` goes before `PGUSER`.
pub(crate) async fn sign_in(
    system: &System,
    credential: &Credential,
    role: Option<&str>,
) -> Result<(), Box<dyn Error>> {
    let flags: Vec<_> = role.map(|role| ("user", role.to_owned())).into_iter().collect();
    let layers = Layers::gather(None, &flags, system.env(), system.files())?;
    let resource = Cloud::Public.postgres_resource();
    let session = Connector::new(Target::resolve(&layers)?, credential.clone(), resource)?.connect().await?;
    let row = session.client().query_one("SELECT current_user", &[]).await?;
    println!("signed in as {}", row.get::<_, &str>(0));
    session.close().await?;
    Ok(())
}

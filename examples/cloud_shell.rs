//! A person at a Cloud Shell, such as the Entra administrator of the server.
//!
//! On Azure:
//!
//! ```console
//! $ az postgres flexible-server microsoft-entra-admin create --resource-group myGroup --server-name my-server \
//!     --display-name NAME --object-id OBJECT_ID
//! ```
//!
//! On a laptop:
//!
//! ```console
//! $ eval "$(pgentra local env --host admin)"
//! $ cargo run --package pgentra-connect --example cloud_shell
//! ```
//!
//! Particular to it: the token is for the user and not for a machine, so no identity can be selected, and the role is
//! usually the user's principal name. The name is read from the token without verification; the server decides.
#![expect(clippy::print_stdout, reason = "an example talks to the person who runs it")]

mod sign_in;

use std::error::Error;

use pgentra_identity::{Cloud, Credential, SourceName, UnverifiedClaims};
use pgentra_system::System;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let system = System::real();
    let credential = Credential::builder(system.clone()).source(SourceName::CloudShell).build()?;
    let token = credential.token(&Cloud::Public.postgres_resource()).await?;
    let claims = UnverifiedClaims::of(&token).ok_or("the token cannot be read")?;
    let person = claims.text("upn").ok_or("the token is not a person's")?;
    println!("the person is {person}");
    sign_in::sign_in(&system, &credential, Some(person)).await
}

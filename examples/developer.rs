//! A developer's machine: the user who is signed in to the Azure CLI, or a company's own program that prints a token.
//!
//! ```console
//! $ az login
//! $ PGHOST=my-server.postgres.database.azure.com PGUSER=me@example.org PGDATABASE=postgres \
//!     cargo run --package pgentra-connect --example developer
//! ```
//!
//! With arguments, they are a command that prints a token. On a laptop:
//!
//! ```console
//! $ eval "$(pgentra local env)"
//! $ cargo run --package pgentra-connect --example developer -- pgentra token
//! ```
//!
//! Particular to it: a program is run for each token, which takes a second or two with `az`; the token is then kept in
//! memory as any other. The command finds what the token is for in `PGENTRA_RESOURCE`, and prints a JWT or JSON as `az` does.
#![expect(clippy::print_stdout, reason = "an example talks to the person who runs it")]

mod sign_in;

use std::error::Error;

use pgentra_identity::{Credential, SourceName};
use pgentra_system::System;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let system = System::real();
    let command: Vec<_> = std::env::args().skip(1).collect();
    let builder = Credential::builder(system.clone());
    let credential = match command.is_empty() {
        true => builder.source(SourceName::AzureCli),
        false => builder.command(command),
    };
    sign_in::sign_in(&system, &credential.build()?, None).await
}

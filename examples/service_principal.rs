//! An application with a certificate or a secret, anywhere: a data centre, another cloud, a build server.
//!
//! On Azure, with `--create-cert` for a certificate:
//!
//! ```console
//! $ az ad sp create-for-rbac --name myApp
//! postgres=> select * from pgaadauth_create_principal('myApp', false, false);
//! ```
//!
//! On a laptop, with `--host client-secret` for a secret:
//!
//! ```console
//! $ eval "$(pgentra local env --host client-certificate)"
//! $ cargo run --package pgentra-connect --example service_principal
//! ```
//!
//! Particular to it: something secret lies on the host. A certificate is the better one, as its key never travels; its file
//! is read anew for each exchange, so that a renewed one is taken up. Where a host has an identity of its own, use that.
#![expect(clippy::print_stdout, reason = "an example talks to the person who runs it")]

mod sign_in;

use std::error::Error;

use pgentra_identity::{Credential, SourceName};
use pgentra_system::System;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let system = System::real();
    let source = match system.env().has("AZURE_CLIENT_CERTIFICATE_PATH") {
        true => SourceName::ClientCertificate,
        false => SourceName::ClientSecret,
    };
    println!("asking Entra with a {source}");
    let credential = Credential::builder(system.clone()).source(source).build()?;
    sign_in::sign_in(&system, &credential, None).await
}

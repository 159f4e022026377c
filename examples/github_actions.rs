//! A job of GitHub Actions, without any stored secret.
//!
//! On Azure, and in the workflow:
//!
//! ```console
//! $ az identity federated-credential create --resource-group myGroup --identity-name myIdentity --name my-repository \
//!     --issuer https://token.actions.githubusercontent.com --subject repo:OWNER/REPOSITORY:ref:refs/heads/main \
//!     --audiences api://AzureADTokenExchange
//! postgres=> select * from pgaadauth_create_principal('myIdentity', false, false);
//! ```
//!
//! ```yaml
//! permissions: { id-token: write }
//! env: { AZURE_CLIENT_ID: …, AZURE_TENANT_ID: … }
//! ```
//!
//! On a laptop:
//!
//! ```console
//! $ eval "$(pgentra local env --host github-actions)"
//! $ cargo run --package pgentra-connect --example github_actions
//! ```
//!
//! Particular to it: the assertion lives for five minutes and a job may run for hours, so each exchange begins with a fresh
//! one.
#![expect(clippy::print_stdout, reason = "an example talks to the person who runs it")]

mod sign_in;

use std::error::Error;

use pgentra_identity::{Cloud, Credential, Refreshed, SourceName};
use pgentra_system::System;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let system = System::real();
    let credential = Credential::builder(system.clone()).source(SourceName::GitHubActions).build()?;
    sign_in::sign_in(&system, &credential, None).await?;
    let resource = Cloud::Public.postgres_resource();
    let first = credential.token(&resource).await?;
    if let Refreshed::New(_) = credential.refresh(&resource, &first).await? {
        println!("a fresh assertion, and another token");
    }
    sign_in::sign_in(&system, &credential, None).await
}

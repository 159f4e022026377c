//! A pod with workload identity, on AKS or any cluster with an OIDC issuer; also through an AKS identity binding.
//!
//! On Azure, with the cluster's issuer from `az aks show --query oidcIssuerProfile.issuerUrl`:
//!
//! ```console
//! $ az aks update --resource-group myGroup --name myCluster --enable-oidc-issuer --enable-workload-identity
//! $ az identity federated-credential create --resource-group myGroup --identity-name myIdentity --name my-pod \
//!     --issuer ISSUER --subject system:serviceaccount:NAMESPACE:ACCOUNT --audiences api://AzureADTokenExchange
//! postgres=> select * from pgaadauth_create_principal('myIdentity', false, false);
//! ```
//!
//! The service account carries the annotation `azure.workload.identity/client-id`, the pod the label
//! `azure.workload.identity/use: "true"`; the cluster's webhook then sets the variables and mounts the assertion.
//!
//! On a laptop, with `--host aks-binding` for an identity binding:
//!
//! ```console
//! $ eval "$(pgentra local env --host aks)"
//! $ cargo run --package pgentra-connect --example aks
//! ```
//!
//! Particular to it: the kubelet replaces the assertion while the pod runs, so the file is read anew for each exchange; and
//! each exchange gives another token, so that a token which a server rejected can be replaced at once.
#![expect(clippy::print_stdout, reason = "an example talks to the person who runs it")]

mod sign_in;

use std::error::Error;

use pgentra_identity::{Cloud, Credential, Refreshed, SourceName};
use pgentra_system::System;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let system = System::real();
    let credential = Credential::builder(system.clone()).source(SourceName::WorkloadIdentity).build()?;
    let resource = Cloud::Public.postgres_resource();
    let first = credential.token(&resource).await?;
    match credential.refresh(&resource, &first).await? {
        Refreshed::New(_) => println!("the assertion was exchanged again, for another token"),
        Refreshed::Same(_) => println!("the same token came back"),
    }
    sign_in::sign_in(&system, &credential, None).await
}

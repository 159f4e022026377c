//! Where an Azure access token comes from: sources, selection, chain, retry, cache, refresh.
//!
//! [`Credential`] is what programs use: it finds the source that applies on this host, asks it, and keeps the token fresh.
//! Everything it can see of the machine is in a [`System`](pgentra_system::System), so that a test or a local cloud can put it together.
//!
//! # Hosts
//!
//! What is detected, in this order; a variable that is empty counts as unset. The first whose variables are all set is
//! asked. Where none is, the metadata service is probed, then `az` and `azd` are asked.
//!
//! | source | host | variables |
//! |---|---|---|
//! | `client-secret` | anywhere | `AZURE_TENANT_ID`, `AZURE_CLIENT_ID`, `AZURE_CLIENT_SECRET` |
//! | `client-certificate` | anywhere | `AZURE_TENANT_ID`, `AZURE_CLIENT_ID`, `AZURE_CLIENT_CERTIFICATE_PATH` |
//! | `workload-identity` | AKS, any cluster with an OIDC issuer | `AZURE_FEDERATED_TOKEN_FILE`, `AZURE_CLIENT_ID`, `AZURE_TENANT_ID` |
//! | `github-actions` | a job with `id-token: write` | `ACTIONS_ID_TOKEN_REQUEST_URL`, `ACTIONS_ID_TOKEN_REQUEST_TOKEN`, `AZURE_CLIENT_ID`, `AZURE_TENANT_ID` |
//! | `azure-pipelines` | a job with a service connection | `SYSTEM_OIDCREQUESTURI`, `SYSTEM_ACCESSTOKEN`, `AZURESUBSCRIPTION_…` |
//! | `service-fabric` | Service Fabric | `IDENTITY_ENDPOINT`, `IDENTITY_HEADER`, `IDENTITY_SERVER_THUMBPRINT` |
//! | `app-service` | App Service, Functions, Container Apps | `IDENTITY_ENDPOINT`, `IDENTITY_HEADER` |
//! | `app-service-2017` | App Service, older protocol | `MSI_ENDPOINT`, `MSI_SECRET`, `WEBSITE_SITE_NAME` |
//! | `azure-ml` | Azure Machine Learning | `MSI_ENDPOINT`, `MSI_SECRET` |
//! | `cloud-shell` | Azure Cloud Shell | `MSI_ENDPOINT` |
//! | `azure-arc` | a server in Azure Arc | `IDENTITY_ENDPOINT`, `IMDS_ENDPOINT`, or the agent's program |
//! | `imds` | virtual machine, scale set, AKS node, container instance | none |
//! | `azure-cli`, `azure-developer-cli` | a person's machine | none |
//! | `exec` | anywhere | named by the program: [`CredentialBuilder::command`] |
//!
//! `AZURE_CLIENT_ID` alone names the managed identity. `AZURE_TOKEN_CREDENTIALS` narrows the choice (`prod`, `dev`, or one
//! credential of the Azure SDKs). `AZURE_POD_IDENTITY_AUTHORITY_HOST` moves the metadata service, `AZURE_AUTHORITY_HOST`
//! Entra; `HTTPS_PROXY`, `NO_PROXY` and `SSL_CERT_FILE` hold for https to other machines alone.
//! [`Credential::decision`] tells what was
//! chosen and why.
//!
//! # Refresh
//!
//! A token is asked for once, however many callers wait. It is refreshed in the background when the source says so, else
//! at half of a life above two hours, else five minutes before its end. While it is valid it is served, whatever becomes of
//! the refresh: a failure is retried after 30 s, then doubling, and shows in [`Credential::health`].
//!
//! ```no_run
//! use pgentra_identity::{Cloud, Credential};
//! use pgentra_system::System;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let credential = Credential::builder(System::real()).build()?;
//! let token = credential.token(&Cloud::Public.postgres_resource()).await?;
//! println!("a token from {} until {:?}", token.source(), token.expires_on());
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "azure-core")]
pub mod azure_core;

mod answer;
mod audience;
mod cache;
mod chain;
mod claims;
mod cloud;
mod credential;
mod decision;
mod detect;
mod error;
mod expiry;
mod hint;
mod options;
mod resource;
mod retry;
mod selector;
mod shell;
mod source;
mod source_name;
mod sources;
mod token;
mod transient;

pub use self::cache::{Health, Refreshed};
pub use self::claims::{TokenKind, UnverifiedClaims};
pub use self::cloud::{Cloud, UnknownCloud};
pub use self::credential::{Credential, CredentialBuilder};
pub use self::decision::{Considered, Decision, Verdict};
pub use self::error::{ConfigError, TokenError, TokenErrorKind};
pub use self::options::IdentityOptions;
pub use self::resource::{InvalidResource, Resource};
pub use self::selector::Selector;
pub use self::source::{NoToken, TokenRequest, TokenSource};
pub use self::source_name::{Reason, SourceName, UnknownSource};
pub use self::sources::{AssertionSignature, CommandServer};
pub use self::token::AccessToken;

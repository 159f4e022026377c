//! The sources, one file each. They cache no token and reach the machine only through [`System`](pgentra_system::System).

mod app_service;
mod authority;
mod azure_arc;
mod build_service;
mod client_certificate;
mod client_secret;
mod cloud_shell;
mod command;
mod entra;
mod imds;
mod msi_secret;
mod printed;
mod service_fabric;
mod setup;
mod token_proxy;
mod workload_identity;

use std::sync::Arc;

pub(crate) use self::authority::{EntraAuthority, is_tenant};
pub use self::setup::{AssertionSignature, CommandServer};
pub(crate) use self::setup::{CommandLine, SourceSettings};
use crate::{ConfigError, Selector, SourceName, TokenSource};

/// Makes a source, unless it cannot honour the selector.
pub(crate) fn build(name: SourceName, setup: &SourceSettings) -> Result<Arc<dyn TokenSource>, ConfigError> {
    honours(name, &setup.selector)?;
    let setup = setup.clone();
    Ok(match name {
        SourceName::Imds => Arc::new(imds::ImdsSource::new(setup)),
        SourceName::AppService => Arc::new(app_service::AppServiceSource::new(setup)),
        SourceName::CloudShell => Arc::new(cloud_shell::CloudShellSource::new(setup)),
        SourceName::WorkloadIdentity => Arc::new(workload_identity::WorkloadIdentitySource::new(setup)),
        SourceName::AppService2017 | SourceName::AzureMl => {
            Arc::new(msi_secret::MsiSecretSource::new(name, setup))
        }
        SourceName::AzureArc => Arc::new(azure_arc::AzureArcSource::new(setup)),
        SourceName::ServiceFabric => Arc::new(service_fabric::ServiceFabricSource::new(setup)),
        SourceName::GitHubActions | SourceName::AzurePipelines => {
            Arc::new(build_service::BuildServiceSource::new(name, setup))
        }
        SourceName::ClientSecret => Arc::new(client_secret::ClientSecretSource::new(setup)),
        SourceName::ClientCertificate => Arc::new(client_certificate::ClientCertificateSource::new(setup)),
        SourceName::AzureCli | SourceName::AzureDeveloperCli => Arc::new(command::Cli::new(name, setup)),
        SourceName::Exec if setup.command.words.is_empty() => {
            return Err(ConfigError::new("the source exec needs a command that prints a token"));
        }
        SourceName::Exec => Arc::new(command::Cli::new(name, setup)),
        SourceName::External => {
            return Err(ConfigError::new("the source external is one that the program hands in itself"));
        }
    })
}

/// Can this source find an identity by this selector?
pub(crate) fn honours(name: SourceName, selector: &Selector) -> Result<(), ConfigError> {
    if let Some(problem) = selector.problem() {
        return Err(ConfigError::new(problem));
    }
    let can = match selector {
        Selector::Default => true,
        Selector::ClientId(_) => matches!(
            name,
            SourceName::Imds
                | SourceName::AppService
                | SourceName::AppService2017
                | SourceName::AzureMl
                | SourceName::WorkloadIdentity
                | SourceName::GitHubActions
                | SourceName::AzurePipelines
                | SourceName::ClientSecret
                | SourceName::ClientCertificate
        ),
        Selector::ObjectId(_) => matches!(name, SourceName::Imds | SourceName::AppService),
        Selector::ResourceId(_) => {
            matches!(name, SourceName::Imds | SourceName::AppService | SourceName::AzureArc)
        }
    };
    if can {
        return Ok(());
    }
    Err(ConfigError::new(format!("the source {name} cannot be asked for an identity by {selector}"))
        .with_hint(alternative(name)))
}

fn alternative(name: SourceName) -> &'static str {
    match name {
        SourceName::AppService2017
        | SourceName::AzureMl
        | SourceName::WorkloadIdentity
        | SourceName::GitHubActions
        | SourceName::AzurePipelines
        | SourceName::ClientSecret
        | SourceName::ClientCertificate => "Name the identity by its client id.",
        SourceName::ServiceFabric => {
            "The identity is fixed in the cluster's application manifest: name none."
        }
        SourceName::AzureArc => "Name none for the server's own identity, or a resource id.",
        _ => "Its identity is the user who is signed in there: name none.",
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_selector_that_cannot_be_honoured_is_an_error() {
        let id = Uuid::nil();
        let path = Selector::ResourceId("/subscriptions/s/resourceGroups/g/providers/p".to_owned());
        for (name, client, object, resource) in [
            (SourceName::Imds, true, true, true),
            (SourceName::AppService, true, true, true),
            (SourceName::AppService2017, true, false, false),
            (SourceName::AzureArc, false, false, true),
            (SourceName::ServiceFabric, false, false, false),
            (SourceName::CloudShell, false, false, false),
            (SourceName::AzureMl, true, false, false),
            (SourceName::WorkloadIdentity, true, false, false),
            (SourceName::ClientSecret, true, false, false),
            (SourceName::AzureCli, false, false, false),
            (SourceName::Exec, false, false, false),
        ] {
            assert!(honours(name, &Selector::Default).is_ok());
            assert_eq!(honours(name, &Selector::ClientId(id)).is_ok(), client, "{name} by client id");
            assert_eq!(honours(name, &Selector::ObjectId(id)).is_ok(), object, "{name} by object id");
            assert_eq!(honours(name, &path).is_ok(), resource, "{name} by resource id");
        }
        let short = Selector::ResourceId("myIdentity".to_owned());
        let error = honours(SourceName::Imds, &short).unwrap_err();
        assert!(error.to_string().contains("/subscriptions/"), "{error}");
    }
}

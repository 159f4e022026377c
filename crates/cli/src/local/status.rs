//! The status of a local cloud: the document of `pgentra local status -o json`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::cloud::LocalCloud;
use super::environment::{self, CloudFiles};
use crate::text::{Text, bold, faint, text};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Status {
    /// Its name, `default` if none was given.
    pub(crate) name: String,
    /// A new value with each start, which reveals the environment of an earlier run.
    #[serde(default)]
    pub(crate) instance: String,
    /// `flexible` or `single`.
    pub(crate) flavour: String,
    /// The id of the process that runs it.
    pub(crate) pid: u32,
    /// The folder, which is removed at the stop.
    pub(crate) folder: PathBuf,
    /// The address for PostgreSQL clients.
    pub(crate) server: Server,
    /// The URL of the metadata service, as on a VM.
    pub(crate) metadata_url: String,
    /// The URL of the Entra authority.
    pub(crate) authority_host: String,
    /// The URL of Resource Manager and Graph.
    pub(crate) management_url: String,
    /// The id of the Entra tenant.
    pub(crate) tenant_id: String,
    /// The id of the VM's subscription.
    pub(crate) subscription_id: String,
    /// Identities by name, with the database role that is mapped to each.
    pub(crate) identities: Vec<Identity>,
    /// The variables for each kind of host.
    pub(crate) environments: BTreeMap<String, BTreeMap<String, String>>,
}

/// The address for PostgreSQL clients.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Server {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) database: String,
    pub(crate) version: String,
    pub(crate) sslrootcert: PathBuf,
}

/// An identity of the local tenant.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) name: String,
    /// `system-assigned`, `user-assigned`, `application` or `user`.
    pub(crate) kind: String,
    /// Application id; a user has none.
    pub(crate) client_id: Option<String>,
    pub(crate) object_id: String,
    /// Resource Manager id; only a user-assigned identity has one of its own.
    pub(crate) resource_id: Option<String>,
    /// The database role mapped to it.
    pub(crate) role: String,
}

impl Status {
    /// Describes the local cloud called `name`, which runs in this process.
    pub(crate) fn of(name: &str, cloud: &LocalCloud) -> Self {
        let azure = cloud.azure();
        let managed = |kind: &str, identity: &pgentra_emulator::Identity| Identity {
            name: identity.name().to_owned(),
            kind: kind.to_owned(),
            client_id: Some(identity.client_id().to_string()),
            object_id: identity.object_id().to_string(),
            resource_id: (kind == "user-assigned").then(|| identity.resource_id().to_owned()),
            role: identity.name().to_owned(),
        };
        let administrator = azure.administrator();
        let application = azure.application();
        let instance = Uuid::new_v4().to_string();
        let mut environments = environment::all(&cloud.view());
        for variables in environments.values_mut() {
            let folder = cloud.folder().display().to_string();
            for (variable, value) in [
                (environment::NAME, name),
                (environment::FOLDER, &folder),
                (environment::INSTANCE, &instance),
            ] {
                variables.insert(variable.to_owned(), value.to_owned());
            }
        }
        Self {
            name: name.to_owned(),
            instance,
            flavour: cloud.flavour().to_string(),
            pid: std::process::id(),
            folder: cloud.folder().to_path_buf(),
            server: Server {
                host: "localhost".to_owned(),
                port: cloud.port(),
                database: "postgres".to_owned(),
                version: cloud.postgres_version().to_owned(),
                sslrootcert: CloudFiles::new(cloud.folder()).certificate,
            },
            metadata_url: azure.metadata_url().to_owned(),
            authority_host: azure.authority_host().to_owned(),
            management_url: azure.resource_manager().to_owned(),
            tenant_id: azure.tenant().to_string(),
            subscription_id: azure.subscription().to_string(),
            identities: vec![
                managed("system-assigned", azure.vm()),
                managed("user-assigned", azure.user_assigned()),
                Identity {
                    name: application.name().to_owned(),
                    kind: "application".to_owned(),
                    client_id: Some(application.client_id().to_string()),
                    object_id: application.object_id().to_string(),
                    resource_id: None,
                    role: application.name().to_owned(),
                },
                Identity {
                    name: administrator.name().to_owned(),
                    kind: "user".to_owned(),
                    client_id: None,
                    object_id: administrator.object_id().to_string(),
                    resource_id: None,
                    role: administrator.user_principal_name().to_owned(),
                },
            ],
            environments,
        }
    }

    pub(crate) fn text(&self) -> Text {
        let server = &self.server;
        let places = format!(
            "\n  PostgreSQL   {}:{} ({}, {})\n  metadata     {}\n  Entra        {}{}\n  management   {}\n  subscription {}\n  certificate  {}\n",
            server.host,
            server.port,
            server.version,
            self.flavour,
            self.metadata_url,
            self.authority_host,
            self.tenant_id,
            self.management_url,
            self.subscription_id,
            server.sslrootcert.display(),
        );
        let mut text = text![bold(&format!("local cloud `{}`", self.name)), places];
        for identity in &self.identities {
            let client =
                identity.client_id.as_deref().map(|id| format!("  client id {id}")).unwrap_or_default();
            text.push(text![
                format!("  {:<13}", identity.kind.replace("-assigned", " MI")),
                bold(&identity.role),
                " ",
                faint(&format!("object id {}{client}", identity.object_id)),
                "\n",
            ]);
        }
        text
    }
}

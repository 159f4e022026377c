//! Renders identities as text and JSON.

use pgentra_azure::arm::{Administrator, AzureHost, FederatedIdentityCredential, UserAssigned};
use pgentra_azure::graph::Principal;
use pgentra_connect::quote;
use serde::Serialize;

use super::host_ref::HostRef;
use crate::table::{Need, Row, list};
use crate::text::{Text, bold, faint, text};

/// The document of `pgentra identity show -o json` and `assign -o json`.
#[derive(Serialize)]
pub(crate) struct MachineDocument {
    /// What it is, in words.
    kind: String,
    /// As the command line names it.
    #[serde(skip)]
    named: String,
    name: String,
    id: String,
    resource_group: String,
    system_assigned: Option<SystemAssignedDocument>,
    user_assigned: Vec<UserAssignedDocument>,
}

#[derive(Serialize)]
struct SystemAssignedDocument {
    object_id: String,
    /// Read from the tenant: null if the caller may not read it.
    client_id: Option<String>,
    tenant_id: Option<String>,
}

#[derive(Serialize)]
struct UserAssignedDocument {
    name: String,
    id: String,
    object_id: String,
    client_id: String,
}

impl MachineDocument {
    /// A machine, and the principal of its own identity if the tenant returned it.
    pub(crate) fn of(vm: &AzureHost, own: Option<&Principal>) -> Self {
        let client_id = own.and_then(|own| own.client_id).map(|id| id.to_string());
        Self {
            kind: vm.kind.to_string(),
            named: HostRef::Azure(vm.kind, vm.name.clone()).to_string(),
            name: vm.name.clone(),
            id: vm.id.clone(),
            resource_group: vm.resource_group().to_owned(),
            system_assigned: vm.system_assigned.map(|own| SystemAssignedDocument {
                object_id: own.object_id.to_string(),
                client_id,
                tenant_id: own.tenant_id.map(|id| id.to_string()),
            }),
            user_assigned: vm
                .user_assigned
                .iter()
                .map(|one| UserAssignedDocument {
                    name: one.name.clone(),
                    id: one.id.clone(),
                    object_id: one.object_id.to_string(),
                    client_id: one.client_id.to_string(),
                })
                .collect(),
        }
    }

    pub(crate) fn text(&self) -> Text {
        let mut text = text![bold(&format!("{} {}", self.kind, self.name)), "\n  ", faint(&self.id), "\n"];
        let mut line = |what: &str, name: &str, object_id: &str, client_id: Option<&str>| {
            let client_id = client_id.unwrap_or("not told by the tenant");
            text.push(text![
                format!("  {what:<15}  "),
                bold(name),
                format!("\n    object id  {object_id}\n    client id  {client_id}\n"),
            ]);
        };
        if let Some(own) = &self.system_assigned {
            line("system-assigned", &self.name, &own.object_id, own.client_id.as_deref());
        }
        for one in &self.user_assigned {
            line("user-assigned", &one.name, &one.object_id, Some(&one.client_id));
        }
        if self.system_assigned.is_none() && self.user_assigned.is_empty() {
            text.push(format!(
                "  no identity; give it one: pgentra identity assign {}\n",
                quote::shell_word(&self.named)
            ));
        }
        text
    }
}

/// The document of `pgentra identity show identity/NAME -o json`.
#[derive(Serialize)]
pub(crate) struct IdentityDocument {
    name: String,
    id: String,
    object_id: String,
    client_id: String,
    federated_credentials: Vec<CredentialDocument>,
}

#[derive(Serialize)]
struct CredentialDocument {
    name: String,
    issuer: String,
    subject: String,
    audience: String,
}

impl IdentityDocument {
    pub(crate) fn of(identity: &UserAssigned, federated: Vec<FederatedIdentityCredential>) -> Self {
        let credential = |one: FederatedIdentityCredential| {
            let FederatedIdentityCredential { name, issuer, subject, audience } = one;
            CredentialDocument { name, issuer, subject, audience }
        };
        Self {
            name: identity.name.clone(),
            id: identity.id.clone(),
            object_id: identity.object_id.to_string(),
            client_id: identity.client_id.to_string(),
            federated_credentials: federated.into_iter().map(credential).collect(),
        }
    }

    pub(crate) fn text(&self) -> Text {
        let Self { name, id, object_id, client_id, federated_credentials } = self;
        let mut text = text![
            bold(&format!("identity {name}")),
            "\n  ",
            faint(id),
            format!("\n  object id  {object_id}\n  client id  {client_id}\n")
        ];
        for CredentialDocument { name, issuer, subject, .. } in federated_credentials {
            text.push(text!["  federated  ", bold(name)]);
            text.push(format!(
                "\n    issuer   {}\n    subject  {}\n",
                quote::line(issuer),
                quote::line(subject)
            ));
        }
        text
    }
}

/// An entry in the document of `pgentra identity find -o json`.
#[derive(Serialize)]
pub(crate) struct Found {
    name: String,
    /// `managed-identity`, `application`, `user` or `group`.
    kind: String,
    object_id: String,
    client_id: Option<String>,
    resource_id: Option<String>,
}

impl Found {
    pub(crate) fn of(principal: &Principal) -> Self {
        Self {
            name: principal.name.clone(),
            kind: principal.kind.to_string(),
            object_id: principal.object_id.to_string(),
            client_id: principal.client_id.map(|id| id.to_string()),
            resource_id: principal.resource_id.clone(),
        }
    }

    /// With a `width`, a resource is shown by the last segment of its id.
    pub(crate) fn table(found: &[Found], width: Option<usize>) -> Text {
        let columns = [
            ("name", Need::Always),
            ("kind", Need::Always),
            ("object id", Need::Always),
            ("client id", Need::Always),
            ("resource", Need::IfItFits),
        ];
        let resource = |id: &String| match width {
            Some(_) => id.rsplit('/').next().unwrap_or_default().to_owned(),
            None => id.clone(),
        };
        let rows: Vec<Row> = found
            .iter()
            .map(|one| {
                vec![
                    Some(one.name.clone()),
                    Some(one.kind.clone()),
                    Some(one.object_id.clone()),
                    one.client_id.clone(),
                    one.resource_id.as_ref().map(resource),
                ]
            })
            .collect();
        list(&columns, &rows, width)
    }
}

/// An entry in the document of `pgentra identity server-admin list -o json`.
#[derive(Serialize)]
pub(crate) struct Admin {
    name: String,
    /// `User`, `Group`, `ServicePrincipal` or `Unknown`, in Azure's words.
    kind: String,
    object_id: String,
}

impl Admin {
    pub(crate) fn of(administrator: &Administrator) -> Self {
        Self {
            name: administrator.name.clone(),
            kind: administrator.kind.to_string(),
            object_id: administrator.object_id.to_string(),
        }
    }

    pub(crate) fn table(all: &[Admin], width: Option<usize>) -> Text {
        let columns = ["name", "kind", "object id"].map(|name| (name, Need::Always));
        let rows: Vec<Row> = all
            .iter()
            .map(|one| vec![Some(one.name.clone()), Some(one.kind.clone()), Some(one.object_id.clone())])
            .collect();
        list(&columns, &rows, width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A user who may create applications in the tenant chooses their display names.
    #[test]
    fn a_display_name_is_shown_and_not_obeyed() {
        let name = "a\x1b]0;x\x07\u{9b}\u{202e}\nmyVm | managed-identity";
        let found = Found {
            name: name.to_owned(),
            kind: "application".to_owned(),
            object_id: "o".to_owned(),
            client_id: None,
            resource_id: None,
        };
        let table = Found::table(&[found], None).render(true);
        let rows: Vec<_> = table.lines().skip(2).collect();
        assert!(rows[0].starts_with(" a\\x1B]0;x\\x07\\u009B\\u202E"), "{table}");
        assert!(
            rows[0].contains("+| application") && rows[1].starts_with(" myVm | managed-identity "),
            "{table}"
        );
        assert!(!table.chars().any(|char| char != '\n' && quote::is_hidden(char)), "{table:?}");

        let machine = MachineDocument {
            kind: "virtual machine".to_owned(),
            named: name.to_owned(),
            name: name.to_owned(),
            id: name.to_owned(),
            resource_group: "g".to_owned(),
            system_assigned: None,
            user_assigned: Vec::new(),
        };
        let text = machine.text().render(false);
        assert!(!text.contains("\nmyVm") && text.contains("assign $'a\\033"), "{text}");
    }
}

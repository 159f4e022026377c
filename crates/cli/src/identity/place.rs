//! A host, and how it proves the identity that signs in.

use pgentra_azure::arm::{
    AzureHost, AzureHostType, FederatedIdentityCredential, ResourceManager, UserAssigned, Wanted,
};
use pgentra_connect::quote;
use pgentra_identity::Cloud;
use uuid::Uuid;

use super::arguments::FederationArguments;
use super::host_ref::HostRef;
use crate::blame::Blame;
use crate::problem::{Outcome, Problem};

/// The issuer of the tokens of workflows at GitHub.
const GITHUB: &str = "https://token.actions.githubusercontent.com";

/// The first part of the names of federated credentials that pgentra makes.
const MADE: &str = "pgentra";

/// A host, and its identity.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) named: HostRef,
    pub(crate) proof: HostProof,
}

/// How the host proves the identity.
#[derive(Clone, Debug)]
pub(crate) enum HostProof {
    /// Azure gives it the tokens of identities that are assigned to it.
    Assigned { host: AzureHost, wanted: Wanted },
    /// It exchanges tokens of its own issuer.
    Federated {
        identity: UserAssigned,
        wanted: FederatedIdentityCredential,
        /// The credential that is there already.
        present: Option<FederatedIdentityCredential>,
    },
    /// Any host that has the identity.
    Identity(UserAssigned),
}

impl Place {
    /// Looks the host and the identity up.
    pub(crate) async fn find(
        manager: &ResourceManager,
        group: Option<&str>,
        (named, identity): (&HostRef, Option<&str>),
        (federation, cloud): (&FederationArguments, Cloud),
    ) -> Outcome<Self> {
        let is_github = matches!(named, HostRef::GitHub { .. });
        if !is_github && (federation.issuer.is_some() || federation.branch.is_some()) {
            return Err(Problem::new(Blame::Usage, "--issuer and --branch are for a repository at GitHub")
                .hint("leave them out: the issuer of a cluster is read from the cluster"));
        }
        let proof = match named {
            HostRef::Azure(kind, name) => HostProof::Assigned {
                host: manager.host(*kind, group, name).await?,
                wanted: match identity {
                    Some(name) => Wanted::UserAssigned(manager.identity(group, name).await?),
                    None => Wanted::SystemAssigned,
                },
            },
            HostRef::Identity(name) => {
                if identity.is_some() {
                    return Err(Problem::new(Blame::Usage, format!("{named} is an identity itself"))
                        .hint("leave --identity out"));
                }
                HostProof::Identity(manager.identity(group, name).await?)
            }
            HostRef::Aks { cluster, namespace, account } => {
                let issuer = manager.cluster_issuer(group, cluster).await?;
                let subject = format!("system:serviceaccount:{namespace}:{account}");
                let name = [MADE, "aks", cluster, namespace, account];
                federated(manager, (group, identity), (&name, &issuer, &subject), cloud).await?
            }
            HostRef::GitHub { owner, repository, environment } => {
                let issuer = federation.issuer.as_deref().unwrap_or(GITHUB);
                if environment.is_some() && federation.branch.is_some() {
                    return Err(Problem::new(Blame::Usage, "an environment and --branch exclude each other")
                        .hint(
                            "a job in an environment has the environment in its token, whatever its branch",
                        ));
                }
                // GitHub, "OpenID Connect reference": a colon in a name is encoded.
                let (what, value) = match environment {
                    Some(environment) => ("environment", environment.replace(':', "%3A")),
                    None => ("ref", format!("refs/heads/{}", federation.branch.as_deref().unwrap_or("main"))),
                };
                let subject = format!("repo:{owner}/{repository}:{what}:{value}");
                let name = [MADE, "github", owner, repository, value.trim_start_matches("refs/heads/")];
                federated(manager, (group, identity), (&name, issuer, &subject), cloud).await?
            }
        };
        Ok(Self { named: named.clone(), proof })
    }

    /// Whether the host can prove the identity already.
    pub(crate) fn is_assigned(&self) -> bool {
        match &self.proof {
            HostProof::Assigned { host, wanted } => host.has(wanted),
            HostProof::Federated { present, .. } => present.is_some(),
            HostProof::Identity(_) => true,
        }
    }

    /// Gives the host the identity; what it has already is kept.
    pub(crate) async fn assign(mut self, manager: &ResourceManager) -> Outcome<Self> {
        match &mut self.proof {
            HostProof::Assigned { host, wanted } => *host = manager.assign(host, wanted).await?,
            HostProof::Federated { identity, wanted, present } => {
                *present = Some(manager.federate(identity, wanted).await?);
            }
            HostProof::Identity(_) => {}
        }
        Ok(self)
    }

    /// The identity if it is a resource of its own.
    pub(crate) fn user_assigned(&self) -> Option<&UserAssigned> {
        match &self.proof {
            HostProof::Assigned { wanted: Wanted::UserAssigned(identity), .. }
            | HostProof::Federated { identity, .. }
            | HostProof::Identity(identity) => Some(identity),
            HostProof::Assigned { wanted: Wanted::SystemAssigned, .. } => None,
        }
    }

    /// The object id of the identity; `None` for a system-assigned identity that does not exist yet.
    pub(crate) fn object_id(&self) -> Option<Uuid> {
        match &self.proof {
            HostProof::Assigned { host, wanted: Wanted::SystemAssigned } => {
                host.system_assigned.map(|own| own.object_id)
            }
            _ => self.user_assigned().map(|identity| identity.object_id),
        }
    }

    /// The resource that has the identity.
    pub(crate) fn host(&self) -> Option<&AzureHost> {
        match &self.proof {
            HostProof::Assigned { host, .. } => Some(host),
            _ => None,
        }
    }

    /// The credential that is there, if pgentra made it.
    pub(crate) fn made_credential(&self) -> Option<(&UserAssigned, &FederatedIdentityCredential)> {
        match &self.proof {
            HostProof::Federated { identity, present: Some(present), .. }
                if present.name.starts_with(&format!("{MADE}-")) =>
            {
                Some((identity, present))
            }
            _ => None,
        }
    }

    /// What it is, in words, with its name.
    pub(crate) fn described(&self) -> String {
        match (&self.proof, &self.named) {
            (HostProof::Assigned { host, .. }, _) => format!("{} {}", host.kind, quote::line(&host.name)),
            (_, HostRef::Aks { cluster, namespace, account }) => format!(
                "service account {}/{} of the cluster {}",
                quote::line(namespace),
                quote::line(account),
                quote::line(cluster)
            ),
            (_, HostRef::GitHub { owner, repository, environment }) => {
                let place = environment.as_ref().map(|name| format!(" in {}", quote::line(name)));
                format!("repository {owner}/{repository}{} at GitHub", place.unwrap_or_default())
            }
            (HostProof::Identity(identity) | HostProof::Federated { identity, .. }, _) => {
                format!("identity {}", quote::line(&identity.name))
            }
        }
    }

    /// A line of the plan, without its sign.
    pub(crate) fn plan_line(&self) -> String {
        let what = self.described();
        match &self.proof {
            HostProof::Assigned { host, wanted } => {
                let identity = match wanted {
                    Wanted::SystemAssigned => "its own identity (system-assigned)".to_owned(),
                    Wanted::UserAssigned(one) => format!("the identity {}", quote::line(&one.name)),
                };
                let kept = host.user_assigned.len();
                let kept = match self.is_assigned() || kept == 0 {
                    true => String::new(),
                    false => format!("; {kept} others stay"),
                };
                format!("{what}: {identity}{kept}")
            }
            HostProof::Federated { identity, wanted, present } => format!(
                "{what}: federated credential {} of the identity {} for {}",
                quote::line(&present.as_ref().unwrap_or(wanted).name),
                quote::line(&identity.name),
                quote::line(&wanted.subject)
            ),
            HostProof::Identity(_) => what,
        }
    }

    /// The annotation that the service account needs: name and value.
    pub(crate) fn annotation(&self) -> Option<(&'static str, String)> {
        match (&self.named, &self.proof) {
            (HostRef::Aks { .. }, HostProof::Federated { identity, .. }) => {
                Some(("azure.workload.identity/client-id", identity.client_id.to_string()))
            }
            _ => None,
        }
    }

    /// What is left to do on the host's side, a line each.
    pub(crate) fn left_to_do(&self) -> Vec<String> {
        match (&self.named, &self.proof) {
            (HostRef::Aks { namespace, account, .. }, _) => {
                let annotation = self.annotation().map(|(name, value)| format!("{name}={value}"));
                vec![
                    format!(
                        "Annotate the service account: kubectl annotate serviceaccount -n {} {} {}",
                        quote::shell_word(namespace),
                        quote::shell_word(account),
                        annotation.unwrap_or_default()
                    ),
                    "Label its pods: azure.workload.identity/use: \"true\"".to_owned(),
                ]
            }
            (HostRef::GitHub { .. }, HostProof::Federated { identity, .. }) => vec![format!(
                "The job needs the permission id-token: write, AZURE_CLIENT_ID={} and AZURE_TENANT_ID.",
                identity.client_id
            )],
            (_, HostProof::Assigned { host, .. }) if host.is_updated_by_hand => vec![format!(
                "Its instances get the identity with their next update: az vmss update-instances -g {} -n {} --instance-ids '*'",
                quote::shell_word(host.resource_group()),
                quote::shell_word(&host.name)
            )],
            _ => Vec::new(),
        }
    }

    /// Where the command that signs in is run.
    pub(crate) fn where_to_run(&self) -> &'static str {
        match &self.named {
            HostRef::Azure(AzureHostType::VirtualMachine, _) => "On the machine",
            HostRef::Azure(AzureHostType::ScaleSet, _) => "On an instance",
            HostRef::Azure(AzureHostType::ArcServer, _) => "On the server",
            HostRef::Azure(..) => "In the app",
            HostRef::Identity(_) => "With that identity",
            HostRef::Aks { .. } => "In a pod",
            HostRef::GitHub { .. } => "In a job",
        }
    }

    /// The option that selects the identity there; the environment does it for a federated one.
    pub(crate) fn selecting_option(&self) -> String {
        match &self.proof {
            HostProof::Federated { .. } => String::new(),
            _ => {
                self.user_assigned().map(|one| format!(" --client-id {}", one.client_id)).unwrap_or_default()
            }
        }
    }
}

async fn federated(
    manager: &ResourceManager,
    (group, identity): (Option<&str>, Option<&str>),
    (name, issuer, subject): (&[&str], &str, &str),
    cloud: Cloud,
) -> Outcome<HostProof> {
    let identity = identity.ok_or_else(|| {
        Problem::new(
            Blame::Usage,
            "its tokens are exchanged for those of a user-assigned identity, and none is named",
        )
        .hint("name it with --identity; make one with: az identity create -g GROUP -n NAME")
    })?;
    let identity = manager.identity(group, identity).await?;
    let wanted = FederatedIdentityCredential::named(name, issuer, subject, cloud.federation_audience());
    let all = manager.federated(&identity).await?;
    let present = all.into_iter().find(|one| one.is_for_tokens_of(&wanted));
    Ok(HostProof::Federated { identity, wanted, present })
}

//! `pgentra revoke`: takes back what `pgentra grant` gave.

use pgentra_azure::arm::AzureHostType;
use pgentra_connect::quote;
use pgentra_roles::{Plan, RoleDrop};
use pgentra_system::System;
use serde::Serialize;

use super::arguments::{HostAccess, Revoke};
use super::grounds::Grounds;
use crate::blame::Blame;
use crate::confirm::confirmed;
use crate::identity::place::{HostProof, Place};
use crate::options::Format;
use crate::output;
use crate::problem::{Outcome, Problem};
use crate::progress::waiting;
use crate::role::difference;
use crate::text::{Text, bold, text};

/// The document of `-o json`: what was taken back by this run.
#[derive(Serialize)]
struct RevokeDocument {
    /// As the command line names it.
    host: String,
    role: String,
    server: String,
    /// Whether the role was dropped.
    dropped: bool,
    #[serde(flatten)]
    taken: TakenBack,
    #[serde(skip)]
    described: String,
}

/// What the host lost.
#[derive(Serialize)]
struct TakenBack {
    /// Whether the federated credential was removed.
    unfederated: bool,
    /// Whether the identity was taken away from the host.
    unassigned: bool,
}

/// What is to be taken back.
struct Given {
    role: Option<Plan>,
    /// The federated credential is one that `grant` made.
    credential: bool,
    identity: bool,
}

/// Checks the state, shows the plan, asks, and takes back.
pub(crate) async fn run(system: &System, Revoke { access, unassign }: Revoke) -> Outcome {
    let grounds = waiting("looking everything up", Grounds::find(system, &access)).await?;
    let given = waiting("looking everything up", grounds.given(&access, unassign)).await?;
    grounds.show_given(&access, &given);
    let is_nothing = given.role.is_none() && !given.credential && !given.identity;
    if !is_nothing && !access.yes && !confirmed().await? {
        output::say("nothing was changed");
        return Ok(());
    }
    // The role first: without it the identity cannot sign in, whatever fails then.
    if let Some(plan) = &given.role {
        waiting("dropping the role", plan.apply(grounds.database.server())).await?;
    }
    if let Some((identity, credential)) = grounds.place.made_credential().filter(|_| given.credential) {
        waiting("removing the credential", grounds.manager.unfederate(identity, &credential.name)).await?;
    }
    if let HostProof::Assigned { host, wanted } = &grounds.place.proof
        && given.identity
    {
        waiting("taking the identity away", grounds.manager.unassign(host, wanted)).await?;
    }
    let revoked = RevokeDocument {
        host: grounds.place.named.to_string(),
        role: access.role.to_string(),
        server: grounds.database.host(),
        dropped: given.role.is_some(),
        taken: TakenBack { unfederated: given.credential, unassigned: given.identity },
        described: grounds.place.described(),
    };
    match access.output.output {
        Format::Json => output::json(&revoked),
        Format::Text => output::result(revoked.text()),
    }
}

impl Grounds {
    /// What there is to take back; a role of another principal is an error.
    async fn given(&self, access: &HostAccess, unassign: bool) -> Outcome<Given> {
        let place = &self.place;
        let ids = self.ids(place).await?;
        let role = match self.database.exists(&access.role, ids).await? {
            false => None,
            true => {
                let drop = RoleDrop { name: access.role.to_string(), reassign_to: None, revoke: true };
                Some(drop.plan(self.database.server()).await?)
            }
        };
        let identity = unassign && place.is_assigned();
        if identity {
            self.check_unused(access, place).await?;
        }
        let credential = place.made_credential().is_some();
        Ok(Given { role, credential, identity })
    }

    /// Refuses to take away an identity that others use, and one that is not assigned to a host.
    async fn check_unused(&self, access: &HostAccess, place: &Place) -> Outcome {
        let Some(host) = place.host().filter(|host| host.kind != AzureHostType::ArcServer) else {
            let message = format!("the {} has no identity that can be taken away", place.described());
            return Err(Problem::new(Blame::Usage, message).hint("leave --unassign out"));
        };
        let Some(object_id) = place.object_id() else { return Ok(()) };
        let mut users: Vec<String> = self
            .database
            .others_of(object_id, access.role.as_str())
            .map(|name| format!("the role {} of this server", quote::name(name)))
            .collect();
        let assignments = self.manager.role_assignments(object_id).await?;
        users.extend(assignments.iter().map(|scope| format!("a role assignment at {}", quote::line(scope))));
        if users.is_empty() {
            return Ok(());
        }
        let message = format!(
            "the identity of the {} {} stays: it has {}",
            host.kind,
            quote::line(&host.name),
            users.join(", ")
        );
        Err(Problem::new(Blame::Usage, message).hint(
            "leave --unassign out: the role is then dropped, and the identity stays; nothing was changed",
        ))
    }

    fn show_given(&self, access: &HostAccess, given: &Given) {
        let place = &self.place;
        let server = format!(" on {}", self.server_line());
        match &given.role {
            Some(plan) => {
                output::say(text!["- role ", bold(access.role.as_str()), server]);
                output::ask(difference(plan));
            }
            None => output::say(text!["= no role ", bold(access.role.as_str()), server]),
        }
        match &place.proof {
            HostProof::Federated { present: None, .. } => {
                output::say(&format!("= {}: no federated credential", place.described()));
            }
            HostProof::Federated { .. } if given.credential => {
                output::say(&format!("- {}", place.plan_line()));
            }
            HostProof::Federated { .. } => {
                output::say(&format!("= {}; pgentra did not make it, so it stays", place.plan_line()));
            }
            _ if given.identity => output::say(&format!("- {}", place.plan_line())),
            HostProof::Assigned { .. } if place.is_assigned() => {
                output::say(&format!("= {}; it stays, unless --unassign is given", place.plan_line()));
            }
            HostProof::Assigned { .. } => {
                output::say(&format!("= {}: not assigned", place.described()));
            }
            HostProof::Identity(_) => output::say(&format!("= {}; it stays", place.plan_line())),
        }
    }
}

impl RevokeDocument {
    fn text(&self) -> Text {
        let Self { described, server, role, .. } = self;
        text![format!("The {described} may not sign in to {server} as "), bold(role), ".\n"]
    }
}

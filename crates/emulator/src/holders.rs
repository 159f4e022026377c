//! The resources beside the virtual machine that have identities: apps, a scale set, a server outside of Azure.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use crate::directory::{Identity, IdentityKind, RESOURCE_GROUP};

/// A type of resource that has identities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HolderType {
    /// A web app or a function app.
    Site,
    ContainerApp,
    ScaleSet,
    /// A server that Azure Arc connects; its agent makes the identity.
    ArcServer,
}

impl HolderType {
    pub(crate) const ALL: [Self; 4] = [Self::Site, Self::ContainerApp, Self::ScaleSet, Self::ArcServer];

    /// Its provider and type, as in a path.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Site => "Microsoft.Web/sites",
            Self::ContainerApp => "Microsoft.App/containerApps",
            Self::ScaleSet => "Microsoft.Compute/virtualMachineScaleSets",
            Self::ArcServer => "Microsoft.HybridCompute/machines",
        }
    }
}

/// One resource that has identities.
#[derive(Clone, Debug)]
pub(crate) struct HolderResource {
    pub(crate) kind: HolderType,
    pub(crate) name: &'static str,
    /// What Azure calls the `kind` of an app.
    pub(crate) app: Option<&'static str>,
    pub(crate) identities: Vec<Identity>,
}

/// All of them. Each is in the resource group of the virtual machine.
#[derive(Debug)]
pub(crate) struct Holders(Mutex<Vec<HolderResource>>);

impl Holders {
    /// Those of a new subscription: none has an identity but the server, which cannot be connected without one.
    pub(crate) fn new(subscription: Uuid) -> Self {
        let holder = |kind, name, app| HolderResource { kind, name, app, identities: Vec::new() };
        let mut server = holder(HolderType::ArcServer, "branchServer", None);
        server.identities.push(own(&server, subscription));
        Self(Mutex::new(vec![
            holder(HolderType::Site, "myWebApp", Some("app,linux")),
            holder(HolderType::Site, "myFunctionApp", Some("functionapp,linux")),
            holder(HolderType::ContainerApp, "myContainerApp", None),
            holder(HolderType::ScaleSet, "myScaleSet", None),
            server,
        ]))
    }

    pub(crate) fn of(&self, kind: HolderType) -> Vec<HolderResource> {
        self.all().iter().filter(|holder| holder.kind == kind).cloned().collect()
    }

    pub(crate) fn find(&self, kind: HolderType, name: &str) -> Option<HolderResource> {
        self.all()
            .iter()
            .find(|holder| holder.kind == kind && holder.name.eq_ignore_ascii_case(name))
            .cloned()
    }

    /// Gives a resource these identities and no others.
    pub(crate) fn set(&self, kind: HolderType, name: &str, identities: Vec<Identity>) {
        if let Some(holder) = self.all().iter_mut().find(|holder| holder.kind == kind && holder.name == name)
        {
            holder.identities = identities;
        }
    }

    /// Takes a user-assigned identity away from every resource.
    pub(crate) fn unassign(&self, identity: &Identity) {
        for holder in self.all().iter_mut() {
            holder.identities.retain(|other| other != identity);
        }
    }

    /// The identities of each resource, by its name.
    pub(crate) fn saved(&self) -> BTreeMap<String, Vec<Identity>> {
        self.all().iter().map(|holder| (holder.name.to_owned(), holder.identities.clone())).collect()
    }

    pub(crate) fn restore(&self, mut saved: BTreeMap<String, Vec<Identity>>) {
        for holder in self.all().iter_mut() {
            holder.identities = saved.remove(holder.name).unwrap_or_default();
        }
    }

    /// The system-assigned identities.
    pub(crate) fn system_assigned(&self) -> Vec<Identity> {
        let holders = self.all();
        let identities = holders.iter().flat_map(|holder| &holder.identities);
        identities.filter(|identity| identity.kind == IdentityKind::SystemAssigned).cloned().collect()
    }

    fn all(&self) -> MutexGuard<'_, Vec<HolderResource>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A new identity of a resource's own.
pub(crate) fn own(holder: &HolderResource, subscription: Uuid) -> Identity {
    let (kind, name) = (holder.kind.path(), holder.name);
    Identity {
        kind: IdentityKind::SystemAssigned,
        name: name.to_owned(),
        client_id: Uuid::new_v4(),
        object_id: Uuid::new_v4(),
        resource_id: format!(
            "/subscriptions/{subscription}/resourcegroups/{RESOURCE_GROUP}/providers/{kind}/{name}"
        ),
    }
}

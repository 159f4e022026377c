//! What a file of roles asks for.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::ObjectType;
use super::membership::MembershipOptions;
use super::name::RoleName;
use super::places::DocumentPlaces;
use super::privilege::{Class, Privileges};

/// Which roles are to be there, and what they may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RolesFile {
    pub(crate) roles: Vec<Desired>,
    /// What the lines of the roles stand for.
    pub(crate) places: DocumentPlaces,
}

/// One role of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent keys of a file")]
pub struct Desired {
    pub(crate) name: RoleName,
    /// Whether it signs in: then it is mapped to a principal. A group role does not.
    pub(crate) can_login: bool,
    pub(crate) kind: ObjectType,
    pub(crate) identity: PrincipalRef,
    pub(crate) is_admin: bool,
    pub(crate) is_mfa: bool,
    pub(crate) member_of: BTreeMap<String, MembershipOptions>,
    pub(crate) owns: Vec<DesiredOwnership>,
    pub(crate) grants: Vec<DesiredGrant>,
    pub(crate) defaults: Vec<DesiredDefault>,
    pub(crate) line: usize,
}

/// Whose a role is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PrincipalRef {
    /// The principal with this object id.
    ObjectId(Uuid),
    /// The service principal with this client (application) id.
    ClientId(Uuid),
    /// The principal that has the role's name in the tenant. The server looks it up.
    Name,
}

/// What a role is to own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DesiredOwnership {
    pub(crate) database: String,
    pub(crate) on: OwnTarget,
    pub(crate) line: usize,
}

/// What is owned.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum OwnTarget {
    Database,
    /// The schema itself, without what is in it.
    Schema(String),
    /// Every object of a schema, except those of an extension.
    Objects(String),
}

/// Privileges that a role is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DesiredGrant {
    pub(crate) database: String,
    pub(crate) on: GrantTarget,
    pub(crate) privileges: Privileges,
    pub(crate) line: usize,
}

/// The object, or the class of objects, that privileges are granted on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GrantTarget {
    Database,
    Schema(String),
    Objects { class: Class, schema: String, names: ObjectNames },
}

/// Which objects of a schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ObjectNames {
    All,
    Some(BTreeSet<String>),
}

/// Default privileges: those that a role gets on objects that are created later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DesiredDefault {
    pub(crate) database: String,
    /// The owner of the objects; `None` is the user who applies the file.
    pub(crate) owner: Option<String>,
    pub(crate) schema: Option<String>,
    pub(crate) class: Class,
    pub(crate) privileges: Privileges,
    pub(crate) line: usize,
}

impl RolesFile {
    /// Its roles, in the order of the file.
    pub fn roles(&self) -> &[Desired] {
        &self.roles
    }

    /// The databases that it names.
    pub(crate) fn databases(&self) -> BTreeSet<&str> {
        self.roles.iter().flat_map(Desired::databases).map(|(database, _)| database).collect()
    }
}

impl Desired {
    /// The name that the role is to have.
    pub fn name(&self) -> &RoleName {
        &self.name
    }

    /// The kind of the Entra principal.
    pub fn kind(&self) -> ObjectType {
        self.kind
    }

    /// Whether it is a group role: it cannot sign in, and no principal is mapped to it.
    pub fn is_group_role(&self) -> bool {
        !self.can_login
    }

    /// The databases that it names, with the lines.
    pub(crate) fn databases(&self) -> impl Iterator<Item = (&str, usize)> {
        let owns = self.owns.iter().map(|want| (&*want.database, want.line));
        let grants = self.grants.iter().map(|want| (&*want.database, want.line));
        let defaults = self.defaults.iter().map(|want| (&*want.database, want.line));
        owns.chain(grants).chain(defaults)
    }

    /// Whose it is to be.
    pub fn identity(&self) -> PrincipalRef {
        self.identity
    }
}

impl GrantTarget {
    pub(crate) fn class(&self) -> Class {
        match self {
            Self::Database => Class::Database,
            Self::Schema(_) => Class::Schema,
            Self::Objects { class, .. } => *class,
        }
    }
}

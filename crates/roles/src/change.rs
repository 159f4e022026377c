//! One step from what is to what should be.

use std::collections::BTreeSet;
use std::fmt;

use pgentra_connect::quote;

use super::ObjectType;
use super::desired::PrincipalRef;
use super::membership::{self, MembershipOptions};
use super::name::shown;
use super::object::{ObjectKind, OwnedObject, TypeName};
use super::privilege::Class;

/// One step from what is to what should be. Its `Display` is one line that a person reads.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// A role is made and mapped.
    Create(Principal),
    /// A group role is made.
    #[non_exhaustive]
    CreateGroup {
        /// Its name, without quotes.
        role: String,
    },
    /// A role that is to be a group role cannot sign in any more.
    #[non_exhaustive]
    ForbidLogin {
        /// Its name, without quotes.
        role: String,
    },
    /// A role gets another name, and keeps all it has.
    #[non_exhaustive]
    Rename {
        /// The name on the server before the change.
        from: String,
        /// The name that the file asks for.
        to: String,
    },
    /// A role that is there is mapped, or mapped to something else.
    #[non_exhaustive]
    Bind {
        /// The principal that it will be mapped to.
        to: Principal,
        /// What is different now, in words.
        because: String,
        /// Whether it is a member of the role that marks mapped roles on Single Server.
        is_marked: bool,
        /// The present comment on the role, if there is one.
        comment: Option<String>,
    },
    /// A role becomes a member of another.
    #[non_exhaustive]
    Join {
        /// The role that becomes a member.
        role: String,
        /// The role it is a member of.
        group: String,
        /// What it may do with it.
        options: JoinOptions,
    },
    /// A membership gets other options.
    #[non_exhaustive]
    AlterMembership {
        /// The member.
        role: String,
        /// The role it is a member of.
        group: String,
        /// What it may do with it, before and after.
        options: OptionsChange,
    },
    /// A role is no longer a member of another.
    #[non_exhaustive]
    Leave {
        /// The role that is no longer a member.
        role: String,
        /// The role it is a member of.
        group: String,
    },
    /// Objects get another owner.
    Own(Ownership),
    /// Privileges on existing objects are granted.
    Grant(Privilege),
    /// Privileges on existing objects that the file does not list are revoked.
    Revoke(Privilege),
    /// Privileges on what will be made are granted.
    GrantDefault(Defaults),
    /// Privileges on what will be made are revoked.
    RevokeDefault(Defaults),
    /// What keeps a role from being dropped is taken out of the way in one database.
    #[non_exhaustive]
    Clear {
        /// The role that will be dropped.
        role: String,
        /// The database of the objects and privileges.
        database: String,
        /// Who gets what the role owns; `None`: it owns nothing.
        heir: Option<String>,
        /// The roles that the session's user joins for the length of the transaction, which the statements require.
        joins: Vec<String>,
    },
    /// A role is dropped, after its [`Change::Clear`] in every database.
    #[non_exhaustive]
    Drop {
        /// Its name, without quotes.
        role: String,
    },
}

/// A role and the Entra principal that it will be mapped to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    pub(crate) role: String,
    pub(crate) kind: ObjectType,
    pub(crate) identity: PrincipalRef,
    pub(crate) is_admin: bool,
    pub(crate) is_mfa: bool,
}

/// What a new member may do with a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JoinOptions {
    pub(crate) options: MembershipOptions,
    /// Whether the member has the attribute NOINHERIT, from which PostgreSQL takes the option INHERIT.
    pub(crate) is_noinherit: bool,
}

/// What a member may do with a role, before a change and after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionsChange {
    pub(crate) from: MembershipOptions,
    pub(crate) to: MembershipOptions,
}

/// Objects of one kind that get another owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ownership {
    /// The new owner.
    pub(crate) role: String,
    pub(crate) database: String,
    /// The owner at present.
    pub(crate) from: String,
    pub(crate) kind: ObjectKind,
    pub(crate) objects: Vec<OwnedObject>,
    pub(crate) line: usize,
}

/// Privileges of a role on objects of one schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Privilege {
    pub(crate) role: String,
    pub(crate) database: String,
    pub(crate) class: Class,
    pub(crate) schema: Option<String>,
    pub(crate) objects: Vec<ObjectName>,
    pub(crate) privileges: Vec<String>,
    /// The owners of the objects, as whom the privileges are granted and revoked.
    pub(crate) owners: BTreeSet<String>,
}

/// An object within its schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ObjectName {
    pub(crate) name: String,
    /// The arguments of a function for a person to read.
    pub(crate) arguments: Option<String>,
    /// The types of the arguments.
    pub(crate) types: Vec<TypeName>,
    pub(crate) is_procedure: bool,
}

/// Privileges of a role on what an owner will make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defaults {
    pub(crate) role: String,
    pub(crate) database: String,
    pub(crate) owner: String,
    pub(crate) schema: Option<String>,
    pub(crate) class: Class,
    pub(crate) privileges: Vec<String>,
}

/// The effect of a change, for the printed plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sign {
    /// `+`: an object or a privilege is added.
    Add,
    /// `~`: a role is changed.
    Alter,
    /// `-`: an object or a privilege is removed.
    Remove,
}

impl Sign {
    /// The sign of the printed plan: `+`, `~` or `-`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Alter => "~",
            Self::Remove => "-",
        }
    }
}

impl Change {
    /// What it does to the whole.
    pub fn sign(&self) -> Sign {
        match self {
            Self::Create(_)
            | Self::CreateGroup { .. }
            | Self::Join { .. }
            | Self::Grant(_)
            | Self::GrantDefault(_) => Sign::Add,
            Self::Rename { .. }
            | Self::Bind { .. }
            | Self::ForbidLogin { .. }
            | Self::AlterMembership { .. }
            | Self::Own(_) => Sign::Alter,
            Self::Leave { .. }
            | Self::Revoke(_)
            | Self::RevokeDefault(_)
            | Self::Clear { .. }
            | Self::Drop { .. } => Sign::Remove,
        }
    }

    /// The role it is about, by the name it will have.
    pub fn role(&self) -> &str {
        match self {
            Self::Create(principal) | Self::Bind { to: principal, .. } => &principal.role,
            Self::Rename { to, .. } => to,
            Self::Grant(privilege) | Self::Revoke(privilege) => &privilege.role,
            Self::GrantDefault(defaults) | Self::RevokeDefault(defaults) => &defaults.role,
            Self::Own(ownership) => &ownership.role,
            Self::CreateGroup { role }
            | Self::ForbidLogin { role }
            | Self::Join { role, .. }
            | Self::AlterMembership { role, .. }
            | Self::Leave { role, .. }
            | Self::Clear { role, .. }
            | Self::Drop { role, .. } => role,
        }
    }

    /// The database it happens in; `None` for roles themselves, which belong to the whole server.
    pub fn database(&self) -> Option<&str> {
        match self {
            Self::Grant(privilege) | Self::Revoke(privilege) => Some(&privilege.database),
            Self::GrantDefault(defaults) | Self::RevokeDefault(defaults) => Some(&defaults.database),
            Self::Own(ownership) => Some(&ownership.database),
            Self::Clear { database, .. } => Some(database),
            _ => None,
        }
    }

    /// The roles that it makes, alters or drops, or whose privileges, defaults or memberships it changes.
    pub(crate) fn altered(&self) -> Vec<&str> {
        match self {
            Self::Rename { from, to } => vec![from, to],
            Self::GrantDefault(defaults) | Self::RevokeDefault(defaults) => {
                vec![&defaults.role, &defaults.owner]
            }
            change => vec![change.role()],
        }
    }

    /// The roles that it makes, alters or drops, and those that lose an object by it. A role whose new objects others may use
    /// ([`Change::GrantDefault`]) is not among them.
    pub fn touched(&self) -> Vec<&str> {
        match self {
            Self::Rename { from, to } => vec![from, to],
            Self::Own(ownership) => vec![&ownership.role, &ownership.from],
            change => vec![change.role()],
        }
    }

    /// A word for what it does, which stays.
    pub fn action(&self) -> &'static str {
        match self {
            Self::Create(_) | Self::CreateGroup { .. } => "create",
            Self::ForbidLogin { .. } => "forbid-login",
            Self::AlterMembership { .. } => "alter-membership",
            Self::Own(_) => "own",
            Self::Rename { .. } => "rename",
            Self::Bind { .. } => "bind",
            Self::Join { .. } => "join",
            Self::Leave { .. } => "leave",
            Self::Grant(_) => "grant",
            Self::Revoke(_) => "revoke",
            Self::GrantDefault(_) => "grant-default",
            Self::RevokeDefault(_) => "revoke-default",
            Self::Clear { .. } => "clear",
            Self::Drop { .. } => "drop",
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.sign().as_str())?;
        match self {
            Self::Create(principal) => write!(f, "role {}: {principal}", shown(&principal.role)),
            Self::Rename { from, to } => write!(f, "role {} is renamed to {}", shown(from), shown(to)),
            Self::Bind { to, because, .. } => write!(f, "role {}: {because}", shown(&to.role)),
            Self::CreateGroup { role } => write!(f, "role {}: without login", shown(role)),
            Self::ForbidLogin { role } => write!(f, "role {}: login yes → no", shown(role)),
            Self::Join { role, group, options } => {
                write!(f, "role {} is a member of {}{}", shown(role), shown(group), options.options)
            }
            Self::AlterMembership { role, group, options } => write!(
                f,
                "role {} is a member of {}: {}",
                shown(role),
                shown(group),
                membership::differences(options.from, options.to)
            ),
            Self::Own(ownership) => ownership.fmt(f),
            Self::Leave { role, group } => write!(f, "role {} is a member of {}", shown(role), shown(group)),
            Self::Grant(privilege) | Self::Revoke(privilege) => privilege.fmt(f),
            Self::GrantDefault(defaults) | Self::RevokeDefault(defaults) => defaults.fmt(f),
            Self::Clear { role, database, heir: None, .. } => {
                write!(f, "every privilege of {} in database {}", shown(role), shown(database))
            }
            Self::Clear { role, database, heir: Some(heir), .. } => write!(
                f,
                "every privilege of {} in database {}; what it owns goes to {}",
                shown(role),
                shown(database),
                shown(heir)
            ),
            Self::Drop { role } => write!(f, "role {}", shown(role)),
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        match self.identity {
            PrincipalRef::ObjectId(id) => write!(f, ", object id {id}")?,
            PrincipalRef::ClientId(id) => write!(f, ", client id {id}")?,
            PrincipalRef::Name => write!(f, ", looked up by its name")?,
        }
        for (is, word) in [(self.is_admin, ", administrator"), (self.is_mfa, ", with a second factor")] {
            if is {
                f.write_str(word)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Ownership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let objects: Vec<String> = self.objects.iter().map(ToString::to_string).collect();
        let kind = match self.objects.len() {
            1 => self.kind.words().to_owned(),
            _ => self.kind.plural(),
        };
        write!(f, "owner of {kind} {}", objects.join(", "))?;
        if self.kind != ObjectKind::Database {
            write!(f, " in database {}", shown(&self.database))?;
        }
        write!(f, ": {} → {}", shown(&self.from), shown(&self.role))
    }
}

impl Ownership {
    /// What has to be done, for a message that says why it cannot be.
    pub(crate) fn summary(&self) -> String {
        let first = self.objects.first().map(ToString::to_string).unwrap_or_default();
        let what = match self.objects.len() {
            1 => format!("{} {first} is", self.kind.words()),
            count => format!("{count} {} such as {first} are", self.kind.plural()),
        };
        format!("{what} owned by {} and not by {}", quote::name(&self.from), quote::name(&self.role))
    }
}

impl fmt::Display for Privilege {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {} on ", self.privileges.join(", "), shown(&self.role))?;
        let plural = self.objects.len() > 1;
        match (self.class, plural) {
            (Class::Database, _) => return write!(f, "database {}", shown(&self.database)),
            (class, false) => write!(f, "{class} ")?,
            (class, true) => write!(f, "{} ", class.plural())?,
        }
        let objects: Vec<String> =
            self.objects.iter().map(|object| object.shown(self.schema.as_deref())).collect();
        write!(f, "{} in database {}", objects.join(", "), shown(&self.database))
    }
}

impl fmt::Display for Defaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { role, database, owner, class, privileges, .. } = self;
        write!(
            f,
            "{} for {} on new {} of {}",
            privileges.join(", "),
            shown(role),
            class.plural(),
            shown(owner)
        )?;
        if let Some(schema) = &self.schema {
            write!(f, " in schema {}", shown(schema))?;
        }
        write!(f, " in database {}", shown(database))
    }
}

impl ObjectName {
    fn shown(&self, schema: Option<&str>) -> String {
        let mut text = schema.map(|schema| format!("{}.", shown(schema))).unwrap_or_default();
        text.push_str(&shown(&self.name));
        if let Some(arguments) = &self.arguments {
            text.push_str(&format!("({})", quote::line(arguments)));
        }
        text
    }
}

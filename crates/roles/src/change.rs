//! One step from what is to what should be.

use std::fmt;

use pgentra_connect::quote;

use super::ObjectType;
use super::file::PrincipalRef;
use super::privilege::Class;

/// One step from what is to what should be. Its `Display` is one line that a person reads.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// A role is made and mapped.
    Create(Principal),
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
    },
    /// A role is no longer a member of another.
    #[non_exhaustive]
    Leave {
        /// The role that is no longer a member.
        role: String,
        /// The role it is a member of.
        group: String,
    },
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

/// Privileges of a role on objects of one schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Privilege {
    pub(crate) role: String,
    pub(crate) database: String,
    pub(crate) class: Class,
    pub(crate) schema: Option<String>,
    pub(crate) objects: Vec<ObjectName>,
    pub(crate) privileges: Vec<String>,
}

/// An object within its schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ObjectName {
    pub(crate) name: String,
    pub(crate) arguments: Option<String>,
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
            Self::Create(_) | Self::Join { .. } | Self::Grant(_) | Self::GrantDefault(_) => Sign::Add,
            Self::Rename { .. } | Self::Bind { .. } => Sign::Alter,
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
            Self::Join { role, .. }
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
            Self::Clear { database, .. } => Some(database),
            _ => None,
        }
    }

    /// A word for what it does, which stays.
    pub fn action(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
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
            Self::Join { role, group } => write!(f, "role {} is a member of {}", shown(role), shown(group)),
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

/// A name as SQL would need it, without quotes where there is no doubt.
pub(crate) fn shown(name: &str) -> String {
    let plain = name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
        && name.chars().all(|char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_');
    if plain { name.to_owned() } else { quote::name(name) }
}

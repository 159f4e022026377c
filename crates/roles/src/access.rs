//! What the session's user may do with other roles, and how it becomes a member of one for the length of a transaction.

use std::collections::{BTreeMap, BTreeSet};

use pgentra_connect::quote;

use super::error::RolesError;
use super::membership::OPTIONS_SINCE;
use super::name::{self, quoted};
use super::read::Roles;
use super::server::DatabaseSession;

/// The role that stands for the owner of the current database.
pub(crate) const DATABASE_OWNER: &str = "pg_database_owner";

/// The memberships and the attributes of the session's user.
#[derive(Debug)]
pub(crate) struct Access {
    pub(crate) user: String,
    version: i32,
    is_superuser: bool,
    inherits: bool,
    creates_roles: bool,
    pub(crate) creates_databases: bool,
    roles: BTreeMap<String, OtherRole>,
    /// Its own memberships, by role and grantor: whether each is one with INHERIT, and with SET.
    memberships: BTreeMap<(String, String), (bool, bool)>,
}

/// A role, as the session's user sees it.
#[derive(Debug)]
struct OtherRole {
    has_privileges: bool,
    can_become: bool,
    /// It belongs to the server, or has the rights of a superuser.
    is_kept: bool,
    /// It is a member of the session's user, which can therefore not be a member of it.
    is_member: bool,
    /// The role as which the session's user may make members: itself, or a role that it has the privileges of.
    admin: Option<String>,
}

/// A membership of the session's user for the length of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Membership {
    pub(crate) role: String,
    /// Whether INHERIT and SET are options of a membership on this server.
    pub(crate) has_options: bool,
    /// A membership of the same grantor that is there already: the grantor, INHERIT, SET. It is the same again at the end.
    pub(crate) before: Option<(String, bool, bool)>,
}

impl Membership {
    pub(crate) fn begin(&self) -> String {
        let role = quoted(&self.role);
        match (&self.before, self.has_options) {
            (Some((grantor, ..)), _) => format!(
                "GRANT {role} TO CURRENT_USER WITH INHERIT TRUE, SET TRUE GRANTED BY {}",
                quoted(grantor)
            ),
            (None, true) => format!("GRANT {role} TO CURRENT_USER WITH INHERIT TRUE, SET TRUE"),
            (None, false) => format!("GRANT {role} TO CURRENT_USER"),
        }
    }

    pub(crate) fn end(&self) -> String {
        let role = quoted(&self.role);
        let word = |is: bool| if is { "TRUE" } else { "FALSE" };
        match &self.before {
            Some((grantor, inherit, set)) => format!(
                "GRANT {role} TO CURRENT_USER WITH INHERIT {}, SET {} GRANTED BY {}",
                word(*inherit),
                word(*set),
                quoted(grantor)
            ),
            None => format!("REVOKE {role} FROM CURRENT_USER"),
        }
    }
}

impl Access {
    /// Reads them in any database of the server.
    pub(crate) async fn read(open: &DatabaseSession, roles: &Roles) -> Result<Self, RolesError> {
        let has_options = roles.version >= OPTIONS_SINCE;
        let become_privilege = if has_options { "SET" } else { "MEMBER" };
        let mut access = Self {
            user: roles.session_user.clone(),
            version: roles.version,
            is_superuser: false,
            inherits: true,
            creates_roles: false,
            creates_databases: false,
            roles: BTreeMap::new(),
            memberships: BTreeMap::new(),
        };
        for row in open.query(USER, &[]).await? {
            access.is_superuser = row.get(0);
            access.inherits = row.get(1);
            access.creates_roles = row.get(2);
            access.creates_databases = row.get(3);
        }
        for row in open.query(ROLES, &[&become_privilege]).await? {
            let name: String = row.get(0);
            let is_powerful = roles.all.get(&name).is_none_or(|role| role.is_powerful);
            let role = OtherRole {
                has_privileges: row.get(1),
                can_become: row.get(2),
                is_member: row.get(3),
                admin: row.get(4),
                is_kept: is_powerful || name::is_reserved(&name),
            };
            access.roles.insert(name, role);
        }
        for row in open.query(MEMBERSHIPS, &[]).await? {
            access.memberships.insert((row.get(0), row.get(1)), (row.get(2), row.get(3)));
        }
        Ok(access)
    }

    /// The membership that the user needs to act as the owner of a role's objects; with `becomes`, also to make the role
    /// their owner. `None`: it needs none. A role that is not there yet will be made by the user, who may administer it.
    ///
    /// # Errors
    /// Why it cannot be had, in words that follow the name of the role.
    pub(crate) fn membership(&self, role: &str, becomes: bool) -> Result<Option<Membership>, String> {
        let has_options = self.version >= OPTIONS_SINCE;
        let new = || Membership { role: role.to_owned(), has_options, before: None };
        if self.is_superuser || role == self.user {
            return Ok(None);
        }
        let Some(other) = self.roles.get(role) else { return Ok(Some(new())) };
        if other.has_privileges && (other.can_become || !becomes) {
            return Ok(None);
        }
        let user = quote::name(&self.user);
        if other.is_kept {
            return Err("is the server's own or has the rights of a superuser".to_owned());
        }
        if other.is_member {
            return Err(format!("is a member of {user}, which therefore cannot be a member of it"));
        }
        if !has_options {
            return match (self.inherits, self.creates_roles || other.admin.is_some()) {
                (false, _) => Err(format!("can be joined by {user}, but {user} has the attribute NOINHERIT")),
                (true, false) => Err(format!("takes members from roles with CREATEROLE; {user} has not")),
                (true, true) => Ok(Some(new())),
            };
        }
        let Some(admin) = &other.admin else {
            return Err(format!("takes members from roles with ADMIN OPTION on it; {user} has not"));
        };
        let before = self.memberships.get(&(role.to_owned(), admin.clone()));
        Ok(Some(Membership { before: before.map(|(inherit, set)| (admin.clone(), *inherit, *set)), ..new() }))
    }

    /// Whether the user may do what a superuser may.
    pub(crate) fn is_superuser(&self) -> bool {
        self.is_superuser
    }
}

/// Unique memberships in the order of their roles.
pub(crate) type Memberships = BTreeSet<Membership>;

const USER: &str = "SELECT rolsuper, rolinherit, rolcreaterole, rolcreatedb
FROM pg_catalog.pg_roles WHERE rolname = session_user";

/// $1: the privilege with which a role can be made an owner. A role's own privilege to administer comes first, as the
/// server takes it first.
const ROLES: &str = "
SELECT r.rolname::text, pg_has_role(r.oid, 'USAGE'), pg_has_role(r.oid, $1),
       pg_has_role(r.oid, u.oid, 'MEMBER'),
       (SELECT a.rolname::text FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles a ON a.oid = m.member
        WHERE m.roleid = r.oid AND m.admin_option AND pg_has_role(a.oid, 'USAGE')
        ORDER BY a.oid <> u.oid, a.oid LIMIT 1)
FROM pg_catalog.pg_roles r, pg_catalog.pg_roles u WHERE u.rolname = session_user";

/// The columns are read through jsonb, because older versions do not have them.
const MEMBERSHIPS: &str = "
SELECT r.rolname::text, g.rolname::text,
       coalesce((to_jsonb(m)->>'inherit_option')::boolean, true), coalesce((to_jsonb(m)->>'set_option')::boolean, true)
FROM pg_catalog.pg_auth_members m
JOIN pg_catalog.pg_roles r ON r.oid = m.roleid JOIN pg_catalog.pg_roles g ON g.oid = m.grantor
JOIN pg_catalog.pg_roles u ON u.oid = m.member WHERE u.rolname = session_user";

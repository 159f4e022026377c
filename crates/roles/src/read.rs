//! What is there.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};
use uuid::Uuid;

use super::error::RolesError;
use super::label::Label;
use super::membership::MembershipOptions;
use super::server::{PRINCIPALS, ServerSessions};
use super::{Flavour, ObjectType};
use crate::directory::Directory;

/// The first version that has all that is asked here (procedures, `GRANT … ON PROCEDURE`).
const OLDEST: i32 = 110_000;

/// The roles of a server.
#[derive(Debug, Clone)]
pub struct Roles {
    flavour: Flavour,
    entra: Vec<Role>,
    pub(crate) version: i32,
    pub(crate) session_user: String,
    /// Whether `pgaadauth_update_principal_with_oid` is there, which no article of Microsoft's mentions.
    pub(crate) can_update: bool,
    /// Every role of the server.
    pub(crate) all: BTreeMap<String, AnyRole>,
    /// Every database that takes sessions.
    pub(crate) databases: BTreeSet<String>,
}

/// A role that is mapped to an Entra principal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// The name of the role.
    pub name: String,
    /// What the principal is. Single Server does not say.
    pub kind: Option<ObjectType>,
    /// The principal's object id. Single Server does not say, nor does a label by name alone.
    pub object_id: Option<Uuid>,
    /// The principal's tenant, where the server says.
    pub tenant: Option<Uuid>,
    /// Whether it administers Entra roles.
    pub is_admin: bool,
    /// Whether its tokens must tell of a second factor.
    pub is_mfa: bool,
    /// Where the server says so.
    pub source: Source,
    pub(crate) oid: u32,
}

/// Where a server says that a role is mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// The output of the function `pgaadauth_list_principals`.
    Function,
    /// A security label of `pgaadauth`.
    Label,
    /// Membership of the role `azure_ad_user`, on Single Server.
    Membership,
}

impl Source {
    /// Its name in the server.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Function => "pgaadauth_list_principals",
            Self::Label => "security label",
            Self::Membership => "azure_ad_user",
        }
    }
}

/// The attributes of any role that a plan depends on.
#[derive(Debug, Clone)]
pub(crate) struct AnyRole {
    pub(crate) oid: u32,
    /// It has the rights of a superuser, so it must not be mapped.
    pub(crate) is_powerful: bool,
    pub(crate) can_login: bool,
    /// It has the attribute NOINHERIT.
    pub(crate) is_noinherit: bool,
    pub(crate) comment: Option<String>,
    /// The roles that it is a member of. The membership that a creator of a role gets by itself is not one of them.
    pub(crate) member_of: BTreeMap<String, MembershipOptions>,
}

impl AnyRole {
    /// Whether it is a member of a role, and not only its administrator.
    pub(crate) fn is_member(&self, group: &str) -> bool {
        self.member_of.get(group).is_some_and(|options| options.is_member())
    }
}

impl ServerSessions {
    /// The roles that are there, read in one read-only transaction.
    ///
    /// # Errors
    /// No session; a server that maps no roles, or a user who may not see them.
    pub async fn roles(&self) -> Result<Roles, RolesError> {
        let principals = self.open(PRINCIPALS).await?;
        principals.begin_reading().await?;
        Roles::read(principals.client()).await
    }
}

impl Roles {
    /// Reads the roles. On Flexible Server the session has to be in the database `postgres`.
    ///
    /// Several statements: in a transaction of its own (`REPEATABLE READ`) they see one state.
    ///
    /// # Errors
    /// A server that maps no roles, or a user who may not see them.
    pub async fn read(client: &Client) -> Result<Self, RolesError> {
        let reader = Reader(client);
        let about = reader.about().await?;
        if about.version < OLDEST {
            return Err(RolesError::TooOld(about.version));
        }
        let all = reader.all().await?;
        let databases = reader.databases().await?;
        let labels = reader.labels().await?;
        let (flavour, entra) = if about.makes_roles() || !labels.is_empty() {
            (Flavour::Flexible, reader.flexible(&about, &all, &labels).await?)
        } else if all.contains_key("azure_ad_user") {
            (Flavour::Single, single(&all))
        } else {
            return Err(RolesError::NotEntra);
        };
        let can_update = about.can_update();
        let About { version, session_user, .. } = about;
        Ok(Self { flavour, entra, version, session_user, can_update, all, databases })
    }

    /// The roles as any database shows them, without the mapping to Entra principals.
    pub(crate) async fn read_anywhere(client: &Client, flavour: Flavour) -> Result<Self, RolesError> {
        let reader = Reader(client);
        let about = reader.about().await?;
        let can_update = about.can_update();
        let About { version, session_user, .. } = about;
        let (all, databases) = (reader.all().await?, reader.databases().await?);
        Ok(Self { flavour, entra: Vec::new(), version, session_user, can_update, all, databases })
    }

    /// Which product the server is.
    pub fn flavour(&self) -> Flavour {
        self.flavour
    }

    /// The roles that are mapped to Entra principals, by name.
    pub fn entra(&self) -> &[Role] {
        &self.entra
    }

    /// Those of the mapped roles whose principal the tenant does not have any more.
    ///
    /// # Errors
    /// A tenant that does not answer.
    pub async fn orphans(&self, directory: &dyn Directory) -> Result<BTreeSet<String>, RolesError> {
        let ids: Vec<Uuid> = self.entra.iter().filter_map(|role| role.object_id).collect();
        let existing = directory.existing(&ids).await.map_err(|source| RolesError::Tenant { source })?;
        let is_gone = |role: &&Role| role.object_id.is_some_and(|id| !existing.contains(&id));
        Ok(self.entra.iter().filter(is_gone).map(|role| role.name.clone()).collect())
    }

    pub(crate) fn named(&self, name: &str) -> Option<&Role> {
        self.entra.iter().find(|role| role.name == name)
    }
}

struct About {
    version: i32,
    session_user: String,
    /// The functions `pgaadauth_…`, and whether the session's user may call them.
    functions: BTreeMap<String, bool>,
}

impl About {
    fn makes_roles(&self) -> bool {
        self.functions.keys().any(|name| name.starts_with("pgaadauth_create_principal"))
    }

    fn may_list(&self) -> bool {
        self.functions.get("pgaadauth_list_principals").copied().unwrap_or(false)
    }

    fn can_update(&self) -> bool {
        self.functions.contains_key("pgaadauth_update_principal_with_oid")
    }
}

struct Reader<'a>(&'a Client);

impl Reader<'_> {
    async fn rows(&self, sql: &str) -> Result<Vec<tokio_postgres::Row>, RolesError> {
        self.0.query(sql, &[]).await.map_err(|error| RolesError::of(PRINCIPALS, sql, error))
    }

    async fn about(&self) -> Result<About, RolesError> {
        let sql = "SELECT current_setting('server_version_num')::integer, session_user::text";
        let rows = self.rows(sql).await?;
        let row = rows.first().ok_or(RolesError::NotEntra)?;
        let functions = self
            .rows(
                "SELECT proname::text, has_function_privilege(oid, 'EXECUTE')
                 FROM pg_catalog.pg_proc WHERE proname LIKE 'pgaadauth\\_%'",
            )
            .await?;
        let functions = functions.iter().map(|row| (row.get(0), row.get(1))).collect();
        Ok(About { version: row.get(0), session_user: row.get(1), functions })
    }

    async fn all(&self) -> Result<BTreeMap<String, AnyRole>, RolesError> {
        let rows = self
            .rows(
                "SELECT r.rolname::text, r.oid, r.rolcanlogin, shobj_description(r.oid, 'pg_authid'),
                        r.rolsuper OR r.rolreplication OR r.rolbypassrls, NOT r.rolinherit
                 FROM pg_catalog.pg_roles r",
            )
            .await?;
        let role = |row: &tokio_postgres::Row| AnyRole {
            oid: row.get(1),
            can_login: row.get(2),
            comment: row.get(3),
            is_powerful: row.get(4),
            is_noinherit: row.get(5),
            member_of: BTreeMap::new(),
        };
        let mut all: BTreeMap<String, AnyRole> = rows.iter().map(|row| (row.get(0), role(row))).collect();
        for row in self.rows(MEMBERSHIPS).await? {
            if let Some(role) = all.get_mut(row.get::<_, &str>(0)) {
                let options = MembershipOptions { inherit: row.get(2), set: row.get(3), admin: row.get(4) };
                role.member_of.insert(row.get(1), options);
            }
        }
        Ok(all)
    }

    async fn databases(&self) -> Result<BTreeSet<String>, RolesError> {
        let sql = "SELECT datname::text FROM pg_catalog.pg_database WHERE datallowconn AND NOT datistemplate";
        Ok(self.rows(sql).await?.iter().map(|row| row.get(0)).collect())
    }

    async fn labels(&self) -> Result<BTreeMap<u32, Label>, RolesError> {
        let labels = Label::of_all(self.0).await;
        labels.map_err(|error| RolesError::of(PRINCIPALS, "reading security labels", error))
    }

    /// What the function says, and the roles besides that have a label.
    async fn flexible(
        &self,
        about: &About,
        all: &BTreeMap<String, AnyRole>,
        labels: &BTreeMap<u32, Label>,
    ) -> Result<Vec<Role>, RolesError> {
        let mut roles = BTreeMap::new();
        for (name, any) in all {
            if let Some(label) = labels.get(&any.oid) {
                roles.insert(name.clone(), labelled(name, any.oid, label));
            }
        }
        if !about.may_list() {
            return match roles.is_empty() {
                true => Err(RolesError::NotAdministrator(about.session_user.clone())),
                false => Ok(roles.into_values().collect()),
            };
        }
        // As text and by position: the articles do not agree on the names of the columns.
        let sql = "SELECT * FROM pg_catalog.pgaadauth_list_principals(false)";
        let said = self.0.simple_query(sql).await.map_err(|error| match error.code() {
            Some(code) if code.code() == "42501" => RolesError::NotAdministrator(about.session_user.clone()),
            _ => RolesError::of(PRINCIPALS, sql, error),
        })?;
        for message in said {
            if let SimpleQueryMessage::Row(row) = message
                && let Some(role) = listed(&row, all)
            {
                roles.insert(role.name.clone(), role);
            }
        }
        Ok(roles.into_values().collect())
    }
}

fn labelled(name: &str, oid: u32, label: &Label) -> Role {
    Role {
        name: name.to_owned(),
        kind: label.kind,
        object_id: label.object_id,
        tenant: label.tenant,
        is_admin: label.is_admin,
        is_mfa: label.is_mfa,
        source: Source::Label,
        oid,
    }
}

/// A row of `pgaadauth_list_principals`: role, type, object id, tenant, multi-factor, administrator.
fn listed(row: &SimpleQueryRow, all: &BTreeMap<String, AnyRole>) -> Option<Role> {
    let cell = |at: usize| row.try_get(at).ok().flatten();
    let is = |at| matches!(cell(at), Some("1" | "t"));
    let name = cell(0)?;
    Some(Role {
        name: name.to_owned(),
        kind: cell(1).and_then(|kind| kind.parse().ok()),
        object_id: cell(2).and_then(|id| id.parse().ok()),
        tenant: cell(3).and_then(|id| id.parse().ok()),
        is_mfa: is(4),
        is_admin: is(5),
        source: Source::Function,
        oid: all.get(name)?.oid,
    })
}

fn single(all: &BTreeMap<String, AnyRole>) -> Vec<Role> {
    // A role that belongs to another member signs in with a password, as ever: direct members only.
    let is_member = |role: &AnyRole| role.can_login && role.is_member("azure_ad_user");
    let members = all.iter().filter(|(name, role)| *name != "azure_ad_admin" && is_member(role));
    members
        .map(|(name, role)| Role {
            name: name.clone(),
            kind: None,
            object_id: None,
            tenant: None,
            is_admin: role.is_member("azure_ad_admin"),
            is_mfa: false,
            source: Source::Membership,
            oid: role.oid,
        })
        .collect()
}

/// The members of roles, with what the grants of all grantors allow together. The columns are read through jsonb, because
/// older versions do not have them.
///
/// From PostgreSQL 16 on the bootstrap superuser (10) makes the creator of a role its administrator, and nothing else; that
/// is nothing that a file says, or that could be revoked.
const MEMBERSHIPS: &str = "
SELECT r.rolname::text, g.rolname::text, bool_or(o.inherit), bool_or(o.set), bool_or(m.admin_option)
FROM pg_catalog.pg_auth_members m
JOIN pg_catalog.pg_roles r ON r.oid = m.member JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
CROSS JOIN LATERAL (SELECT coalesce((to_jsonb(m)->>'inherit_option')::boolean, true) AS inherit,
                           coalesce((to_jsonb(m)->>'set_option')::boolean, true) AS set) o
WHERE o.inherit OR o.set OR m.grantor <> 10
GROUP BY 1, 2";

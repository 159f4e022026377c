//! The changes in the database.

use pgentra_connect::{Connector, quote};
use pgentra_roles::{
    Change, Flavour, NewRole, ObjectType, Options, Plan, RoleName, Roles, RolesError, RolesFile,
};
use uuid::Uuid;

use super::ids::PrincipalIds;
use crate::blame::Blame;
use crate::problem::{Outcome, Problem};

/// The database in which principals are managed.
const PRINCIPALS: &str = "postgres";

/// The port that needs no `-p`.
pub(super) const DEFAULT_PORT: u16 = 5432;

/// A server, with an administrator who signs in to it.
pub(super) struct RoleDatabase {
    connector: Connector,
    server: pgentra_roles::ServerSessions,
    roles: Roles,
}

impl RoleDatabase {
    /// Signs in, and checks that the user may read the roles.
    pub(super) async fn open(connector: Connector) -> Outcome<Self> {
        let connector = connector.with_database(PRINCIPALS)?;
        let roles = read(&connector).await?;
        Ok(Self { server: pgentra_roles::ServerSessions::new(connector.clone()), connector, roles })
    }

    pub(super) fn flavour(&self) -> Flavour {
        self.roles.flavour()
    }

    /// The sessions through which roles are changed.
    pub(super) fn server(&self) -> &pgentra_roles::ServerSessions {
        &self.server
    }

    /// The other roles that are mapped to a principal, where the server shows it.
    pub(super) fn others_of<'a>(&'a self, object_id: Uuid, name: &'a str) -> impl Iterator<Item = &'a str> {
        let of_principal = self.roles.entra().iter().filter(move |role| role.object_id == Some(object_id));
        of_principal.map(|role| role.name.as_str()).filter(move |other| *other != name)
    }

    pub(super) fn host(&self) -> String {
        self.connector.target().endpoints().first().map(|endpoint| endpoint.host.clone()).unwrap_or_default()
    }

    pub(super) fn port(&self) -> u16 {
        self.connector.target().endpoints().first().map_or(DEFAULT_PORT, |endpoint| endpoint.port)
    }

    /// The user name for the role. Single Server needs the server's name after it, as the
    /// administrator wrote it.
    pub(super) fn user_of(&self, role: &str) -> String {
        let administrator = self.connector.target().user();
        let suffix = administrator.match_indices('@').nth(1).map(|(at, _)| &administrator[at..]);
        match (self.flavour(), suffix) {
            (Flavour::Single, Some(suffix)) => format!("{role}{suffix}"),
            _ => role.to_owned(),
        }
    }

    /// Whether the role exists for this principal. `None` for `ids`: there is no principal yet, so
    /// there may be no role either.
    pub(super) async fn exists(&self, name: &RoleName, ids: Option<PrincipalIds>) -> Outcome<bool> {
        let taken = |whose: String| {
            let hint = "name another role; or look with `pgentra role list`, and drop the old one if it is not needed";
            Err(Problem::new(
                Blame::Usage,
                format!("there is a role {} already{whose}", quote::name(name.as_str())),
            )
            .hint(hint))
        };
        if let Some(role) = self.roles.entra().iter().find(|role| role.name == name.as_str()) {
            return match (role.object_id, ids) {
                (Some(other), Some(ids))
                    if other == ids.object_id && role.kind.is_none_or(|kind| kind == ObjectType::Service) =>
                {
                    Ok(true)
                }
                (Some(other), _) => taken(format!(", of the principal with object id {other}")),
                (None, Some(ids)) if self.is_marked(name, ids).await? => Ok(true),
                (None, _) => taken(", and the server does not say whose it is".to_owned()),
            };
        }
        let session = self.connector.connect().await?;
        let sql = "SELECT FROM pg_roles WHERE rolname = $1::text";
        let found = session.client().query_opt(sql, &[&name.as_str()]).await;
        let found = found.map_err(|error| Problem::new(Blame::Server, error))?;
        session.close().await?;
        match found {
            Some(_) => taken(", which belongs to no Entra principal".to_owned()),
            None => Ok(false),
        }
    }

    /// Whether the comment that pgentra writes on Single Server says that the role belongs to this
    /// principal. Single Server itself does not show the principal.
    async fn is_marked(&self, name: &RoleName, ids: PrincipalIds) -> Outcome<bool> {
        let Some(client_id) = ids.client_id else { return Ok(false) };
        let name = toml::Value::from(name.as_str());
        let text = format!("[[role]]\nname = {name}\nclient_id = '{client_id}'\n");
        let file = RolesFile::parse(&text, PRINCIPALS).map_err(RolesError::from)?;
        let plan = Plan::make(&self.server, &file, Options::default(), None).await?;
        let is_mapping = |change: &Change| {
            matches!(change, Change::Create(_) | Change::Bind { .. } | Change::Rename { .. })
        };
        Ok(!plan.changes().iter().any(is_mapping))
    }

    pub(super) async fn create(&self, name: &RoleName, ids: PrincipalIds) -> Outcome {
        let identity = match (self.flavour(), ids.client_id) {
            (Flavour::Single, Some(client_id)) => pgentra_roles::PrincipalRef::ClientId(client_id),
            _ => pgentra_roles::PrincipalRef::ObjectId(ids.object_id),
        };
        let role = NewRole {
            name: name.clone(),
            kind: ObjectType::Service,
            identity,
            is_admin: false,
            is_mfa: false,
        };
        role.plan(&self.server, None).await?.apply(&self.server).await?;
        Ok(())
    }

    /// Checks that the role exists, is mapped to the principal as far as the server shows it, and
    /// may sign in.
    pub(super) async fn check(&self, name: &RoleName, object_id: Uuid) -> Outcome {
        let roles = read(&self.connector).await?;
        let found = roles.entra().iter().find(|role| role.name == name.as_str());
        let fits = found.is_some_and(|role| role.object_id.is_none_or(|id| id == object_id));
        if !fits {
            return Err(Problem::new(
                Blame::Server,
                format!("the role {} is not mapped to the identity", quote::name(name.as_str())),
            )
            .hint("look at it with `pgentra role list`; it was changed by another client meanwhile"));
        }
        let session = self.connector.connect().await?;
        let sql = "SELECT rolcanlogin FROM pg_roles WHERE rolname = $1::text";
        let may = session.client().query_one(sql, &[&name.as_str()]).await;
        let may = may.and_then(|row| row.try_get(0)).map_err(|error| Problem::new(Blame::Server, error))?;
        session.close().await?;
        if may {
            return Ok(());
        }
        Err(Problem::new(Blame::Server, format!("the role {} may not sign in", quote::name(name.as_str())))
            .hint(format!("ALTER ROLE {} LOGIN", quote::identifier(name.as_str()))))
    }
}

async fn read(connector: &Connector) -> Outcome<Roles> {
    let session = connector.connect().await?;
    let roles = Roles::read(session.client()).await?;
    session.close().await?;
    Ok(roles)
}

//! Prepares a PostgreSQL for the gateway.

use std::error::Error;
use std::fmt;

use bytes::BytesMut;
use rand::TryRngCore;
use rand::rngs::OsRng;
use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Transaction};
use uuid::Uuid;

use super::control::{self, ControlError};
use super::principal::{GroupMembership, Principal};
use super::{Flavour, ServiceAccount, UpstreamAddress, UpstreamMethod};

/// Serialises preparations of one server; an arbitrary number, the same for all.
const LOCK: i64 = 0x7067_656e_7472_6100;

pub(crate) const GATEWAY: &str = include_str!("sql/gateway.sql");
pub(crate) const FLEXIBLE: &str = include_str!("sql/flexible.sql");
const LOCAL: &str = include_str!("sql/local.sql");
const GROUP_SYNC: &str = include_str!("sql/group_sync.sql");
const LABELS: &str = include_str!("sql/labels.sql");
pub(crate) const SINGLE: &str = include_str!("sql/single.sql");

/// How a PostgreSQL is prepared.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The product that the gateway imitates.
    pub flavour: Flavour,
    /// The tenant of every principal.
    pub tenant: Uuid,
    /// The first principals that may manage Entra roles. Each gets a role of its name; an existing
    /// role is bound to the principal.
    pub administrators: Vec<Principal>,
    /// The principals of the tenant, so that roles can be made by name alone. Replaces the list in
    /// the database; may be empty, because a gateway does not query Entra.
    pub directory: Vec<Principal>,
    /// The members of its groups. Replaces the list in the database.
    pub memberships: Vec<GroupMembership>,
}

/// Why a PostgreSQL could not be prepared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// The connection as the service account failed, or a statement did.
    #[error("preparing PostgreSQL for the gateway failed")]
    Postgres(#[from] tokio_postgres::Error),
    /// The service account is not a superuser.
    #[error("the role \"{0}\" is not a superuser")]
    NotSuperuser(String),
    /// The schema `pgentra` exists and belongs to another role, which could read and change the
    /// mapping.
    #[error("the schema \"pgentra\" in database \"postgres\" does not belong to \"{0}\"")]
    ForeignSchema(String),
    /// The server cannot be reached.
    #[error("the server cannot be reached")]
    Control(#[source] Box<dyn Error + Send + Sync>),
    /// The operating system has no random numbers.
    #[error("no random numbers to make a password from")]
    NoRandomness,
}

impl From<ControlError> for InitError {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Postgres(error) => Self::Postgres(error),
            other => Self::Control(Box::new(other)),
        }
    }
}

/// Prepares a PostgreSQL (13 or newer) for the gateway: the roles, the functions and the first administrators.
///
/// Everything happens in one transaction in the database `postgres`, and can be repeated: roles and mappings that
/// exist are kept.
///
/// # Errors
/// See [`InitError`]. Nothing is changed then.
pub async fn init(
    upstream: &UpstreamAddress,
    service: &ServiceAccount,
    setup: &Setup,
) -> Result<(), InitError> {
    let mut client = control::connect(upstream, &UpstreamMethod::Password, service).await?;
    check(&client, service).await?;
    let transaction = client.transaction().await?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
    transaction.batch_execute(GATEWAY).await?;
    transaction.batch_execute(LOCAL).await?;
    remember_gateway(&transaction, setup.tenant).await?;
    replace_directory(&transaction, &setup.directory, &setup.memberships).await?;
    match setup.flavour {
        Flavour::Flexible => {
            transaction.batch_execute(FLEXIBLE).await?;
            transaction.batch_execute(LABELS).await?;
            transaction.batch_execute(GROUP_SYNC).await?;
        }
        Flavour::Single => transaction.batch_execute(SINGLE).await?,
    }
    for administrator in &setup.administrators {
        bind_administrator(&transaction, setup.flavour, administrator).await?;
    }
    Ok(transaction.commit().await?)
}

async fn check(client: &Client, service: &ServiceAccount) -> Result<(), InitError> {
    let row = client
        .query_one(
            "SELECT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
                    (SELECT pg_get_userbyid(nspowner) = current_user FROM pg_namespace WHERE nspname = 'pgentra')",
            &[],
        )
        .await?;
    // Only a superuser may read and write `pg_authid.rolpassword`, which Single Server's mapping lives in.
    if !row.get::<_, bool>(0) {
        return Err(InitError::NotSuperuser(service.name.clone()));
    }
    match row.get::<_, Option<bool>>(1) {
        Some(false) => Err(InitError::ForeignSchema(service.name.clone())),
        Some(true) | None => Ok(()),
    }
}

/// Makes the password that the gateway uses for mapped roles, unless there is one.
async fn remember_gateway(transaction: &Transaction<'_>, tenant: Uuid) -> Result<(), InitError> {
    let password = random_password()?;
    // The password stays if there is one: roles that were mapped before have it.
    let verifier = postgres_protocol::password::scram_sha_256(password.expose_secret().as_bytes());
    transaction
        .execute(
            "INSERT INTO pgentra.gateway (tenant_id, password, verifier) VALUES ($1::text::uuid, $2, $3)
             ON CONFLICT (only_row) DO UPDATE SET tenant_id = excluded.tenant_id",
            &[&tenant.to_string(), &Hidden(password.expose_secret()), &Hidden(&verifier)],
        )
        .await?;
    Ok(())
}

pub(super) async fn replace_directory(
    transaction: &Transaction<'_>,
    directory: &[Principal],
    memberships: &[GroupMembership],
) -> Result<(), InitError> {
    // Two replacements at a time would insert the same rows.
    transaction.batch_execute("LOCK TABLE pgentra.directory IN EXCLUSIVE MODE").await?;
    transaction.execute("DELETE FROM pgentra.directory", &[]).await?;
    transaction.execute("DELETE FROM pgentra.membership", &[]).await?;
    let insert = transaction
        .prepare("INSERT INTO pgentra.directory (object_id, name, kind) VALUES ($1::text::uuid, $2, $3)")
        .await?;
    for principal in directory {
        let object_id = principal.object_id.to_string();
        transaction.execute(&insert, &[&object_id, &principal.name, &principal.kind.as_str()]).await?;
    }
    let insert = transaction
        .prepare(
            "INSERT INTO pgentra.membership (group_id, member_id) VALUES ($1::text::uuid, $2::text::uuid)
             ON CONFLICT DO NOTHING",
        )
        .await?;
    for GroupMembership { group, member } in memberships {
        transaction.execute(&insert, &[&group.to_string(), &member.to_string()]).await?;
    }
    Ok(())
}

async fn bind_administrator(
    transaction: &Transaction<'_>,
    flavour: Flavour,
    administrator: &Principal,
) -> Result<(), InitError> {
    let Principal { name, object_id, kind } = administrator;
    let object_id = object_id.to_string();
    match flavour {
        Flavour::Flexible => {
            let sql = "SELECT pgentra.make_administrator($1, $2, $3)";
            transaction.query(sql, &[name, &object_id, &kind.as_str()]).await?;
        }
        Flavour::Single => {
            // On Single Server the object id is the role's password; its verifier is made here, so that the server's
            // log of statements never has the id as a password in clear text.
            let verifier = postgres_protocol::password::scram_sha_256(object_id.as_bytes());
            let sql = "SELECT pgentra.bind_administrator($1, $2)";
            transaction.query(sql, &[name, &Hidden(&verifier)]).await?;
        }
    }
    Ok(())
}

/// A parameter whose `Debug` is empty, so that the driver cannot log it.
struct Hidden<'a>(&'a str);

impl fmt::Debug for Hidden<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

impl ToSql for Hidden<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        self.0.to_sql(ty, out)
    }

    fn accepts(ty: &Type) -> bool {
        <&str as ToSql>::accepts(ty)
    }

    to_sql_checked!();
}

pub(crate) fn random_password() -> Result<SecretString, InitError> {
    let mut bytes = [0; 32];
    OsRng.try_fill_bytes(&mut bytes).map_err(|_| InitError::NoRandomness)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into())
}

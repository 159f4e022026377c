//! Reads from a server what keeps a role from being dropped.

use std::collections::BTreeSet;

use super::dependency::{Dependency, DependencyKind};
use super::error::RolesError;
use super::server::{DatabaseSession, PRINCIPALS, ServerSessions};

/// How many objects of one database are told by name.
const TOLD: i64 = 20;

/// Everything that keeps a role from being dropped, in all databases; `principals` is a session in the one for principals.
pub(crate) async fn obstacles(
    server: &ServerSessions,
    principals: &DatabaseSession,
    oid: u32,
) -> Result<Vec<Dependency>, RolesError> {
    let mut found = described(principals, oid, DependencyScope::Server).await?;
    let databases: BTreeSet<String> = principals
        .query(
            "SELECT DISTINCT b.datname::text FROM pg_catalog.pg_shdepend d
             JOIN pg_catalog.pg_database b ON b.oid = d.dbid
             WHERE d.refclassid = 'pg_catalog.pg_authid'::regclass AND d.refobjid = $1",
            &[&oid],
        )
        .await?
        .iter()
        .map(|row| row.get(0))
        .collect();
    for database in databases {
        if database == PRINCIPALS {
            found.extend(described(principals, oid, DependencyScope::Database).await?);
        } else {
            let open = server.open(&database).await?;
            open.begin_reading().await?;
            found.extend(described(&open, oid, DependencyScope::Database).await?);
        }
    }
    Ok(found)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum DependencyScope {
    /// Objects of the whole server, which are described anywhere.
    Server,
    /// Objects of this database, which are described only here.
    Database,
}

async fn described(
    open: &DatabaseSession,
    oid: u32,
    scope: DependencyScope,
) -> Result<Vec<Dependency>, RolesError> {
    let rows = open
        .query(
            "SELECT d.deptype::text, pg_describe_object(d.classid, d.objid, d.objsubid), count(*) OVER ()
             FROM pg_catalog.pg_shdepend d
             WHERE d.refclassid = 'pg_catalog.pg_authid'::regclass AND d.refobjid = $1
               AND d.dbid = CASE WHEN $2 THEN 0
                                 ELSE (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()) END
             ORDER BY d.deptype = 'o' DESC, 2 LIMIT $3",
            &[&oid, &(scope == DependencyScope::Server), &TOLD],
        )
        .await?;
    let database = (scope == DependencyScope::Database).then(|| open.database.clone());
    let mut found: Vec<Dependency> = rows
        .iter()
        .map(|row| Dependency {
            database: database.clone(),
            kind: match row.get(0) {
                "o" => DependencyKind::Owned,
                "r" => DependencyKind::Policy,
                _ => DependencyKind::Privileges,
            },
            // It may have been dropped since the first query.
            what: row.get::<_, Option<String>>(1).unwrap_or_else(|| "an object".to_owned()),
        })
        .collect();
    let more = rows.first().map_or(0, |row| row.get::<_, i64>(2)) - TOLD;
    if more > 0
        && let Some(last) = found.last_mut()
    {
        last.what.push_str(&format!(" and {more} more objects"));
    }
    Ok(found)
}

use pgentra_connect::{ConnectError, quote};
use tokio_postgres::error::DbError;

use super::change::Change;
use super::dependency::Dependency;
use super::fault::Diagnostics;
use super::places::DocumentPlaces;
use crate::directory::DirectoryError;

/// Why roles could not be read, planned or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RolesError {
    /// A file of roles, or one role, is invalid or does not fit the server. The server was not changed.
    #[error(transparent)]
    Faults(#[from] Diagnostics),
    /// No session with the server.
    #[error("cannot sign in to the database {}", quote::name(database))]
    Connect {
        /// The database that the session was for.
        database: String,
        /// Why the session could not be opened.
        source: ConnectError,
    },
    /// The server refused a statement. Its transaction was rolled back.
    #[error("the server refused, in the database {}: {}", quote::name(database), quote::line(sql))]
    Statement {
        /// The database in which the statement ran.
        database: String,
        /// The beginning of the refused statement.
        sql: String,
        /// The error of the server.
        source: SqlError,
    },
    /// The connection broke. Its transaction was rolled back, unless the connection broke during the commit.
    #[error("the connection to the database {} broke", quote::name(database))]
    Broken {
        /// The database of the session.
        database: String,
        /// The error of the driver.
        source: tokio_postgres::Error,
    },
    /// The server maps no roles to Entra principals.
    #[error(
        "this server maps no roles to Entra: it has neither the functions pgaadauth_… nor the role azure_ad_user"
    )]
    NotEntra,
    /// The server is older than anything that is supported.
    #[error("PostgreSQL 11 or newer is needed; this is {0}")]
    TooOld(i32),
    /// The signed-in user may not call the functions that list mapped roles.
    #[error("{} may not see which roles are mapped to Entra", quote::name(.0))]
    NotAdministrator(String),
    /// A role of this name is there already.
    #[error("a role {} is there already", quote::name(.0))]
    Exists(String),
    /// No role of this name is mapped to a principal.
    #[error("no role {} is mapped to an Entra principal", quote::name(.0))]
    NoSuchRole(String),
    /// A role that must not be dropped.
    #[error("the role {} is not dropped: {why}", quote::name(name))]
    NotDropped {
        /// The role that was to be dropped.
        name: String,
        /// The rule that protects the role, in words.
        why: &'static str,
    },
    /// Objects or privileges that keep a role from being dropped.
    #[error("the role {} cannot be dropped{}", quote::name(name), list(obstacles))]
    InTheWay {
        /// The role that was to be dropped.
        name: String,
        /// The dependencies that prevent it.
        obstacles: Vec<Dependency>,
    },
    /// After all statements had run, the database differed from the file, so the transaction was rolled back.
    #[error(
        "after everything was run in the database {} this was still missing{}",
        quote::name(database),
        list(left)
    )]
    Unsettled {
        /// The database whose transaction was rolled back.
        database: String,
        /// The changes that were still missing.
        left: Vec<Change>,
    },
    /// Some databases were changed before another failed.
    #[error("changed in {}, and then failed", names(done))]
    HalfApplied {
        /// The databases whose transactions were committed.
        done: Vec<String>,
        /// The error in the database that failed.
        source: Box<RolesError>,
    },
    /// Which roles were made could not be kept. Their transaction was rolled back.
    #[error("which roles were made could not be written down, so they were not made")]
    NotKept {
        /// The error of the place where it is kept.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A script for psql would hold a name with a character that does not show, or a text that leaves its quotes.
    #[error("a script for psql cannot hold this: {text}")]
    NotForScript {
        /// The text that is not allowed, with invisible characters escaped.
        text: String,
    },
    /// The tenant was asked which principals it still has, and did not answer.
    #[error("the tenant cannot be asked which principals are gone")]
    Tenant {
        /// The error of the directory.
        source: DirectoryError,
    },
    /// The tenant had to be asked and did not answer.
    #[error("the tenant cannot be asked whose client id {client_id} is")]
    Directory {
        /// The client id that was looked up.
        client_id: uuid::Uuid,
        /// The error of the directory.
        source: DirectoryError,
    },
}

impl RolesError {
    /// The next thing to try, in words.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Connect { source, .. } => return source.hint(),
            Self::HalfApplied { source, .. } => {
                let first = "run it again once that is mended: what is done already is left as it is";
                return Some(match source.hint() {
                    Some(hint) => format!("{hint}; {first}"),
                    None => first.to_owned(),
                });
            }
            Self::Directory { source, .. } => {
                return Some(
                    source
                        .hint()
                        .unwrap_or("name the object id: --object-id, or object_id in the file")
                        .to_owned(),
                );
            }
            Self::Tenant { source } => {
                return Some(
                    source.hint().unwrap_or("leave --orphans out: it takes Microsoft Graph").to_owned(),
                );
            }
            Self::Statement { source, .. } => return Some(source.next()),
            Self::Faults(faults) => return faults.hint().map(str::to_owned),
            Self::Broken { .. } => "try again; the server's log says why it ended the session",
            Self::NotEntra => {
                "is Microsoft Entra authentication enabled? az postgres flexible-server update --microsoft-entra-auth Enabled"
            }
            Self::NotForScript { .. } => {
                "the name has a control character or another one that does not show: have it renamed, or carry the plan out \
                 without --print-sql"
            }
            Self::NotKept { .. } => "try again",
            Self::TooOld(_) => "upgrade the server",
            Self::NotAdministrator(_) => {
                "sign in as a Microsoft Entra administrator of the server: az postgres flexible-server microsoft-entra-admin list"
            }
            Self::Exists(_) => "bring it in line with a file: pgentra role plan -f roles.toml",
            Self::NoSuchRole(_) => "pgentra role list; a role of PostgreSQL's own is dropped with DROP ROLE",
            Self::NotDropped { .. } => "sign in as another Microsoft Entra administrator",
            Self::InTheWay { obstacles, .. } if obstacles.iter().any(Dependency::is_owned) => {
                "--reassign-to ROLE gives what it owns to another role and revokes its privileges"
            }
            Self::InTheWay { .. } => "--revoke takes its privileges away",
            Self::Unsettled { .. } => {
                "who is not the owner of an object, or made a grant himself, can neither grant nor revoke it; \
                 sign in as the owner, or as a member of the role that owns it"
            }
        };
        Some(text.to_owned())
    }

    /// The same, where faults name their places in this document.
    pub(crate) fn placed(self, places: &DocumentPlaces) -> Self {
        match self {
            Self::Faults(faults) => Self::Faults(faults.placed(places)),
            other => other,
        }
    }

    /// The SQLSTATE with which the server refused.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Statement { source, .. } => Some(source.sqlstate()),
            Self::HalfApplied { source, .. } => source.sqlstate(),
            _ => None,
        }
    }

    /// A failed statement, or a broken connection.
    pub(crate) fn of(database: &str, sql: &str, error: tokio_postgres::Error) -> Self {
        let database = database.to_owned();
        match error.as_db_error() {
            Some(refusal) => {
                Self::Statement { database, sql: excerpt(sql), source: SqlError(Box::new(refusal.clone())) }
            }
            None => Self::Broken { database, source: error },
        }
    }
}

/// The server's error for a statement.
#[derive(Debug, thiserror::Error)]
#[error("{}: {} (SQLSTATE {}){}", .0.severity(), .0.message(), .0.code().code(), detail(.0))]
pub struct SqlError(Box<DbError>);

impl SqlError {
    /// The SQLSTATE, five characters.
    pub fn sqlstate(&self) -> &str {
        self.0.code().code()
    }

    fn next(&self) -> String {
        let message = self.0.message();
        // By stable fragments: Azure's texts of several years differ around them.
        let known = [
            (
                "not found in the tenant",
                "name it by --object-id (in a file: object_id); a client id is not an object id",
            ),
            ("unique in the tenant", "name it by --object-id (in a file: object_id)"),
            (
                "trying to validate user",
                "name it by --client-id (in a file: client_id): only a person may look names up",
            ),
        ];
        if let Some((_, hint)) = known.iter().find(|(fragment, _)| message.contains(fragment)) {
            return (*hint).to_owned();
        }
        if let Some(hint) = self.0.hint() {
            return hint.to_owned();
        }
        match self.sqlstate() {
            "42501" => "sign in as an Entra administrator who owns the object or may grant it",
            "55P03" => "another session has a lock on it (SELECT * FROM pg_locks); try again",
            "40001" | "40P01" | "XX000" => "another session is changing the same roles; try again",
            _ => "nothing was kept of this transaction; mend the cause and run it again",
        }
        .to_owned()
    }
}

fn detail(error: &DbError) -> String {
    error.detail().map(|detail| format!("; {detail}")).unwrap_or_default()
}

/// The beginning of a statement, for a message.
fn excerpt(sql: &str) -> String {
    const LENGTH: usize = 200;
    let line = sql.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LENGTH) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn list(items: &[impl std::fmt::Display]) -> String {
    items.iter().map(|item| format!("\n  {item}")).collect()
}

fn names(databases: &[String]) -> String {
    databases.iter().map(|database| quote::name(database)).collect::<Vec<_>>().join(", ")
}

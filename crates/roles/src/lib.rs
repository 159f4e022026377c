//! Entra roles as code: reads a file of roles, compares it with a server, and applies the changes.
//!
//! ```no_run
//! use pgentra_roles::{Options, Plan, RolesFile, ServerSessions};
//! use pgentra_connect::{Connector, Layers, Target};
//! use pgentra_identity::{Cloud, Credential};
//! use pgentra_system::System;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let world = System::real();
//! let uri = "postgresql://admin%40example.com@my-server.postgres.database.azure.com/app";
//! let target = Target::resolve(&Layers::gather(Some(uri), &[], world.env(), world.files())?)?;
//! let credential = Credential::builder(world).build()?;
//! let server = ServerSessions::new(Connector::new(target, credential, Cloud::Public.postgres_resource())?);
//!
//! let file = RolesFile::parse(
//!     r#"
//!     [[role]]
//!     name = "my-app"
//!     object_id = "5f3c1a52-0000-4000-8000-000000000001"
//!     [[role.grant]]
//!     schema = "public"
//!     tables = "*"
//!     privileges = ["SELECT", "INSERT"]
//!     "#,
//!     server.default_database(),
//! )?;
//! let plan = Plan::make(&server, &file, Options::default(), None).await?;
//! for change in plan.changes() {
//!     println!("{change}");
//! }
//! plan.apply(&server).await?;
//! # Ok(())
//! # }
//! ```
//!
//! What is promised: a plan is made inside read-only transactions. All that is wrong with a file is told at once, before
//! anything is asked of the server, and all that the server lacks before anything is written. Each database is changed in
//! one transaction, at whose end it is read again: unless it is then as the file says, nothing is kept.

mod access;
mod apply;
mod change;
mod command;
mod dependency;
mod desired;
pub mod directory;
mod document;
mod error;
mod fault;
mod file;
mod grants;
mod import;
mod kind;
mod label;
mod loan;
mod matching;
mod membership;
mod name;
mod object;
mod obstacles;
mod options;
mod owners;
mod places;
mod plan;
mod privilege;
mod prune;
mod read;
mod script;
mod server;
mod sql;
mod write;

pub use apply::MadeRoles;
pub use change::{Change, Sign};
pub use command::{NewRole, RoleDrop, RolesDrop};
pub use dependency::{Dependency, DependencyKind};
pub use desired::{Desired, PrincipalRef, RolesFile};
pub use error::{RolesError, SqlError};
pub use fault::{Diagnostic, Diagnostics};
pub use file::guid;
pub use import::Import;
pub use kind::{Flavour, ObjectType, UnknownKind};
pub use name::{NAME_LIMIT, NameError, RoleName, quoted};
pub use options::{Note, Options, Prune};
pub use plan::Plan;
pub use privilege::Class;
pub use read::{Role, Roles, Source};
pub use server::ServerSessions;

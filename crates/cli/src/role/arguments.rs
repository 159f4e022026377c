use std::path::PathBuf;

use clap::{Args, Subcommand};
use pgentra_roles::{Kind, RoleName};

use crate::options::{Connection, Identity, Output};

/// What `-d` is good for where roles are managed.
const DATABASE: &str = "Not needed: Entra roles are read and changed in the database postgres";
/// The same where a file of roles may grant privileges.
const DATABASE_OF_GRANTS: &str = "Database of the grants that name none. Default: PGDATABASE, else the name of the role that signs in. \
                                  Entra roles themselves are read and changed in the database postgres";

/// `pgentra role …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    /// List the roles that are mapped to Entra principals.
    #[command(
        after_help = "Example: pgentra role list -h my.postgres.database.azure.com -U admin@example.com",
        mut_arg("dbname", |arg| arg.help(DATABASE))
    )]
    List(List),
    /// Make a role for a principal. Flexible Server and Single Server are told apart by themselves.
    #[command(
        after_help = "Example: pgentra role create my-app --object-id 00000000-1111-2222-3333-444444444444",
        // In this command the ids are those of the principal that the role is for.
        mut_arg("client_id", |arg| arg.long("as-client-id")),
        mut_arg("object_id", |arg| arg.long("as-object-id")),
        mut_arg("resource_id", |arg| arg.long("as-resource-id")),
        mut_arg("dbname", |arg| arg.help(DATABASE))
    )]
    Create(Create),
    /// Drop a role that is mapped to a principal; whatever is in the way is told first. Asks once.
    #[command(after_help = "Example: pgentra role drop my-app --reassign-to admin@example.com --yes",
        mut_arg("dbname", |arg| arg.help(DATABASE)))]
    Drop(Drop),
    /// Show how the server differs from a file of roles. Changes nothing.
    #[command(after_help = "Example: pgentra role plan -f roles.toml -d app",
        mut_arg("dbname", |arg| arg.help(DATABASE_OF_GRANTS)))]
    Plan(Plan),
    /// Make the server as a file of roles says. Shows the plan, asks once.
    #[command(after_help = "Example: pgentra role apply -f roles.toml -d app --yes",
        mut_arg("dbname", |arg| arg.help(DATABASE_OF_GRANTS)))]
    Apply(Apply),
}

/// Arguments of `pgentra role list`.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Ask Microsoft Graph whose principals are gone, and say so in one more column.
    #[arg(long)]
    pub(crate) orphans: bool,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) identity: Identity,
}

/// Arguments of `pgentra role create`.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Name of the role, at most 63 bytes. Without an id it is also the principal's name in the tenant.
    #[arg(value_name = "NAME")]
    pub(crate) name: RoleName,
    #[command(flatten)]
    pub(crate) principal: Principal,
    /// Let it administer Entra roles. Flexible Server only.
    #[arg(long)]
    pub(crate) admin: bool,
    /// Ask for a second factor in its tokens. Flexible Server only.
    #[arg(long)]
    pub(crate) mfa: bool,
    #[command(flatten)]
    pub(crate) run: Run,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) identity: Identity,
}

/// Whose a role is to be.
#[derive(Debug, Args)]
pub(crate) struct Principal {
    /// Object id of the principal: for an application that of the enterprise application.
    #[arg(id = "principal_object_id", long = "object-id", value_name = "GUID", group = "principal")]
    pub(crate) object_id: Option<String>,
    /// Client (application) id of the principal. Flexible Server maps object ids, so there it is looked up in the tenant.
    #[arg(id = "principal_client_id", long = "client-id", value_name = "GUID", group = "principal")]
    pub(crate) client_id: Option<String>,
    /// What the principal is: service (a managed identity or an application), user or group.
    #[arg(long, default_value = "service", value_name = "KIND")]
    pub(crate) kind: Kind,
}

/// Arguments of `pgentra role drop`.
#[derive(Debug, Args)]
pub(crate) struct Drop {
    /// Name of the role.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Give what it owns to this role, in every database, and revoke its privileges.
    #[arg(long, value_name = "ROLE")]
    pub(crate) reassign_to: Option<String>,
    /// Revoke its privileges, in every database. A role that owns anything stays.
    #[arg(long)]
    pub(crate) revoke: bool,
    /// Carry it out without asking.
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) run: Run,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) identity: Identity,
}

/// Arguments of `pgentra role apply`.
#[derive(Debug, Args)]
pub(crate) struct Apply {
    #[command(flatten)]
    pub(crate) plan: Plan,
    /// Carry it out without asking.
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Arguments of `pgentra role plan` and `apply`.
#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// The file of roles (TOML, see docs/roles.md); - reads standard input. Where a grant names no database, -d is meant.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Drop the roles that are mapped to Entra and not in the file, but for administrators.
    #[arg(long)]
    pub(crate) prune: bool,
    /// Drop administrators, too, that are not in the file.
    #[arg(long, requires = "prune")]
    pub(crate) prune_admins: bool,
    #[command(flatten)]
    pub(crate) tenant: Tenant,
    #[command(flatten)]
    pub(crate) run: Run,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) identity: Identity,
}

/// What Microsoft Graph is asked besides client ids.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Tenant {
    /// Ask Microsoft Graph for roles whose principal is gone.
    #[arg(long)]
    pub(crate) orphans: bool,
}

/// How a change is made and shown.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Run {
    /// Print what would be run, as a script for psql, and run nothing.
    #[arg(long, conflicts_with = "output")]
    pub(crate) print_sql: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

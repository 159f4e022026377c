use std::path::PathBuf;

use clap::{Args, Subcommand};
use pgentra_roles::{ObjectType, Prune, RoleName};

use crate::options::{Connection, Identity, Output};

/// The help of `-d` in commands that manage roles.
const DATABASE: &str = "Not needed: Entra roles are read and changed in the database postgres";
/// The same for commands whose file may grant privileges.
const DATABASE_OF_GRANTS: &str = "Database of the grants that name none. Default: PGDATABASE, else the name of the role that signs in. \
                                  Entra roles themselves are read and changed in the database postgres";

/// `pgentra role …`.
#[derive(Debug, Subcommand)]
pub(crate) enum RoleCommand {
    /// List the roles that are mapped to Entra principals.
    #[command(
        after_help = "Example: pgentra role list -h my.postgres.database.azure.com -U admin@example.com",
        mut_arg("dbname", |arg| arg.help(DATABASE))
    )]
    List(List),
    /// Create a role for a principal. Detects Flexible Server and Single Server.
    #[command(
        after_help = "Example: pgentra role create my-app --object-id 00000000-1111-2222-3333-444444444444",
        // In this command these ids are those of the role's principal.
        mut_arg("client_id", |arg| arg.long("as-client-id")),
        mut_arg("object_id", |arg| arg.long("as-object-id")),
        mut_arg("resource_id", |arg| arg.long("as-resource-id")),
        mut_arg("dbname", |arg| arg.help(DATABASE))
    )]
    Create(Create),
    /// Drop a role that is mapped to a principal. Lists dependent objects and privileges first, and
    /// asks once.
    #[command(after_help = "Example: pgentra role drop my-app --reassign-to admin@example.com --yes",
        mut_arg("dbname", |arg| arg.help(DATABASE)))]
    Drop(DropArguments),
    /// Show how the server differs from a file of roles. Changes nothing.
    #[command(after_help = "Example: pgentra role plan -f roles.toml -d app",
        mut_arg("dbname", |arg| arg.help(DATABASE_OF_GRANTS)))]
    Plan(PlanCommand),
    /// Change the server to match a file of roles. Shows the plan and asks once.
    #[command(after_help = "Example: pgentra role apply -f roles.toml -d app --yes",
        mut_arg("dbname", |arg| arg.help(DATABASE_OF_GRANTS)))]
    Apply(Apply),
    /// Write a file of roles from what the server has. A plan for the file is empty.
    #[command(after_help = "Example: pgentra role import -h my.postgres.database.azure.com -U admin@example.com -f roles.toml",
        mut_arg("dbname", |arg| arg.help("Not needed: every database is read that the role can connect to")))]
    Import(ImportArguments),
}

/// Arguments of `pgentra role list`.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Ask Microsoft Graph which principals no longer exist, and show that in a further column.
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
    pub(crate) principal: PrincipalArguments,
    /// Allow the role to administer Entra roles. Flexible Server only.
    #[arg(long)]
    pub(crate) admin: bool,
    /// Require a second factor in the role's tokens. Flexible Server only.
    #[arg(long)]
    pub(crate) mfa: bool,
    #[command(flatten)]
    pub(crate) run: Run,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) identity: Identity,
}

/// The principal of a role.
#[derive(Debug, Args)]
pub(crate) struct PrincipalArguments {
    /// Object id of the principal; of an application, that of its enterprise application.
    #[arg(id = "principal_object_id", long = "object-id", value_name = "GUID", group = "principal")]
    pub(crate) object_id: Option<String>,
    /// Client (application) id of the principal. Flexible Server maps object ids, so there it is looked up in the tenant.
    #[arg(id = "principal_client_id", long = "client-id", value_name = "GUID", group = "principal")]
    pub(crate) client_id: Option<String>,
    /// Kind of the principal: service (a managed identity or an application), user or group.
    #[arg(long, default_value = "service", value_name = "KIND")]
    pub(crate) kind: ObjectType,
}

/// Arguments of `pgentra role drop`.
#[derive(Debug, Args)]
pub(crate) struct DropArguments {
    /// Name of the role.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Reassign its objects to this role, in every database, and revoke its privileges.
    #[arg(long, value_name = "ROLE")]
    pub(crate) reassign_to: Option<String>,
    /// Revoke its privileges, in every database. A role that owns objects is not dropped.
    #[arg(long)]
    pub(crate) revoke: bool,
    /// Make the change without asking.
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
    pub(crate) plan: PlanArguments,
    /// Make the changes without asking.
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Arguments of `pgentra role plan`.
#[derive(Debug, Args)]
pub(crate) struct PlanCommand {
    #[command(flatten)]
    pub(crate) plan: PlanArguments,
    /// Exit with 0 if the server is as the file says, with 2 if it differs, and with 1 on any error.
    #[arg(long)]
    pub(crate) exit_code: bool,
}

/// Arguments of `pgentra role import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArguments {
    /// The file to write, which must not exist. Default: standard output.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) identity: Identity,
}

/// Arguments of `pgentra role plan` and `apply`.
#[derive(Debug, Args)]
pub(crate) struct PlanArguments {
    /// The file of roles (TOML, see docs/roles.md); - reads standard input. Grants without a
    /// database apply to that of -d.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) prune: PruneArguments,
    /// Drop roles without login that are missing in the file, if the file has roles without login.
    #[arg(long)]
    pub(crate) prune_groups: bool,
    #[command(flatten)]
    pub(crate) tenant: Tenant,
    #[command(flatten)]
    pub(crate) run: Run,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) identity: Identity,
}

/// Roles that are mapped to Entra, are missing in the file, and are dropped.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct PruneArguments {
    /// Drop roles that are mapped to Entra and missing in the file, except administrators.
    #[arg(long)]
    pub(crate) prune: bool,
    /// Also drop administrators that are missing in the file.
    #[arg(long, requires = "prune")]
    pub(crate) prune_admins: bool,
}

impl PruneArguments {
    /// What of it a plan is asked for.
    pub(crate) fn wanted(self) -> Prune {
        match (self.prune, self.prune_admins) {
            (false, _) => Prune::Nothing,
            (true, false) => Prune::Roles,
            (true, true) => Prune::Administrators,
        }
    }
}

/// Further queries to Microsoft Graph.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Tenant {
    /// Ask Microsoft Graph for roles whose principal no longer exists.
    #[arg(long)]
    pub(crate) orphans: bool,
}

/// How a change is made and shown.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Run {
    /// Print the changes as a script for psql, without making them.
    #[arg(long, conflicts_with = "output")]
    pub(crate) print_sql: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

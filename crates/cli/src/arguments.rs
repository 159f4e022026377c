//! The command line. Parsing has no side effects; `sign_in` and the commands resolve the values.

use std::path::PathBuf;

use clap::{ArgAction, Args, CommandFactory as _, Parser, Subcommand};

use crate::command::script::Scripts;
#[cfg(unix)]
pub(crate) use crate::gateway::GatewayArguments;
use crate::grant::{Grant, Revoke};
use crate::identity::IdentityCommand;
use crate::kubernetes::KubernetesCommand;
#[cfg(unix)]
use crate::launch::ExecListener;
use crate::launch::{Exec, Psql};
#[cfg(unix)]
use crate::local::arguments::{Local, Quickstart};
#[cfg(target_os = "linux")]
use crate::local::run::{LocalConnector, LocalRelay};
use crate::options::{Connection, Identity, Output};
pub(crate) use crate::proxy::Proxy;
use crate::role::RoleCommand;

/// What a new user runs first.
const START: &str = if cfg!(unix) { "pgentra quickstart" } else { "pgentra doctor -h SERVER" };

/// PostgreSQL without passwords, on Azure identities.
#[derive(Debug, Parser)]
#[command(
    name = "pgentra",
    version,
    disable_help_flag = true,
    after_help = format!(
        "Exit codes: 0 fine, 1 our fault, 2 usage or configuration, 3 no token, 4 network or TLS,\n\
         5 refused by the server, 6 a check of `doctor` failed. `psql` and `exec` pass on the exit code of the program they run.\n\n\
         Start with: {START}"
    )
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Say more on stderr: -v decisions, -vv details. `PGENTRA_LOG` takes a filter such as `pgentra_identity=debug`.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,

    /// Print help. -h does it too, where it names no host.
    #[arg(short = '?', long, global = true, action = ArgAction::Help)]
    help: Option<bool>,
}

/// The definition of all commands, with `-h` as help on each that has no option `-h HOST`.
pub(crate) fn definition() -> clap::Command {
    let definition = with_short_help(Arguments::command());
    let definition = definition
        .mut_subcommand("proxy", |proxy| proxy.mut_args(|argument| sorted(argument, HEADINGS, "PGENTRA_")));
    #[cfg(unix)]
    let definition = definition.mut_subcommand("gateway", |gateway| {
        gateway.mut_args(|argument| sorted(argument, GATEWAY_HEADINGS, "PGENTRA_GATEWAY_"))
    });
    definition
}

/// The headings of the gateway's options, in this order.
#[cfg(unix)]
const GATEWAY_HEADINGS: &[(&str, &[&str])] = &[
    ("Listening", &["listen", "listen_tls_cert", "listen_tls_key", "danger_accept_plaintext"]),
    ("Tokens", &["tenant", "cloud", "audience", "issuer", "keys_url", "keys_ca", "expiry", "expiry_notice"]),
    (
        "Server",
        &[
            "upstream",
            "target_session_attrs",
            "databases",
            "host_names",
            "method",
            "upstream_ca",
            "authority",
            "password_file",
            "service_role",
        ],
    ),
    ("Roles", &["flavour", "mapping", "unmapped", "auth", "server_name"]),
    ("Limits", &["max_connections", "start_up_timeout", "first_packet_timeout", "drain_timeout"]),
    ("Observing", &["name", "admin_listen", "health_listen", "log_format", "audit"]),
];

/// The headings of the proxy's options, in this order.
const HEADINGS: &[(&str, &[&str])] = &[
    (
        "Listening",
        &[
            "listen",
            "listen_read",
            "listen_direct",
            "listen_tls_cert",
            "listen_tls_key",
            "danger_listen_beyond_loopback",
        ],
    ),
    ("Several targets at one address", &["databases", "host_names", "roles"]),
    (
        "Who may connect",
        &[
            "listen_auth_file",
            "listen_tls_client_ca",
            "listen_tls_client_name",
            "listen_tls_client_map",
            "listen_uids",
            "role_map",
            "pin",
        ],
    ),
    ("Limits", &["max_connections", "connect_rate", "start_up_timeout", "first_packet_timeout"]),
    ("Pooling", &["warm", "warm_max_age", "reuse", "server_lifetime", "server_check_delay"]),
    ("Several servers", &["server_role_interval", "demoted_sessions"]),
    ("Stopping", &["drain", "drain_timeout"]),
    ("Observing", &["name", "admin_listen", "health_listen", "log_format", "audit"]),
];

/// An option below its heading, with the variable that sets it too.
fn sorted(argument: clap::Arg, headings: &[(&str, &[&str])], prefix: &str) -> clap::Arg {
    let id = argument.get_id().as_str();
    let heading = headings.iter().find(|(_, ids)| ids.contains(&id)).map(|(heading, _)| *heading);
    let Some(heading) = heading.or(argument.get_help_heading().filter(|heading| *heading == "Identity"))
    else {
        return argument;
    };
    let variable = id.to_ascii_uppercase();
    let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
    let heading = heading.to_owned();
    argument.help(format!("{help} [env: {prefix}{variable}]")).help_heading(heading)
}

fn with_short_help(command: clap::Command) -> clap::Command {
    let is_host = command.get_arguments().any(|argument| argument.get_short() == Some('h'));
    let help = clap::Arg::new("help_by_h").short('h').action(ArgAction::Help).hide(true).help("Print help.");
    let command = if is_host { command } else { command.arg(help) };
    let names: Vec<_> = command.get_subcommands().map(|one| one.get_name().to_owned()).collect();
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, with_short_help))
}

/// The commands of `pgentra`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the article "Connect with Managed Identity to Azure Database for PostgreSQL" from start
    /// to end on this machine.
    #[cfg(unix)]
    #[command(after_help = "Example: pgentra quickstart --flavour single")]
    Quickstart(Quickstart),
    /// Print an access token for Azure Database for PostgreSQL, or keep one in a file.
    #[command(
        after_help = "With --file the token is written into a file for programs that read a password from one: in one step, with mode 0600, \
                      without a line feed. --watch replaces it ahead of each expiry; SIGHUP asks for another token at once.\n\n\
                      Example: PGPASSWORD=$(pgentra token) psql 'host=my.postgres.database.azure.com user=my-app sslmode=verify-full'\n         \
                      pgentra token --watch --file /run/my-app/password"
    )]
    Token(Token),
    /// Show the identity, the claims of its token, and the role names that match it.
    #[command(after_help = "Example: pgentra whoami --client-id 00000000-1111-2222-3333-444444444444")]
    Whoami(Whoami),
    /// Run SQL with an Entra token; needs no PostgreSQL client.
    #[command(
        after_help = "Without -c and -f the SQL is read from standard input. Each -c and each file is a transaction of its own.\n\n\
                      Example: pgentra query -h my.postgres.database.azure.com -U my-app -d postgres -c 'SELECT version()'"
    )]
    Query(Query),
    /// Run the installed psql with an Entra token.
    #[command(
        override_usage = "pgentra psql [OPTIONS] [PSQL OPTIONS] [DBNAME|CONNINFO [USERNAME]] [-- PSQL OPTIONS]",
        after_help = "Every option that is not listed here is psql's own, and so is everything behind --. -v NAME=VALUE is psql's, \
                      a bare -v is pgentra's.\npsql connects to a private listener, which signs in with a valid token each time: \\c works for as long \
                      as psql runs.\n\n\
                      Example: pgentra psql -h my.postgres.database.azure.com -U my-app -d postgres -At -c 'SELECT version()'"
    )]
    Psql(Psql),
    /// Run any program that uses PostgreSQL. It connects to a private listener, which signs in with
    /// an Entra token.
    #[command(
        after_help = "PGHOST, PGPORT, PGUSER and PGDATABASE are set for the program alone. It can connect at any time, for as long as it \
                      runs: each connection gets a valid token. The token is not in its environment.\n\n\
                      Example: pgentra exec -h my.postgres.database.azure.com -U my-app -d app -- pg_dump --schema-only"
    )]
    Exec(Exec),
    /// Serve the listener of `psql` and `exec`.
    #[cfg(unix)]
    #[command(name = "exec-listener", hide = true)]
    ExecListener(ExecListener),
    /// Serve the namespaces of `local run`, outside of them.
    #[cfg(target_os = "linux")]
    #[command(name = "local-relay", hide = true)]
    LocalRelay(LocalRelay),
    /// Connect to published ports, inside the namespaces of `local run`.
    #[cfg(target_os = "linux")]
    #[command(name = "local-connector", hide = true)]
    LocalConnector(LocalConnector),
    /// Find what prevents a sign-in to the server, and how to fix it.
    #[command(
        after_help = "Example: pgentra doctor -h my.postgres.database.azure.com -U my-app -d app\n         \
                      pgentra doctor --gateway --config /etc/pgentra/gateway.toml\n         \
                      pgentra doctor --redact -o json > for-the-ticket.json"
    )]
    Doctor(Doctor),
    /// Accept connections without a password and sign them in to the server with an Entra token.
    #[command(after_help = "Example: pgentra proxy --listen 6432 my.postgres.database.azure.com\n         \
                      psql 'host=127.0.0.1 port=6432 user=my-app dbname=app'")]
    Proxy(Proxy),
    /// Let any PostgreSQL accept Entra tokens: verify them in front of it, and sign in to it.
    #[cfg(unix)]
    #[command(after_help = "Example: pgentra gateway --config /etc/pgentra/gateway.toml\n         \
                      pgentra gateway --check --config /etc/pgentra/gateway.toml")]
    Gateway(Box<GatewayArguments>),
    /// Let a host sign in to a database: identity on the host, role in the database. Shows the plan
    /// and asks once.
    #[command(
        after_help = "Example: pgentra grant myVm -g myResourceGroup --server my-server --role my-app -U dba@example.com\n         \
                      pgentra grant webapp/my-app --server my-server --role my-app -U dba@example.com\n         \
                      pgentra grant aks/my-cluster/default/my-app --identity my-identity --server my-server --role my-app -U dba@example.com",
        mut_arg("dbname", |arg| arg.help("Not needed: Entra roles are read and changed in the database postgres"))
    )]
    Grant(Grant),
    /// Take back what `pgentra grant` gave a host: the role, and the federated credential. Shows the
    /// plan and asks once.
    #[command(
        after_help = "Example: pgentra revoke webapp/my-app --server my-server --role my-app -U dba@example.com",
        mut_arg("dbname", |arg| arg.help("Not needed: Entra roles are read and changed in the database postgres"))
    )]
    Revoke(Revoke),
    /// Manage identities of hosts and Entra administrators of servers, and search the tenant.
    #[command(subcommand, after_help = "Example: pgentra identity assign --vm myVm -g myResourceGroup")]
    Identity(IdentityCommand),
    /// Manage roles that are mapped to Entra principals, and their privileges.
    #[command(subcommand, after_help = "Example: pgentra role plan -f roles.toml -d app")]
    Role(RoleCommand),
    /// Put the proxy into manifests of Kubernetes.
    #[command(
        subcommand,
        alias = "k8s",
        after_help = "Example: pgentra kubernetes inject -f app.yaml | kubectl apply -f -"
    )]
    Kubernetes(KubernetesCommand),
    /// Run a local Azure: metadata service, Entra, and a PostgreSQL that checks tokens.
    #[cfg(unix)]
    #[command(subcommand, after_help = "Example: pgentra local up --flavour flexible")]
    Local(Local),
    /// Print a completion script for a shell.
    #[command(
        after_help = "A script asks the installed pgentra for the values; print it again after an update.\n\n\
                      Example: # bash\n         \
                      mkdir -p ~/.local/share/bash-completion/completions\n         \
                      pgentra completions bash > ~/.local/share/bash-completion/completions/pgentra\n         \
                      # zsh; ~/.zshrc has: fpath=(~/.zfunc $fpath); autoload -Uz compinit && compinit\n         \
                      mkdir -p ~/.zfunc\n         \
                      pgentra completions zsh > ~/.zfunc/_pgentra\n         \
                      # fish\n         \
                      mkdir -p ~/.config/fish/completions\n         \
                      pgentra completions fish > ~/.config/fish/completions/pgentra.fish\n         \
                      # PowerShell, in the file that $PROFILE names:\n         \
                      # pgentra completions powershell | Out-String | Invoke-Expression"
    )]
    Completions {
        /// Shell for which the script is printed.
        shell: clap_complete::Shell,
    },
    /// Print a manual page in roff, or write all of them into a folder.
    #[command(
        after_help = "Example: pgentra man local up | man -l -\n         pgentra man --dir ~/.local/share/man/man1"
    )]
    Man {
        /// The command, such as local up. Default: pgentra itself.
        #[arg(value_name = "COMMAND", conflicts_with = "dir")]
        command: Vec<String>,
        /// Write the page of every command into this folder, which is created.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Print the version.
    #[command(after_help = "Example: pgentra version")]
    Version,
}

/// Arguments of `pgentra token`.
#[derive(Debug, Args)]
pub(crate) struct Token {
    /// Print the token's header and claims instead of the token; they are not verified.
    #[arg(long)]
    pub(crate) decode: bool,
    /// Write the token into this file, which is replaced in one step, instead of printing it.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["decode", "output"])]
    pub(crate) file: Option<PathBuf>,
    /// Replace the file ahead of each expiry, until SIGTERM or Ctrl-C. The file then stays.
    #[arg(long, requires = "file")]
    pub(crate) watch: bool,
    /// Write a line of libpq's password file (.pgpass) for this server, role and database: a URI or
    /// conninfo string, in addition to PGHOST and the other variables.
    #[arg(long, value_name = "CONNINFO", requires = "file")]
    pub(crate) pgpass: Option<String>,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) identity: Identity,
}

/// Arguments of `pgentra whoami`.
#[derive(Debug, Args)]
pub(crate) struct Whoami {
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) identity: Identity,
}

/// Arguments of `pgentra query`.
#[derive(Debug, Args)]
pub(crate) struct Query {
    #[command(flatten)]
    pub(crate) scripts: Scripts,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) identity: Identity,
}

/// Arguments of `pgentra doctor`.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Mask names of hosts, roles and databases, addresses and ids; each value always gets the same
    /// mask.
    #[arg(long)]
    pub(crate) redact: bool,
    /// Explain a finding, such as role-not-mapped, instead of running the checks; without a name,
    /// list all findings.
    #[arg(long, value_name = "FINDING", num_args = 0..=1, default_missing_value = "", conflicts_with_all = ["redact", "output"])]
    pub(crate) explain: Option<String>,
    #[cfg(unix)]
    #[command(flatten)]
    pub(crate) gateway: GatewayChecked,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) identity: Identity,
}

/// Which gateway `pgentra doctor` checks.
#[cfg(unix)]
#[derive(Debug, Args)]
#[command(next_help_heading = "Gateway")]
pub(crate) struct GatewayChecked {
    /// Check a gateway from its operator's side instead of a sign-in: its configuration, the signing
    /// keys, the servers and their mapping.
    #[arg(long, conflicts_with_all = ["Connection", "Server", "Identity", "explain"])]
    pub(crate) gateway: bool,
    /// The gateway's TOML file. Default: PGENTRA_GATEWAY_CONFIG
    #[arg(long, value_name = "FILE", requires = "gateway")]
    pub(crate) config: Option<std::path::PathBuf>,
    /// A file with an access token, to see what it may do.
    #[arg(long, value_name = "FILE", requires = "gateway", requires = "role")]
    pub(crate) token_file: Option<std::path::PathBuf>,
    /// With --token-file: the role that the token is for.
    #[arg(long, value_name = "ROLE", requires = "token_file")]
    pub(crate) role: Option<String>,
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn h_is_help_where_it_is_no_host() {
        fn walk(command: &clap::Command) {
            let h: Vec<_> =
                command.get_arguments().filter(|argument| argument.get_short() == Some('h')).collect();
            assert_eq!(h.len(), 1, "{}", command.get_name());
            let takes_host = command
                .get_arguments()
                .any(|argument| argument.get_id() == "host" && argument.get_short() == Some('h'));
            assert_eq!(matches!(h[0].get_action(), ArgAction::Help), !takes_host, "{}", command.get_name());
            command.get_subcommands().for_each(walk);
        }
        let definition = definition();
        definition.clone().debug_assert();
        walk(&definition);
    }

    #[test]
    fn the_options_of_the_proxy_have_headings() {
        const WITHOUT: [&str; 9] = [
            "config",
            "check",
            "check_config",
            "print_config",
            "output",
            "targets",
            "verbose",
            "help",
            "help_by_h",
        ];
        let definition = definition();
        let proxy = definition.find_subcommand("proxy").unwrap();
        let without: Vec<_> = proxy
            .get_arguments()
            .filter(|argument| argument.get_help_heading().is_none())
            .map(|argument| argument.get_id().as_str())
            .filter(|id| !WITHOUT.contains(id))
            .collect();
        assert!(without.is_empty(), "no heading in HEADINGS: {without:?}");
        let known: Vec<_> = proxy.get_arguments().map(|argument| argument.get_id().as_str()).collect();
        let ids = HEADINGS.iter().flat_map(|(_, ids)| *ids);
        let gone: Vec<_> = ids.filter(|id| !known.contains(id)).collect();
        assert!(gone.is_empty(), "no option of the proxy: {gone:?}");
        let mut built = definition.clone();
        built.build();
        let help = built.find_subcommand_mut("proxy").unwrap().render_help().to_string();
        // Without the line breaks, which depend on the widths of the columns.
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(help.contains("[env: PGENTRA_WARM]") && help.contains("[env: PGENTRA_CLIENT_ID]"), "{help}");
    }

    #[test]
    fn every_command_shows_an_example() {
        fn walk(command: &clap::Command) {
            let leaf = command.get_subcommands().next().is_none() && !command.is_hide_set();
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(
                !leaf
                    || help.contains("Example: ") && help.contains("pgentra ")
                    || help.contains("=$(pgentra")
                    || help.contains("eval"),
                "{}",
                command.get_name()
            );
            command.get_subcommands().for_each(walk);
        }
        walk(&Arguments::command());
    }
}

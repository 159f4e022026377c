//! The checks from the operator's side: whether clients would be signed in. `pgentra gateway
//! --check` prints them as they come, `pgentra doctor --gateway` as a report.

use std::error::Error;
use std::path::Path;

use pgentra_connect::quote;
use pgentra_gateway::{Gateway, GatewayCheckError};
use pgentra_gateway_config::{ConfiguredServer, GatewayConfiguration, ServerSettings};
use pgentra_system::System;
use pgentra_verify::SubjectKind;
use zeroize::Zeroizing;

use super::arguments::GatewayArguments;
use crate::blame::Blame;
use crate::catalogue::Finding;
use crate::doctor::Check;
use crate::output;
use crate::problem::{Outcome, Problem};

/// Longest file of a token in bytes: PostgreSQL's password message carries no longer one.
const TOKEN: usize = 65_536;

/// The result of a check at one server.
pub(crate) struct ServerCheck {
    pub(crate) check: Check,
    pub(crate) result: Result<String, CheckFault>,
}

/// Why a check failed.
pub(crate) struct CheckFault {
    pub(crate) finding: Finding,
    /// The error and its causes, the nearest first; at least one.
    pub(crate) errors: Vec<String>,
    pub(crate) hint: String,
}

/// Prints a line for each check, and goes on after one that failed.
pub(crate) async fn run(
    system: &System,
    configuration: GatewayConfiguration,
    arguments: &GatewayArguments,
) -> Outcome {
    let token = arguments.token_file.as_deref().map(|path| token(system, path)).transpose()?;
    let token = arguments.role.as_deref().zip(token.as_ref().map(|token| token.as_str()));
    let mut lines = format!("ok      configuration: clients connect to {}\n", listeners(&configuration));
    let mut failed = Vec::new();
    for server in configuration.servers {
        let name = server.name.clone();
        for ServerCheck { check, result } in examine(server, token).await {
            let what = label(check);
            match result {
                Ok(text) => lines.push_str(&format!("ok      {name}: {what}: {text}\n")),
                Err(CheckFault { finding, errors, hint }) => {
                    let text = errors.join(": ");
                    lines.push_str(&format!("failed  {name}: {what}: {text}\n        hint: {hint}\n"));
                    failed.push(finding.blame());
                }
            }
        }
    }
    output::result(&lines)?;
    match failed.first() {
        None => Ok(()),
        Some(blame) => Err(Problem::new(*blame, format!("{} check(s) of the gateway failed", failed.len()))
            .hint("the reasons are in the lines above")),
    }
}

fn label(check: Check) -> &'static str {
    match check {
        Check::SigningKeys => "signing keys",
        Check::GatewaySignIn => "server",
        Check::RoleMapping => "mapping",
        _ => "token",
    }
}

/// Runs the checks at a server: keys and server in any case, what depends on them if they passed.
/// `token` is a role and a token for it.
pub(crate) async fn examine(server: ConfiguredServer, token: Option<(&str, &str)>) -> Vec<ServerCheck> {
    let ConfiguredServer { settings, config, .. } = server;
    let servers = std::iter::once(&config.upstream).chain(&config.further);
    let upstream = servers.map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let gateway = Gateway::new(config);
    let keys = gateway.keys().await;
    let mut checks = vec![ServerCheck {
        check: Check::SigningKeys,
        result: match keys {
            Ok(number) => Ok(format!("{number} key(s), fetched now")),
            Err(error) => Err(CheckFault::new(Finding::GatewayKeys, &error, keys_hint(&settings))),
        },
    }];
    match gateway.check().await {
        Ok((version, roles)) => {
            checks.push(ServerCheck {
                check: Check::GatewaySignIn,
                result: Ok(format!("PostgreSQL {version} at {upstream}")),
            });
            checks.push(ServerCheck {
                check: Check::RoleMapping,
                result: Ok(format!("{roles} mapped role(s)")),
            });
        }
        Err(error) => checks.extend(server_fault(&error, &upstream)),
    }
    if let Some((role, token)) = token.filter(|_| checks.iter().all(|check| check.result.is_ok())) {
        checks.push(ServerCheck { check: Check::TokenJudged, result: judge(&gateway, role, token).await });
    }
    checks
}

/// A mapping that cannot be read proves that the gateway can sign in.
fn server_fault(error: &GatewayCheckError, upstream: &str) -> Vec<ServerCheck> {
    let fault = |finding, hint: String| Err(CheckFault::new(finding, error, hint));
    match error {
        GatewayCheckError::Unreachable { .. } | GatewayCheckError::NoServer(_) => vec![ServerCheck {
            check: Check::GatewaySignIn,
            result: fault(Finding::GatewayUpstreamUnreachable, reach_hint(upstream)),
        }],
        GatewayCheckError::Mapping(_) => vec![
            ServerCheck { check: Check::GatewaySignIn, result: Ok(format!("signed in at {upstream}")) },
            ServerCheck {
                check: Check::RoleMapping,
                result: fault(
                    Finding::GatewayMapping,
                    "prepare the server again: pgentra gateway init --help".to_owned(),
                ),
            },
        ],
        _ => vec![ServerCheck {
            check: Check::GatewaySignIn,
            result: fault(
                Finding::GatewaySignIn,
                "the lines of pg_hba.conf and pg_ident.conf: pgentra gateway init --help; after a change: SELECT pg_reload_conf()"
                    .to_owned(),
            ),
        }],
    }
}

async fn judge(gateway: &Gateway, role: &str, token: &str) -> Result<String, CheckFault> {
    let fault = |text: String, hint: &str| CheckFault {
        finding: Finding::GatewayToken,
        errors: vec![text],
        hint: hint.to_owned(),
    };
    match gateway.judge(role, token).await {
        Ok(Some(principal)) => {
            let kind = if principal.kind() == SubjectKind::App { "app" } else { "user" };
            Ok(format!("the {kind} {} may use the role", principal.object_id()))
        }
        Ok(None) => Err(fault(
            "the role is not mapped to a principal".to_owned(),
            "map it, as the page on the gateway says (docs/gateway.md): pgentra role create --help",
        )),
        Err(refusal) => Err(fault(refusal.to_string(), "compare the claims: pgentra whoami")),
    }
}

/// A command that asks for the keys in the gateway's place.
fn keys_hint(settings: &ServerSettings) -> String {
    let of_tenant = || settings.tenant.first().map(|tenant| settings.cloud.keys_url(*tenant));
    let url = settings.keys_url.clone().or_else(of_tenant).or_else(|| settings.issuer.first().cloned());
    let authority = settings.keys_ca.as_ref().map(|path| path.display().to_string());
    let authority = authority.map(|path| format!(" --cacert {}", quote::shell_word(&path)));
    let url = quote::shell_word(&url.unwrap_or_default());
    format!(
        "the gateway needs HTTPS to the issuer (tenant, cloud, keys_url, keys_ca): curl -sSf{} {url}",
        authority.unwrap_or_default()
    )
}

fn reach_hint(upstream: &str) -> String {
    let first = upstream.split(", ").next().unwrap_or(upstream);
    let (host, port) = first.rsplit_once(':').unwrap_or((first, "5432"));
    format!(
        "does the server run, and with TLS if it is not a Unix socket: pg_isready -h {} -p {port}",
        quote::shell_word(host)
    )
}

impl CheckFault {
    fn new(finding: Finding, error: &(dyn Error + 'static), hint: String) -> Self {
        let causes = std::iter::successors(Some(error), |&error| error.source());
        Self { finding, errors: causes.map(ToString::to_string).collect(), hint }
    }
}

/// The addresses of the listeners.
pub(crate) fn listeners(configuration: &GatewayConfiguration) -> String {
    let places: Vec<_> = configuration.process.listen.iter().map(ToString::to_string).collect();
    places.join(", ")
}

/// The token in a file.
pub(crate) fn token(system: &System, path: &Path) -> Outcome<Zeroizing<String>> {
    let text = system.files().read_text(path, TOKEN).map(Zeroizing::new);
    text.map(|text| Zeroizing::new(text.trim().to_owned())).map_err(|error| {
        Problem::new(Blame::Usage, format!("{} cannot be read: {error}", path.display()))
            .hint("write the token into it: pgentra token > FILE")
    })
}

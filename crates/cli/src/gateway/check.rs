//! `pgentra gateway --check`: whether clients would be signed in, from the operator's side.

use std::path::Path;

use pgentra_gateway::Gateway;
use pgentra_gateway_config::{ConfiguredServer, GatewayConfiguration};
use pgentra_session::login_error::chain;
use pgentra_system::System;
use pgentra_verify::SubjectKind;
use zeroize::Zeroizing;

use super::arguments::GatewayArguments;
use crate::blame::Blame;
use crate::output;
use crate::problem::{Outcome, Problem};

/// Longest file of a token in bytes: PostgreSQL's password message carries no longer one.
const TOKEN: usize = 65_536;

/// Prints a line for each check, and goes on after one that failed.
pub(crate) async fn run(
    system: &System,
    configuration: GatewayConfiguration,
    arguments: &GatewayArguments,
) -> Outcome {
    let token = arguments.token_file.as_deref().map(|path| token(system, path)).transpose()?;
    let token = token.as_ref().zip(arguments.role.as_deref());
    let mut lines = format!("ok      configuration: clients connect to {}\n", listeners(&configuration));
    let mut failed = Vec::new();
    for ConfiguredServer { name, config, .. } in configuration.servers {
        let gateway = Gateway::new(config);
        let mut add = |what: &str, result: Result<String, (Blame, String, &str)>| match result {
            Ok(text) => lines.push_str(&format!("ok      {name}: {what}: {text}\n")),
            Err((blame, text, hint)) => {
                lines.push_str(&format!("failed  {name}: {what}: {text}\n        hint: {hint}\n"));
                failed.push(blame);
            }
        };
        add(
            "signing keys",
            match gateway.keys().await {
                Ok(number) => Ok(format!("{number} of the tenants")),
                Err(error) => Err((
                    Blame::Network,
                    chain(&error),
                    "the gateway needs HTTPS to the issuer: look at tenant, cloud, keys_url and keys_ca",
                )),
            },
        );
        add(
            "server and mapping",
            match gateway.check().await {
                Ok((version, roles)) => Ok(format!("PostgreSQL {version}, {roles} mapped role(s)")),
                Err(error) => Err((
                    Blame::Server,
                    chain(&error),
                    "the lines of pg_hba.conf and pg_ident.conf: pgentra gateway init --help; after a change: SELECT pg_reload_conf()",
                )),
            },
        );
        if let Some((token, role)) = token {
            add(
                "token",
                match gateway.judge(role, token).await {
                    Ok(Some(principal)) => {
                        let kind = if principal.kind() == SubjectKind::App { "app" } else { "user" };
                        Ok(format!("the {kind} {} may use the role", principal.object_id()))
                    }
                    Ok(None) => Err((
                        Blame::Server,
                        "the role is not mapped to a principal".to_owned(),
                        "map it, as the page on the gateway says: docs/gateway.md",
                    )),
                    Err(refusal) => {
                        Err((Blame::Server, refusal.to_string(), "compare the claims: pgentra whoami"))
                    }
                },
            );
        }
    }
    output::result(&lines)?;
    match failed.first() {
        None => Ok(()),
        Some(blame) => Err(Problem::new(*blame, format!("{} check(s) of the gateway failed", failed.len()))
            .hint("the reasons are in the lines above")),
    }
}

/// The addresses of the listeners.
pub(crate) fn listeners(configuration: &GatewayConfiguration) -> String {
    let places: Vec<_> = configuration.process.listen.iter().map(ToString::to_string).collect();
    places.join(", ")
}

fn token(system: &System, path: &Path) -> Outcome<Zeroizing<String>> {
    let text = system.files().read_text(path, TOKEN).map(Zeroizing::new);
    text.map(|text| Zeroizing::new(text.trim().to_owned())).map_err(|error| {
        Problem::new(Blame::Usage, format!("{} cannot be read: {error}", path.display()))
            .hint("write the token into it: pgentra token > FILE")
    })
}

//! `pgentra proxy --print-config PROGRAM`: how a program connects to the listeners, in the
//! program's own format.

use pgentra_connect::quote;
use pgentra_proxy_config::{Configuration, ListenAddr, TargetConfig};

use super::access::{Access, ListenerHost};
use super::program_formats::{self as formats, Program, ProgramTarget};
use crate::blame::Blame;
use crate::output;
use crate::problem::{Outcome, Problem};
use crate::progress::waiting;

/// Prints the configuration on stdout, and what to do with it on stderr.
pub(crate) async fn run(configuration: &Configuration, program: Program) -> Outcome {
    let mut entries: Vec<ProgramTarget> = Vec::new();
    for configured in &configuration.targets {
        let entry = entry(configured, program).await?;
        let same = entries.iter().filter(|it| it.name == entry.name).count();
        let name = match same {
            0 => entry.name,
            further => format!("{} ({})", entry.name, further + 1),
        };
        entries.push(ProgramTarget { name, ..entry });
    }
    output::exact(&formats::text(program, &entries)?)?;
    output::say(&formats::next_step(program, &entries));
    for ProgramTarget { name, user, .. } in entries.iter().filter(|entry| entry.access.has_password) {
        output::say(&format!("the proxy asks for the password of {} at {name}", quote::name(user)));
    }
    Ok(())
}

async fn entry(configured: &TargetConfig, program: Program) -> Outcome<ProgramTarget> {
    let TargetConfig { connector, settings, label, .. } = configured;
    let named = !settings.client_auth.role_map.is_empty() || connector.target().named_user().is_some();
    if !named {
        let token = waiting("asking for a token, which names the role", connector.token_ready()).await;
        token.map_err(|error| {
            let problem = Problem::from(error);
            let hint = problem.hint_text().unwrap_or_default().to_owned();
            problem.hint(format!("name the role with -U, and no token is needed here\n{hint}"))
        })?;
    }
    let access = settings.listen.iter().find_map(|place| {
        let address = match place {
            ListenAddr::Tcp(address) => Some(*address),
            _ => None,
        };
        let access = Access::of(place, address, (connector, settings))?;
        (matches!(access.host, ListenerHost::Tcp(_)) || program.takes_sockets()).then_some(access)
    });
    let Some(access) = access else { return Err(no_access(configured)) };
    let Some(user) = access.user.clone() else {
        let text = format!("no role is known for {label}: the token does not name one");
        return Err(Problem::new(Blame::Usage, text).hint("name the role: -U ROLE"));
    };
    Ok(ProgramTarget { name: short(configured), access, user })
}

/// Why there is nothing to print for a target.
fn no_access(configured: &TargetConfig) -> Problem {
    let TargetConfig { settings, label, .. } = configured;
    if settings.client_auth.tls_client_ca.is_some() {
        let text = format!("clients of {label} need a certificate, and its path is not known here");
        return Problem::new(Blame::Usage, text)
            .hint("pgentra proxy --check-config prints the listeners; add the certificate by hand");
    }
    let places: Vec<_> = settings.listen.iter().map(ToString::to_string).collect();
    let text = format!("the program cannot be told how to reach {label} on {}", places.join(", "));
    Problem::new(Blame::Usage, text).hint("give the target a TCP port of its own: --listen 6432")
}

/// The target's name; by default the first part of its host name, and its database.
fn short(configured: &TargetConfig) -> String {
    if let Some(name) = &configured.settings.name {
        return name.clone();
    }
    let target = configured.connector.target();
    let Some(endpoint) = target.endpoints().first() else { return configured.label.clone() };
    let host = match endpoint.host.parse::<std::net::IpAddr>() {
        Ok(_) => endpoint.host.as_str(),
        Err(_) => endpoint.host.split('.').next().unwrap_or_default(),
    };
    match target.named_database() {
        Some(database) => format!("{host}/{database}"),
        None => host.to_owned(),
    }
}

//! The checks of a gateway, from its operator's side.

use pgentra_gateway_config::{GatewayConfiguration, GatewayReloadState, GatewaySources};
use pgentra_settings::InheritedSockets;
use pgentra_system::System;

use super::check::Check;
use super::redact::{Redactor, strike_out};
use super::report::Report;
use crate::arguments::GatewayChecked;
use crate::catalogue::Finding;
use crate::gateway::{self, CheckFault, ServerCheck};
use crate::problem::{Outcome, Problem};

/// The report, with the values to mask.
///
/// # Errors
///
/// If the file of the token cannot be read.
pub(crate) async fn examine(system: &System, arguments: &GatewayChecked) -> Outcome<(Report, Redactor)> {
    let token = arguments.token_file.as_deref().map(|path| gateway::token(system, path)).transpose()?;
    let token = arguments.role.as_deref().zip(token.as_ref().map(|token| token.as_str()));
    let mut report = Report::new(Check::GATEWAY);
    let mut redactor = Redactor::default();
    match configuration(system, arguments) {
        Err(problem) => {
            let hint = problem.hint_text().map(str::to_owned);
            let texts = (problem.causes(), hint);
            report.fail_saying(Finding::GatewaySettings, problem.error_text(), texts);
        }
        Ok(configuration) => servers(configuration, token, &mut report, &mut redactor).await,
    }
    if let Some((role, token)) = token {
        redactor.add("role", role);
        strike_out(&mut report, token);
    }
    Ok((report, redactor))
}

fn configuration(system: &System, arguments: &GatewayChecked) -> Result<GatewayConfiguration, Problem> {
    let sources = GatewaySources { file: arguments.config.clone(), flags: Vec::new() };
    // The sockets of a unit are not handed to a check of its configuration.
    let inherited = InheritedSockets::from_systemd(system.env()).map_err(gateway::problem)?;
    let held =
        GatewayReloadState::new(inherited.or_assumed()).with_directories(crate::gateway::directories());
    GatewayConfiguration::gather(system, &sources, &held).map_err(gateway::problem)
}

/// Runs the checks at every server. A check fails if it fails at one of them.
async fn servers(
    configuration: GatewayConfiguration,
    token: Option<(&str, &str)>,
    report: &mut Report,
    redactor: &mut Redactor,
) {
    let listeners = gateway::listeners(&configuration);
    report.pass(Check::GatewaySettings, format!("clients connect to {listeners}"));
    report.fact(Check::GatewaySettings, "listen", listeners);
    let names: Vec<_> = configuration.servers.iter().map(|server| server.name.clone()).collect();
    report.fact(Check::GatewaySettings, "servers", names.join(", "));
    let mut results = Vec::new();
    for server in configuration.servers {
        let name = server.name.clone();
        redactor.add("role", &server.config.service.name);
        for upstream in std::iter::once(&server.config.upstream).chain(&server.config.further) {
            let upstream = upstream.to_string();
            redactor.add("host", upstream.rsplit_once(':').map_or(upstream.as_str(), |(host, _)| host));
        }
        redactor.add("server", &name);
        results.extend(gateway::examine(server, token).await.into_iter().map(|check| (name.clone(), check)));
    }
    let label = |name: &str| if names.len() > 1 { format!("{name}: ") } else { String::new() };
    for check in Check::GATEWAY.iter().copied() {
        let (mut passed, mut failed) = (Vec::new(), Vec::new());
        for (name, one) in results.extract_if(.., |(_, one)| one.check == check) {
            let ServerCheck { result, .. } = one;
            match result {
                Ok(text) => passed.push(format!("{}{text}", label(&name))),
                Err(fault) => failed.push((name, fault)),
            }
        }
        tell(report, check, passed, failed, label);
    }
    if token.is_none() {
        report.skip(Check::TokenJudged, "no token was given: --token-file and --role");
    }
}

/// Records a check: the fault of the first server, and those of the others as facts.
fn tell(
    report: &mut Report,
    check: Check,
    passed: Vec<String>,
    failed: Vec<(String, CheckFault)>,
    label: impl Fn(&str) -> String,
) {
    let mut failed = failed.into_iter();
    let Some((name, CheckFault { finding, mut errors, hint })) = failed.next() else {
        if !passed.is_empty() {
            report.pass(check, passed.join("; "));
        }
        return;
    };
    let error = format!("{}{}", label(&name), errors.remove(0));
    report.fail_saying(finding, error, (errors, Some(hint)));
    for (name, fault) in failed {
        report.fact(check, "also", format!("{name}: {}", fault.errors.join(": ")));
    }
}

//! The checks of the configuration and the token source.

use pgentra_connect::{Connector, Origin, Target};
use pgentra_identity::{Credential, Resource, SourceName, Verdict};
use pgentra_system::System;

use super::azure_name::azure_server;
use super::check::Check;
use super::redact::Redactor;
use super::report::{Report, Stage, Stop};
use crate::catalogue::Finding;
use crate::options::{Connection, Identity};
use crate::problem::Problem;
use crate::sign_in;

/// The server and the credential.
pub(crate) struct Settings {
    pub(crate) connector: Connector,
    pub(crate) credential: Credential,
    pub(crate) resource: Resource,
}

/// Reports both halves, because neither depends on the other.
pub(crate) fn check(
    system: &System,
    (connection, identity): (&Connection, &Identity),
    report: &mut Report,
    redactor: &mut Redactor,
) -> Stage<Settings> {
    let target = sign_in::target(system, connection);
    let credential = sign_in::credential_for(system, identity, target.as_ref().ok());
    let target = match target {
        Ok(target) => Ok(tell_target(target, report, redactor)),
        Err(problem) => Err(fail(&problem, Finding::ConnectionSettings, report)),
    };
    let credential = match credential {
        Ok((credential, resource)) => {
            tell_identity(&credential, &resource, identity, report);
            Ok((credential, resource))
        }
        Err(problem) => Err(fail(&problem, Finding::IdentitySettings, report)),
    };
    let (target, (credential, resource)) = (target?, credential?);
    let connector = match Connector::new(target, credential.clone(), resource.clone()) {
        Ok(connector) => connector,
        Err(error) => return Err(report.fail(Finding::ConnectionSettings, &error, error.hint())),
    };
    choice(system, &credential, report);
    Ok(Settings { connector, credential, resource })
}

fn fail(problem: &Problem, finding: Finding, report: &mut Report) -> Stop {
    let hint = problem.hint_text().map(str::to_owned);
    report.fail_saying(finding, problem.error_text(), (problem.causes(), hint))
}

fn tell_target(target: Target, report: &mut Report, redactor: &mut Redactor) -> Target {
    for endpoint in target.endpoints() {
        redactor.add("host", &endpoint.host);
        // Hints name the server as az does.
        if let Some(server) = azure_server(&endpoint.host) {
            redactor.add("host", server);
        }
        if let Some(address) = endpoint.address {
            redactor.add("address", &address.to_string());
        }
    }
    redactor.add("role", target.user());
    // On Single Server the server's name follows the role's.
    if let Some((role, server)) = target.user().rsplit_once('@') {
        redactor.add("role", role);
        redactor.add("host", server);
    }
    redactor.add("database", target.database());
    report.pass(Check::Connection, target.to_string());
    for decided in target.decided() {
        let origin = match &decided.origin {
            Origin::Default => "default".to_owned(),
            origin => origin.to_string(),
        };
        report.fact_of(Check::Connection, decided.keyword, &decided.value, Some(origin));
    }
    target
}

fn tell_identity(credential: &Credential, resource: &Resource, identity: &Identity, report: &mut Report) {
    report.pass(Check::Identity, credential.decision().selector().to_string());
    report.fact(Check::Identity, "resource", resource.as_str());
    report.fact(Check::Identity, "cloud", identity.cloud.to_string());
}

/// Reports which source is used and which are not, and whether an HTTP proxy blocks other programs.
fn choice(system: &System, credential: &Credential, report: &mut Report) {
    let decision = credential.decision();
    let first = decision.considered().iter().find(|one| one.verdict() == Verdict::First);
    match first {
        Some(one) => report.pass(Check::Source, format!("{}: {}", one.source(), one.reason())),
        None => report.pass(Check::Source, "none is sure, several are tried"),
    }
    let others = decision.considered().iter().filter(|one| one.verdict() != Verdict::First);
    let (later, never): (Vec<_>, Vec<_>) = others.partition(|one| one.verdict() == Verdict::Later);
    for one in later {
        report.fact(Check::Source, &format!("then {}", one.source()), one.reason().to_string());
    }
    let never: Vec<_> = never.iter().map(|one| one.source().as_str()).collect();
    report.fact(Check::Source, "not asked", format!("{} (pgentra whoami -vv says why)", never.join(", ")));
    match decision.source() {
        Some(SourceName::Imds) => proxy(system, report),
        _ => report
            .skip(Check::Proxy, "only the metadata service of a VM has an address that a proxy takes over"),
    }
}

/// pgentra connects to the metadata service directly. Other programs may send these requests to an
/// HTTP proxy, which has its own metadata service, or none.
fn proxy(system: &System, report: &mut Report) {
    let env = system.env();
    let host = env.get("AZURE_POD_IDENTITY_AUTHORITY_HOST").unwrap_or_default();
    let host = host.split("//").nth(1).and_then(|rest| rest.split([':', '/']).next()).unwrap_or(METADATA);
    let first = |names: [&'static str; 4]| names.into_iter().find(|name| env.has(name));
    let Some(proxy) = first(["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"]) else {
        report.pass(Check::Proxy, "no proxy is set for http");
        return;
    };
    let except = env.get("NO_PROXY").or_else(|| env.get("no_proxy")).unwrap_or_default();
    if except.split(',').map(str::trim).any(|one| one == "*" || one == host) {
        report.pass(Check::Proxy, format!("{proxy} is set, and NO_PROXY leaves out {host}"));
        return;
    }
    let summary = format!(
        "{proxy} is set and NO_PROXY does not leave out {host}: pgentra asks there directly, but curl and most SDKs would ask the proxy"
    );
    let except = if except.is_empty() { host.to_owned() } else { format!("{except},{host}") };
    report.warn(Finding::SourceProxied, summary, Some(format!("export NO_PROXY={except}")));
}

/// The address of the metadata service on every Azure machine.
const METADATA: &str = "169.254.169.254";

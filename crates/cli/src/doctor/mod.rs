//! `pgentra doctor`: finds what prevents a sign-in, and how to fix it.
//!
//! It runs the code that signs in, step by step, and stops where that stops: every finding is a
//! failure that occurred.

mod azure_name;
mod check;
#[cfg(unix)]
mod gateway;
mod redact;
mod render;
mod report;
mod server;
mod settings;
mod token;

#[cfg(test)]
mod tests;

use std::io::IsTerminal as _;

use pgentra_proxy_config::nearest_name;
use pgentra_system::System;

use crate::arguments::Doctor;
use crate::blame::Blame;
use crate::catalogue::Finding;
use crate::options::{Connection, Format, Identity};
use crate::problem::{Outcome, Problem};
use crate::progress::waiting;
use crate::text::{Text, bold, hang, text};
use crate::{markdown, output};
pub(crate) use check::Check;
use redact::Redactor;
use render::{Marks, Printed};
use report::{Found, Line, Report, Stage};

/// Runs the checks and prints the report; or explains one finding. Passed checks are folded unless
/// `is_verbose`, or the report is redacted for other readers.
pub(crate) async fn run(system: &System, arguments: Doctor, is_verbose: bool) -> Outcome {
    if let Some(id) = &arguments.explain {
        return explain(id);
    }
    let (mut report, mut redactor) = waiting("checking", examine_any(system, &arguments)).await?;
    if arguments.redact {
        redactor.apply(&mut report);
    }
    match arguments.output.output {
        Format::Text => output::result(render::text(&report, marks(system), is_verbose || arguments.redact))?,
        Format::Json => output::json(&Printed::of(&report, arguments.redact))?,
    }
    match report.first_fatal() {
        None => Ok(()),
        Some((line, found)) => {
            let problem = problem(line, found);
            // On a terminal the report and the error message would repeat each other.
            let is_told = arguments.output.output == Format::Text && std::io::stdout().is_terminal();
            Err(if is_told { problem.told() } else { problem })
        }
    }
}

async fn examine_any(system: &System, arguments: &Doctor) -> Outcome<(Report, Redactor)> {
    #[cfg(unix)]
    if arguments.gateway.gateway {
        return gateway::examine(system, &arguments.gateway).await;
    }
    Ok(examine(system, &arguments.connection, &arguments.identity).await)
}

/// The report, with the values to mask.
async fn examine(system: &System, connection: &Connection, identity: &Identity) -> (Report, Redactor) {
    let mut report = Report::new(Check::SIGN_IN);
    let mut redactor = Redactor::default();
    // The report has the reason why the checks stopped.
    let _stopped = walk(system, (connection, identity), &mut report, &mut redactor).await;
    (report, redactor)
}

async fn walk(
    system: &System,
    (connection, identity): (&Connection, &Identity),
    report: &mut Report,
    redactor: &mut Redactor,
) -> Stage {
    let settings = settings::check(system, (connection, identity), report, redactor)?;
    let token = token::check(system, (&settings, identity), report, redactor).await?;
    let reached = server::check(system, &settings, &token, report).await;
    redact::strike_out(report, token.expose_secret());
    reached
}

fn problem(line: &Line, found: &Found) -> Problem {
    let check = line.check.id();
    let summary = format!("{check}: {}", line.summary);
    Problem::found(Blame::Check, found.finding, summary).hint(&found.hint)
}

/// UTF-8 if the locale has it, by the first of the variables that is set (POSIX,
/// "Internationalization Variables").
fn marks(system: &System) -> Marks {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(|name| system.env().get(name));
    let locale = locale.unwrap_or_default().to_ascii_lowercase();
    if locale.contains("utf-8") || locale.contains("utf8") { Marks::Unicode } else { Marks::Ascii }
}

/// Prints a section of `docs/errors.md`; without a name, the list of sections.
fn explain(id: &str) -> Outcome {
    if id.is_empty() {
        let line = |finding: &Finding| {
            let id = format!("{:<25}", finding.id());
            text![bold(&id), " ", hang(), finding.summary(), "\n"]
        };
        return output::result(Finding::ALL.iter().map(line).collect::<Text>());
    }
    match Finding::named(id) {
        Some(finding) => {
            let section = markdown::rendered(finding.section(), output::result_width().is_none());
            output::result(text![bold(finding.id()), "\n\n", section])
        }
        None => {
            let wanted = id.to_ascii_lowercase().replace([' ', '_'], "-");
            let ids = || Finding::ALL.iter().map(|finding| finding.id());
            let begun = ids().find(|id| !wanted.is_empty() && id.starts_with(&wanted));
            let hint = match begun.or_else(|| nearest_name(&wanted, ids())) {
                Some(id) => format!("the nearest is {id}: pgentra doctor --explain {id}"),
                None => "list all of them: pgentra doctor --explain".to_owned(),
            };
            Err(Problem::new(Blame::Usage, format!("there is no finding `{id}`")).hint(hint))
        }
    }
}

//! Renders a report as text or JSON.

use pgentra_connect::quote;
use serde::Serialize;

use super::check::{Check, CheckSeverity, Link};
use super::report::{Fact, Found, Line, Outcome, Report};
use crate::text::{Text, bold, coloured, command, faint, hang, text};

/// The characters for marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marks {
    /// ✓ and ✗.
    Unicode,
    /// Words, for a terminal without these characters.
    Ascii,
}

impl Marks {
    fn of(self, line: &Line) -> &'static str {
        let fatal = line.check.severity() == CheckSeverity::Fatal;
        match (&line.outcome, self) {
            (Outcome::Passed, Marks::Unicode) => "✓",
            (Outcome::Passed, Marks::Ascii) => "ok  ",
            (Outcome::Found(_), Marks::Unicode) if fatal => "✗",
            (Outcome::Found(_), Marks::Ascii) if fatal => "FAIL",
            (Outcome::Found(_), Marks::Unicode) => "!",
            (Outcome::Found(_), Marks::Ascii) => "warn",
            (Outcome::Skipped | Outcome::NotReached, Marks::Unicode) => "·",
            (Outcome::Skipped | Outcome::NotReached, Marks::Ascii) => "-   ",
        }
    }
}

/// The text report: a line for each check, with facts and hints below it; the last line is the
/// verdict. Of the passed checks only the first of each link is shown, and no skipped checks,
/// unless `is_verbose`.
pub(crate) fn text(report: &Report, marks: Marks, is_verbose: bool) -> Text {
    let mut text = Text::default();
    let mut link = None;
    let (reached, rest) = report.lines.split_at(last_link(report));
    for line in reached {
        let is_first = link != Some(line.check.link());
        if is_first && is_verbose {
            text.push(text![bold(line.check.link().name()), "\n"]);
        }
        link = Some(line.check.link());
        if !is_verbose && !matches!(line.outcome, Outcome::Found(_)) {
            if is_first {
                text.push(folded(report, line.check.link(), marks));
            }
            continue;
        }
        let mark = colour(marks.of(line), line);
        let (id, width) = match is_verbose {
            true => (line.check.id().split_once('.').map_or("", |(_, name)| name), 12),
            // The link's name is a separate column.
            false => (line.check.id(), 15),
        };
        let name = format!("{id:<width$}{}", if id.len() < width { "" } else { "  " });
        let summary = match line.outcome {
            Outcome::NotReached => "not reached",
            _ => &line.summary,
        };
        text.push(text!["  ", mark, format!(" {name}"), hang(), further(summary), "\n"]);
        for fact in &line.facts {
            let origin = fact.origin.as_ref().map(|origin| format!(" ({origin})")).unwrap_or_default();
            text.push(text![faint(&format!("      {}: {}{origin}", fact.name, fact.value)), "\n"]);
        }
        if let Outcome::Found(Found { finding, caused_by, hint }) = &line.outcome {
            for cause in caused_by {
                text.push(format!("      caused by: {}\n", further(cause)));
            }
            text.push(text!["      ", bold("hint:"), format!(" {}\n", further(hint))]);
            text.push(format!("      see: pgentra doctor --explain {}\n", finding.id()));
        }
    }
    let mut rest: Vec<_> = rest.iter().map(|line| line.check.link().name()).collect();
    rest.dedup();
    if !rest.is_empty() {
        text.push(format!("not reached: {}\n", rest.join(", ")));
    }
    if is_verbose && count(report, |line| matches!(line.outcome, Outcome::Skipped)) > 0 {
        let mark = if marks == Marks::Unicode { "·" } else { "-" };
        text.push(text![faint(&format!("{mark} no result: the summary says why it is not known")), "\n"]);
    }
    text.push(text![verdict(report, marks, is_verbose), "\n"]);
    text
}

/// Indents all lines of a text but the first.
fn further(text: &str) -> String {
    text.replace('\n', "\n        ")
}

/// The passed checks of a link in one line; empty if there are none.
fn folded(report: &Report, link: Link, marks: Marks) -> Text {
    let passed = |line: &&Line| line.check.link() == link && matches!(line.outcome, Outcome::Passed);
    let mut lines = report.lines.iter().filter(passed);
    let Some(first) = lines.next() else { return Text::default() };
    let more = match lines.count() {
        0 => Text::default(),
        more => faint(&format!(" (and {more} more)")),
    };
    let name = format!(" {:<15}", link.name());
    text!["  ", colour(marks.of(first), first), name, hang(), further(&first.summary), more, "\n"]
}

fn count(report: &Report, is: fn(&Line) -> bool) -> usize {
    report.lines.iter().filter(|line| is(line)).count()
}

/// The verdict in one line.
fn verdict(report: &Report, marks: Marks, is_verbose: bool) -> Text {
    let passed = count(report, |line| matches!(line.outcome, Outcome::Passed));
    let unknown = match count(report, |line| matches!(line.outcome, Outcome::Skipped)) {
        0 => String::new(),
        unknown if is_verbose => format!(", {unknown} unknown"),
        unknown => format!(", {unknown} unknown: see -v"),
    };
    if let Some((line, found)) = report.first_fatal() {
        let mark = if marks == Marks::Unicode { "✗" } else { "FAIL" };
        let not_reached = match count(report, |line| matches!(line.outcome, Outcome::NotReached)) {
            0 => String::new(),
            not_reached => format!(", {not_reached} not reached"),
        };
        let (link, finding) = (line.check.link().name(), found.finding.id());
        return text![
            coloured("1;31", mark),
            " ",
            bold(&format!("{link}: {finding}")),
            format!(" ({passed} checks passed{not_reached}{unknown}). Next: "),
            command(&found.finding.next()),
        ];
    }
    let mark = if marks == Marks::Unicode { "✓" } else { "ok" };
    let warnings = count(report, |line| matches!(line.outcome, Outcome::Found(_)));
    let works = match warnings {
        0 => "Everything works".to_owned(),
        1 => "It works, with a warning".to_owned(),
        many => format!("It works, with {many} warnings"),
    };
    text![
        coloured("32", mark),
        " ",
        bold(&works),
        quote::line(&what_works(report)),
        format!(" ({passed} checks passed{unknown})"),
    ]
}

fn what_works(report: &Report) -> String {
    let fact = |name: &str| {
        let facts = report.lines.first().map(|line| line.facts.as_slice()).unwrap_or_default();
        let fact = facts.iter().find(|fact| fact.name == name);
        fact.map(|fact| fact.value.as_str()).unwrap_or_default()
    };
    if report.lines.iter().any(|line| line.check == Check::GatewaySettings) {
        return format!(": the gateway signs clients in at {}", fact("servers"));
    }
    let (user, host, port) = (quote::name(fact("user")), fact("host"), fact("port"));
    format!(": {user} signs in to {host}:{port}/{}", fact("dbname"))
}

/// The end of the last link that was reached.
fn last_link(report: &Report) -> usize {
    let reached = |line: &&Line| !matches!(line.outcome, Outcome::NotReached);
    let last = report.lines.iter().rfind(reached).map(|line| line.check.link());
    report.lines.iter().rposition(|line| Some(line.check.link()) == last).map_or(0, |at| at + 1)
}

fn colour(mark: &str, line: &Line) -> Text {
    let colour = match (&line.outcome, line.check.severity()) {
        (Outcome::Passed, _) => "32",
        (Outcome::Found(_), CheckSeverity::Fatal) => "1;31",
        (Outcome::Found(_), CheckSeverity::Warning) => "1;33",
        _ => return mark.into(),
    };
    coloured(colour, mark)
}

/// The document of `pgentra doctor -o json`.
#[derive(Serialize)]
pub(crate) struct Printed<'a> {
    /// Whether there is no fatal finding.
    ok: bool,
    /// The first fatal finding.
    finding: Option<&'static str>,
    /// Whether names and ids are masked.
    redacted: bool,
    checks: Vec<PrintedCheck<'a>>,
}

#[derive(Serialize)]
struct PrintedCheck<'a> {
    id: &'static str,
    link: Link,
    severity: CheckSeverity,
    proves: &'static str,
    /// `passed`, `failed`, `warning`, `unknown` or `not-reached`.
    outcome: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    summary: &'a str,
    #[serde(skip_serializing_if = "<[Fact]>::is_empty")]
    facts: &'a [Fact],
    #[serde(skip_serializing_if = "Option::is_none")]
    finding: Option<PrintedFinding<'a>>,
    milliseconds: u64,
}

#[derive(Serialize)]
struct PrintedFinding<'a> {
    id: &'static str,
    means: String,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    caused_by: &'a [String],
    hint: &'a str,
}

impl<'a> Printed<'a> {
    pub(crate) fn of(report: &'a Report, redacted: bool) -> Printed<'a> {
        let fatal = report.first_fatal();
        Printed {
            ok: fatal.is_none(),
            finding: fatal.map(|(_, found)| found.finding.id()),
            redacted,
            checks: report.lines.iter().map(PrintedCheck::of).collect(),
        }
    }
}

impl<'a> PrintedCheck<'a> {
    fn of(line: &'a Line) -> PrintedCheck<'a> {
        let found = match &line.outcome {
            Outcome::Found(found) => Some(found),
            _ => None,
        };
        PrintedCheck {
            id: line.check.id(),
            link: line.check.link(),
            severity: line.check.severity(),
            proves: line.check.proves(),
            outcome: match (&line.outcome, line.check.severity()) {
                (Outcome::Passed, _) => "passed",
                (Outcome::Found(_), CheckSeverity::Fatal) => "failed",
                (Outcome::Found(_), CheckSeverity::Warning) => "warning",
                (Outcome::Skipped, _) => "unknown",
                (Outcome::NotReached, _) => "not-reached",
            },
            summary: &line.summary,
            facts: &line.facts,
            finding: found.map(|found| PrintedFinding {
                id: found.finding.id(),
                means: found.finding.cause(),
                caused_by: &found.caused_by,
                hint: &found.hint,
            }),
            milliseconds: line.milliseconds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Finding;
    use crate::doctor::Check;

    fn report() -> Report {
        let mut report = Report::new(Check::SIGN_IN);
        report.pass(Check::Connection, "role \"app\"");
        report.fact_of(Check::Connection, "host", "db.example", Some("PGHOST".to_owned()));
        report.warn(Finding::ClockWrong, "a minute behind", None);
        report.fail_saying(Finding::TlsDeclined, "no TLS", (vec!["N".to_owned()], Some("turn".to_owned())));
        report
    }

    fn plain(marks: Marks, is_verbose: bool) -> String {
        text(&report(), marks, is_verbose).render(false)
    }

    #[test]
    fn without_colour_and_without_other_characters_it_reads_as_well() {
        let unicode = plain(Marks::Unicode, true);
        for line in [
            "configuration\n  ✓ connection  role \"app\"\n      host: db.example (PGHOST)\n",
            "  ! clock       a minute behind\n",
            "  ✗ offered     no TLS\n      caused by: N\n      hint: turn\n      see: pgentra doctor --explain tls-declined\n",
            "  · certificate not reached\nnot reached: authentication, role, database, query\n",
        ] {
            assert!(unicode.contains(line), "{line}\n{unicode}");
        }
        let ascii = plain(Marks::Ascii, true);
        assert!(ascii.is_ascii(), "{ascii}");
        assert!(ascii.contains("  FAIL offered     no TLS\n") && ascii.contains("  warn clock"), "{ascii}");
    }

    #[test]
    fn checks_that_hold_are_folded_and_each_failure_is_said_once() {
        let folded = plain(Marks::Unicode, false);
        assert!(folded.starts_with("  ✓ configuration  role \"app\" (and 1 more)\n"), "{folded}");
        assert!(!folded.contains("db.example") && !folded.contains("nothing is known"), "{folded}");
        assert!(folded.contains("  ! claims.clock"), "{folded}");
        assert_eq!(folded.matches("no TLS").count(), 1, "{folded}");
        assert_eq!(folded.matches("hint: turn").count(), 1, "{folded}");
        let last = folded.lines().last().unwrap();
        assert!(last.starts_with("✗ tls: tls-declined (") && last.contains("). Next: p"), "{folded}");
        assert!(plain(Marks::Ascii, false).is_ascii());
    }

    #[test]
    fn the_last_line_says_what_works() {
        let mut report = Report::new(Check::SIGN_IN);
        for check in Check::SIGN_IN.iter().copied() {
            report.pass(check, "fine");
        }
        report.skip(Check::Proxy, "no matter");
        for (name, value) in [("user", "app"), ("host", "db.example"), ("port", "5432"), ("dbname", "x")] {
            report.fact(Check::Connection, name, value);
        }
        let verdict = |report: &Report| super::verdict(report, Marks::Unicode, false).render(false);
        let passed = Check::SIGN_IN.len() - 1;
        assert_eq!(
            verdict(&report),
            format!(
                "✓ Everything works: \"app\" signs in to db.example:5432/x ({passed} checks passed, 1 unknown: see -v)"
            )
        );
        report.warn(Finding::ClockWrong, "a minute behind", None);
        assert!(verdict(&report).starts_with("✓ It works, with a warning: \"app\""));
    }

    #[test]
    fn programs_get_every_check_and_the_first_fatal_finding() {
        let printed = serde_json::to_value(Printed::of(&report(), false)).unwrap();
        assert_eq!(
            (&printed["ok"], &printed["finding"]),
            (&serde_json::json!(false), &serde_json::json!("tls-declined"))
        );
        let checks = printed["checks"].as_array().unwrap();
        assert_eq!(checks.len(), Check::SIGN_IN.len());
        let outcome = |id: &str| {
            let check = checks.iter().find(|check| check["id"] == id).unwrap();
            check["outcome"].as_str().unwrap()
        };
        assert_eq!(outcome("configuration.connection"), "passed");
        assert_eq!(outcome("claims.clock"), "warning");
        assert_eq!(outcome("claims.form"), "unknown");
        assert_eq!(outcome("tls.offered"), "failed");
        assert_eq!(outcome("query.result"), "not-reached");
    }
}

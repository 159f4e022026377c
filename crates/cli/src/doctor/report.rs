//! The results of the checks.

use serde::Serialize;
use tokio::time::Instant;

use super::check::{Check, CheckSeverity};
use crate::catalogue::Finding;

/// The results. Every check is in it, in order, whether it was reached or not.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) lines: Vec<Line>,
    began: Instant,
}

/// The result of one check.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) check: Check,
    pub(crate) outcome: Outcome,
    /// The result in one line; empty if the check was not reached.
    pub(crate) summary: String,
    /// Further facts, by name.
    pub(crate) facts: Vec<Fact>,
    /// Time since the previous check.
    pub(crate) milliseconds: u64,
}

/// A fact that a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Fact {
    pub(crate) name: String,
    pub(crate) value: String,
    /// The source of the fact, if it is not the check itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) origin: Option<String>,
}

/// The outcome of a check.
#[derive(Debug)]
pub(crate) enum Outcome {
    Passed,
    Found(Found),
    /// The result could not be determined.
    Skipped,
    /// An earlier check failed.
    NotReached,
}

/// The finding of a failed check.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) finding: Finding,
    pub(crate) caused_by: Vec<String>,
    pub(crate) hint: String,
}

/// A check failed and ends the run; the report says which.
#[derive(Debug)]
pub(crate) struct Stop;

/// The value that a step passes to the next one.
pub(crate) type Stage<T = ()> = Result<T, Stop>;

impl Report {
    /// A report of these checks, none of them reached yet.
    pub(crate) fn new(checks: &[Check]) -> Report {
        let line = |check: &Check| Line {
            check: *check,
            outcome: Outcome::NotReached,
            summary: String::new(),
            facts: Vec::new(),
            milliseconds: 0,
        };
        Report { lines: checks.iter().map(line).collect(), began: Instant::now() }
    }

    /// Records that the check passed.
    pub(crate) fn pass(&mut self, check: Check, summary: impl Into<String>) {
        self.set(check, Outcome::Passed, summary.into());
    }

    /// Records that the result could not be determined.
    pub(crate) fn skip(&mut self, check: Check, why: impl Into<String>) {
        self.set(check, Outcome::Skipped, why.into());
    }

    /// Records a fact at a check.
    pub(crate) fn fact(&mut self, check: Check, name: &str, value: impl Into<String>) {
        self.fact_of(check, name, value, None);
    }

    /// Records a fact and its source.
    pub(crate) fn fact_of(
        &mut self,
        check: Check,
        name: &str,
        value: impl Into<String>,
        origin: Option<String>,
    ) {
        if let Some(line) = self.line(check) {
            line.facts.push(Fact { name: name.to_owned(), value: value.into(), origin });
        }
    }

    pub(crate) fn warn(&mut self, finding: Finding, summary: impl Into<String>, hint: Option<String>) {
        self.found(finding, finding.check(), summary.into(), (Vec::new(), hint));
    }

    /// Records a failure at the finding's check. Earlier checks without a result are recorded as
    /// passed.
    pub(crate) fn fail(
        &mut self,
        finding: Finding,
        error: &(dyn std::error::Error + 'static),
        hint: Option<String>,
    ) -> Stop {
        let mut causes = Vec::new();
        let mut cause = error.source();
        while let Some(error) = cause {
            causes.push(error.to_string());
            cause = error.source();
        }
        self.fail_saying(finding, error.to_string(), (causes, hint))
    }

    /// The same without an error.
    pub(crate) fn fail_saying(
        &mut self,
        finding: Finding,
        summary: impl Into<String>,
        (causes, hint): (Vec<String>, Option<String>),
    ) -> Stop {
        let check = finding.check();
        self.pass_before(check);
        self.found(finding, check, summary.into(), (causes, hint));
        Stop
    }

    /// Records earlier checks without a result as passed.
    pub(crate) fn pass_before(&mut self, check: Check) {
        for line in self.lines.iter_mut().filter(|line| line.check < check) {
            if matches!(line.outcome, Outcome::NotReached) {
                match line.check.severity() {
                    CheckSeverity::Fatal => {
                        line.outcome = Outcome::Passed;
                        line.summary = line.check.proves().to_owned();
                    }
                    CheckSeverity::Warning => {
                        line.outcome = Outcome::Skipped;
                        line.summary = "nothing is known about it".to_owned();
                    }
                }
            }
        }
    }

    /// The first failed check that prevents every sign-in.
    pub(crate) fn first_fatal(&self) -> Option<(&Line, &Found)> {
        self.lines.iter().find_map(|line| match &line.outcome {
            Outcome::Found(found) if line.check.severity() == CheckSeverity::Fatal => Some((line, found)),
            _ => None,
        })
    }

    /// Every text of the report, mutable.
    pub(crate) fn texts(&mut self) -> impl Iterator<Item = &mut String> {
        self.lines.iter_mut().flat_map(|line| {
            let facts = line
                .facts
                .iter_mut()
                .flat_map(|fact| [Some(&mut fact.value), fact.origin.as_mut()].into_iter().flatten());
            let found = match &mut line.outcome {
                Outcome::Found(found) => Some(found),
                _ => None,
            };
            let found =
                found.into_iter().flat_map(|found| found.caused_by.iter_mut().chain([&mut found.hint]));
            facts.chain(found).chain([&mut line.summary])
        })
    }

    fn found(
        &mut self,
        finding: Finding,
        check: Check,
        summary: String,
        (caused_by, hint): (Vec<String>, Option<String>),
    ) {
        let hint = hint.unwrap_or_else(|| finding.hint());
        self.set(check, Outcome::Found(Found { finding, caused_by, hint }), summary);
    }

    fn set(&mut self, check: Check, outcome: Outcome, summary: String) {
        let milliseconds = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.began = Instant::now();
        if let Some(line) = self.line(check) {
            (line.outcome, line.summary, line.milliseconds) = (outcome, summary, milliseconds);
        }
    }

    fn line(&mut self, check: Check) -> Option<&mut Line> {
        self.lines.iter_mut().find(|line| line.check == check)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_before_a_failure_holds_and_what_comes_after_is_not_reached() {
        let mut report = Report::new(Check::SIGN_IN);
        report.pass(Check::Connection, "fine");
        report.fail_saying(Finding::TlsDeclined, "no TLS", (Vec::new(), None));
        for line in &report.lines {
            let expected = match line.check {
                check if check < Check::Offered => match check.severity() {
                    CheckSeverity::Fatal => matches!(line.outcome, Outcome::Passed),
                    CheckSeverity::Warning => matches!(line.outcome, Outcome::Skipped),
                },
                Check::Offered => matches!(line.outcome, Outcome::Found(_)),
                _ => matches!(line.outcome, Outcome::NotReached),
            };
            assert!(expected, "{line:?}");
        }
        assert_eq!(report.lines[0].summary, "fine");
        assert_eq!(report.first_fatal().unwrap().0.check, Check::Offered);
    }

    #[test]
    fn a_warning_is_nothing_fatal() {
        let mut report = Report::new(Check::SIGN_IN);
        report.warn(Finding::ClockWrong, "a minute", None);
        assert!(report.first_fatal().is_none());
    }
}

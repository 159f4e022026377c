use std::fmt;

use crate::{Reason, Selector, SourceName};

/// Which token source was chosen, what decided it, and why the others were not.
///
/// `Display` writes it as text, one source per line.
#[derive(Debug, Clone)]
pub struct Decision {
    considered: Vec<Considered>,
    selector: Selector,
    selector_from: &'static str,
}

/// One source that was considered.
#[derive(Debug, Clone)]
pub struct Considered {
    source: SourceName,
    verdict: Verdict,
    reason: Reason,
    variables: Vec<&'static str>,
}

/// Whether a considered source is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// The source is asked before the others.
    First,
    /// It is asked if those before it turn out not to apply here.
    Later,
    /// The source is not asked; the reason says why.
    No,
}

impl Decision {
    /// The source that is asked first.
    pub fn source(&self) -> Option<SourceName> {
        self.considered.iter().find(|one| one.verdict == Verdict::First).map(|one| one.source)
    }

    /// The sources that may be asked, in order.
    pub fn sources(&self) -> impl Iterator<Item = SourceName> + '_ {
        self.considered.iter().filter(|one| one.verdict != Verdict::No).map(|one| one.source)
    }

    /// The environment variables that decided for the first source; empty where none did.
    pub fn variables(&self) -> &[&'static str] {
        let first = self.considered.iter().find(|one| one.verdict == Verdict::First);
        first.map_or(&[], |one| &one.variables)
    }

    /// Every source that was considered, in the order of detection.
    pub fn considered(&self) -> &[Considered] {
        &self.considered
    }

    /// Which identity is asked for.
    pub fn selector(&self) -> &Selector {
        &self.selector
    }

    pub(crate) fn new(considered: Vec<Considered>, selector: Selector, selector_from: &'static str) -> Self {
        Self { considered, selector, selector_from }
    }
}

impl Considered {
    /// The source that the decision is about.
    pub fn source(&self) -> SourceName {
        self.source
    }

    /// Whether the source is asked, and whether first.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// What the detection found that led to the verdict.
    pub fn reason(&self) -> &Reason {
        &self.reason
    }

    /// The environment variables that were looked at to decide.
    pub fn variables(&self) -> &[&'static str] {
        &self.variables
    }

    pub(crate) fn new(source: SourceName, reason: impl Into<String>, variables: &[&'static str]) -> Self {
        Self { source, verdict: Verdict::No, reason: Reason::new(reason), variables: variables.to_vec() }
    }

    pub(crate) fn verdict_is(mut self, verdict: Verdict) -> Self {
        self.verdict = verdict;
        self
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for one in &self.considered {
            let verdict = match one.verdict {
                Verdict::First => "is asked",
                Verdict::Later => "is asked if none before it applies",
                Verdict::No => "is not asked",
            };
            writeln!(f, "{} {verdict}: {}", one.source, one.reason)?;
        }
        write!(f, "asked for: {}", self.selector)?;
        if !self.selector_from.is_empty() {
            write!(f, " ({})", self.selector_from)?;
        }
        Ok(())
    }
}

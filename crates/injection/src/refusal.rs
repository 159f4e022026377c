//! What cannot work, in sentences.

use std::fmt;

/// Why a pod does not get the sidecar. Its text is one sentence that says what to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    kind: RefusalKind,
    text: String,
}

/// What a [`Refusal`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// An annotation that cannot be read.
    Annotation,
    /// A pod in which the sidecar cannot work.
    Pod,
}

impl Refusal {
    pub(crate) fn annotation(text: impl Into<String>) -> Self {
        Self { kind: RefusalKind::Annotation, text: text.into() }
    }

    pub(crate) fn pod(text: impl Into<String>) -> Self {
        Self { kind: RefusalKind::Pod, text: text.into() }
    }

    /// What the refusal is about.
    pub fn kind(&self) -> RefusalKind {
        self.kind
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// All reasons why an object does not get the sidecar. The object is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {}", joined(.refusals))]
pub struct InjectionError {
    pub(crate) object: String,
    pub(crate) refusals: Vec<Refusal>,
}

impl InjectionError {
    /// The reasons, at least one.
    pub fn refusals(&self) -> &[Refusal] {
        &self.refusals
    }
}

/// Several sentences in one line.
pub(crate) fn joined(refusals: &[Refusal]) -> String {
    refusals.iter().map(|refusal| refusal.text.as_str()).collect::<Vec<_>>().join("; ")
}

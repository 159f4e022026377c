//! What cannot work, in sentences.

use std::fmt;

/// Why a pod does not get the sidecar. Its text is one sentence that says what to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InjectionRefusal {
    kind: InjectionRefusalKind,
    text: String,
}

/// What a [`InjectionRefusal`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InjectionRefusalKind {
    /// An annotation that cannot be read.
    Annotation,
    /// A pod in which the sidecar cannot work.
    Pod,
}

impl InjectionRefusal {
    pub(crate) fn annotation(text: impl Into<String>) -> Self {
        Self { kind: InjectionRefusalKind::Annotation, text: text.into() }
    }

    pub(crate) fn pod(text: impl Into<String>) -> Self {
        Self { kind: InjectionRefusalKind::Pod, text: text.into() }
    }

    /// What the refusal is about.
    pub fn kind(&self) -> InjectionRefusalKind {
        self.kind
    }
}

impl fmt::Display for InjectionRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// All reasons why an object does not get the sidecar. The object is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {}", joined(.refusals))]
pub struct InjectionError {
    pub(crate) object: String,
    pub(crate) refusals: Vec<InjectionRefusal>,
}

impl InjectionError {
    /// The reasons, at least one.
    pub fn refusals(&self) -> &[InjectionRefusal] {
        &self.refusals
    }
}

/// Several sentences in one line.
pub(crate) fn joined(refusals: &[InjectionRefusal]) -> String {
    refusals.iter().map(|refusal| refusal.text.as_str()).collect::<Vec<_>>().join("; ")
}

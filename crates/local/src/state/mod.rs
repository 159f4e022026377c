//! The file with the state of a local cloud: who has it, what the cloud begins with, and what is written into it.

mod file;
mod rescue;
mod saved;
mod snapshots;

pub(crate) use file::{StateFile, StateOption};
pub(crate) use rescue::Rescue;
pub(crate) use saved::SavedState;
pub(crate) use snapshots::FixedParts;
pub use snapshots::Snapshots;

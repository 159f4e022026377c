//! The state of a local cloud in one file: a gzipped tar archive, whose first entry is a manifest in JSON and whose
//! others are the files of PostgreSQL.

mod archive;
mod file;
mod manifest;
mod saved;
mod snapshots;

pub use archive::{Member, StateError, walk};
pub use manifest::Manifest;

pub(crate) use file::StateFile;
pub(crate) use manifest::SavedFault;
pub(crate) use saved::SavedState;
pub(crate) use snapshots::Fixed;
pub use snapshots::Snapshots;

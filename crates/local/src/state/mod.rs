//! The state of a local cloud in one file: a gzipped tar archive, whose first entry is a manifest in JSON and whose
//! others are the files of PostgreSQL.

mod archive;
mod error;
mod file;
mod manifest;
mod saved;
mod snapshots;

pub use archive::{StateMember, walk};
pub use error::StateError;
pub use manifest::StateManifest;

pub(crate) use file::StateFile;
pub(crate) use manifest::SavedFault;
pub(crate) use saved::SavedState;
pub(crate) use snapshots::FixedParts;
pub use snapshots::Snapshots;

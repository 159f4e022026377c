//! The state of a local cloud in one file: a gzipped tar archive, whose first entry is a manifest in JSON and whose
//! others are the files of PostgreSQL. Who may read the file, and when it is written, is decided outside.

mod archive;
mod error;
mod manifest;

pub use archive::{StateMember, manifest_of, unpack, walk, write};
pub use error::{MOST_BYTES, StateError};
pub use manifest::{SavedFault, StateManifest};

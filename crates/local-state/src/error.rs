//! Why a state cannot be used, and how large it can be.

use std::io;

/// Most bytes of a state, uncompressed: more than a database for development has.
pub const MOST_BYTES: u64 = 64 << 30;
/// Most files and folders. A database has some hundred, and so does a schema of a thousand tables in each of many.
pub(crate) const MOST_ENTRIES: u64 = 1_000_000;

/// Why a state cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// It is another file, or was damaged.
    #[error("it is damaged or not the state of a local cloud: {0}")]
    Damaged(&'static str),
    /// It is of another version of pgentra.
    #[error(
        "its format has version {found}, and this pgentra reads version {known}: it was written by pgentra {written_by}"
    )]
    OtherVersion {
        /// The version of its format.
        found: u32,
        /// The version that can be read.
        known: u32,
        /// The version of pgentra that wrote it.
        written_by: String,
    },
    /// It has more files or more bytes than a state may have.
    #[error("it is too large: a state has at most {} GiB and {MOST_ENTRIES} files", MOST_BYTES >> 30)]
    TooLarge,
    /// A file of PostgreSQL is not a plain file, as a tablespace outside of its folder.
    #[error("PostgreSQL's folder has something else than files: {0}")]
    NotPlain(String),
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

//! Where the servers of tests are.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use pgentra_localdb::{Installation, Options};

/// A folder that every user can enter, as the server may run as another one than we.
pub(crate) fn place() -> tempfile::TempDir {
    let place = tempfile::Builder::new().prefix("pgentra-").tempdir_in("/tmp").unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o711)).unwrap();
    place
}

pub(crate) fn options(folder: impl Into<PathBuf>, server: Installation) -> Options {
    Options { folder: folder.into(), server }
}

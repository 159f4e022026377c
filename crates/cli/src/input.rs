//! Text that a command reads from a file, or from standard input where the file is `-`.

use std::io::{Error, ErrorKind, Result};
use std::path::Path;

use pgentra_system::System;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Whether the name of a file means standard input.
pub(crate) fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

/// The name of a file in messages.
pub(crate) fn called(path: &Path) -> String {
    if is_stdin(path) { "standard input".to_owned() } else { path.display().to_string() }
}

/// The text of a file, or of standard input.
///
/// # Errors
/// It cannot be read, has more than `limit` bytes, or is not UTF-8.
pub(crate) async fn text(system: &System, path: &Path, limit: usize) -> Result<String> {
    match is_stdin(path) {
        true => bounded(tokio::io::stdin(), limit).await,
        false => system.files().read_text(path, limit),
    }
}

async fn bounded(input: impl AsyncRead + Unpin, limit: usize) -> Result<String> {
    let mut text = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX);
    input.take(most.saturating_add(1)).read_to_end(&mut text).await?;
    // Not the beginning of it: a command must not act on a part of what it was given.
    if text.len() > limit {
        return Err(Error::new(ErrorKind::FileTooLarge, "it is too long"));
    }
    String::from_utf8(text).map_err(|_| Error::new(ErrorKind::InvalidData, "not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_text_that_is_too_long_is_refused_and_not_cut() {
        assert_eq!(bounded(&b"abcd"[..], 4).await.unwrap(), "abcd");
        assert_eq!(bounded(&b"abcde"[..], 4).await.unwrap_err().to_string(), "it is too long");
        assert_eq!(bounded(&b"\xff"[..], 4).await.unwrap_err().to_string(), "not UTF-8");
    }
}

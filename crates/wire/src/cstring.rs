//! Texts that end with a NUL byte.

use bytes::{BufMut, BytesMut};

use crate::WireError;

/// Cuts one NUL-terminated text off the front; `None` when there is no NUL.
pub(crate) fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

/// Appends a text and its NUL byte; `what` names it in the error.
pub(crate) fn put(out: &mut BytesMut, text: &[u8], what: &'static str) -> Result<(), WireError> {
    if text.contains(&0) {
        return Err(WireError::Nul(what));
    }
    out.reserve(text.len() + 1);
    out.put_slice(text);
    out.put_u8(0);
    Ok(())
}

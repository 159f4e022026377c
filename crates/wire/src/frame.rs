//! The frame of every message after the first packet: a type byte, a length word, a body.

use bytes::{BufMut, BytesMut};

use crate::WireError;

/// The first five bytes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The type byte.
    pub tag: u8,
    /// Bytes that follow the header.
    pub body: usize,
}

impl Header {
    /// Bytes of a header: the type byte and the length word.
    pub const SIZE: usize = 5;

    /// Reads a header without consuming it; `None` when five bytes are not there yet.
    ///
    /// # Errors
    /// The length word counts itself, so one below four is malformed. The caller compares `body` with its limit.
    pub fn peek(buf: &[u8]) -> Result<Option<Self>, WireError> {
        let Some((head, _)) = buf.split_first_chunk::<{ Self::SIZE }>() else {
            return Ok(None);
        };
        let [tag, length @ ..] = *head;
        let length = u32::from_be_bytes(length) as usize;
        match length.checked_sub(4) {
            Some(body) => Ok(Some(Self { tag, body })),
            None => Err(WireError::Length { what: "message", length, limit: 4 }),
        }
    }
}

/// The longest message of a kind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bound {
    /// The largest length word.
    pub(crate) limit: usize,
    /// The message's name in the error.
    pub(crate) what: &'static str,
}

/// Cuts a whole message off the front.
pub(crate) fn split(buf: &mut BytesMut, bound: Bound) -> Result<Option<(u8, BytesMut)>, WireError> {
    let Some(header) = Header::peek(buf)? else {
        return Ok(None);
    };
    bound.check(header.body)?;
    if buf.len() < Header::SIZE + header.body {
        return Ok(None);
    }
    let mut message = buf.split_to(Header::SIZE + header.body);
    Ok(Some((header.tag, message.split_off(Header::SIZE))))
}

/// Appends a message whose body `write` appends; on an error the buffer is as it was.
pub(crate) fn put(
    out: &mut BytesMut,
    tag: u8,
    bound: Bound,
    write: impl FnOnce(&mut BytesMut) -> Result<(), WireError>,
) -> Result<(), WireError> {
    let start = out.len();
    out.put_u8(tag);
    out.put_u32(0);
    let written = write(out).and_then(|()| {
        let body = out.len() - start - Header::SIZE;
        bound.check(body)?;
        let length = u32::try_from(body + 4).map_err(|_| bound.exceeded_by(body))?;
        out[start + 1..start + Header::SIZE].copy_from_slice(&length.to_be_bytes());
        Ok(())
    });
    if written.is_err() {
        out.truncate(start);
    }
    written
}

impl Bound {
    fn check(self, body: usize) -> Result<(), WireError> {
        if body.saturating_add(4) > self.limit { Err(self.exceeded_by(body)) } else { Ok(()) }
    }

    fn exceeded_by(self, body: usize) -> WireError {
        WireError::Length { what: self.what, length: body.saturating_add(4), limit: self.limit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_needs_five_bytes_and_a_length_of_four() {
        assert_eq!(Header::peek(b"Q\0\0\0"), Ok(None));
        assert_eq!(Header::peek(b"Q\0\0\0\x04"), Ok(Some(Header { tag: b'Q', body: 0 })));
        for length in 0..4 {
            assert!(Header::peek(&[b'Q', 0, 0, 0, length]).is_err());
        }
    }

    #[test]
    fn a_length_over_the_limit_is_refused_from_the_header_alone() {
        let mut buf = BytesMut::from(&b"p\xff\xff\xff\xff"[..]);
        let refused = split(&mut buf, Bound { limit: 65_535, what: "password message" });
        assert_eq!(
            refused,
            Err(WireError::Length { what: "password message", length: 0xffff_ffff, limit: 65_535 })
        );
    }

    #[test]
    fn a_message_that_cannot_be_written_leaves_the_buffer_as_it_was() {
        let mut out = BytesMut::from(&b"before"[..]);
        let written = put(&mut out, b'p', Bound { limit: 8, what: "password message" }, |out| {
            out.put_slice(b"12345");
            Ok(())
        });
        assert_eq!(written, Err(WireError::Length { what: "password message", length: 9, limit: 8 }));
        assert_eq!(&out[..], b"before");
    }
}

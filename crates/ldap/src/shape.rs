//! The shape of a message, looked at before the library decodes it.
//!
//! RFC 4511 section 5.1 allows less than BER: lengths are definite, and octet strings are primitive. What is left can still
//! nest without end, in the filter of a search, and a decoder that recurses would use up its stack.

/// Bytes that are no message, or not one that is read here. It names none of them: a token may be among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed LDAP message")]
pub struct BadMessage;

/// The longest message, header and all: a token of 65,530 bytes, a name, and what is around them.
pub(crate) const MESSAGE_LIMIT: usize = 68 * 1024;

/// How deep elements may lie in one another. The messages that are answered need four.
const DEPTH: u8 = 8;

/// SEQUENCE, which every message is.
const SEQUENCE: u8 = 0x30;

/// The first byte of an element whose content is elements.
const CONSTRUCTED: u8 = 0x20;

/// OCTET STRING in its constructed form.
const CONSTRUCTED_OCTETS: u8 = 0x24;

/// Bytes of the whole message at the front of `received`; `None` while its length is not known.
///
/// # Errors
/// Not a SEQUENCE, an indefinite length, or one beyond [`MESSAGE_LIMIT`], known from the first bytes alone.
pub(crate) fn length(received: &[u8]) -> Result<Option<usize>, BadMessage> {
    match received.first() {
        None => return Ok(None),
        Some(&SEQUENCE) => {}
        Some(_) => return Err(BadMessage),
    }
    let Some((header, content)) = header(received)? else { return Ok(None) };
    match header.checked_add(content) {
        Some(length) if length <= MESSAGE_LIMIT => Ok(Some(length)),
        _ => Err(BadMessage),
    }
}

/// Checks a whole message: every element lies within the one around it, and none too deep.
pub(crate) fn check(message: &[u8]) -> Result<(), BadMessage> {
    elements(message, DEPTH)
}

fn elements(mut bytes: &[u8], depth: u8) -> Result<(), BadMessage> {
    let depth = depth.checked_sub(1).ok_or(BadMessage)?;
    while let Some(&tag) = bytes.first() {
        let (header, content) = header(bytes)?.ok_or(BadMessage)?;
        let (element, rest) = bytes.split_at_checked(header + content).ok_or(BadMessage)?;
        if tag == CONSTRUCTED_OCTETS {
            return Err(BadMessage);
        }
        if tag & CONSTRUCTED != 0 {
            elements(&element[header..], depth)?;
        }
        bytes = rest;
    }
    Ok(())
}

/// Bytes of tag and length, and of the content.
fn header(bytes: &[u8]) -> Result<Option<(usize, usize)>, BadMessage> {
    // Tags of more than one byte are in no message of LDAP.
    if bytes.first().is_some_and(|tag| tag & 0x1f == 0x1f) {
        return Err(BadMessage);
    }
    match bytes.get(1).copied() {
        None => Ok(None),
        Some(short @ ..=0x7f) => Ok(Some((2, usize::from(short)))),
        // libldap writes four bytes where one would do. 0x80 is the indefinite form.
        Some(long @ 0x81..=0x84) => {
            let count = usize::from(long & 0x7f);
            let value = |length: &[u8]| length.iter().fold(0, |value, byte| value << 8 | usize::from(*byte));
            Ok(bytes.get(2..2 + count).map(|length| (2 + count, value(length))))
        }
        Some(_) => Err(BadMessage),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths() {
        for (received, expected) in [
            (&b""[..], Ok(None)),
            (b"\x30", Ok(None)),
            (b"\x30\x05", Ok(Some(7))),
            (b"\x30\x81", Ok(None)),
            (b"\x30\x81\xc8", Ok(Some(203))),
            (b"\x30\x84\0\0\x01", Ok(None)),
            (b"\x30\x84\0\0\x01\0", Ok(Some(262))),
            (b"\x30\x84\0\x01\x0f\xfa", Ok(Some(MESSAGE_LIMIT))),
            (b"\x30\x84\0\x01\x0f\xfb", Err(BadMessage)),
            (b"\x30\x84\xff\xff\xff\xff", Err(BadMessage)),
            (b"\x30\x83\xff\xff\xff", Err(BadMessage)),
            (b"\x30\x80", Err(BadMessage)),
            (b"\x30\x85", Err(BadMessage)),
            (b"\x31\x05", Err(BadMessage)),
            (b"\x16\x03\x01", Err(BadMessage)),
            (b"GET / HTTP/1.1", Err(BadMessage)),
        ] {
            assert_eq!(length(received), expected, "{received:x?}");
        }
    }

    #[test]
    fn shapes() {
        assert_eq!(check(b"\x30\x03\x02\x01\x01"), Ok(()));
        for bad in [
            &b"\x30\x05\x02\x01\x01"[..],
            b"\x30\x03\x02\x02\x01",
            b"\x30\x02\x24\x80",
            b"\x30\x04\x24\x02\x04\x00",
            b"\x30\x03\x3f\x01\x01",
            b"\x30\x01\x02",
        ] {
            assert_eq!(check(bad), Err(BadMessage), "{bad:x?}");
        }
        let nested = |levels: usize| {
            (0..levels).fold(vec![0x04, 0x00], |inner, _| {
                [&[0x30, 0x84], &u32::try_from(inner.len()).unwrap().to_be_bytes()[..], &inner].concat()
            })
        };
        assert_eq!(check(&nested(7)), Ok(()));
        assert_eq!(check(&nested(8)), Err(BadMessage));
        assert_eq!(check(&nested(10_000)), Err(BadMessage), "no recursion without a bound");
    }
}

//! Removes the token from a server's messages: a server that received it may repeat it.

use bytes::{BufMut, BytesMut};
use pgentra_wire::frame::Header;
use pgentra_wire::limits;

/// The replacement of a secret.
const REDACTED: &str = "[redacted]";

/// Shorter pieces of a token are words that may stand in any text.
const SECRET_PIECE: usize = 12;

/// The token, and its parts where it has some.
fn secrets(token: &str) -> impl Iterator<Item = &str> {
    std::iter::once(token).chain(token.split('.')).filter(|piece| piece.len() >= SECRET_PIECE)
}

/// A text without the token and its parts.
pub(crate) fn in_text(text: &str, token: &str) -> String {
    secrets(token).fold(text.to_owned(), |text, secret| {
        if text.contains(secret) { text.replace(secret, REDACTED) } else { text }
    })
}

/// Bytes of the whole message at the front of `received`; `None` where it is not whole, or none that would be read.
pub(crate) fn whole_message(received: &[u8]) -> Option<usize> {
    let header = Header::peek(received).ok()??;
    let length = Header::SIZE + header.body;
    (header.body < limits::BACKEND_MESSAGE && length <= received.len()).then_some(length)
}

/// Strikes the token out of the whole message at the front of `received`, whatever its type and wherever it stands in it.
/// In the messages of a sign-in texts end with a NUL byte, so that only the length of the message changes.
pub(crate) fn in_message(received: &mut BytesMut, token: &str) {
    let Some(length) = whole_message(received) else { return };
    for secret in secrets(token) {
        let message = &received[..whole_message(received).unwrap_or(length)];
        let Some(clean) = without(message, secret.as_bytes()) else { continue };
        let rest = received.split_off(message.len());
        *received = clean;
        received.unsplit(rest);
    }
}

/// `None` where the secret is not in the message.
fn without(message: &[u8], secret: &[u8]) -> Option<BytesMut> {
    let (header, mut body) = message.split_at_checked(Header::SIZE)?;
    let mut at = find(body, secret)?;
    let mut clean = BytesMut::with_capacity(message.len());
    clean.put_slice(header);
    loop {
        clean.put_slice(&body[..at]);
        clean.put_slice(REDACTED.as_bytes());
        body = &body[at + secret.len()..];
        match find(body, secret) {
            Some(next) => at = next,
            None => break,
        }
    }
    clean.put_slice(body);
    // It is shorter than the message, because each secret is longer than its replacement.
    let length = u32::try_from(clean.len() - 1).ok()?;
    clean[1..Header::SIZE].copy_from_slice(&length.to_be_bytes());
    Some(clean)
}

fn find(bytes: &[u8], secret: &[u8]) -> Option<usize> {
    bytes.windows(secret.len()).position(|window| window == secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJvaWQiOiJhYmMifQ.c2lnbmF0dXJlc2lnbmF0dXJl";

    fn message(tag: u8, body: &str) -> BytesMut {
        let mut message = BytesMut::from(&[tag][..]);
        message.put_u32(u32::try_from(body.len() + 4).unwrap());
        message.put_slice(body.as_bytes());
        message
    }

    #[test]
    fn a_token_leaves_each_message_wherever_it_stands() {
        for (tag, body, clean) in [
            (b'S', format!("application_name\0{TOKEN}\0"), "application_name\0[redacted]\0"),
            (b'S', format!("{TOKEN}\0value\0"), "[redacted]\0value\0"),
            (
                b'N',
                format!("SNOTICE\0M{TOKEN} {TOKEN}\0D<{TOKEN}>\0\0"),
                "SNOTICE\0M[redacted] [redacted]\0D<[redacted]>\0\0",
            ),
            (b'E', "SFATAL\0Weyc2lnbmF0dXJlc2lnbmF0dXJl\0\0".to_owned(), "SFATAL\0Wey[redacted]\0\0"),
            (
                b'N',
                "HeyJvaWQiOiJhYmMifQ, c2lnbmF0dXJlc2lnbmF0dXJl\0\0".to_owned(),
                "H[redacted], [redacted]\0\0",
            ),
            (
                b'v',
                format!("\0\x03\0\x02\0\0\0\x01_pq_.{TOKEN}\0"),
                "\0\x03\0\x02\0\0\0\x01_pq_.[redacted]\0",
            ),
            (b'!', TOKEN.to_owned(), "[redacted]"),
            (b'S', "TimeZone\0UTC\0".to_owned(), "TimeZone\0UTC\0"),
        ] {
            let mut received = message(tag, &body);
            let second = message(b'N', TOKEN);
            received.extend_from_slice(&second);
            in_message(&mut received, TOKEN);
            let mut expected = message(tag, clean);
            expected.extend_from_slice(&second);
            assert_eq!(received, expected, "only the message at the front, which is whole");
        }
    }

    #[test]
    fn what_is_not_whole_or_no_message_stays() {
        let whole = message(b'N', TOKEN);
        for bytes in [
            &whole[..whole.len() - 1],
            &whole[..4],
            b"",
            b"N\0\0\0\x03 eyJhbGciOiJSUzI1NiJ9",
            b"N\xff\xff\xff\xffx",
        ] {
            let mut received = BytesMut::from(bytes);
            in_message(&mut received, TOKEN);
            assert_eq!(&received[..], bytes);
        }
    }
}

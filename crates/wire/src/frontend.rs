//! What a client answers while it authenticates.
//!
//! The type byte `p` is used for a password, for the first SASL message and for those after it; only the server's last
//! request tells which of them it is. So decoding has two steps: [`AuthenticationAnswer::decode`] cuts
//! the message off, and one of the accessors reads it.

use std::fmt;

use bytes::{BufMut, BytesMut};

use crate::frame::{self, Bound};
use crate::oauthbearer::{self, ClientMessage};
use crate::{WireError, cstring, limits};

const BOUND: Bound = Bound { limit: limits::AUTH_MESSAGE, what: "authentication message" };

/// A message with the type byte `p`. It holds a secret: its `Debug` form shows only its length.
pub struct AuthenticationAnswer {
    body: BytesMut,
}

impl AuthenticationAnswer {
    /// Cuts the message off the front of `buf`.
    ///
    /// # Errors
    /// Another type byte, known from the first byte alone, or a length beyond [`limits::AUTH_MESSAGE`].
    pub fn decode(buf: &mut BytesMut) -> Result<Option<Self>, WireError> {
        match buf.first() {
            None => return Ok(None),
            Some(b'p') => {}
            Some(tag) => return Err(WireError::Unexpected { tag: *tag }),
        }
        Ok(frame::split(buf, BOUND)?.map(|(_, body)| Self { body }))
    }

    /// The answer to [`crate::backend::Authentication::CleartextPassword`] or `Md5Password`.
    ///
    /// # Errors
    /// Not exactly one NUL byte, at the end. PostgreSQL refuses the same.
    pub fn password(&self) -> Result<&[u8], WireError> {
        match cstring::split(&self.body) {
            Some((password, [])) => Ok(password),
            _ => Err(WireError::Malformed("the password does not end with its only NUL byte")),
        }
    }

    /// The answer to [`crate::backend::Authentication::Sasl`].
    ///
    /// # Errors
    /// No mechanism, or a length that is not that of the data.
    pub fn sasl_initial(&self) -> Result<SaslInitialResponse<'_>, WireError> {
        let malformed = WireError::Malformed("the first SASL message is malformed");
        let Some((mechanism @ [_, ..], rest)) = cstring::split(&self.body) else {
            return Err(malformed);
        };
        let Some((length, data)) = rest.split_first_chunk::<4>() else {
            return Err(malformed);
        };
        match u32::from_be_bytes(*length) {
            u32::MAX if data.is_empty() => Ok(SaslInitialResponse { mechanism, data: None }),
            length if length as usize == data.len() => {
                Ok(SaslInitialResponse { mechanism, data: Some(data) })
            }
            _ => Err(malformed),
        }
    }

    /// The response to an [`crate::backend::Authentication::SaslContinue`]: the whole body.
    pub fn sasl_response(&self) -> &[u8] {
        &self.body
    }

    /// The body itself, so that its owner can overwrite it.
    pub fn body_mut(&mut self) -> &mut [u8] {
        &mut self.body
    }
}

impl fmt::Debug for AuthenticationAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthenticationAnswer({} bytes)", self.body.len())
    }
}

/// The first message of a SASL exchange. It may hold a token: its `Debug` form does not show the data.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SaslInitialResponse<'a> {
    /// The mechanism that the client chose.
    pub mechanism: &'a [u8],
    /// The initial data of the mechanism; `None` if the server sends first.
    pub data: Option<&'a [u8]>,
}

impl SaslInitialResponse<'_> {
    /// Appends the message.
    ///
    /// # Errors
    /// A mechanism that is empty or has a NUL byte, or a message beyond [`limits::AUTH_MESSAGE`].
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), WireError> {
        if self.mechanism.is_empty() {
            return Err(WireError::Malformed("a SASL mechanism has no name"));
        }
        frame::put(out, b'p', BOUND, |out| {
            cstring::put(out, self.mechanism, "SASL mechanism")?;
            match self.data {
                None => out.put_u32(u32::MAX),
                Some(data) => {
                    // A length beyond u32 also exceeds the limit of the message, which is checked afterwards.
                    out.put_u32(u32::try_from(data.len()).unwrap_or(u32::MAX));
                    out.put_slice(data);
                }
            }
            Ok(())
        })
    }
}

impl fmt::Debug for SaslInitialResponse<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SaslInitialResponse")
            .field("mechanism", &String::from_utf8_lossy(self.mechanism))
            .finish_non_exhaustive()
    }
}

/// Appends the answer to a request for the password (or for its MD5 digest).
///
/// # Errors
/// A NUL byte, or more than [`limits::PASSWORD`] bytes.
pub fn encode_password(password: &[u8], out: &mut BytesMut) -> Result<(), WireError> {
    frame::put(out, b'p', BOUND, |out| cstring::put(out, password, "password"))
}

/// Appends the first message of an OAUTHBEARER exchange. It writes the token straight into `out`, so that no other buffer
/// holds it.
///
/// # Errors
/// Characters that no token has, or more than [`limits::BEARER_TOKEN`] bytes.
pub fn encode_oauthbearer(message: &ClientMessage<'_>, out: &mut BytesMut) -> Result<(), WireError> {
    frame::put(out, b'p', BOUND, |out| {
        cstring::put(out, oauthbearer::MECHANISM.as_bytes(), "SASL mechanism")?;
        // A length beyond u32 also exceeds the limit of the message, which is checked afterwards.
        out.put_u32(u32::try_from(message.encoded_len()).unwrap_or(u32::MAX));
        message.encode(out)
    })
}

/// Appends a SASL message after the first one.
///
/// # Errors
/// A message beyond [`limits::AUTH_MESSAGE`].
pub fn encode_sasl_response(data: &[u8], out: &mut BytesMut) -> Result<(), WireError> {
    frame::put(out, b'p', BOUND, |out| {
        out.put_slice(data);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(body: &[u8]) -> AuthenticationAnswer {
        AuthenticationAnswer { body: BytesMut::from(body) }
    }

    #[test]
    fn the_longest_password_is_that_of_postgresql() {
        let mut out = BytesMut::new();
        encode_password(&vec![b'x'; limits::PASSWORD], &mut out).unwrap();
        let answer = AuthenticationAnswer::decode(&mut out).unwrap().unwrap();
        assert_eq!(answer.password().unwrap().len(), 65_530);
        assert!(encode_password(&vec![b'x'; limits::PASSWORD + 1], &mut out).is_err());
        assert!(out.is_empty());
        let mut long = BytesMut::from(&b"p\0\x01\0\0"[..]);
        assert!(AuthenticationAnswer::decode(&mut long).is_err(), "refused from its header alone");
    }

    #[test]
    fn the_longest_bearer_token_fits_exactly() {
        for message in [ClientMessage::Token(&"x".repeat(limits::BEARER_TOKEN)), ClientMessage::Discovery] {
            let mut out = BytesMut::new();
            encode_oauthbearer(&message, &mut out).unwrap();
            let answer = AuthenticationAnswer::decode(&mut out).unwrap().unwrap();
            let initial = answer.sasl_initial().unwrap();
            assert_eq!(initial.mechanism, oauthbearer::MECHANISM.as_bytes());
            assert_eq!(ClientMessage::decode(initial.data.unwrap()), Ok(message));
        }
        let mut out = BytesMut::new();
        let long = "x".repeat(limits::BEARER_TOKEN + 1);
        assert!(encode_oauthbearer(&ClientMessage::Token(&long), &mut out).is_err());
        assert!(encode_oauthbearer(&ClientMessage::Token("no token"), &mut out).is_err());
        assert!(out.is_empty());
    }

    #[test]
    fn another_message_is_refused_from_its_first_byte() {
        let mut buf = BytesMut::from(&b"Q"[..]);
        assert_eq!(AuthenticationAnswer::decode(&mut buf).unwrap_err(), WireError::Unexpected { tag: b'Q' });
    }

    #[test]
    fn malformed_answers_are_refused() {
        for body in [&b""[..], b"open", b"a\0b\0", b"a\0\0"] {
            assert!(answer(body).password().is_err(), "{body:?}");
        }
        assert_eq!(answer(b"\0").password(), Ok(&b""[..]));
        for body in [
            &b""[..],
            b"X",
            b"X\0",
            b"X\0\0\0\0",
            b"\0\0\0\0\0",
            b"X\0\0\0\0\x02a",
            b"X\0\0\0\0\x01ab",
            b"X\0\xff\xff\xff\xffa",
        ] {
            assert!(answer(body).sasl_initial().is_err(), "{body:?}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(format!("{:?}", answer(b"secret\0")), "AuthenticationAnswer(7 bytes)");
        let first = SaslInitialResponse { mechanism: b"OAUTHBEARER", data: Some(b"secret") };
        assert_eq!(format!("{first:?}"), "SaslInitialResponse { mechanism: \"OAUTHBEARER\", .. }");
    }
}

//! The SASL mechanism OAUTHBEARER (RFC 7628) as PostgreSQL 18 speaks it.
//!
//! The client's first message carries the token or asks where to get one; a refusal comes as JSON inside
//! AuthenticationSASLContinue, which the client answers with [`DISMISSAL`] before the server ends the session.

use std::borrow::Cow;
use std::fmt;

use bytes::{BufMut, BytesMut};

use crate::WireError;

mod json;

/// The name of the mechanism.
pub const MECHANISM: &str = "OAUTHBEARER";

/// What a client answers to a refusal (RFC 7628 section 3.2.3).
pub const DISMISSAL: &[u8] = b"\x01";

/// Between the parts of the client's message (RFC 7628 section 3.1).
const SEPARATOR: u8 = 1;

/// In front of a token.
const HEADER: &[u8] = b"n,,\x01auth=Bearer ";

/// In place of the header and a token, where there is none.
const NO_TOKEN: &[u8] = b"n,,\x01auth=";

/// The client's first message. It may hold a token: its `Debug` form does not show it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ClientMessage<'a> {
    /// A token to be judged.
    Token(&'a str),
    /// No token: the client wants to know where to get one (RFC 7628 section 4.3).
    Discovery,
}

impl<'a> ClientMessage<'a> {
    /// Reads the message.
    ///
    /// # Errors
    /// Everything that PostgreSQL refuses: channel binding, an authorization identity, a malformed list of keys,
    /// another scheme than `Bearer`, characters that no token has.
    pub fn decode(data: &'a [u8]) -> Result<Self, WireError> {
        let data = std::str::from_utf8(data).map_err(|_| malformed())?;
        let rest = match data.as_bytes().first() {
            Some(b'n' | b'y') => &data[1..],
            Some(b'p') => {
                return Err(WireError::Malformed("OAUTHBEARER was asked for with channel binding"));
            }
            _ => return Err(malformed()),
        };
        let rest = rest.strip_prefix(',').ok_or_else(malformed)?;
        if rest.starts_with("a=") {
            return Err(WireError::Malformed("OAUTHBEARER with an authorization identity is not supported"));
        }
        let rest = rest.strip_prefix(",\x01").ok_or_else(malformed)?;
        let rest = rest.strip_suffix('\x01').ok_or_else(malformed)?;
        let mut auth = None;
        for pair in rest.split_terminator('\x01') {
            let (key, value) = pair.split_once('=').ok_or_else(malformed)?;
            let letters = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphabetic());
            let printable =
                value.bytes().all(|byte| matches!(byte, b'!'..=b'~' | b' ' | b'\t' | b'\r' | b'\n'));
            if !letters || !printable {
                return Err(malformed());
            }
            if key == "auth" && auth.replace(value).is_some() {
                return Err(WireError::Malformed("OAUTHBEARER carries two tokens"));
            }
        }
        // An empty pair ends the list, so the list without its last separator still ends with one, or is empty.
        if !(rest.is_empty() || rest.ends_with('\x01')) {
            return Err(malformed());
        }
        match auth {
            None => Err(WireError::Malformed("OAUTHBEARER carries no token")),
            Some("") => Ok(Self::Discovery),
            Some(auth) => token(auth).map(Self::Token),
        }
    }

    /// Appends the message: what goes into [`crate::frontend::SaslInitialResponse::data`].
    ///
    /// # Errors
    /// A token with characters that no token has (RFC 6750 section 2.1).
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), WireError> {
        let (header, token) = match self {
            Self::Token(token) if is_token(token) => (HEADER, *token),
            Self::Token(_) => return Err(no_token()),
            Self::Discovery => (NO_TOKEN, ""),
        };
        out.reserve(self.encoded_len());
        out.put_slice(header);
        out.put_slice(token.as_bytes());
        out.put_slice(&[SEPARATOR, SEPARATOR]);
        Ok(())
    }

    /// Bytes that [`ClientMessage::encode`] appends.
    pub(crate) fn encoded_len(&self) -> usize {
        let before = match self {
            Self::Token(token) => HEADER.len() + token.len(),
            Self::Discovery => NO_TOKEN.len(),
        };
        before + 2
    }
}

impl fmt::Debug for ClientMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(_) => f.write_str("Token(..)"),
            Self::Discovery => f.write_str("Discovery"),
        }
    }
}

/// Why the server refuses the token, or where to get a token (RFC 7628 section 3.2.2).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BearerRefusal<'a> {
    /// The error code of RFC 6750, section 3.1; usually `invalid_token`.
    pub status: Cow<'a, str>,
    /// Where the issuer's metadata is.
    pub openid_configuration: Option<Cow<'a, str>>,
    /// The scopes that a token needs, with spaces between.
    pub scope: Option<Cow<'a, str>>,
}

impl BearerRefusal<'_> {
    /// Reads the JSON object. Members that are not known are skipped.
    ///
    /// # Errors
    /// Not one JSON object, no `status`, a member that is there twice, or a known one that is not a text.
    pub fn decode(data: &[u8]) -> Result<BearerRefusal<'_>, WireError> {
        let mut found = [None, None, None];
        json::read_object(data, |name, value| {
            let index = match name {
                "status" => 0,
                "openid-configuration" => 1,
                "scope" => 2,
                _ => return true,
            };
            match value {
                Some(text) => found[index].replace(text).is_none(),
                None => false,
            }
        })
        .ok_or(WireError::Malformed("the refusal is not the JSON object of RFC 7628"))?;
        let [status, openid_configuration, scope] = found;
        let status = status.ok_or(WireError::Malformed("the refusal has no status"))?;
        Ok(BearerRefusal { status, openid_configuration, scope })
    }

    /// Appends the JSON object: what goes into [`crate::backend::Authentication::SaslContinue`].
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_slice(b"{\"status\":");
        json::put_text(out, &self.status);
        for (name, value) in [("openid-configuration", &self.openid_configuration), ("scope", &self.scope)] {
            if let Some(value) = value {
                out.put_u8(b',');
                json::put_text(out, name);
                out.put_u8(b':');
                json::put_text(out, value);
            }
        }
        out.put_u8(b'}');
    }
}

fn malformed() -> WireError {
    WireError::Malformed("malformed OAUTHBEARER message")
}

fn no_token() -> WireError {
    WireError::Malformed("the OAUTHBEARER token has characters that no token has")
}

fn token(auth: &str) -> Result<&str, WireError> {
    const SCHEME: &str = "Bearer ";
    match auth.split_at_checked(SCHEME.len()) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(SCHEME) => {
            let token = token.trim_start_matches(' ');
            if is_token(token) { Ok(token) } else { Err(no_token()) }
        }
        _ => Err(WireError::Malformed("OAUTHBEARER with another scheme than Bearer")),
    }
}

/// `b64token` of RFC 6750 section 2.1.
fn is_token(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    !body.is_empty()
        && body.bytes().all(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_messages() {
        for (about, data, expected) in [
            ("a token", "n,,\x01auth=Bearer abc.def\x01\x01", Some(ClientMessage::Token("abc.def"))),
            ("the other flag", "y,,\x01auth=Bearer abc\x01\x01", Some(ClientMessage::Token("abc"))),
            ("scheme in lower case", "n,,\x01auth=bearer abc==\x01\x01", Some(ClientMessage::Token("abc=="))),
            ("more spaces", "n,,\x01auth=Bearer   abc\x01\x01", Some(ClientMessage::Token("abc"))),
            ("discovery", "n,,\x01auth=\x01\x01", Some(ClientMessage::Discovery)),
            (
                "unknown keys are ignored",
                "n,,\x01host=h\x01port=5432\x01auth=Bearer abc\x01x=\x01\x01",
                Some(ClientMessage::Token("abc")),
            ),
            ("channel binding", "p=tls-exporter,,\x01auth=Bearer abc\x01\x01", None),
            ("authorization identity", "n,a=me,\x01auth=Bearer abc\x01\x01", None),
            ("nothing", "", None),
            ("no header", "auth=Bearer abc\x01\x01", None),
            ("no end", "n,,\x01auth=Bearer abc\x01", None),
            ("no list", "n,,", None),
            ("empty list", "n,,\x01\x01", None),
            ("bytes behind the end", "n,,\x01auth=Bearer abc\x01\x01x", None),
            ("an end in the middle", "n,,\x01\x01auth=Bearer abc\x01\x01", None),
            ("two tokens", "n,,\x01auth=Bearer abc\x01auth=Bearer def\x01\x01", None),
            ("other scheme", "n,,\x01auth=Basic abc\x01\x01", None),
            ("no space", "n,,\x01auth=Bearerabc\x01\x01", None),
            ("no token behind the scheme", "n,,\x01auth=Bearer \x01\x01", None),
            ("only padding", "n,,\x01auth=Bearer ==\x01\x01", None),
            ("padding inside", "n,,\x01auth=Bearer a=b\x01\x01", None),
            ("a space inside", "n,,\x01auth=Bearer a b\x01\x01", None),
            ("key with a digit", "n,,\x01auth2=x\x01auth=Bearer abc\x01\x01", None),
            ("key without name", "n,,\x01=x\x01auth=Bearer abc\x01\x01", None),
            ("pair without sign", "n,,\x01host\x01auth=Bearer abc\x01\x01", None),
            ("control character", "n,,\x01host=\x02\x01auth=Bearer abc\x01\x01", None),
            ("not ASCII", "n,,\x01host=é\x01auth=Bearer abc\x01\x01", None),
        ] {
            assert_eq!(ClientMessage::decode(data.as_bytes()).ok(), expected, "{about}");
        }
        assert!(ClientMessage::decode(b"n,,\x01auth=Bearer \xff\x01\x01").is_err());
    }

    #[test]
    fn a_token_is_not_shown_and_nothing_else_is_sent_as_one() {
        assert_eq!(format!("{:?}", ClientMessage::Token("secret")), "Token(..)");
        for text in ["", "a b", "a\x01auth=Bearer b", "=", "é"] {
            assert!(ClientMessage::Token(text).encode(&mut BytesMut::new()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn refusals() {
        let read = |text: &'static str| BearerRefusal::decode(text.as_bytes());
        let refusal = read(
            r#" { "status" : "invalid_token", "extra": [{"status": "}"}, null, -1.5e3], "scope":"a\tb\u00e9\ud83d\ude00" } "#,
        )
        .unwrap();
        assert_eq!(refusal.status, "invalid_token");
        assert_eq!(refusal.scope.unwrap(), "a\tbé😀");
        assert_eq!(refusal.openid_configuration, None);
        for text in [
            "",
            "{}",
            "[]",
            "null",
            r#"{"scope":"a"}"#,
            r#"{"status":1}"#,
            r#"{"status":"a","status":"b"}"#,
            r#"{"status":"a"} x"#,
            r#"{"status":"a",}"#,
            r#"{"status":"a"#,
            r#"{"status" "a"}"#,
            r#"{"status":"\ud83d"}"#,
            r#"{"status":"\x"}"#,
            r#"{"status":"a","x":[}"#,
            r#"{"status":"a","x":nul}"#,
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        let deep = format!(r#"{{"status":"a","x":{}}}"#, "[".repeat(60_000));
        assert!(BearerRefusal::decode(deep.as_bytes()).is_err(), "no recursion without a bound");
    }
}

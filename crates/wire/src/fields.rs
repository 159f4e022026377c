//! The fields of ErrorResponse and NoticeResponse.

use std::borrow::Cow;
use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::{WireError, cstring, limits};

/// The type byte of one field (PostgreSQL documentation, "Error and Notice Message Fields").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FieldCode(pub u8);

impl FieldCode {
    /// `S`: the severity, perhaps translated.
    pub const LOCALIZED_SEVERITY: Self = Self(b'S');
    /// `V`: the severity, never translated.
    pub const SEVERITY: Self = Self(b'V');
    /// `C`: the SQLSTATE.
    pub const SQLSTATE: Self = Self(b'C');
    /// `M`: the message.
    pub const MESSAGE: Self = Self(b'M');
    /// `D`: more about the problem.
    pub const DETAIL: Self = Self(b'D');
    /// `H`: what to do about it.
    pub const HINT: Self = Self(b'H');
    /// `P`: where in the statement, in characters from 1.
    pub const POSITION: Self = Self(b'P');
    /// `p`: where in the internal statement.
    pub const INTERNAL_POSITION: Self = Self(b'p');
    /// `q`: the text of a failed internally generated command.
    pub const INTERNAL_QUERY: Self = Self(b'q');
    /// `W`: the call stack of functions and internal statements.
    pub const WHERE: Self = Self(b'W');
    /// `s`: the name of the schema concerned.
    pub const SCHEMA: Self = Self(b's');
    /// `t`: the name of the table concerned.
    pub const TABLE: Self = Self(b't');
    /// `c`: the name of the column concerned.
    pub const COLUMN: Self = Self(b'c');
    /// `d`: the data type concerned.
    pub const DATA_TYPE: Self = Self(b'd');
    /// `n`: the name of the constraint concerned.
    pub const CONSTRAINT: Self = Self(b'n');
    /// `F`: the source file of the server.
    pub const FILE: Self = Self(b'F');
    /// `L`: the source line of the server.
    pub const LINE: Self = Self(b'L');
    /// `R`: the source function of the server.
    pub const ROUTINE: Self = Self(b'R');
}

/// What an error means for the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// The statement failed; the session goes on.
    Error,
    /// The session ends; other sessions go on.
    Fatal,
    /// Every session of the server ends.
    Panic,
    /// Not an error: for a NoticeResponse.
    Warning,
    /// Not an error: for a NoticeResponse.
    Notice,
}

impl Severity {
    /// The word that the protocol uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
            Self::Panic => "PANIC",
            Self::Warning => "WARNING",
            Self::Notice => "NOTICE",
        }
    }
}

/// The fields of one ErrorResponse or NoticeResponse, in the order sent. Unknown fields are kept.
///
/// Texts are bytes, as a server may write them in any encoding; the accessors replace what is not UTF-8.
#[derive(Clone, PartialEq, Eq)]
pub struct Fields {
    /// `code text NUL` for each field; checked.
    fields: Bytes,
}

impl Fields {
    /// An error or notice with the fields that every one has. `sqlstate` has five characters.
    pub fn new(severity: Severity, sqlstate: &str, message: &str) -> Self {
        Self { fields: Bytes::new() }
            .with(FieldCode::LOCALIZED_SEVERITY, severity.as_str())
            .with(FieldCode::SEVERITY, severity.as_str())
            .with(FieldCode::SQLSTATE, sqlstate)
            .with(FieldCode::MESSAGE, message)
    }

    /// The same with one more field.
    ///
    /// An error must always be sayable, so this cannot fail: the text ends at its first NUL byte, and where the
    /// message reaches its limit ([`limits::BACKEND_MESSAGE`]); code 0, the terminator, adds nothing.
    #[must_use]
    pub fn with(self, code: FieldCode, text: &str) -> Self {
        // Around the fields: the length word and the NUL behind them; around the text: its code and its NUL.
        let room = limits::BACKEND_MESSAGE.saturating_sub(self.fields.len() + 7);
        if code.0 == 0 || room == 0 {
            return self;
        }
        let text = text.split('\0').next().unwrap_or_default();
        let text = &text[..floor_char_boundary(text, room)];
        let mut fields = BytesMut::with_capacity(self.fields.len() + text.len() + 2);
        fields.put_slice(&self.fields);
        fields.put_u8(code.0);
        fields.put_slice(text.as_bytes());
        fields.put_u8(0);
        Self { fields: fields.freeze() }
    }

    /// The same with a DETAIL.
    #[must_use]
    pub fn with_detail(self, text: &str) -> Self {
        self.with(FieldCode::DETAIL, text)
    }

    /// The same with a HINT.
    #[must_use]
    pub fn with_hint(self, text: &str) -> Self {
        self.with(FieldCode::HINT, text)
    }

    /// Every field in the order sent.
    pub fn iter(&self) -> impl Iterator<Item = (FieldCode, &[u8])> {
        let mut rest = &self.fields[..];
        std::iter::from_fn(move || {
            let (code, after) = rest.split_first()?;
            let (text, after) = cstring::split(after)?;
            rest = after;
            Some((FieldCode(*code), text))
        })
    }

    /// The text of a field; the first one of that code.
    pub fn get(&self, code: FieldCode) -> Option<Cow<'_, str>> {
        self.iter().find(|(found, _)| *found == code).map(|(_, text)| String::from_utf8_lossy(text))
    }

    /// The message; empty when the server sent none.
    pub fn message(&self) -> Cow<'_, str> {
        self.get(FieldCode::MESSAGE).unwrap_or_default()
    }

    /// The SQLSTATE; empty when the server sent none.
    pub fn sqlstate(&self) -> Cow<'_, str> {
        self.get(FieldCode::SQLSTATE).unwrap_or_default()
    }

    /// The severity word, the untranslated one where there is one.
    pub fn severity(&self) -> Cow<'_, str> {
        self.get(FieldCode::SEVERITY).or_else(|| self.get(FieldCode::LOCALIZED_SEVERITY)).unwrap_or_default()
    }

    /// The field `D` (DETAIL), if the server sent one.
    pub fn detail(&self) -> Option<Cow<'_, str>> {
        self.get(FieldCode::DETAIL)
    }

    /// The field `H` (HINT), if the server sent one.
    pub fn hint(&self) -> Option<Cow<'_, str>> {
        self.get(FieldCode::HINT)
    }

    pub(crate) fn decode(mut body: Bytes) -> Result<Self, WireError> {
        let mut rest = &body[..];
        loop {
            match rest {
                [] => return Err(WireError::Malformed("the fields of an error do not end with a NUL byte")),
                [0] => break,
                [0, ..] => return Err(WireError::Malformed("bytes follow the last field of an error")),
                [_, text @ ..] => match cstring::split(text) {
                    None => return Err(WireError::Malformed("a field of an error does not end")),
                    Some((_, after)) => rest = after,
                },
            }
        }
        body.truncate(body.len() - 1);
        Ok(Self { fields: body })
    }

    pub(crate) fn put_body(&self, out: &mut BytesMut) {
        out.reserve(self.fields.len() + 1);
        out.put_slice(&self.fields);
        out.put_u8(0);
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.iter().map(|(code, text)| (char::from(code.0), String::from_utf8_lossy(text))))
            .finish()
    }
}

/// As PostgreSQL's clients print it: severity and message.
impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.severity(), self.message())
    }
}

fn floor_char_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_can_always_be_said() {
        let long = "é".repeat(limits::BACKEND_MESSAGE);
        let fields = Fields::new(Severity::Fatal, "28000", &long).with_detail("no room").with_hint("no room");
        let mut body = BytesMut::new();
        fields.put_body(&mut body);
        assert!(body.len() + 4 <= limits::BACKEND_MESSAGE);
        assert!(fields.message().chars().all(|c| c == 'é'));
        assert_eq!(Fields::decode(body.freeze()), Ok(fields));
    }

    #[test]
    fn a_nul_byte_ends_a_text_and_code_zero_adds_nothing() {
        let fields = Fields::new(Severity::Error, "22021", "before\0Mforged").with(FieldCode(0), "forged");
        assert_eq!(fields.message(), "before");
        assert_eq!(fields.iter().count(), 4);
        assert_eq!(fields.to_string(), "ERROR: before");
    }

    #[test]
    fn malformed_fields_are_refused() {
        for body in [&b""[..], b"M", b"Mtext", b"Mtext\0", b"Mtext\0\0more", b"\0\0"] {
            assert!(Fields::decode(Bytes::from_static(body)).is_err(), "{body:?}");
        }
    }

    #[test]
    fn unknown_fields_and_other_encodings_are_kept() {
        let body = Bytes::from_static(b"SFATAL\0M\xe9t\xe9\0Znew\0\0");
        let fields = Fields::decode(body.clone()).unwrap();
        assert_eq!(fields.message(), "\u{fffd}t\u{fffd}");
        assert_eq!(fields.severity(), "FATAL");
        assert_eq!(fields.get(FieldCode(b'Z')).unwrap(), "new");
        let mut out = BytesMut::new();
        fields.put_body(&mut out);
        assert_eq!(out, body);
    }
}

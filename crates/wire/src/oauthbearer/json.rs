//! As much JSON (RFC 8259) as a refusal needs: one object whose texts are read and whose other values are skipped.

use std::borrow::Cow;
use std::fmt::Write as _;

use bytes::{BufMut, BytesMut};

/// Deepest nesting that is skipped; a refusal has none, and the stack is not the peer's to use up.
const DEPTH: u8 = 16;

/// Reads one object. `member` gets each name with its text, or with `None` where the value is no text; it answers
/// whether to go on. `None`: not one JSON object, or `member` did not want to go on.
pub(super) fn read_object<'a>(
    data: &'a [u8],
    mut member: impl FnMut(&str, Option<Cow<'a, str>>) -> bool,
) -> Option<()> {
    let mut reader = JsonReader { rest: std::str::from_utf8(data).ok()? };
    reader.space();
    reader.take('{')?;
    reader.members(DEPTH, &mut member)?;
    reader.space();
    reader.rest.is_empty().then_some(())
}

/// Appends a text with its quotes.
pub(super) fn put_text(out: &mut BytesMut, text: &str) {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            c if c < ' ' => {
                // Writing into a String cannot fail.
                let _ = write!(json, "\\u{:04x}", u32::from(c));
            }
            c => json.push(c),
        }
    }
    json.push('"');
    out.put_slice(json.as_bytes());
}

struct JsonReader<'a> {
    rest: &'a str,
}

impl<'a> JsonReader<'a> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    fn take(&mut self, c: char) -> Option<()> {
        self.rest = self.rest.strip_prefix(c)?;
        Some(())
    }

    /// The members of an object behind its opening brace, and its closing brace.
    fn members(
        &mut self,
        depth: u8,
        member: &mut dyn FnMut(&str, Option<Cow<'a, str>>) -> bool,
    ) -> Option<()> {
        self.space();
        if self.take('}').is_some() {
            return Some(());
        }
        loop {
            self.space();
            let name = self.text()?;
            self.space();
            self.take(':')?;
            let value = self.value(depth)?;
            if !member(&name, value) {
                return None;
            }
            self.space();
            if self.take(',').is_none() {
                return self.take('}');
            }
        }
    }

    /// Any value; its text where it is one.
    fn value(&mut self, depth: u8) -> Option<Option<Cow<'a, str>>> {
        let depth = depth.checked_sub(1)?;
        self.space();
        match self.rest.chars().next()? {
            '"' => return self.text().map(Some),
            '{' => {
                self.take('{')?;
                self.members(depth, &mut |_, _| true)?;
            }
            '[' => {
                self.take('[')?;
                self.space();
                if self.take(']').is_some() {
                    return Some(None);
                }
                loop {
                    self.value(depth)?;
                    self.space();
                    if self.take(',').is_none() {
                        self.take(']')?;
                        break;
                    }
                }
            }
            _ => self.word()?,
        }
        Some(None)
    }

    /// A number, `true`, `false` or `null`. Numbers are skipped, so only their characters are looked at.
    fn word(&mut self) -> Option<()> {
        let end = self
            .rest
            .find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '+' | '-' | '.'))
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        let number =
            word.parse::<f64>().is_ok() && word.starts_with(|c: char| c == '-' || c.is_ascii_digit());
        (number || matches!(word, "true" | "false" | "null")).then_some(())
    }

    fn text(&mut self) -> Option<Cow<'a, str>> {
        self.take('"')?;
        let mut text = Cow::Borrowed("");
        loop {
            let end = self.rest.find(|c: char| c == '"' || c == '\\' || c < ' ')?;
            let (plain, rest) = self.rest.split_at(end);
            if text.is_empty() {
                text = Cow::Borrowed(plain)
            } else {
                text.to_mut().push_str(plain)
            }
            self.rest = rest;
            if self.take('"').is_some() {
                return Some(text);
            }
            self.take('\\')?;
            text.to_mut().push(self.escape()?);
        }
    }

    fn escape(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.take(c)?;
        Some(match c {
            '"' | '\\' | '/' => c,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let first = self.hex()?;
                let units = if (0xd800..0xdc00).contains(&first) {
                    self.take('\\')?;
                    self.take('u')?;
                    vec![first, self.hex()?]
                } else {
                    vec![first]
                };
                let mut decoded = char::decode_utf16(units);
                let c = decoded.next()?.ok()?;
                // A second unit that does not belong to the first is an error as well.
                if decoded.next().is_some() {
                    return None;
                }
                c
            }
            _ => return None,
        })
    }

    fn hex(&mut self) -> Option<u16> {
        let (digits, rest) = self.rest.split_at_checked(4)?;
        self.rest = rest;
        digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u16::from_str_radix(digits, 16).ok())?
    }
}

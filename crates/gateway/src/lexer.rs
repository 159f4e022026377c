//! The part of PostgreSQL's lexical structure that separates words from strings, comments and
//! quoted identifiers.

use std::ops::Range;

/// A token of a statement. White space and comments are skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lexeme {
    /// A keyword or an unquoted identifier.
    Word(Range<usize>),
    /// The end of a statement.
    Semicolon,
    /// Anything else: a string, a quoted identifier, a number, an operator; with its first byte.
    Other(u8, Range<usize>),
}

/// Splits SQL into tokens (PostgreSQL documentation, "Lexical Structure"). It ends for any input.
///
/// It assumes `standard_conforming_strings` to be on, the default since PostgreSQL 9.1.
pub(crate) struct Lexer<'a> {
    sql: &'a [u8],
    at: usize,
}

impl<'a> Lexer<'a> {
    pub(crate) fn new(sql: &'a [u8]) -> Self {
        Self { sql, at: 0 }
    }

    fn rest(&self) -> &'a [u8] {
        self.sql.get(self.at..).unwrap_or_default()
    }

    fn skip_while(&mut self, matches: impl Fn(u8) -> bool) {
        let rest = self.rest();
        self.at += rest.iter().position(|byte| !matches(*byte)).unwrap_or(rest.len());
    }

    fn skip_space(&mut self) {
        loop {
            match self.rest() {
                [b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c, ..] => self.at += 1,
                [b'-', b'-', ..] => self.skip_while(|byte| !matches!(byte, b'\n' | b'\r')),
                [b'/', b'*', ..] => self.skip_comment(),
                _ => return,
            }
        }
    }

    /// Skips a comment, with the comments nested in it.
    fn skip_comment(&mut self) {
        let mut depth = 0_usize;
        loop {
            match self.rest() {
                [b'/', b'*', ..] => (depth, self.at) = (depth + 1, self.at + 2),
                [b'*', b'/', ..] => (depth, self.at) = (depth - 1, self.at + 2),
                [_, ..] => self.at += 1,
                [] => return,
            }
            if depth == 0 {
                return;
            }
        }
    }

    /// Skips to the closing quote. A doubled quote counts as an end and a new beginning, which
    /// skips the same bytes.
    fn skip_quoted(&mut self, quote: u8, backslash_escapes: bool) {
        self.at += 1;
        loop {
            match self.rest() {
                [b'\\', _, ..] if backslash_escapes => self.at += 2,
                [byte, ..] if *byte == quote && self.rest().get(1) == Some(&quote) => self.at += 2,
                [byte, ..] if *byte == quote => {
                    self.at += 1;
                    return;
                }
                [_, ..] => self.at += 1,
                [] => return,
            }
        }
    }

    /// Skips `$tag$ … $tag$`; a dollar sign that begins no tag is skipped alone.
    fn skip_dollar(&mut self) {
        let rest = self.rest();
        let Some(end) = rest.iter().skip(1).position(|byte| *byte == b'$') else {
            self.at += 1;
            return;
        };
        let tag = &rest[1..=end];
        let is_tag =
            tag.first().is_none_or(|byte| begins_word(*byte)) && tag.iter().all(|byte| continues_word(*byte));
        if !is_tag {
            self.at += 1;
            return;
        }
        let delimiter = &rest[..end + 2];
        let body = &rest[delimiter.len()..];
        match body.windows(delimiter.len()).position(|window| window == delimiter) {
            Some(length) => self.at += length + 2 * delimiter.len(),
            None => self.at = self.sql.len(),
        }
    }
}

impl Iterator for Lexer<'_> {
    type Item = Lexeme;

    fn next(&mut self) -> Option<Lexeme> {
        self.skip_space();
        let start = self.at;
        let first = *self.rest().first()?;
        match first {
            b';' => {
                self.at += 1;
                return Some(Lexeme::Semicolon);
            }
            b'\'' | b'"' => self.skip_quoted(first, false),
            b'$' => self.skip_dollar(),
            byte if begins_word(byte) => {
                self.skip_while(|byte| continues_word(byte) || byte == b'$');
                match (&self.sql[start..self.at], self.rest().first()) {
                    // A prefix belongs to the string after it; backslash escapes exist only with
                    // this prefix.
                    (b"e" | b"E", Some(b'\'')) => self.skip_quoted(b'\'', true),
                    _ => return Some(Lexeme::Word(start..self.at)),
                }
            }
            // A number and the letters directly after it are not a word.
            byte if byte.is_ascii_digit() => self.skip_while(continues_word),
            _ => self.at += 1,
        }
        Some(Lexeme::Other(first, start..self.at))
    }
}

fn begins_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn continues_word(byte: u8) -> bool {
    begins_word(byte) || byte.is_ascii_digit()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words unchanged, `;` for the end of a statement, the first character for anything else.
    fn pieces(sql: &str) -> Vec<String> {
        Lexer::new(sql.as_bytes())
            .map(|token| match token {
                Lexeme::Word(range) => sql[range].to_owned(),
                Lexeme::Semicolon => ";".to_owned(),
                Lexeme::Other(byte, _) => char::from(byte).to_string(),
            })
            .collect()
    }

    #[test]
    fn words_are_told_from_what_looks_like_them() {
        for (sql, expected) in [
            ("SET x = off;", &["SET", "x", "=", "off", ";"][..]),
            ("a'b;c'd", &["a", "'", "d"]),
            ("'it''s; ' x", &["'", "x"]),
            (r"'\' x", &["'", "x"]),
            (r"E'\'; ' x", &["E", "x"]),
            (r"e'\\' x", &["e", "x"]),
            (r#""a;""b" x"#, &["\"", "x"]),
            ("-- a ' ; \n x", &["x"]),
            ("/* a /* ; */ ' */ x", &["x"]),
            ("/* open", &[]),
            ("$$ ; ' $$ x", &["$", "x"]),
            ("$a$ ; $$ $b$ $a$ x", &["$", "x"]),
            ("$1 x", &["$", "1", "x"]),
            ("a$b$c;d", &["a$b$c", ";", "d"]),
            ("$open$ x", &["$"]),
            ("'open x", &["'"]),
            ("12abc x", &["1", "x"]),
            ("$é$;$é$ x", &["$", "x"]),
            ("a--b\nc", &["a", "c"]),
            ("a-b", &["a", "-", "b"]),
        ] {
            assert_eq!(pieces(sql), expected, "{sql}");
        }
    }

    proptest::proptest! {
        #[test]
        fn it_always_ends_and_words_lie_in_order(sql: Vec<u8>) {
            let mut end = 0;
            for token in Lexer::new(&sql) {
                if let Lexeme::Word(range) | Lexeme::Other(_, range) = token {
                    assert!(range.start >= end && range.end > range.start && range.end <= sql.len());
                    end = range.end;
                }
            }
        }
    }
}

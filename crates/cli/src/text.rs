//! Text for people, in which terminal control characters are escaped.

use pgentra_connect::quote;

/// Text for people, in pieces that a terminal may show bold, faint or in colour.
///
/// Input is escaped as in psql: a control character is shown as an escape sequence and never
/// removed. Codes for bold and colour are added when the text is printed, so the content is the
/// same in a pipe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Text(Vec<(&'static str, String)>);

impl Text {
    pub(crate) fn push(&mut self, more: impl Into<Text>) {
        self.0.extend(more.into().0);
    }

    /// The text for output, with or without codes for bold and colour.
    pub(crate) fn render(&self, colour: bool) -> String {
        let piece = |(style, text): &(&str, String)| match colour && !style.is_empty() {
            true => format!("\x1b[{style}m{text}\x1b[0m"),
            false => text.clone(),
        };
        self.0.iter().map(piece).collect()
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(vec![("", quote::lines(text))])
    }
}

impl From<&String> for Text {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

/// A value that can be printed: a text, or a string.
pub(crate) trait Printable {
    /// Converts the value into a text.
    fn into_text(self) -> Text;
}

impl Printable for Text {
    fn into_text(self) -> Text {
        self
    }
}

impl Printable for &str {
    fn into_text(self) -> Text {
        self.into()
    }
}

impl Printable for &String {
    fn into_text(self) -> Text {
        self.into()
    }
}

impl FromIterator<Text> for Text {
    fn from_iter<I: IntoIterator<Item = Text>>(pieces: I) -> Self {
        Self(pieces.into_iter().flat_map(|piece| piece.0).collect())
    }
}

/// Joins several pieces into one text.
macro_rules! text {
    ($($piece:expr),+ $(,)?) => {{
        let mut text = $crate::text::Text::default();
        $(text.push($piece);)+
        text
    }};
}
pub(crate) use text;

/// One line in bold, if the terminal has it.
pub(crate) fn bold(text: &str) -> Text {
    coloured("1", text)
}

/// One line in faint, if the terminal has it.
pub(crate) fn faint(text: &str) -> Text {
    coloured("2", text)
}

/// One line in the colours of an SGR code (ECMA-48), if the terminal has them.
pub(crate) fn coloured(code: &'static str, text: &str) -> Text {
    Text(vec![(code, quote::line(text))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_is_shown_and_never_obeyed() {
        let text = text![
            "plain \x1b]0;title\x07 \u{9b}31m \u{202e}\n",
            bold("a\x1b[0m\nb"),
            String::from("\tc\r\n"),
        ];
        let expected = "plain \\x1B]0;title\\x07 \\u009B31m \\u202E\na\\x1B[0m\\nb\tc\\r\n";
        assert_eq!(text.render(false), expected);
        assert_eq!(
            text.render(true),
            expected.replace("a\\x1B[0m\\nb", "\x1b[1ma\\x1B[0m\\nb\x1b[0m"),
            "the same, and bold"
        );
    }
}

//! Text for people, in which terminal control characters are escaped.

use pgentra_connect::quote;

use crate::wrap::{Part, columns, lines};

/// Text for people, in pieces that a terminal may show bold, faint or in colour.
///
/// Input is escaped as in psql: a control character is shown as an escape sequence and never
/// removed. Codes for bold and colour are added when the text is printed, so the content is the
/// same in a pipe. On a terminal, lines are broken at words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Text(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Piece {
    /// SGR codes (ECMA-48); empty for none.
    style: &'static str,
    text: String,
    form: TextForm,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TextForm {
    /// Lines may be broken between its words.
    Words,
    /// Its lines stay as they are.
    Whole,
    /// An empty piece: further lines of a broken line begin at its column.
    Hang,
}

impl Text {
    fn piece(style: &'static str, text: String, form: TextForm) -> Self {
        Self(vec![Piece { style, text, form }])
    }

    pub(crate) fn push(&mut self, more: impl Into<Text>) {
        self.0.extend(more.into().0);
    }

    /// The text for output, with or without codes for bold and colour.
    pub(crate) fn render(&self, colour: bool) -> String {
        self.0.iter().map(|piece| styled(piece.style, &piece.text, colour)).collect()
    }

    /// The same, with lines broken at words for a terminal of this many columns.
    pub(crate) fn wrapped(&self, colour: bool, width: Option<usize>) -> String {
        let Some(width) = width else { return self.render(colour) };
        let (mut parts, mut hang, mut text) = (Vec::new(), None, String::new());
        for piece in &self.0 {
            if piece.form == TextForm::Hang {
                hang = Some(parts.iter().map(|part: &Part<'_>| columns(part.text)).sum());
                continue;
            }
            for line in piece.text.split_inclusive('\n') {
                let (line, is_end) = line.strip_suffix('\n').map_or((line, false), |line| (line, true));
                parts.push(Part { style: piece.style, text: line, is_whole: piece.form == TextForm::Whole });
                if is_end {
                    broken(&mut text, &parts, hang, (colour, width));
                    text.push('\n');
                    (parts, hang) = (Vec::new(), None);
                }
            }
        }
        broken(&mut text, &parts, hang, (colour, width));
        text
    }
}

fn broken(text: &mut String, parts: &[Part<'_>], hang: Option<usize>, (colour, width): (bool, usize)) {
    for (number, line) in lines(parts, hang, width).into_iter().enumerate() {
        if number > 0 {
            text.push('\n');
        }
        text.extend(line.iter().map(|(style, part)| styled(style, part, colour)));
    }
}

fn styled(style: &str, text: &str, colour: bool) -> String {
    match colour && !style.is_empty() {
        true => format!("\x1b[{style}m{text}\x1b[0m"),
        false => text.to_owned(),
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::piece("", quote::lines(text), TextForm::Words)
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
    Text::piece(code, quote::line(text), TextForm::Words)
}

/// A command to copy, in one line that is not broken; bold, if the terminal has it.
pub(crate) fn command(text: &str) -> Text {
    Text::piece("1", quote::line(text), TextForm::Whole)
}

/// Lines that are not broken: a table, code.
pub(crate) fn verbatim(text: &str) -> Text {
    Text::piece("", quote::lines(text), TextForm::Whole)
}

/// Nothing; the further lines of a broken line begin in its column.
pub(crate) fn hang() -> Text {
    Text::piece("", String::new(), TextForm::Hang)
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

    #[test]
    fn a_command_stays_beside_its_prompt() {
        let text = text![verbatim("   $ "), command("pgentra query -c 'SELECT version()'"), "\n"];
        assert_eq!(text.wrapped(false, Some(24)), text.render(false));
    }

    #[test]
    fn a_terminal_gets_lines_of_its_width() {
        let text = text![
            bold("hint:"),
            " ",
            hang(),
            "take the role that fits this identity\nor ask\n",
            verbatim(" a table | that is wider\n"),
            "end"
        ];
        assert_eq!(text.wrapped(false, None), text.render(false));
        assert_eq!(
            text.wrapped(true, Some(24)),
            "\x1b[1mhint:\x1b[0m take the role that\n      fits this identity\nor ask\n a table | that is wider\nend"
        );
        assert_eq!(text.wrapped(true, Some(120)), text.render(true));
    }
}

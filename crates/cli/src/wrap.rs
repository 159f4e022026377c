//! Breaks lines at blanks, for the width of a terminal.

use textwrap::core::Fragment;
use textwrap::wrap_algorithms::wrap_first_fit;
use unicode_width::UnicodeWidthChar as _;

/// A line narrower than this has more breaks than words.
const NARROWEST: usize = 20;

/// A part of a line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part<'a> {
    /// SGR codes (ECMA-48); empty for none.
    pub(crate) style: &'static str,
    pub(crate) text: &'a str,
    /// Whether it stays in one piece: a command to copy, a row of a table.
    pub(crate) is_whole: bool,
}

/// Breaks a line that is wider than `width` columns. Further lines begin at the column `hang`, else
/// two columns after the first one. A word that is too wide for a line is not broken, because it
/// could not be copied.
pub(crate) fn lines<'a>(
    line: &[Part<'a>],
    hang: Option<usize>,
    width: usize,
) -> Vec<Vec<(&'static str, String)>> {
    let width = width.max(NARROWEST);
    let whole = || line.iter().map(|part| (part.style, part.text.to_owned())).collect();
    if line.iter().map(|part| columns(part.text)).sum::<usize>() <= width {
        return vec![whole()];
    }
    let (indent, words) = words(line);
    if words.is_empty() {
        return vec![whole()];
    }
    let default = (indent + 2).min(width / 2);
    let hang = hang.filter(|hang| *hang <= width / 3).unwrap_or(default);
    let room = |taken: usize| width.saturating_sub(taken) as f64;
    let broken = wrap_first_fit(&words, &[room(indent), room(hang)]);
    let starts = std::iter::once(indent).chain(std::iter::repeat(hang));
    broken.into_iter().zip(starts).map(|(words, start)| joined(words, start)).collect()
}

/// The columns that a text takes on a terminal, computed as psql does.
pub(crate) fn columns(text: &str) -> usize {
    text.chars().map(|char| char.width().unwrap_or_default()).sum()
}

#[derive(Debug, Default)]
struct Word {
    parts: Vec<(&'static str, String)>,
    columns: usize,
    /// Blanks after it.
    blanks: usize,
}

impl Word {
    fn push(&mut self, style: &'static str, text: &str) {
        self.columns += columns(text);
        match self.parts.last_mut() {
            Some((last, word)) if *last == style => word.push_str(text),
            _ => self.parts.push((style, text.to_owned())),
        }
    }
}

impl Fragment for Word {
    fn width(&self) -> f64 {
        self.columns as f64
    }

    fn whitespace_width(&self) -> f64 {
        self.blanks as f64
    }

    fn penalty_width(&self) -> f64 {
        0.0
    }
}

/// The blanks before the first word, and the words. A word may have parts of several styles.
fn words(line: &[Part<'_>]) -> (usize, Vec<Word>) {
    let (mut indent, mut words) = (0, Vec::new());
    let mut word = Word::default();
    for part in line {
        let pieces: Vec<&str> = match part.is_whole {
            true => vec![part.text],
            false => part.text.split_inclusive(' ').collect(),
        };
        for piece in pieces {
            let (text, is_end) = match piece.strip_suffix(' ') {
                Some(text) if !part.is_whole => (text, true),
                _ => (piece, false),
            };
            if !text.is_empty() {
                if word.blanks > 0 {
                    words.push(std::mem::take(&mut word));
                }
                word.push(part.style, text);
            }
            if is_end {
                match word.parts.is_empty() {
                    true => indent += 1,
                    false => word.blanks += 1,
                }
            }
        }
    }
    if !word.parts.is_empty() {
        words.push(word);
    }
    (indent, words)
}

fn joined(words: &[Word], start: usize) -> Vec<(&'static str, String)> {
    let mut parts = vec![("", " ".repeat(start))];
    for (at, word) in words.iter().enumerate() {
        parts.extend(word.parts.iter().cloned());
        if at + 1 < words.len() {
            parts.push(("", " ".repeat(word.blanks)));
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(text: &str) -> Part<'_> {
        Part { style: "", text, is_whole: false }
    }

    fn broken(line: &[Part<'_>], hang: Option<usize>, width: usize) -> Vec<String> {
        let lines = lines(line, hang, width);
        lines.into_iter().map(|line| line.into_iter().map(|(_, text)| text).collect()).collect()
    }

    const HINT: &str = "hint: sign in as \"myVm\", the role that fits this identity; you asked for \"root\"";

    #[test]
    fn lines_are_broken_at_words() {
        for (width, lines) in [
            (120, &[HINT][..]),
            (
                60,
                &["hint: sign in as \"myVm\", the role that fits this identity;", "  you asked for \"root\""],
            ),
            (
                40,
                &[
                    "hint: sign in as \"myVm\", the role that",
                    "  fits this identity; you asked for",
                    "  \"root\"",
                ],
            ),
        ] {
            assert_eq!(broken(&[part(HINT)], None, width), lines);
        }
    }

    #[test]
    fn further_lines_begin_where_the_text_begins() {
        let line = [part("  + tls         "), part("the certificate is valid, for this name and now")];
        assert_eq!(
            broken(&line, Some(16), 60),
            ["  + tls         the certificate is valid, for this name and", "                now"]
        );
        // On a narrow terminal that would leave no room.
        assert_eq!(
            broken(&line, Some(16), 40),
            ["  + tls         the certificate is", "    valid, for this name and now"]
        );
    }

    #[test]
    fn what_is_copied_stays_in_one_piece() {
        let command = Part { style: "1", text: "pgentra query -c 'SELECT 1'", is_whole: true };
        let line = [part("On the machine of that name: "), command, part(".")];
        assert_eq!(
            broken(&line, None, 40),
            ["On the machine of that name:", "  pgentra query -c 'SELECT 1'."]
        );
        let url = "https://example.com/a/very/long/path/that/is/longer/than/a/line";
        assert_eq!(
            broken(&[part(&format!("see {url} now"))], None, 40),
            ["see", &format!("  {url}"), "  now"]
        );
    }

    #[test]
    fn words_are_measured_by_what_a_terminal_shows() {
        assert_eq!(
            broken(&[part("日本語 日本語 日本語 日本語")], None, 20),
            ["日本語 日本語 日本語", "  日本語"]
        );
        assert_eq!(broken(&[part("")], None, 40), [""]);
        let blanks = " ".repeat(60);
        assert_eq!(broken(&[part(&blanks)], None, 40), [blanks]);
    }

    #[test]
    fn a_word_of_several_styles_is_one_word() {
        let line =
            [Part { style: "1", text: "a bold", is_whole: false }, part("end of a word and more of it")];
        let lines = lines(&line, None, 20);
        let first: Vec<_> = lines[0].iter().filter(|(_, text)| !text.trim().is_empty()).collect();
        let expected = [("1", "a"), ("1", "bold"), ("", "end"), ("", "of"), ("", "a"), ("", "word")];
        assert_eq!(first, expected.map(|(style, text)| (style, text.to_owned())).iter().collect::<Vec<_>>());
        assert_eq!(lines.len(), 2);
    }
}

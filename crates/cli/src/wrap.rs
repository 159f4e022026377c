//! Breaks lines at blanks, for the width of a terminal.

use std::ops::Range;

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

/// How commands and statements begin in a message, after a colon.
const COMMANDS: &str = "pgentra eval psql pg_isready az curl export unset env chmod chown rm sudo sh SELECT ALTER GRANT CREATE DROP";
/// How they end, outside of quotes and parentheses.
const ENDS: [&str; 4] = ["; ", ", ", ". ", " ("];

/// Breaks a line that is wider than `width` columns. Further lines begin at the column `hang`, else
/// two columns after the first one. A word that is too wide for a line is not broken, and neither is
/// a command: it could not be copied.
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
    let text: String = line.iter().map(|part| part.text).collect();
    // Where the commands are marked, there are no others.
    let is_marked = line.iter().any(|part| part.is_whole);
    let commands = if is_marked { Vec::new() } else { commands(&text) };
    let (mut at, mut parts) = (0, Vec::new());
    for part in line {
        parts.extend(split(*part, at, &commands));
        at += part.text.len();
    }
    let (indent, words) = words(&parts);
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

/// The ranges of the commands in a line: in backquotes, or after a colon.
fn commands(line: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    let begins = |text: &str| {
        COMMANDS.split(' ').any(|word| text.strip_prefix(word).is_some_and(|rest| rest.starts_with(' ')))
    };
    for (at, _) in line.match_indices([':', '`']) {
        if found.last().is_some_and(|last| at < last.end) {
            continue;
        }
        let Some(rest) = line.get(at + 1..) else { continue };
        if line.get(at..=at) == Some("`") {
            found.extend(rest.find('`').map(|end| at..at + end + 2));
        } else if let Some(rest) = rest.strip_prefix(' ').filter(|rest| begins(rest)) {
            found.push(at + 2..at + 2 + command(rest));
        }
    }
    found
}

/// The length of the command at the beginning of a text.
fn command(text: &str) -> usize {
    let (mut quote, mut depth) = (None, 0_usize);
    for (at, char) in text.char_indices() {
        let rest = text.get(at..).unwrap_or_default();
        match (quote, char) {
            (Some(open), _) if open == char => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(char),
            (None, _) if depth == 0 && ENDS.iter().any(|end| rest.starts_with(end)) => return at,
            (None, '(') => depth += 1,
            (None, ')') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    text.trim_end().len()
}

/// A part that begins at the byte `start` of its line, in pieces: commands, and what is between.
fn split<'a>(part: Part<'a>, start: usize, commands: &[Range<usize>]) -> Vec<Part<'a>> {
    if part.is_whole {
        return vec![part];
    }
    let (mut pieces, mut done) = (Vec::new(), 0);
    let within = |at: usize| at.saturating_sub(start).min(part.text.len());
    for command in commands {
        for (to, is_whole) in [(within(command.start), false), (within(command.end), true)] {
            let text = part.text.get(done..to).unwrap_or_default();
            if !text.is_empty() {
                pieces.push(Part { text, is_whole, ..part });
                done = to;
            }
        }
    }
    pieces.push(Part { text: part.text.get(done..).unwrap_or_default(), ..part });
    pieces
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
    fn a_command_in_a_message_is_not_broken() {
        for (text, commands) in [
            (
                "ready; next: eval \"$(pgentra local env --name a)\" && pgentra query -c 'SELECT 1, 2; x'; stop it: pgentra local down",
                &[
                    "eval \"$(pgentra local env --name a)\" && pgentra query -c 'SELECT 1, 2; x'",
                    "pgentra local down",
                ][..],
            ),
            ("Ctrl-C or `pgentra local down` stops it", &["`pgentra local down`"]),
            ("hint: unset PGSSLMODE, or PGX", &["unset PGSSLMODE"]),
            ("in postgres: SELECT * FROM f('a', b, c)", &["SELECT * FROM f('a', b, c)"]),
            ("it is: pgentra-like, `open", &[]),
        ] {
            let found: Vec<_> = super::commands(text).into_iter().map(|range| &text[range]).collect();
            assert_eq!(found, commands, "{text}");
            for width in [40, 60, 120] {
                let shown = broken(&[part(text)], None, width);
                let is_there = |command: &&str| shown.iter().any(|line| line.contains(*command));
                assert!(commands.iter().all(is_there), "{shown:#?}");
            }
        }
        let label = [
            Part { style: "1", text: "see:", is_whole: false },
            part(" pgentra doctor --explain "),
            part("role-not-mapped"),
        ];
        assert_eq!(broken(&label, None, 20), ["see:", "  pgentra doctor --explain role-not-mapped"]);
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

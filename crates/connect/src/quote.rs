//! Names and texts of a server, a directory or a person, made safe for one destination each.
//!
//! There is a function for each destination. Nothing else puts such a text between quotes.

use std::fmt::Write as _;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// The longest name in bytes: PostgreSQL's `NAMEDATALEN` - 1. It cuts longer ones off.
pub const NAME_LIMIT: usize = 63;

/// All but the unreserved characters of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// An SQL identifier, in double quotes.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// An SQL identifier that a person can copy from a hint: `None` where no such name exists in PostgreSQL (it is empty, or
/// longer than [`NAME_LIMIT`]) and where a character of it does not show.
pub fn copyable_identifier(name: &str) -> Option<String> {
    let can_exist = !name.is_empty() && name.len() <= NAME_LIMIT;
    (can_exist && !name.chars().any(is_hidden)).then(|| identifier(name))
}

/// An SQL string constant, in one line. It means the same whatever `standard_conforming_strings` is.
pub fn literal(text: &str) -> String {
    if !text.contains(|char: char| char == '\\' || char.is_ascii_control()) {
        return format!("'{}'", text.replace('\'', "''"));
    }
    let mut constant = String::from("E'");
    for char in text.chars() {
        match char {
            '\'' | '\\' => constant.extend([char, char]),
            char if char.is_ascii_control() => {
                // Writing to a String cannot fail.
                let _ = write!(constant, "\\x{:02X}", u32::from(char));
            }
            char => constant.push(char),
        }
    }
    constant.push('\'');
    constant
}

/// One word of a command for a shell. A text with a character that does not show takes a shell that knows `$'…'`: bash, zsh,
/// ksh.
pub fn shell_word(text: &str) -> String {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "_-./:@%+,".contains(char);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    if !text.chars().any(is_hidden) {
        return format!("'{}'", text.replace('\'', r"'\''"));
    }
    let mut word = String::from("$'");
    for char in text.chars() {
        match char {
            '\'' | '\\' => word.extend(['\\', char]),
            char if is_hidden(char) => {
                for byte in char.encode_utf8(&mut [0; 4]).bytes() {
                    // Writing to a String cannot fail.
                    let _ = write!(word, "\\{byte:03o}");
                }
            }
            char => word.push(char),
        }
    }
    word.push('\'');
    word
}

/// A value of a conninfo string.
pub fn conninfo_value(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// A part of a URL: every byte but the unreserved characters of RFC 3986 section 2.3 as %XX. So it is no `+` either, which
/// libpq takes for itself and JDBC for a space.
pub fn url_value(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// A value of an ADO.NET connection string, as Npgsql takes it: in double quotes, doubled inside, where it needs them.
pub fn ado_value(text: &str) -> String {
    let is_plain = |char: char| char.is_alphanumeric() || ".-_/:@".contains(char);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.to_owned(),
        false => identifier(text),
    }
}

/// The value of a variable in a file `.env`. `None` where its readers (shells, Docker, Compose, systemd, the dotenv
/// libraries) agree on no form of it: it has a character that some of them expand or escape, or one that does not show.
pub fn dotenv_value(text: &str) -> Option<String> {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "._-/:@".contains(char);
    if !text.is_empty() && text.chars().all(is_plain) {
        return Some(text.to_owned());
    }
    let is_disputed = |char: char| "'\\$\"`".contains(char) || is_hidden(char);
    (!text.is_empty() && !text.chars().any(is_disputed)).then(|| format!("'{text}'"))
}

/// A name for a person to read: in double quotes, doubled inside; characters that do not show are escaped.
pub fn name(name: &str) -> String {
    line(&identifier(name))
}

/// A text for a person to read, in one line: characters that do not show, line feeds among them, are escaped as psql does.
pub fn line(text: &str) -> String {
    escaped(text, is_hidden)
}

/// A text for a person to read that may have several lines: as [`line()`], but line feeds and tabs stay.
pub fn lines(text: &str) -> String {
    escaped(text, |char| is_hidden(char) && !matches!(char, '\n' | '\t'))
}

/// Whether a terminal obeys a character instead of showing it, or shows its neighbours in another order: control characters
/// (C0, DEL, C1), the bidirectional embeddings, overrides and isolates, and the line and paragraph separators.
pub fn is_hidden(char: char) -> bool {
    char.is_control() || matches!(char, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for char in text.chars() {
        // Writing to a String cannot fail.
        let _ = match char {
            char if !is_escaped(char) => shown.write_char(char),
            '\n' => shown.write_str("\\n"),
            '\r' => shown.write_str("\\r"),
            '\t' => shown.write_str("\\t"),
            char if char.is_ascii() => write!(shown, "\\x{:02X}", u32::from(char)),
            char => write!(shown, "\\u{:04X}", u32::from(char)),
        };
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: [&str; 12] = [
        "plain",
        "",
        "two words",
        "a\"b",
        "it's",
        "back\\slash",
        "$(touch PWNED) `id` $HOME",
        "host=127.0.0.1 port=1",
        "100%",
        "a\nb\t\r\u{1b}[31m\u{7f}",
        "\u{9b}31m \u{202e}desrever\u{2066}",
        "Zoë 日本語 🦀",
    ];

    #[test]
    fn each_destination_has_its_quotes() {
        assert_eq!(identifier("a\"b\\c'd"), "\"a\"\"b\\c'd\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("it's \\"), "E'it''s \\\\'");
        assert_eq!(literal("a\nb"), "E'a\\x0Ab'");
        assert_eq!(shell_word("my-app"), "my-app");
        assert_eq!(shell_word("it's"), r"'it'\''s'");
        assert_eq!(shell_word(""), "''");
        assert_eq!(shell_word("a\n'\u{9b}"), r"$'a\012\'\302\233'");
        assert_eq!(conninfo_value("a'b\\c"), "'a\\'b\\\\c'");
        assert_eq!(url_value("a-b._~ é+/@&%"), "a-b._~%20%C3%A9%2B%2F%40%26%25");
        assert_eq!(ado_value("my-app"), "my-app");
        assert_eq!(ado_value("a;b=\"c\""), "\"a;b=\"\"c\"\"\"");
        assert_eq!(dotenv_value("my-app").as_deref(), Some("my-app"));
        assert_eq!(dotenv_value("My Group #1").as_deref(), Some("'My Group #1'"));
        assert_eq!(dotenv_value("it's"), None);
        assert_eq!(name("a\"b\n"), "\"a\"\"b\\n\"");
        assert_eq!(line("a\tb\r\n\u{1b}[0m\u{9b}\u{202e}é"), "a\\tb\\r\\n\\x1B[0m\\u009B\\u202Eé");
        assert_eq!(lines("a\tb\r\n\u{7f}"), "a\tb\\r\n\\x7F");
    }

    /// A shell gives every text back as it was.
    #[test]
    fn a_shell_takes_a_word_as_it_is() {
        for text in HOSTILE {
            let script = format!("printf %s {}", shell_word(text));
            let shell = std::process::Command::new("bash").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(shell.stdout).unwrap(), text);
        }
    }

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        for text in HOSTILE {
            for shown in [name(text), line(text), shell_word(text)] {
                assert!(!shown.chars().any(is_hidden), "{shown:?}");
            }
        }
    }

    #[test]
    fn what_cannot_exist_is_not_proposed() {
        assert_eq!(copyable_identifier(&"x".repeat(63)).map(|name| name.len()), Some(65));
        for name in ["", &"x".repeat(64), &"ä".repeat(32), "a\nb", "a\u{202e}b"] {
            assert_eq!(copyable_identifier(name), None, "{name:?}");
        }
    }
}

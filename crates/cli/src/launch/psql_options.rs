//! Separates the arguments of `pgentra psql` into pgentra's and psql's own.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};

/// psql's short options with a value, except those that pgentra has too (psql 18, "Options").
const SHORT: &str = "cfFLoPRT";
/// psql's long options with a value, except those that pgentra has too.
const LONG: [&str; 10] = [
    "command",
    "field-separator",
    "file",
    "log-file",
    "output",
    "pset",
    "record-separator",
    "set",
    "table-attr",
    "variable",
];

/// An option of pgentra: its names, and whether it takes a value.
struct Own {
    short: Option<char>,
    long: Option<String>,
    takes_value: bool,
}

/// Moves psql's own options behind `--`, from where they are passed to psql unchanged. Arguments of
/// other commands stay unchanged. `definition` is that of all commands.
pub(crate) fn sort(words: Vec<OsString>, definition: &clap::Command) -> Vec<OsString> {
    let command = words.iter().skip(1).position(|word| !word.as_encoded_bytes().starts_with(b"-"));
    let Some(at) = command.map(|at| at + 1).filter(|at| words[*at] == "psql") else { return words };
    let Some(psql) = definition.find_subcommand("psql") else { return words };
    let own = definition.get_arguments().chain(psql.get_arguments()).map(|argument| Own {
        short: argument.get_short(),
        long: argument.get_long().map(str::to_owned),
        takes_value: argument.get_action().takes_values(),
    });
    let mut sorting = Sorting { own: own.collect(), ours: Vec::new(), theirs: Vec::new(), names: 0 };
    let mut words = words;
    let rest = words.split_off(at + 1);
    sorting.sort(rest.into());
    words.extend(sorting.ours);
    if !sorting.theirs.is_empty() {
        words.push("--".into());
        words.extend(sorting.theirs);
    }
    words
}

struct Sorting {
    own: Vec<Own>,
    ours: Vec<OsString>,
    theirs: Vec<OsString>,
    /// The number of arguments that are not options: psql's database and user name.
    names: usize,
}

impl Sorting {
    fn sort(&mut self, mut words: VecDeque<OsString>) {
        while let Some(word) = words.pop_front() {
            if word == "--" {
                self.theirs.extend(words);
                return;
            }
            match word.to_str() {
                Some(text) if text.starts_with("--") => self.long(text, &mut words),
                Some(text) if text.len() > 1 && text.starts_with('-') => self.short(&text[1..], &mut words),
                _ => self.name(word),
            }
        }
    }

    fn long(&mut self, text: &str, words: &mut VecDeque<OsString>) {
        let (name, value) = match text[2..].split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (&text[2..], None),
        };
        let own = self.own.iter().find(|own| own.long.as_deref() == Some(name));
        let takes_value =
            own.map_or_else(|| LONG.iter().any(|long| long.starts_with(name)), |own| own.takes_value);
        let is_ours = own.is_some();
        let side = if is_ours { &mut self.ours } else { &mut self.theirs };
        side.push(text.into());
        if takes_value && value.is_none() {
            side.extend(next(words, is_ours));
        }
    }

    /// One argument may hold several short options, the last of them with its value.
    fn short(&mut self, letters: &str, words: &mut VecDeque<OsString>) {
        for (at, letter) in letters.char_indices() {
            let rest = &letters[at + letter.len_utf8()..];
            let own = self.own.iter().find(|own| own.short == Some(letter));
            let is_variable = letter == 'v' && is_assignment(rest, words);
            let is_ours = own.is_some() && !is_variable;
            let takes_value = match own {
                Some(own) if is_ours => own.takes_value,
                _ => is_variable || SHORT.contains(letter),
            };
            let side = if is_ours { &mut self.ours } else { &mut self.theirs };
            if takes_value {
                side.push(format!("-{letter}{rest}").into());
                if rest.is_empty() {
                    side.extend(next(words, is_ours));
                }
                return;
            }
            side.push(format!("-{letter}").into());
        }
    }

    /// As in psql: the first names the database, or is a connection string; the second is the role.
    fn name(&mut self, word: OsString) {
        self.names += 1;
        match self.names {
            1 => self.ours.push(word),
            2 => self.ours.extend(["--username".into(), word]),
            _ => self.theirs.push(word),
        }
    }
}

/// `-v NAME=VALUE` sets a psql variable; a bare `-v` increases pgentra's log level.
fn is_assignment(rest: &str, words: &VecDeque<OsString>) -> bool {
    let is_one = |text: &str| {
        text.split_once('=').is_some_and(|(name, _)| {
            name.starts_with(|first: char| first.is_alphabetic() || first == '_')
                && name.chars().all(|char| char.is_alphanumeric() || char == '_')
        })
    };
    match rest.is_empty() {
        true => words.front().and_then(|word| word.to_str()).is_some_and(is_one),
        false => is_one(rest),
    }
}

/// The value of an option. psql takes any next argument; for pgentra's options, a next argument
/// that is an option is an error.
fn next(words: &mut VecDeque<OsString>, is_ours: bool) -> Option<OsString> {
    let is_option = |word: &OsStr| word.as_encoded_bytes().starts_with(b"-");
    if is_ours && words.front().is_some_and(|word| is_option(word)) {
        return None;
    }
    words.pop_front()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::definition;

    fn sorted(words: &[&str]) -> Vec<String> {
        let words = words.iter().map(OsString::from).collect();
        sort(words, &definition()).into_iter().map(|word| word.into_string().unwrap()).collect()
    }

    #[test]
    fn what_is_psqls_goes_behind_the_two_hyphens() {
        for (given, ours, theirs) in [
            (
                &["-c", "select 1", "-At", "-f", "x", "-l"][..],
                &[][..],
                &["-c", "select 1", "-A", "-t", "-f", "x", "-l"][..],
            ),
            (
                &["-h", "db", "-p", "1", "-U", "app", "-d", "x", "-c", "y"],
                &["-h", "db", "-p", "1", "-U", "app", "-d", "x"],
                &["-c", "y"],
            ),
            (&["-c", "-h"], &[], &["-c", "-h"]),
            (&["-qUapp", "-XU", "b"], &["-Uapp", "-U", "b"], &["-q", "-X"]),
            (&["app", "my-role", "extra"], &["app", "--username", "my-role"], &["extra"]),
            (
                &["--command", "x", "--host", "db", "--csv", "--comm", "y"],
                &["--host", "db"],
                &["--command", "x", "--csv", "--comm", "y"],
            ),
            (
                &["--host=db", "--set=a=b", "--client-id", "id", "--no-psqlrc"],
                &["--host=db", "--client-id", "id"],
                &["--set=a=b", "--no-psqlrc"],
            ),
            (
                &["-v", "ON_ERROR_STOP=1", "-vx=1", "-vv", "-v", "app"],
                &["-v", "-v", "-v", "app"],
                &["-v", "ON_ERROR_STOP=1", "-vx=1"],
            ),
            (&["-v", "host=db"], &[], &["-v", "host=db"]),
            (&["--token-command", "echo -x", "-1"], &["--token-command", "echo -x"], &["-1"]),
            (&["-?"], &["-?"], &[]),
            (&["--tuples-only", "--", "-h", "x"], &[], &["--tuples-only", "-h", "x"]),
            (&["-h"], &["-h"], &[]),
            (&["-h", "-c", "x"], &["-h"], &["-c", "x"]),
        ] {
            let hyphens: &[&str] = if theirs.is_empty() { &[] } else { &["--"] };
            let expected = [&["pgentra", "psql"], ours, hyphens, theirs].concat();
            assert_eq!(sorted(&[&["pgentra", "psql"], given].concat()), expected, "{given:?}");
        }
    }

    #[test]
    fn other_commands_are_left_alone() {
        for words in [
            &["pgentra", "query", "-c", "x", "-At"][..],
            &["pgentra"],
            &["pgentra", "-v"],
            &["pgentra", "exec", "--", "psql", "-c"],
        ] {
            assert_eq!(sorted(words), words);
        }
        assert_eq!(sorted(&["pgentra", "-v", "psql", "-l"]), ["pgentra", "-v", "psql", "--", "-l"]);
    }
}

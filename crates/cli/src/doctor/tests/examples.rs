//! The examples in the documentation can be parsed.

use std::ffi::OsString;

use crate::usage;

const PAGES: [(&str, &str); 3] = [
    ("docs/errors.md", include_str!("../../../../../docs/errors.md")),
    ("docs/commands.md", include_str!("../../../../../docs/commands.md")),
    ("README.md", include_str!("../../../../../README.md")),
];

/// Words as a shell splits them: quotes of both kinds, no escapes, up to a comment.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[test]
fn every_command_in_the_pages_is_one() {
    let mut commands = 0;
    for (page, text) in PAGES {
        let lines = text.lines().filter_map(|line| line.strip_prefix("$ "));
        for line in lines {
            let words = words(line);
            let Some(first) = words.iter().position(|word| word == "pgentra") else { continue };
            // The part after a pipe or redirection belongs to the shell.
            let end = words.iter().position(|word| ["|", ">", "&&", ";"].contains(&word.as_str()));
            let Some(ours) = words.get(first..end.unwrap_or(words.len())) else { continue };
            if let Err(error) = usage::parse(ours.iter().map(OsString::from).collect()) {
                assert!(
                    matches!(error.kind(), clap::error::ErrorKind::DisplayHelp),
                    "{page}: `{line}`: {error}"
                );
            }
            commands += 1;
        }
    }
    assert!(commands > 30, "only {commands} were found");
}

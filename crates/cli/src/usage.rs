//! Invalid command lines, reported like every other failure, with a hint.

use std::ffi::OsString;

use clap::FromArgMatches as _;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::arguments::{Arguments, definition};
use crate::blame::Blame;
use crate::launch::psql_options;
use crate::problem::Problem;

/// Parses a command line.
///
/// # Errors
///
/// Invalid arguments; also help and version, which clap treats as errors: see [`is_answer`].
pub(crate) fn parse(words: Vec<OsString>) -> Result<Arguments, clap::Error> {
    let definition = definition();
    let words = psql_options::sort(words, &definition);
    let matches = definition.try_get_matches_from(words)?;
    Arguments::from_arg_matches(&matches)
}

/// Whether clap's error is a requested output, or the help for a command without arguments.
pub(crate) fn is_answer(error: &clap::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    )
}

/// The failure, with a corrected command as the hint.
pub(crate) fn problem(error: &clap::Error, words: &[OsString]) -> Problem {
    let command = command(words);
    let help = format!("help is --help: {command} --help");
    let hint = match suggestion(error) {
        Some(meant) => format!("did you mean {meant}? {help}"),
        None => help,
    };
    Problem::new(Blame::Usage, message(error, &command)).hint(hint)
}

/// The command that these arguments name, as the user types it.
fn command(words: &[OsString]) -> String {
    let definition = definition();
    let (mut command, mut typed) = (&definition, "pgentra".to_owned());
    let is_option = |word: &&OsString| word.as_encoded_bytes().starts_with(b"-");
    for word in words.iter().skip(1).filter(|word| !is_option(word)) {
        let Some(next) = command.find_subcommand(word) else { break };
        (command, typed) = (next, format!("{typed} {}", next.get_name()));
    }
    typed
}

fn message(error: &clap::Error, command: &str) -> String {
    let flag = text(error, ContextKind::InvalidArg);
    match (error.kind(), flag.as_deref(), text(error, ContextKind::InvalidValue).as_deref()) {
        (ErrorKind::InvalidValue, Some(flag), None | Some("")) => {
            format!("a value is required for {}", name(flag))
        }
        (ErrorKind::InvalidValue, Some(flag), Some(value)) => {
            let possible = list(error, ContextKind::ValidValue);
            format!("{} is one of {}, not `{value}`", name(flag), possible.join(", "))
        }
        (ErrorKind::ValueValidation, Some(flag), value) => {
            let why = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            // Value parsers of pgentra return the end of a sentence.
            match ["takes ", "is "].iter().any(|start| why.starts_with(start)) {
                true => format!("{} {why}", name(flag)),
                false => format!("{} cannot be `{}`: {why}", name(flag), value.unwrap_or_default()),
            }
        }
        (ErrorKind::UnknownArgument, Some(word), _) if word.starts_with('-') => {
            format!("`{command}` has no option {}", name(word))
        }
        (ErrorKind::InvalidSubcommand, ..) => {
            let word = text(error, ContextKind::InvalidSubcommand).unwrap_or_default();
            format!("`{word}` is no command of `{}`", command)
        }
        _ => clap_message(error),
    }
}

/// clap's message in one line.
fn clap_message(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let message = text.split("\n\n").next().unwrap_or_default();
    let message = message.strip_prefix("error: ").unwrap_or(message);
    message.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

fn suggestion(error: &clap::Error) -> Option<String> {
    let kinds = [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand, ContextKind::SuggestedValue];
    kinds.into_iter().find_map(|kind| list(error, kind).into_iter().next())
}

/// An option's name without the placeholder of its value.
fn name(flag: &str) -> &str {
    flag.split([' ', '=']).next().unwrap_or(flag)
}

fn text(error: &clap::Error, kind: ContextKind) -> Option<String> {
    list(error, kind).into_iter().next()
}

fn list(error: &clap::Error, kind: ContextKind) -> Vec<String> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => vec![text.clone()],
        Some(ContextValue::Strings(texts)) => texts.clone(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(words: &[&str]) -> (String, String) {
        let words: Vec<_> =
            std::iter::once("pgentra").chain(words.iter().copied()).map(OsString::from).collect();
        let problem = problem(&parse(words.clone()).unwrap_err(), &words);
        (problem.error_text(), problem.hint_text().unwrap().to_owned())
    }

    #[test]
    fn what_cannot_be_is_told_with_a_hint() {
        for (words, error, hint) in [
            (&["query", "-h"][..], "a value is required for --host", "help is --help: pgentra query --help"),
            (
                &["psql", "-h", "-c", "x"],
                "a value is required for --host",
                "help is --help: pgentra psql --help",
            ),
            (
                &["token", "--token-timeout", "1d"],
                "--token-timeout takes a time from 1s to 1h, such as 90s, 5m or a bare number of seconds, not `1d`",
                "pgentra token --help",
            ),
            (
                &["token", "--token-timeout", "-1"],
                "--token-timeout takes a time from 1s to 1h, such as 90s, 5m or a bare number of seconds, not `-1`",
                "pgentra token --help",
            ),
            (&["token", "-o", "xml"], "--output is one of text, json, not `xml`", "pgentra token --help"),
            (
                &["token", "--tenant", "a b"],
                "--tenant takes a GUID or a domain name such as contoso.onmicrosoft.com, not `a b`",
                "--help",
            ),
            (
                &["local", "up", "--name", "a/b"],
                "--name cannot be `a/b`: 1 to 32 letters, digits, `-` or `_`",
                "pgentra local up --help",
            ),
            (
                &["token", "--sorce", "imds"],
                "`pgentra token` has no option --sorce",
                "did you mean --source? help is --help: pgentra token --help",
            ),
            (&["quer"], "`quer` is no command of `pgentra`", "did you mean query?"),
            (&["local", "dwon"], "`dwon` is no command of `pgentra local`", "did you mean down?"),
            (
                &["role", "apply"],
                "the following required arguments were not provided: --file <FILE>",
                "pgentra role apply --help",
            ),
            (
                &["local", "up", "--port", "99999"],
                "--port cannot be `99999`: 99999 is not in 0..=65535",
                "--help",
            ),
        ] {
            let (found, found_hint) = told(words);
            assert_eq!(found, error, "{words:?}");
            assert!(found_hint.contains(hint), "{words:?}: {found_hint}");
        }
        let (error, _) = told(&["token", "--source", "imsd"]);
        assert!(
            error.starts_with("--source is one of imds, app-service,") && error.ends_with("not `imsd`"),
            "{error}"
        );
        let (error, _) = told(&["token", "--client-id", "a", "--object-id", "b"]);
        assert!(error.contains("--client-id") && error.contains("--object-id"), "{error}");
    }

    #[test]
    fn help_is_no_failure() {
        for words in [
            &["-h"][..],
            &["token", "-h"],
            &["local", "up", "-h"],
            &["local", "env", "-h"],
            &["proxy", "wait", "-h"],
            &["query", "--help"],
            &["psql", "-?"],
            &["--version"],
            &[],
        ] {
            let words = std::iter::once("pgentra").chain(words.iter().copied()).map(OsString::from).collect();
            assert!(is_answer(&parse(words).unwrap_err()));
        }
    }
}

//! The SQL of `pgentra query`: `-c`, `-f` and standard input, in the order in which they are given.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use clap::error::Error;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};
use pgentra_system::System;

use crate::blame::Blame;
use crate::input;
use crate::problem::{Outcome, Problem};

/// The longest file in bytes: it is kept in memory and sent as one message.
const FILE_LIMIT: usize = 64 * 1024 * 1024;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scripts(pub(crate) Vec<SqlInput>);

/// SQL, or the file that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SqlInput {
    /// The argument of `-c`.
    Text(String),
    /// The file of `-f`; `-` is standard input.
    File(PathBuf),
}

/// SQL with the name of the file that it was read from.
pub(crate) struct Sql {
    pub(crate) text: String,
    pub(crate) file: Option<String>,
}

impl Scripts {
    /// Reads all scripts. Without `-c` and `-f` it reads standard input, unless that is a terminal.
    ///
    /// # Errors
    /// A file that cannot be read, is too long or is not UTF-8; nothing to run.
    pub(crate) async fn read(&self, system: &System) -> Outcome<Vec<Sql>> {
        if self.0.is_empty() {
            if std::io::stdin().is_terminal() {
                return Err(Problem::new(Blame::Usage, "there is no SQL to run").hint(
                    "give it with -c SQL, -f FILE or on standard input; `pgentra psql` is for typing it",
                ));
            }
            return Ok(vec![read(system, Path::new("-")).await?]);
        }
        let mut read_so_far = Vec::new();
        for script in &self.0 {
            read_so_far.push(match script {
                SqlInput::Text(text) => Sql { text: text.clone(), file: None },
                SqlInput::File(path) => read(system, path).await?,
            });
        }
        Ok(read_so_far)
    }
}

async fn read(system: &System, path: &Path) -> Outcome<Sql> {
    let name = input::called(path);
    let text = input::text(system, path, FILE_LIMIT).await.map_err(|error| {
        Problem::new(Blame::Usage, format!("cannot read {name}: {error}"))
            .hint("-f names a file of SQL, of 64 MiB at most; -f - reads standard input")
    })?;
    Ok(Sql { text, file: Some(name) })
}

impl Args for Scripts {
    fn augment_args(command: Command) -> Command {
        command
            .arg(
                Arg::new("command")
                    .short('c')
                    .long("command")
                    .value_name("SQL")
                    .action(ArgAction::Append)
                    .help(
                        "SQL to run, of one or several statements. May be given several times, mixed with -f",
                    ),
            )
            .arg(
                Arg::new("file")
                    .short('f')
                    .long("file")
                    .value_name("FILE")
                    .action(ArgAction::Append)
                    .value_parser(value_parser!(PathBuf))
                    .help("A file of SQL; - is standard input. May be given several times, mixed with -c"),
            )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Scripts {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let texts = matches.get_many::<String>("command").into_iter().flatten().cloned().map(SqlInput::Text);
        let files = matches.get_many::<PathBuf>("file").into_iter().flatten().cloned().map(SqlInput::File);
        let places = |id| matches.indices_of(id).into_iter().flatten();
        let mut scripts: Vec<(usize, SqlInput)> =
            places("command").zip(texts).chain(places("file").zip(files)).collect();
        scripts.sort_by_key(|(place, _)| *place);
        Ok(Self(scripts.into_iter().map(|(_, script)| script).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_run_in_the_order_in_which_they_are_given() {
        let command = Scripts::augment_args(Command::new("query"));
        let words = ["query", "-f", "a.sql", "-c", "SELECT 1", "--file=-", "-cSELECT 2"];
        let scripts = Scripts::from_arg_matches(&command.try_get_matches_from(words).unwrap()).unwrap();
        let text = |text: &str| SqlInput::Text(text.to_owned());
        let file = |file: &str| SqlInput::File(file.into());
        assert_eq!(scripts.0, [file("a.sql"), text("SELECT 1"), file("-"), text("SELECT 2")]);
    }
}

//! The flags of all keys.

use clap::error::Error;
use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::keys::{KEYS, Key};
use crate::options::Identity;

/// The flags of all keys, as they were given.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flags(pub(crate) Vec<(&'static Key, Vec<String>)>);

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        let elsewhere = Identity::augment_args(Command::new("elsewhere"));
        KEYS.iter().fold(command, |command, key| command.arg(key.argument(&elsewhere)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let given = |key: &'static Key| {
            let values = matches.get_many::<String>(key.name)?;
            Some((key, values.cloned().collect()))
        };
        Ok(Self(KEYS.iter().filter_map(given).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

//! The flags of all keys.

use clap::error::Error;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use pgentra_settings::{Form, KeyTable, SettingKey};

use crate::options::Identity;

/// The flags of all keys, as they were given.
#[derive(Clone, Debug)]
pub(crate) struct Flags<S: KeyTable>(pub(crate) Vec<(&'static SettingKey<S>, Vec<String>)>);

impl<S: KeyTable> Default for Flags<S> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<S: KeyTable> Args for Flags<S> {
    fn augment_args(command: Command) -> Command {
        let elsewhere = Identity::augment_args(Command::new("elsewhere"));
        S::keys().iter().fold(command, |command, key| command.arg(argument(key, &elsewhere)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<S: KeyTable> FromArgMatches for Flags<S> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let given = |key: &'static SettingKey<S>| {
            let values = matches.get_many::<String>(key.name)?;
            Some((key, values.cloned().collect()))
        };
        Ok(Self(S::keys().iter().filter_map(given).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The definition of a key's flag. `elsewhere` has the flags of other commands. The value is
/// checked later, with those of all layers.
fn argument<S: KeyTable>(key: &'static SettingKey<S>, elsewhere: &Command) -> Arg {
    let arg = Arg::new(key.name).long(key.flag()).value_name(key.value);
    let arg = match key.form {
        Form::List | Form::Table => arg.action(ArgAction::Append),
        Form::Switch => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
        Form::Number | Form::Time => arg.allow_negative_numbers(true),
        Form::Text => arg,
    };
    let (help, arg) = match key.help {
        Some(help) => (help.to_owned(), arg),
        None => (of_elsewhere(key, elsewhere), arg.help_heading("Identity")),
    };
    match key.default {
        "" | "false" => arg.help(help),
        default => arg.help(format!("{help} [default: {default}]")),
    }
}

/// The help of the flag of the same name in other commands.
fn of_elsewhere<S: KeyTable>(key: &SettingKey<S>, elsewhere: &Command) -> String {
    let same = elsewhere.get_arguments().find(|argument| argument.get_id() == key.name);
    same.and_then(Arg::get_help).map(ToString::to_string).unwrap_or_default()
}

/// The table of all keys in the documentation, as it has to be. `table_name` is what can have its own
/// values.
#[cfg(test)]
pub(crate) fn table<S: KeyTable>(table_name: &str) -> String {
    let elsewhere = Identity::augment_args(Command::new("elsewhere"));
    let mut table = String::from("| key | value | of | default | what it does |\n|---|---|---|---|---|\n");
    for key in S::keys() {
        let form = match key.form {
            Form::Number => "number",
            Form::Time => "time",
            Form::Switch => "true, false",
            Form::Text => "text",
            Form::List => "list of texts",
            Form::Table => "table of texts",
        };
        let of = if key.is_of_table() { table_name } else { "process" };
        let help = key.help.map_or_else(|| of_elsewhere(key, &elsewhere), str::to_owned);
        let SettingKey { name, default, .. } = key;
        table.push_str(&format!("| `{name}` | {form} | {of} | {default} | {} |\n", help.replace('|', "\\|")));
    }
    table
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use pgentra_gateway_config::GatewaySet;
    use pgentra_proxy_config::Set;

    use super::*;
    use crate::arguments::{self, Arguments};

    /// The targets, and the keys with their values, of a command line.
    fn given(words: &[&str]) -> (Vec<String>, Vec<(&'static str, Vec<String>)>) {
        let words = [&["pgentra", "proxy"], words].concat();
        let arguments::Command::Proxy(proxy) = Arguments::try_parse_from(words).unwrap().command else {
            panic!()
        };
        let flags = proxy.flags.0.into_iter().map(|(key, values)| (key.name, values)).collect();
        (proxy.targets, flags)
    }

    #[test]
    fn flags_are_plain_values() {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        for (words, targets, flags) in [
            (&["host=a", "--pin"][..], &["host=a"][..], &[("pin", &["true"][..])][..]),
            (&["host=a", "--pin=false"], &["host=a"], &[("pin", &["false"])]),
            // The argument after a switch is a target.
            (&["--pin", "host=a"], &["host=a"], &[("pin", &["true"])]),
            (&["--listen", "7", "--listen", "/run/pg"], &[], &[("listen", &["7", "/run/pg"])]),
            (&["--max-connections", "-1"], &[], &[("max_connections", &["-1"])]),
            (
                &["--role-map", "app=my-app", "--client-id", "me"],
                &[],
                &[("role_map", &["app=my-app"]), ("client_id", &["me"])],
            ),
        ] {
            let flags = flags.iter().map(|(name, values)| (*name, texts(values))).collect();
            assert_eq!(given(words), (texts(targets), flags), "{words:?}");
        }
    }

    #[test]
    fn the_documentation_has_every_key() {
        let table = table::<Set>("target");
        assert!(
            include_str!("../../../../docs/proxy-configure.md").contains(&table),
            "docs/proxy-configure.md needs this table:\n{table}"
        );
        let table = super::table::<GatewaySet>("server");
        assert!(
            include_str!("../../../../docs/gateway-configure.md").contains(&table),
            "docs/gateway-configure.md needs this table:\n{table}"
        );
    }
}

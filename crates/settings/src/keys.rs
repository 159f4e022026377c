//! Keys: the flag, the variable, the key in the file, and the line in the documentation of a setting.

use std::fmt;

/// A setting. Flag `--max-connections` = variable `PREFIX_MAX_CONNECTIONS` = `max_connections` in
/// the file.
#[derive(Debug)]
pub struct SettingKey<S: 'static> {
    /// The key in the file.
    pub name: &'static str,
    /// The form of a value.
    pub form: Form,
    /// The placeholder of a value in the help.
    pub value: &'static str,
    /// The default in words; empty if there is none.
    pub default: &'static str,
    /// What the setting does; `None`: the flag of the same name in other commands says it.
    pub help: Option<&'static str>,
    /// Keys that cannot be set together with this one in one layer.
    pub excludes: &'static [&'static str],
    /// What stores the value.
    pub set: S,
}

/// The form of a value in the file. In other layers it is text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `20`.
    Number,
    /// `"5m"`, or a number of seconds.
    Time,
    /// `true` or `false`; a flag without a value is true.
    Switch,
    /// `"text"`.
    Text,
    /// `["one", "two"]` or `"one"`; a flag is repeated, a variable or a parameter has commas.
    List,
    /// `{ name = "value" }`, with a list for several values; elsewhere a list of `name=value`.
    Table,
}

/// The keys of a program. The type that implements it stores one value.
pub trait KeyTable: Copy + fmt::Debug + 'static {
    /// How the program's variables begin.
    const PREFIX: &'static str;
    /// Variables with that prefix that are no keys, in lower case and without it.
    const OTHERS: &'static [&'static str];
    /// How variables of another program begin, in the same form.
    const FOREIGN: &'static [&'static str] = &[];
    /// The name of the tables in the file, such as `target` for `[[target]]`.
    const TABLE: &'static str;
    /// The key that each table needs, and what it is in words.
    const SERVER: (&'static str, &'static str);

    /// All keys.
    fn keys() -> &'static [SettingKey<Self>];

    /// Whether a table can have its own value.
    fn is_of_table(self) -> bool;
}

impl<S: KeyTable> SettingKey<S> {
    /// The setting with this key.
    pub fn find(name: &str) -> Option<&'static Self> {
        S::keys().iter().find(|key| key.name == name)
    }

    /// The name of its flag, without the hyphens.
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// The name of its variable.
    pub fn variable(&self) -> String {
        format!("{}{}", S::PREFIX, self.name.to_ascii_uppercase())
    }

    /// Whether a table can have its own value.
    pub fn is_of_table(&self) -> bool {
        self.set.is_of_table()
    }
}

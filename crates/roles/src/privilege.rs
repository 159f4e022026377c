use std::collections::BTreeSet;
use std::fmt;

/// What privileges are granted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// A database: CONNECT, CREATE, TEMPORARY.
    Database,
    /// A schema: CREATE, USAGE.
    Schema,
    /// A table, view, materialized view or foreign table.
    Table,
    /// A sequence: SELECT, UPDATE, USAGE.
    Sequence,
    /// A function, aggregate or procedure.
    Function,
    /// A type or domain: USAGE.
    Type,
}

impl Class {
    /// The classes of objects that are in a schema.
    pub(crate) const OF_SCHEMA: [Self; 4] = [Self::Table, Self::Sequence, Self::Function, Self::Type];

    /// Its privileges (PostgreSQL, "Privileges"), by their words in SQL.
    pub(crate) fn privileges(self) -> &'static [&'static str] {
        match self {
            Self::Database => &["CONNECT", "CREATE", "TEMPORARY"],
            Self::Schema => &["CREATE", "USAGE"],
            Self::Table => {
                &["DELETE", "INSERT", "MAINTAIN", "REFERENCES", "SELECT", "TRIGGER", "TRUNCATE", "UPDATE"]
            }
            Self::Sequence => &["SELECT", "UPDATE", "USAGE"],
            Self::Function => &["EXECUTE"],
            Self::Type => &["USAGE"],
        }
    }

    /// The word for several of them, in a file of roles and in SQL.
    pub(crate) fn plural(self) -> &'static str {
        match self {
            Self::Database => "databases",
            Self::Schema => "schemas",
            Self::Table => "tables",
            Self::Sequence => "sequences",
            Self::Function => "functions",
            Self::Type => "types",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Database => "database",
            Self::Schema => "schema",
            Self::Table => "table",
            Self::Sequence => "sequence",
            Self::Function => "function",
            Self::Type => "type",
        })
    }
}

/// Privileges of one class, as a file names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Privileges {
    /// Every one that the server knows.
    All,
    Some(BTreeSet<&'static str>),
}

impl Privileges {
    /// The privileges that these words name; else the words that name none of the class.
    pub(crate) fn of<'a>(class: Class, words: &[&'a str]) -> Result<Self, Vec<&'a str>> {
        let mut named = BTreeSet::new();
        let mut unknown = Vec::new();
        let mut all = false;
        for word in words {
            let upper = word.to_ascii_uppercase();
            let upper = if upper == "TEMP" { "TEMPORARY" } else { &upper };
            match class.privileges().iter().find(|privilege| **privilege == upper) {
                Some(privilege) => drop(named.insert(*privilege)),
                None if upper == "ALL" => all = true,
                None => unknown.push(*word),
            }
        }
        match (unknown.is_empty(), all) {
            (false, _) => Err(unknown),
            (true, true) => Ok(Self::All),
            (true, false) => Ok(Self::Some(named)),
        }
    }

    /// Those that a server of this version (`server_version_num`) knows.
    pub(crate) fn on(&self, class: Class, version: i32) -> BTreeSet<&'static str> {
        match self {
            Self::All => class
                .privileges()
                .iter()
                .copied()
                .filter(|privilege| version >= MAINTAIN_SINCE || *privilege != "MAINTAIN")
                .collect(),
            Self::Some(named) => named.clone(),
        }
    }

    /// Whether they name one that a server of this version does not know.
    pub(crate) fn too_new(&self, version: i32) -> bool {
        version < MAINTAIN_SINCE && matches!(self, Self::Some(named) if named.contains("MAINTAIN"))
    }
}

/// MAINTAIN came with PostgreSQL 17.
const MAINTAIN_SINCE: i32 = 170_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_name_privileges_of_their_class() {
        let some = |words: &[&'static str]| Ok(Privileges::Some(words.iter().copied().collect()));
        assert_eq!(Privileges::of(Class::Table, &["select", "INSERT"]), some(&["INSERT", "SELECT"]));
        assert_eq!(Privileges::of(Class::Database, &["TEMP"]), some(&["TEMPORARY"]));
        assert_eq!(Privileges::of(Class::Schema, &["all"]), Ok(Privileges::All));
        assert_eq!(Privileges::of(Class::Schema, &["SELECT", "USAGE", "X"]), Err(vec!["SELECT", "X"]));
    }

    #[test]
    fn a_server_has_the_privileges_of_its_version() {
        assert!(!Privileges::All.on(Class::Table, 160_000).contains("MAINTAIN"));
        assert!(Privileges::All.on(Class::Table, 170_000).contains("MAINTAIN"));
        let maintain = Privileges::of(Class::Table, &["MAINTAIN"]).unwrap();
        assert!(maintain.too_new(160_000) && !maintain.too_new(170_000) && !Privileges::All.too_new(130_000));
    }
}

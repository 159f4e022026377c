//! Objects, as `ALTER … OWNER TO` and people name them.

use std::fmt;

use pgentra_connect::quote;

use super::name::{quoted, shown};

/// What `ALTER … OWNER TO` knows: a database, a schema, and every kind of object that is in a schema and has an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ObjectKind {
    Database,
    Schema,
    Table,
    View,
    MaterializedView,
    ForeignTable,
    Sequence,
    Type,
    Domain,
    Function,
    Procedure,
    Aggregate,
    Operator,
    OperatorClass,
    OperatorFamily,
    Collation,
    Conversion,
    Statistics,
    TextSearchDictionary,
    TextSearchConfiguration,
}

/// A type by its schema and its name. Without a name: no type, which an operator with one operand has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TypeName {
    pub(crate) schema: String,
    pub(crate) name: String,
}

/// An object that has an owner.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OwnedObject {
    pub(crate) kind: ObjectKind,
    pub(crate) schema: Option<String>,
    pub(crate) name: String,
    /// The types of the arguments or operands.
    pub(crate) types: Vec<TypeName>,
    /// The same for a person to read.
    pub(crate) arguments: String,
    /// The access method of an operator class or family.
    pub(crate) method: String,
}

impl ObjectKind {
    const ALL: [Self; 20] = [
        Self::Database,
        Self::Schema,
        Self::Table,
        Self::View,
        Self::MaterializedView,
        Self::ForeignTable,
        Self::Sequence,
        Self::Type,
        Self::Domain,
        Self::Function,
        Self::Procedure,
        Self::Aggregate,
        Self::Operator,
        Self::OperatorClass,
        Self::OperatorFamily,
        Self::Collation,
        Self::Conversion,
        Self::Statistics,
        Self::TextSearchDictionary,
        Self::TextSearchConfiguration,
    ];

    /// The kind with these words.
    pub(crate) fn of(words: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.words() == words)
    }

    /// The kind in SQL's words.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Schema => "schema",
            Self::Table => "table",
            Self::View => "view",
            Self::MaterializedView => "materialized view",
            Self::ForeignTable => "foreign table",
            Self::Sequence => "sequence",
            Self::Type => "type",
            Self::Domain => "domain",
            Self::Function => "function",
            Self::Procedure => "procedure",
            Self::Aggregate => "aggregate",
            Self::Operator => "operator",
            Self::OperatorClass => "operator class",
            Self::OperatorFamily => "operator family",
            Self::Collation => "collation",
            Self::Conversion => "conversion",
            Self::Statistics => "statistics",
            Self::TextSearchDictionary => "text search dictionary",
            Self::TextSearchConfiguration => "text search configuration",
        }
    }

    /// The words for several of them.
    pub(crate) fn plural(self) -> String {
        match self {
            Self::OperatorClass => "operator classes".to_owned(),
            Self::OperatorFamily => "operator families".to_owned(),
            Self::TextSearchDictionary => "text search dictionaries".to_owned(),
            Self::Statistics => "statistics".to_owned(),
            kind => format!("{}s", kind.words()),
        }
    }
}

impl OwnedObject {
    /// The database, or the schema, with this name.
    pub(crate) fn outer(kind: ObjectKind, name: &str) -> Self {
        Self {
            kind,
            schema: None,
            name: name.to_owned(),
            types: Vec::new(),
            arguments: String::new(),
            method: String::new(),
        }
    }

    /// The words between `ALTER` and `OWNER TO`.
    pub(crate) fn reference(&self) -> String {
        let keyword = match self.kind {
            // It is the keyword for all three, and takes argument types where AGGREGATE takes `ORDER BY`.
            ObjectKind::Function | ObjectKind::Procedure | ObjectKind::Aggregate => "ROUTINE".to_owned(),
            kind => kind.words().to_uppercase(),
        };
        let name = match self.kind {
            ObjectKind::Operator if is_operator(&self.name) => self.name.clone(),
            _ => quoted(&self.name),
        };
        let name = match &self.schema {
            Some(schema) => format!("{}.{name}", quoted(schema)),
            None => name,
        };
        match self.kind {
            ObjectKind::Function | ObjectKind::Procedure | ObjectKind::Aggregate => {
                format!("{keyword} {name}{}", arguments(&self.types))
            }
            ObjectKind::Operator => {
                let operands: Vec<String> = self.types.iter().map(TypeName::operand).collect();
                format!("{keyword} {name} ({})", operands.join(", "))
            }
            ObjectKind::OperatorClass | ObjectKind::OperatorFamily => {
                format!("{keyword} {name} USING {}", quoted(&self.method))
            }
            _ => format!("{keyword} {name}"),
        }
    }
}

impl TypeName {
    fn reference(&self) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(&self.name))
    }

    fn operand(&self) -> String {
        if self.name.is_empty() { "NONE".to_owned() } else { self.reference() }
    }
}

/// The types of the arguments of a function. Their names are left out. `IN` says that these are the arguments of a call:
/// without it, a procedure that has the same types with OUT among them is meant too.
pub(crate) fn arguments(types: &[TypeName]) -> String {
    let types: Vec<String> = types.iter().map(|name| format!("IN {}", name.reference())).collect();
    format!("({})", types.join(", "))
}

/// The name of an operator, which cannot be in quotes (PostgreSQL, "Operators" in "Lexical Structure").
fn is_operator(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|char| "+-*/<>=~!@#%^&|`?".contains(char))
}

impl fmt::Display for OwnedObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{}.", shown(schema))?;
        }
        match self.kind {
            ObjectKind::Operator => write!(f, "{}", quote::line(&self.name))?,
            _ => write!(f, "{}", shown(&self.name))?,
        }
        match self.kind {
            ObjectKind::Function | ObjectKind::Procedure | ObjectKind::Aggregate | ObjectKind::Operator => {
                write!(f, "({})", quote::line(&self.arguments))
            }
            ObjectKind::OperatorClass | ObjectKind::OperatorFamily => {
                write!(f, " using {}", shown(&self.method))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(kind: ObjectKind, name: &str, types: &[(&str, &str)]) -> OwnedObject {
        let name_of = |(schema, name): &(&str, &str)| TypeName {
            schema: (*schema).to_owned(),
            name: (*name).to_owned(),
        };
        OwnedObject {
            schema: Some("s\"s".to_owned()),
            types: types.iter().map(name_of).collect(),
            method: "btree".to_owned(),
            ..OwnedObject::outer(kind, name)
        }
    }

    #[test]
    fn every_kind_has_its_reference() {
        let int = ("pg_catalog", "int4");
        for (kind, name, types, expected) in [
            (ObjectKind::Table, "it's", &[][..], "TABLE \"s\"\"s\".\"it's\""),
            (ObjectKind::MaterializedView, "a\nb", &[], "MATERIALIZED VIEW \"s\"\"s\".\"a\nb\""),
            (ObjectKind::Statistics, "$$", &[], "STATISTICS \"s\"\"s\".\"$$\""),
            (ObjectKind::Procedure, "p", &[], "ROUTINE \"s\"\"s\".\"p\"()"),
            (
                ObjectKind::Aggregate,
                "a",
                &[int, ("x\"", "y z")],
                "ROUTINE \"s\"\"s\".\"a\"(IN \"pg_catalog\".\"int4\", IN \"x\"\"\".\"y z\")",
            ),
            (
                ObjectKind::Operator,
                "<->",
                &[("", ""), int],
                "OPERATOR \"s\"\"s\".<-> (NONE, \"pg_catalog\".\"int4\")",
            ),
            // No operator has this name: as a name it cannot be anything else.
            (ObjectKind::Operator, "+;", &[], "OPERATOR \"s\"\"s\".\"+;\" ()"),
            (ObjectKind::OperatorFamily, "f", &[], "OPERATOR FAMILY \"s\"\"s\".\"f\" USING \"btree\""),
        ] {
            assert_eq!(object(kind, name, types).reference(), expected);
        }
        assert_eq!(OwnedObject::outer(ObjectKind::Database, "a b").reference(), "DATABASE \"a b\"");
    }

    #[test]
    fn kinds_are_read_as_they_are_written() {
        for kind in ObjectKind::ALL {
            assert_eq!(ObjectKind::of(kind.words()), Some(kind));
        }
        assert_eq!(ObjectKind::of("trigger"), None);
    }
}

use std::collections::BTreeMap;

/// Maps a client's role to a role of the database. A role that the map lacks is refused (SQLSTATE
/// 28000), as with `pg_ident.conf`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoleMap(BTreeMap<Vec<u8>, String>);

impl RoleMap {
    /// A role that clients may name.
    pub(crate) fn first(&self) -> Option<String> {
        self.0.keys().find_map(|role| String::from_utf8(role.clone()).ok())
    }

    /// The database role for a client's role, if the map has it.
    pub(crate) fn get(&self, role: &[u8]) -> Option<&[u8]> {
        self.0.get(role).map(String::as_bytes)
    }
}

/// Builds the map from pairs of a client's role and a database role.
impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for RoleMap {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(from, to)| (from.into().into_bytes(), to.into())).collect())
    }
}

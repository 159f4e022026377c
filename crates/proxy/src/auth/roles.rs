use std::collections::BTreeMap;

/// Which role of the database a client's role is. A role that is not in it is refused (SQLSTATE 28000): a map says who
/// may come in, as `pg_ident.conf` does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoleMap(BTreeMap<Vec<u8>, String>);

impl RoleMap {
    /// The role of the database.
    pub(crate) fn get(&self, role: &[u8]) -> Option<&[u8]> {
        self.0.get(role).map(String::as_bytes)
    }
}

/// Pairs of a client's role and a role of the database.
impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for RoleMap {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(from, to)| (from.into().into_bytes(), to.into())).collect())
    }
}

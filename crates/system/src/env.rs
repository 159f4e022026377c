use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Where environment variables are read from: the process, or a map.
///
/// A variable that is empty, or is not Unicode, counts as unset, as in the Azure SDKs for Go, .NET and Python.
/// Cheap to clone.
#[derive(Clone)]
pub struct Env(Backend);

#[derive(Clone)]
enum Backend {
    Process,
    Map(Arc<BTreeMap<String, String>>),
}

impl Env {
    /// The variables of this process, read anew at each call.
    pub fn real() -> Self {
        Self(Backend::Process)
    }

    /// These variables and no others; no process-wide state is touched.
    pub fn from_map<K: Into<String>, V: Into<String>>(variables: impl IntoIterator<Item = (K, V)>) -> Self {
        let map = variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self(Backend::Map(Arc::new(map)))
    }

    /// The value of a variable that is set and not empty.
    pub fn get(&self, name: &str) -> Option<String> {
        let value = match &self.0 {
            Backend::Process => process_variable(name),
            Backend::Map(map) => map.get(name).cloned(),
        };
        value.filter(|value| !value.is_empty())
    }

    /// The names of the variables that are set and not empty and begin like this, in order: to find one that is misspelled.
    pub fn names(&self, prefix: &str) -> Vec<String> {
        let mut names = match &self.0 {
            Backend::Process => process_names(),
            Backend::Map(map) => map.keys().cloned().collect(),
        };
        names.retain(|name| name.starts_with(prefix) && self.has(name));
        names.sort();
        names
    }

    /// Is the variable set and not empty?
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The variables a child process must be given in place of the inherited ones; `None` means: let it inherit.
    pub(crate) fn for_child(&self) -> Option<&BTreeMap<String, String>> {
        match &self.0 {
            Backend::Process => None,
            Backend::Map(map) => Some(map),
        }
    }
}

impl fmt::Debug for Env {
    /// Names only: values of variables are secrets often enough.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Backend::Process => f.write_str("Env(process)"),
            Backend::Map(map) => f.debug_set().entries(map.keys()).finish(),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place where the process environment is read")]
fn process_variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[expect(clippy::disallowed_methods, reason = "the same place")]
fn process_names() -> Vec<String> {
    std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_is_unset() {
        let env = Env::from_map([("A", "1"), ("B", "")]);
        assert_eq!((env.get("A").as_deref(), env.get("B"), env.get("C")), (Some("1"), None, None));
    }

    #[test]
    fn names_are_found_by_their_beginning() {
        let env = Env::from_map([("A_1", "x"), ("A_2", ""), ("B_A_", "x"), ("A_", "x")]);
        assert_eq!(env.names("A_"), ["A_", "A_1"]);
        assert!(Env::real().names("PA").contains(&"PATH".to_owned()));
    }

    #[test]
    fn debug_shows_names_only() {
        let shown = format!("{:?}", Env::from_map([("MSI_SECRET", "hunter2")]));
        assert!(shown.contains("MSI_SECRET") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn the_process_environment_is_read() {
        assert!(Env::real().has("PATH"));
    }
}

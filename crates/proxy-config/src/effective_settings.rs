//! The settings in force, as they were written.

use std::collections::BTreeMap;

use crate::keys::{Form, KEYS, Key};
use crate::layer::Layer;

/// What is in force of what was said, as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EffectiveSettings(BTreeMap<&'static str, Vec<String>>);

impl EffectiveSettings {
    /// Takes over what a stronger voice said.
    pub(crate) fn take(&mut self, layer: &Layer) {
        for said in layer.iter() {
            self.0.retain(|name, _| !said.key.excludes.contains(name));
            self.0.insert(said.key.name, said.values.clone());
        }
    }

    /// The settings of the process, or those that targets have of it.
    pub(crate) fn of(&self, targets: bool) -> Self {
        let is_one = |name: &str| Key::find(name).is_some_and(|key| key.is_targets() == targets);
        Self(
            self.0
                .iter()
                .filter(|(name, _)| is_one(name))
                .map(|(name, values)| (*name, values.clone()))
                .collect(),
        )
    }

    /// The same without the listeners, which are not the target's alone.
    pub(crate) fn without_listeners(mut self) -> Self {
        self.0.remove("listen");
        self
    }

    /// What is different in `next`, key by key.
    pub(crate) fn changes(&self, next: &Self) -> Vec<String> {
        let changed = |key: &&Key| self.0.get(key.name) != next.0.get(key.name);
        let in_words = |key: &Key| match key.form {
            // A text may be a secret.
            Form::Text => format!("{} changed", key.name),
            _ => format!("{} {} -> {}", key.name, self.value(key), next.value(key)),
        };
        KEYS.iter().filter(changed).map(in_words).collect()
    }

    fn value(&self, key: &Key) -> String {
        self.0.get(key.name).map_or_else(|| key.default.to_owned(), |values| values.join(","))
    }
}

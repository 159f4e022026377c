//! The settings in force, as they were written.

use std::collections::BTreeMap;

use crate::keys::{Form, KeyTable, SettingKey};
use crate::layer::SettingLayer;

/// What is in force of what was said, as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EffectiveSettings(BTreeMap<&'static str, Vec<String>>);

impl EffectiveSettings {
    /// Takes over what a stronger voice said.
    pub fn take<S: KeyTable>(&mut self, layer: &SettingLayer<S>) {
        for said in layer.iter() {
            self.0.retain(|name, _| !said.key.excludes.contains(name));
            self.0.insert(said.key.name, said.values.clone());
        }
    }

    /// The settings of the process, or those that tables have of it.
    pub fn of<S: KeyTable>(&self, tables: bool) -> Self {
        let is_one = |name: &str| SettingKey::<S>::find(name).is_some_and(|key| key.is_of_table() == tables);
        Self(
            self.0
                .iter()
                .filter(|(name, _)| is_one(name))
                .map(|(name, values)| (*name, values.clone()))
                .collect(),
        )
    }

    /// The same without one key.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.0.remove(name);
        self
    }

    /// What is different in `next`, key by key.
    pub fn changes<S: KeyTable>(&self, next: &Self) -> Vec<String> {
        let changed = |key: &&SettingKey<S>| self.0.get(key.name) != next.0.get(key.name);
        let in_words = |key: &SettingKey<S>| match key.form {
            // A text may be a secret.
            Form::Text => format!("{} changed", key.name),
            _ => format!("{} {} -> {}", key.name, self.value(key), next.value(key)),
        };
        S::keys().iter().filter(changed).map(in_words).collect()
    }

    fn value<S: KeyTable>(&self, key: &SettingKey<S>) -> String {
        self.0.get(key.name).map_or_else(|| key.default.to_owned(), |values| values.join(","))
    }
}

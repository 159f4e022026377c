//! Describes the differences of two configurations.

use std::collections::BTreeMap;

use super::configuration::Configured;
use super::keys::{Form, KEYS, Key};
use super::layer::Layer;

/// The effective values, as they were written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EffectiveSettings(BTreeMap<&'static str, Vec<String>>);

impl EffectiveSettings {
    /// Applies the values of a stronger layer.
    pub(crate) fn take(&mut self, layer: &Layer) {
        for said in layer.iter() {
            self.0.retain(|name, _| !said.key.excludes.contains(name));
            self.0.insert(said.key.name, said.values.clone());
        }
    }

    /// The settings of the process, or its defaults for targets.
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

    /// The same without the listeners, which targets share.
    pub(crate) fn without_listeners(mut self) -> Self {
        self.0.remove("listen");
        self
    }

    /// The differences to `next`, key by key.
    pub(crate) fn changes(&self, next: &Self) -> Vec<String> {
        let changed = |key: &&Key| self.0.get(key.name) != next.0.get(key.name);
        let in_words = |key: &Key| match key.form {
            // The text may be a secret.
            Form::Text => format!("{} changed", key.name),
            _ => format!("{} {} -> {}", key.name, self.value(key), next.value(key)),
        };
        KEYS.iter().filter(changed).map(in_words).collect()
    }

    fn value(&self, key: &Key) -> String {
        self.0.get(key.name).map_or_else(|| key.default.to_owned(), |values| values.join(","))
    }
}

/// A line for each target that is added, removed or changed. Targets of one name are told apart by
/// their order.
pub(crate) fn of_targets<'a>(
    before: impl Iterator<Item = &'a Configured>,
    next: impl Iterator<Item = &'a Configured>,
) -> Vec<String> {
    let mut before = by_name(before);
    let mut lines = Vec::new();
    for ((name, number), next) in by_name(next) {
        match before.remove(&(name, number)) {
            None => lines.push(format!("target added: {name}")),
            Some(old) => {
                let mut changes = old.said.changes(&next.said);
                if old.connector.target() != next.connector.target() {
                    changes.push("connection changed".to_owned());
                }
                if !changes.is_empty() {
                    lines.push(format!("target changed: {name}: {}", changes.join(", ")));
                }
            }
        }
    }
    lines.extend(before.keys().map(|(name, _)| format!("target removed: {name}")));
    lines
}

fn by_name<'a>(targets: impl Iterator<Item = &'a Configured>) -> BTreeMap<(&'a str, usize), &'a Configured> {
    let mut named = BTreeMap::new();
    for target in targets {
        let number = named.keys().filter(|(name, _)| *name == target.name).count();
        named.insert((target.name.as_str(), number), target);
    }
    named
}

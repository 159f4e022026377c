//! Describes the differences of two configurations.

use std::collections::BTreeMap;

use crate::configuration::TargetConfig;
use crate::key::Set;

/// A line for each target that is added, removed or changed. Targets of one name are told apart by
/// their order.
pub(crate) fn of_targets<'a>(
    before: impl Iterator<Item = &'a TargetConfig>,
    next: impl Iterator<Item = &'a TargetConfig>,
) -> Vec<String> {
    let mut before = by_name(before);
    let mut lines = Vec::new();
    for ((name, number), next) in by_name(next) {
        match before.remove(&(name, number)) {
            None => lines.push(format!("target added: {name}")),
            Some(old) => {
                let mut changes = old.said.changes::<Set>(&next.said);
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

fn by_name<'a>(
    targets: impl Iterator<Item = &'a TargetConfig>,
) -> BTreeMap<(&'a str, usize), &'a TargetConfig> {
    let mut named = BTreeMap::new();
    for target in targets {
        let number = named.keys().filter(|(name, _)| *name == target.name).count();
        named.insert((target.name.as_str(), number), target);
    }
    named
}

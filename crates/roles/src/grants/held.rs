//! What a role has in a database, as a file says it.

use std::collections::{BTreeMap, BTreeSet};

use pgentra_connect::quote;

use super::{Grants, ObjectKey};
use crate::desired::{DesiredDefault, DesiredGrant, GrantTarget, ObjectNames};
use crate::privilege::{Class, Privileges};

impl Grants {
    /// The grants of a file after which the role has what it has. Where it has the same privileges on every object of a
    /// class in a schema, that is `"*"`.
    pub(crate) fn of_role(
        &self,
        database: &str,
        role: &str,
        left_out: &mut Vec<String>,
    ) -> Vec<DesiredGrant> {
        let mut groups: BTreeMap<(Class, Option<&str>, Vec<&str>), Vec<ObjectKey>> = BTreeMap::new();
        for ((_, key), privileges) in self.held.iter().filter(|((holder, _), _)| holder == role) {
            let schema = self.objects.get(key).and_then(|object| object.schema.as_deref());
            let privileges = privileges.iter().map(String::as_str).collect();
            groups.entry((key.0, schema, privileges)).or_default().push(*key);
        }
        let mut grants = Vec::new();
        for ((class, schema, privileges), keys) in groups {
            let privileges = match Privileges::of(class, &privileges) {
                Ok(privileges) => privileges,
                Err(unknown) => {
                    left_out.push(format!("the privileges {} on a {class}", unknown.join(", ")));
                    continue;
                }
            };
            for on in self.targets(class, schema, &keys, role, left_out) {
                let database = database.to_owned();
                grants.push(DesiredGrant { database, on, privileges: privileges.clone(), line: 0 });
            }
        }
        grants
    }

    fn targets(
        &self,
        class: Class,
        schema: Option<&str>,
        keys: &[ObjectKey],
        role: &str,
        left_out: &mut Vec<String>,
    ) -> Vec<GrantTarget> {
        let objects = || keys.iter().filter_map(|key| self.objects.get(key));
        let Some(schema) = schema else {
            return match class {
                Class::Database => vec![GrantTarget::Database],
                _ => objects().map(|object| GrantTarget::Schema(object.name.clone())).collect(),
            };
        };
        let all: BTreeSet<ObjectKey> = self
            .within(class, schema)
            .filter(|(_, object)| !object.is_foreign && object.owner != role)
            .map(|(key, _)| key)
            .collect();
        let of = |names| GrantTarget::Objects { class, schema: schema.to_owned(), names };
        let (own, foreign): (Vec<&ObjectKey>, Vec<&ObjectKey>) =
            keys.iter().partition(|key| all.contains(*key));
        let mut targets = Vec::new();
        let mut named: Vec<&ObjectKey> = foreign;
        if own.len() == all.len() && own.len() > 1 {
            targets.push(of(ObjectNames::All));
        } else {
            named.extend(own);
        }
        let mut names = BTreeSet::new();
        for name in named.into_iter().filter_map(|key| self.name_in_file(class, schema, *key)) {
            if name == "*" {
                left_out.push(format!("privileges of {} on an object with the name *", quote::name(role)));
            } else {
                names.insert(name);
            }
        }
        if !names.is_empty() {
            targets.push(of(ObjectNames::Some(names)));
        }
        targets
    }

    /// The name of an object; with its argument types, if others of its class have the same name.
    fn name_in_file(&self, class: Class, schema: &str, key: ObjectKey) -> Option<String> {
        let object = self.objects.get(&key)?;
        let is_alone = self.within(class, schema).filter(|(_, other)| other.name == object.name).count() == 1;
        match &object.signature {
            Some(signature) if !is_alone => Some(signature.clone()),
            _ => Some(object.name.clone()),
        }
    }

    /// The defaults of a file after which the role has those that it has.
    pub(crate) fn defaults_of_role(&self, database: &str, role: &str) -> Vec<DesiredDefault> {
        let mut groups: BTreeMap<(&str, Option<&str>, Class), Vec<&str>> = BTreeMap::new();
        for held in self.defaults.iter().filter(|held| held.role == role) {
            let key = (&*held.owner, held.schema.as_deref(), held.class);
            groups.entry(key).or_default().push(&held.privilege);
        }
        groups
            .into_iter()
            .filter_map(|((owner, schema, class), privileges)| {
                Some(DesiredDefault {
                    database: database.to_owned(),
                    owner: Some(owner.to_owned()),
                    schema: schema.map(str::to_owned),
                    class,
                    privileges: Privileges::of(class, &privileges).ok()?,
                    line: 0,
                })
            })
            .collect()
    }
}

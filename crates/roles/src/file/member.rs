//! What a role is a member of.

use std::collections::BTreeMap;

use pgentra_toml_lines::At;

use crate::document::{Item, Keys, Reader};
use crate::membership::MembershipOptions;
use crate::name;

const MEMBER_KEYS: &str = "role, inherit, set, admin";

/// The roles that `member_of` names, each as a text or as a table with the options of the membership.
pub(crate) fn read(
    keys: &mut Keys,
    role: Option<&At<String>>,
    reader: &mut Reader,
) -> BTreeMap<String, MembershipOptions> {
    let mut memberships = BTreeMap::new();
    for At { value, line } in keys.items("member_of", reader) {
        let (group, options) = match value {
            Item::Text(group) => (group, MembershipOptions::default()),
            Item::Keys(keys) => match membership(keys, reader) {
                Some(membership) => membership,
                None => continue,
            },
        };
        if let Err(error) = name::check(&group) {
            reader.fault(line, format!("member_of {group:?}: {error}"));
        } else if name::is_reserved(&group) && !group.starts_with("pg_") {
            reader.fault(
                line,
                format!("member_of {group:?}: that is what `admin` and the mapping itself are for"),
            );
        } else if role.is_some_and(|role| role.value == group) {
            reader.fault(line, format!("{group:?} is to be a member of itself"));
        }
        if memberships.insert(group.clone(), options).is_some_and(|before| before != options) {
            reader.fault(line, format!("member_of {group:?}: the same role twice, with other options"));
        }
    }
    memberships
}

fn membership(mut keys: Keys, reader: &mut Reader) -> Option<(String, MembershipOptions)> {
    let line = keys.line;
    let role = keys.text("role", reader);
    let default = MembershipOptions::default();
    let options = MembershipOptions {
        inherit: keys.flag("inherit", default.inherit, reader),
        set: keys.flag("set", default.set, reader),
        admin: keys.flag("admin", default.admin, reader),
    };
    keys.end("a membership", MEMBER_KEYS, reader);
    if role.is_none() {
        reader.fault(line, "a membership names its role: { role = \"readers\", admin = true }");
    }
    if !options.is_member() && !options.admin {
        reader.fault(line, "a membership without inherit, set and admin is none: leave it out");
    }
    Some((role?.value, options))
}

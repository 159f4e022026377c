//! Writes a file of roles.

use std::collections::BTreeSet;

use toml::Value;

use super::ObjectType;
use super::desired::{
    Desired, DesiredDefault, DesiredGrant, DesiredOwnership, GrantTarget, ObjectNames, OwnTarget,
    PrincipalRef, RolesFile,
};
use super::membership::MembershipOptions;
use super::privilege::Privileges;

impl RolesFile {
    /// The file as TOML, as [`RolesFile::parse`] reads it. Templates are written out.
    pub fn to_toml(&self) -> String {
        let roles: Vec<String> = self.roles.iter().map(role).collect();
        roles.join("\n")
    }
}

/// Lines of a table.
struct Lines(String);

impl Lines {
    fn of(header: &str) -> Self {
        Self(format!("[[{header}]]\n"))
    }

    fn entry(&mut self, key: &str, value: &str) {
        self.0.push_str(&format!("{key} = {value}\n"));
    }

    fn text(&mut self, key: &str, text: &str) {
        self.entry(key, &quoted(text));
    }

    fn texts<'a>(&mut self, key: &str, texts: impl IntoIterator<Item = &'a str>) {
        let texts: Vec<String> = texts.into_iter().map(quoted).collect();
        self.entry(key, &format!("[{}]", texts.join(", ")));
    }
}

fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

fn role(role: &Desired) -> String {
    let mut lines = Lines::of("role");
    lines.text("name", role.name.as_str());
    if role.is_group_role() {
        lines.entry("login", "false");
    }
    if role.kind != ObjectType::default() {
        lines.text("kind", role.kind.as_str());
    }
    match role.identity {
        PrincipalRef::ObjectId(id) => lines.text("object_id", &id.to_string()),
        PrincipalRef::ClientId(id) => lines.text("client_id", &id.to_string()),
        PrincipalRef::Name => {}
    }
    for (key, is) in [("admin", role.is_admin), ("mfa", role.is_mfa)] {
        if is {
            lines.entry(key, "true");
        }
    }
    if !role.member_of.is_empty() {
        let items: Vec<String> = role.member_of.iter().map(membership).collect();
        lines.entry("member_of", &format!("[{}]", items.join(", ")));
    }
    let parts =
        role.owns.iter().map(own).chain(role.grants.iter().map(grant)).chain(defaults(&role.defaults));
    parts.fold(lines.0, |text, part| format!("{text}\n{part}"))
}

fn membership((group, options): (&String, &MembershipOptions)) -> String {
    let default = MembershipOptions::default();
    let mut entries = vec![format!("role = {}", quoted(group))];
    for (key, is, usual) in [
        ("inherit", options.inherit, default.inherit),
        ("set", options.set, default.set),
        ("admin", options.admin, default.admin),
    ] {
        if is != usual {
            entries.push(format!("{key} = {is}"));
        }
    }
    if entries.len() == 1 { quoted(group) } else { format!("{{ {} }}", entries.join(", ")) }
}

fn own(want: &DesiredOwnership) -> String {
    let mut lines = Lines::of("role.own");
    lines.text("database", &want.database);
    match &want.on {
        OwnTarget::Database => {}
        OwnTarget::Schema(schema) => lines.text("schema", schema),
        OwnTarget::Objects(schema) => {
            lines.text("schema", schema);
            lines.text("objects", "*");
        }
    }
    lines.0
}

fn grant(want: &DesiredGrant) -> String {
    let mut lines = Lines::of("role.grant");
    lines.text("database", &want.database);
    match &want.on {
        GrantTarget::Database => {}
        GrantTarget::Schema(schema) => lines.text("schema", schema),
        GrantTarget::Objects { class, schema, names } => {
            lines.text("schema", schema);
            match names {
                ObjectNames::All => lines.text(class.plural(), "*"),
                ObjectNames::Some(names) => lines.texts(class.plural(), names.iter().map(String::as_str)),
            }
        }
    }
    privileges(&mut lines, &want.privileges);
    lines.0
}

/// Defaults that differ in their owners alone are one.
fn defaults(wants: &[DesiredDefault]) -> Vec<String> {
    let mut groups: Vec<(&DesiredDefault, BTreeSet<&str>)> = Vec::new();
    for want in wants {
        let same = |first: &DesiredDefault| {
            first.owner.is_some() == want.owner.is_some()
                && (&first.database, &first.schema, first.class) == (&want.database, &want.schema, want.class)
                && first.privileges == want.privileges
        };
        let owner = want.owner.as_deref();
        match groups.iter_mut().find(|(first, _)| same(first)) {
            Some((_, owners)) => owners.extend(owner),
            None => groups.push((want, owner.into_iter().collect())),
        }
    }
    let text = |(want, owners): (&DesiredDefault, BTreeSet<&str>)| {
        let mut lines = Lines::of("role.default");
        lines.text("database", &want.database);
        if let Some(schema) = &want.schema {
            lines.text("schema", schema);
        }
        if !owners.is_empty() {
            lines.texts("owner", owners);
        }
        lines.text("on", want.class.plural());
        privileges(&mut lines, &want.privileges);
        lines.0
    };
    groups.into_iter().map(text).collect()
}

fn privileges(lines: &mut Lines, privileges: &Privileges) {
    match privileges {
        Privileges::All => lines.texts("privileges", ["ALL"]),
        Privileges::Some(named) => lines.texts("privileges", named.iter().copied()),
    }
}

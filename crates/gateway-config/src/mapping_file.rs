//! Reads the file that maps roles to principals.

use pgentra_gateway::{PrincipalRule, RoleRules};
use pgentra_toml_lines::{Entry, Table, Value, parse};
use uuid::Uuid;

/// What is wrong with a line of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappingFault {
    /// The line, from 1.
    pub line: usize,
    /// The fault in words.
    pub message: String,
}

/// Most roles, administrators and denied principals of a file: each takes less than a kilobyte.
const RULES: usize = 100_000;

/// Longest role name in bytes (`NAMEDATALEN`).
const NAME: usize = 63;

/// The keys of a rule.
const KEYS: [&str; 7] =
    ["object_ids", "app_ids", "groups", "app_roles", "usernames", "tenants", "needs_second_factor"];

/// Reads the text of a mapping file: `[[role]]` tables with a `name`, `[[admin]]` and `[[deny]]`
/// tables. Several tables may have the same name.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse_mapping(text: &str) -> Result<RoleRules, Vec<MappingFault>> {
    let (table, syntax) = parse(text);
    let mut faults: Vec<_> =
        syntax.into_iter().map(|fault| MappingFault { line: fault.line, message: fault.message }).collect();
    if !faults.is_empty() {
        return Err(faults);
    }
    let mut rules = RoleRules::default();
    for Entry { key, line, value } in table.entries {
        let tables = match value.value {
            Value::Array(tables) if matches!(key.as_str(), "role" | "admin" | "deny") => tables,
            _ => {
                let message = match key.as_str() {
                    "role" | "admin" | "deny" => format!("{key} is a list of tables: write [[{key}]]"),
                    other => format!("{other} is no key: a mapping has [[role]], [[admin]] and [[deny]]"),
                };
                faults.push(MappingFault { line, message });
                continue;
            }
        };
        if tables.len() > RULES {
            faults.push(MappingFault { line, message: format!("there are more than {RULES} [[{key}]]") });
            continue;
        }
        for one in tables {
            let Value::Table(table) = one.value else {
                faults.push(MappingFault { line, message: format!("{key} is a list of tables") });
                continue;
            };
            let is_role = key == "role";
            let Some((name, rule)) = read(table, is_role, &mut faults) else { continue };
            match key.as_str() {
                "role" => rules.roles.entry(name).or_default().push(rule),
                "admin" => rules.administrators.push(rule),
                _ => rules.denied.push(rule),
            }
        }
    }
    if faults.is_empty() { Ok(rules) } else { Err(faults) }
}

/// The name of a rule and the rule; `None` if something is wrong with it.
fn read(table: Table, is_role: bool, faults: &mut Vec<MappingFault>) -> Option<(String, PrincipalRule)> {
    let (start, before) = (table.line, faults.len());
    let (mut name, mut rule) = (None, PrincipalRule::default());
    for Entry { key, line, value } in table.entries {
        let read = match key.as_str() {
            "name" if is_role => role_name(value.value).map(|text| name = Some(text)),
            "object_ids" => guids(value.value).map(|ids| rule.object_ids = ids),
            "app_ids" => guids(value.value).map(|ids| rule.app_ids = ids),
            "groups" => guids(value.value).map(|ids| rule.groups = ids),
            "tenants" => guids(value.value).map(|ids| rule.tenants = ids),
            "app_roles" => texts(value.value).map(|texts| rule.app_roles = texts),
            "usernames" => texts(value.value).map(|texts| rule.usernames = texts),
            "needs_second_factor" => match value.value {
                Value::Boolean(needs) => {
                    rule.needs_second_factor = needs;
                    Ok(())
                }
                _ => Err("is true or false".to_owned()),
            },
            _ => {
                let known = KEYS.into_iter().chain(is_role.then_some("name"));
                Err(format!("is no key{}", pgentra_settings::nearest(&key, known)))
            }
        };
        if let Err(what) = read {
            faults.push(MappingFault { line, message: format!("{key} {what}") });
        }
    }
    if faults.len() > before {
        return None;
    }
    let fault = |message: &str| MappingFault { line: start, message: message.to_owned() };
    if is_role && name.is_none() {
        faults.push(fault("[[role]] names no role: name = \"…\""));
        return None;
    }
    let names_none = rule.object_ids.is_empty()
        && rule.app_ids.is_empty()
        && rule.groups.is_empty()
        && rule.app_roles.is_empty()
        && rule.usernames.is_empty();
    if names_none {
        faults
            .push(fault("the table names no principal: object_ids, app_ids, groups, app_roles or usernames"));
        return None;
    }
    Some((name.unwrap_or_default(), rule))
}

/// PostgreSQL cuts a longer name off: the rule would be for another role.
fn role_name(value: Value) -> Result<String, String> {
    match value {
        Value::Text(text) if text.len() > NAME => {
            Err(format!("has {} bytes: PostgreSQL cuts off names at {NAME}", text.len()))
        }
        Value::Text(text) if text.contains('\0') => Err("has a zero byte".to_owned()),
        Value::Text(text) if !text.is_empty() => Ok(text),
        _ => Err("is a text".to_owned()),
    }
}

fn texts(value: Value) -> Result<Vec<String>, String> {
    let texts = value.into_texts().ok_or("is a list of texts")?;
    match texts.iter().any(String::is_empty) {
        true => Err("has an empty text".to_owned()),
        false => Ok(texts),
    }
}

fn guids(value: Value) -> Result<Vec<Uuid>, String> {
    let texts = value.into_texts().ok_or("is a list of GUIDs")?;
    texts.iter().map(|text| text.parse().map_err(|_| format!("has `{text}`, which is no GUID"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "00000000-1111-2222-3333-444444444444";

    #[test]
    fn rules_are_read() {
        let text = format!(
            "[[role]]\nname = 'app'\nobject_ids = ['{ONE}']\n\n[[role]]\nname = 'app'\ngroups = '{ONE}'\n\
             needs_second_factor = true\n[[admin]]\napp_roles = ['Db.Admin']\n[[deny]]\nusernames = ['a@b']\n"
        );
        let rules = parse_mapping(&text).unwrap();
        assert_eq!(rules.roles["app"].len(), 2);
        assert!(rules.roles["app"][1].needs_second_factor);
        assert_eq!(rules.administrators[0].app_roles, ["Db.Admin"]);
        assert_eq!(rules.denied[0].usernames, ["a@b"]);
        assert_eq!(parse_mapping("").unwrap(), RoleRules::default());
    }

    #[test]
    fn a_name_that_postgresql_would_cut_off_is_refused() {
        let file = |name: &str| parse_mapping(&format!("[[role]]\nname = \"{name}\"\nusernames = 'a@b'\n"));
        assert!(file(&"a".repeat(63)).is_ok());
        let fault = &file(&"ä".repeat(32)).unwrap_err()[0];
        assert_eq!((fault.line, &*fault.message), (2, "name has 64 bytes: PostgreSQL cuts off names at 63"));
        assert_eq!(file("a\\u0000b").unwrap_err()[0].message, "name has a zero byte");
    }

    #[test]
    fn every_fault_has_its_line() {
        let text = "[[role]]\nname = 'a'\n[[role]]\nobject_ids = ['x']\n[[admin]]\nobjects = []\n[deny]\n\
                    [[role]]\napp_ids = []\n";
        let faults = parse_mapping(text).unwrap_err();
        let lines: Vec<_> = faults.iter().map(|fault| (fault.line, fault.message.as_str())).collect();
        assert!(lines[0].0 == 1 && lines[0].1.contains("names no principal"), "{lines:?}");
        assert!(lines[1].0 == 4 && lines[1].1.contains("`x`, which is no GUID"), "{lines:?}");
        assert!(
            lines.iter().any(|(line, said)| *line == 6 && said.contains("nearest is object_ids")),
            "{lines:?}"
        );
        assert!(lines.iter().any(|(_, said)| said.contains("write [[deny]]")), "{lines:?}");
        assert!(parse_mapping("[[role").is_err());
    }
}

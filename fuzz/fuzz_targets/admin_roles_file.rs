//! A file of roles: whatever is in it, it is read or told what is wrong with it. What was read is written, and read as the
//! same file again. The input is also taken as the texts of a file that has every key, and as JSON, which is what a resource of
//! Kubernetes holds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgentra_roles::{Diagnostics, NAME_LIMIT, RolesFile};
use serde_json::Value;

/// A file with every table and nearly every key. `@1` to `@4` stand for texts.
const EVERY_KEY: &str = r#"
[[role]]
name = @1
login = false
member_of = [@2, { role = @3, inherit = false, set = true, admin = true }]
[[role.own]]
database = @4
[[role.own]]
schema = @2
objects = "*"
[[role.grant]]
schema = @3
functions = [@1, @4]
privileges = ["EXECUTE"]
[[role.grant]]
schema = @3
types = "*"
privileges = "USAGE"
[[role.default]]
owner = [@2, @3]
on = "sequences"
privileges = "ALL"
[[schema]]
name = @4
owner = @1
read_write = @2
read_only = @3
creators = @4
"#;

fuzz_target!(|text: &str| {
    check(text);
    check(&format!("{{\"role\":[{{\"name\":\"a\",\"grant\":[{{{text}}}]}}]}}"));
    let mut texts = text.split('\0');
    let filled = ["@1", "@2", "@3", "@4"].into_iter().fold(EVERY_KEY.to_owned(), |file, place| {
        let text = texts.next().unwrap_or(place);
        let escaped: String = text.chars().map(|char| format!("\\U{:08X}", u32::from(char))).collect();
        file.replace(place, &format!("\"{escaped}\""))
    });
    check(&filled);
});

fn check(text: &str) {
    told_or_read(RolesFile::parse(text, "app"));
    if let Ok(Value::Object(document)) = serde_json::from_str(text) {
        told_or_read(RolesFile::from_json(&document, "app"));
    }
}

fn told_or_read(read: Result<RolesFile, Diagnostics>) {
    match read {
        Ok(file) => {
            for role in file.roles() {
                let name = role.name().as_str();
                assert!(!name.is_empty() && name.len() <= NAME_LIMIT && !name.contains('\0'));
            }
            let written = file.to_toml();
            let again = RolesFile::parse(&written, "app").expect("a file that was written is a file");
            assert_eq!(again.to_toml(), written);
        }
        Err(faults) => assert!(!faults.all().is_empty() && !faults.to_string().is_empty()),
    }
}

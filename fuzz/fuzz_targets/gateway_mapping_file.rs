//! A mapping file of the gateway: it is read, or every fault names a line of it. The input is also taken as the texts
//! of a file that has every key.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgentra_gateway_config::parse_mapping;

/// A file with every table and every key. `@1` to `@3` stand for texts.
const EVERY_KEY: &str = r#"
[[role]]
name = @1
object_ids = [@2]
app_ids = @3
[[role]]
name = @2
groups = [@1, @2]
tenants = [@3]
needs_second_factor = true
[[admin]]
name = @3
app_roles = @1
[[deny]]
usernames = [@1, @2, @3]
"#;

fuzz_target!(|text: &str| {
    check(text);
    let mut texts = text.split('\0');
    let filled = ["@1", "@2", "@3"].into_iter().fold(EVERY_KEY.to_owned(), |file, place| {
        let text = texts.next().unwrap_or(place);
        let escaped: String = text.chars().map(|char| format!("\\U{:08X}", u32::from(char))).collect();
        file.replace(place, &format!("\"{escaped}\""))
    });
    check(&filled);
});

fn check(text: &str) {
    match parse_mapping(text) {
        Ok(rules) => {
            for role in rules.roles.keys() {
                assert!(!role.is_empty() && role.len() <= 63 && !role.contains('\0'), "{role:?}");
            }
        }
        Err(faults) => {
            assert!(!faults.is_empty());
            let lines = text.lines().count().max(1) + 1;
            assert!(faults.iter().all(|fault| (1..=lines).contains(&fault.line) && !fault.message.is_empty()));
        }
    }
}

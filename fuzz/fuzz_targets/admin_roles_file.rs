//! A file of roles: whatever is in it, it is read or told what is wrong with it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgentra_roles::{NAME_LIMIT, RolesFile};

fuzz_target!(|text: &str| {
    match RolesFile::parse(text, "app") {
        Ok(file) => {
            for role in file.roles() {
                let name = role.name().as_str();
                assert!(!name.is_empty() && name.len() <= NAME_LIMIT && !name.contains('\0'));
            }
        }
        Err(faults) => assert!(!faults.all().is_empty() && !faults.to_string().is_empty()),
    }
});

//! Any text as a service of `pgentra local run --reach`, or as the name of a principal, is taken whole or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgentra_local::inside::Reach;
use pgentra_local::principals::MemberName;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(reach) = text.parse::<Reach>() {
        let written = reach.to_string();
        assert_eq!(written.parse::<Reach>().map(|read| read.to_string()), Ok(written));
    }
    if let Ok(name) = text.parse::<MemberName>() {
        assert_eq!(name.to_string(), text);
        assert!(!text.chars().any(char::is_control) && text.chars().count() <= 64);
    }
});

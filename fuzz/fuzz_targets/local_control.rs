//! Any line on the control socket of a local cloud is a request or none, and a request is written as it is read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgentra_local::control::canonical_request;

fuzz_target!(|data: &[u8]| {
    let Ok(line) = std::str::from_utf8(data) else { return };
    for line in [line.to_owned(), format!("group {line}"), format!("membership {line}"), format!("faults {line}")] {
        let Some(request) = canonical_request(&line) else { continue };
        assert!(!request.contains('\n'));
        assert_eq!(canonical_request(&request).as_deref(), Some(&*request));
    }
});

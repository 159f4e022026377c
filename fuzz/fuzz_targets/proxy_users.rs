//! Any text as a file of roles and verifiers gives users or an error, never a panic, and no secret is in the error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgentra_proxy::Users;

/// No message of ours has it in it.
const SECRET: &str = "fuzz-secret-8a2f";

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = Users::parse(text);
    // The same text without a verifier that could be one, and with a secret in their places: it is never taken, nor told.
    let text = text.replace("SCRAM-SHA-256$", SECRET);
    let error = Users::parse(&format!("{text}\n\"app\" \"{SECRET}\"")).expect_err("a password in plain text");
    assert!(!format!("{error:?}{error}").contains(SECRET));
});

//! Any text as a connection URI, a conninfo string or a service file gives settings or an error, never a panic, and a
//! password in it is never part of the error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgentra_connect::{Layers, Target, split_connection_string};
use pgentra_system::{Env, Files};

const SECRET: &str = "fuzz-secret-8a2f";

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let files = Files::in_memory();
    files.put("/services", data.to_vec());
    let env = Env::from_map([("PGSERVICEFILE", "/services"), ("PGSERVICE", "a"), ("PGPASSWORD", SECRET)]);
    let error = match Layers::gather(Some(text), &[], &env, &files) {
        Ok(layers) => Target::resolve(&layers).err(),
        Err(error) => Some(error),
    };
    // What is taken out of a string is read as before, and so is the rest.
    if let Ok((rest, own)) = split_connection_string(text, |keyword| keyword.len() % 2 == 1) {
        let (again, none) = split_connection_string(&rest, |keyword| keyword.len() % 2 == 1).unwrap_or_default();
        assert!(own.is_empty() || (again == rest && none.is_empty()));
    }
    assert!(!error.is_some_and(|error| format!("{error:?}{error}").contains(SECRET)));
});

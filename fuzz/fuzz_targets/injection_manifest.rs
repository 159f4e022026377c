//! A file of manifests: no panic, and a second run changes nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgentra_injection::{Sidecar, inject_manifest};

fuzz_target!(|text: &str| {
    let sidecar = Sidecar::of_image("pgentra:0.1.0");
    if let Ok(done) = inject_manifest(text, &sidecar) {
        let again = inject_manifest(&done.text, &sidecar).expect("a file that was written can be read");
        assert_eq!(again.text, done.text);
    }
});

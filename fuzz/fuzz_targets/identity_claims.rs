//! Any bytes as a token give claims or none, without a panic, and the accessors agree with one another.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgentra_connect::role_candidates;
use pgentra_identity::UnverifiedClaims;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(claims) = UnverifiedClaims::read(text) {
        let _ = (claims.kind(), claims.time("exp"), claims.groups());
        assert!(role_candidates(&claims).iter().all(|candidate| !candidate.name.is_empty()));
    }
});

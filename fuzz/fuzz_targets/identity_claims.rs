//! What a token says of itself: any bytes are claims or none, and what is read agrees with itself.
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

//! Any bytes as a client of the LDAP responder: no panic, no deep recursion, the same in pieces as whole, and a password is
//! what the bind holds.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use pgentra_ldap::{BadMessage, LdapRequest};

fuzz_target!(|data: &[u8]| {
    let whole = read(data, data.len().max(1));
    assert_eq!(whole, read(data, 3));
    for request in whole.iter().flatten() {
        if let LdapRequest::Bind { password, .. } = request {
            let secret = password.expose();
            assert!(secret.is_empty() || data.windows(secret.len()).any(|window| window == secret));
        }
    }
});

fn read(data: &[u8], piece: usize) -> Result<Vec<LdapRequest>, BadMessage> {
    let (mut buf, mut requests) = (BytesMut::new(), Vec::new());
    for piece in data.chunks(piece) {
        buf.extend_from_slice(piece);
        while let Some(request) = LdapRequest::decode(&mut buf)? {
            requests.push(request);
        }
    }
    Ok(requests)
}

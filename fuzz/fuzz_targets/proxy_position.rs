//! Any bytes of client and server: the protocol tracker does not panic, and its state does not depend on how the bytes
//! are split.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgentra_session::fuzzing::Conversation;

/// Ends a run of bytes of one side.
const OTHER_SIDE: u8 = b'|';

fuzz_target!(|data: &[u8]| {
    let (mut whole, mut pieces) = (Conversation::default(), Conversation::default());
    for (turn, bytes) in data.split(|byte| *byte == OTHER_SIDE).enumerate() {
        if turn % 2 == 0 {
            let sent = whole.client(bytes);
            let mut in_pieces = Vec::new();
            for byte in bytes {
                if pieces.known().ended_idle {
                    break;
                }
                in_pieces.extend_from_slice(&pieces.client(&[*byte]));
            }
            assert_eq!(sent, in_pieces, "the server gets the same");
            assert!(bytes.starts_with(&sent), "and nothing that the client did not say");
        } else {
            whole.server(bytes);
            bytes.iter().for_each(|byte| pieces.server(&[*byte]));
        }
        assert_eq!(whole.known(), pieces.known());
        if whole.known().ended_idle {
            break;
        }
    }
    assert_eq!(whole.into_settings(), pieces.into_settings());
});

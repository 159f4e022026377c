//! Whatever a server sends: no panic, the same in pieces as whole, and what was read is written back as it came.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use pgentra_wire::WireError;
use pgentra_wire::backend::{Authentication, BackendMessage};
use pgentra_wire::oauthbearer::BearerRefusal;
use pgentra_wire::startup::EncryptionAnswer;

fuzz_target!(|data: &[u8]| {
    let whole = read(data, data.len().max(1));
    let pieces = read(data, 3);
    assert_eq!(whole, pieces);
    if let Ok(messages) = whole {
        let mut again = BytesMut::new();
        for message in &messages {
            message.encode(&mut again).expect("what was read can be written");
            if let BackendMessage::Authentication(Authentication::SaslContinue(body)) = message {
                refusal(body);
            }
        }
        assert_eq!(&data[..again.len()], &again[..]);
    }
    refusal(data);
    let _ = EncryptionAnswer::decode(&mut BytesMut::from(data));
});

fn refusal(data: &[u8]) {
    if let Ok(refusal) = BearerRefusal::decode(data) {
        let mut again = BytesMut::new();
        refusal.encode(&mut again);
        assert_eq!(BearerRefusal::decode(&again), Ok(refusal));
    }
}

fn read(data: &[u8], piece: usize) -> Result<Vec<BackendMessage>, WireError> {
    let (mut buf, mut messages) = (BytesMut::new(), Vec::new());
    for piece in data.chunks(piece) {
        buf.extend_from_slice(piece);
        while let Some(message) = BackendMessage::decode(&mut buf)? {
            messages.push(message);
        }
    }
    Ok(messages)
}

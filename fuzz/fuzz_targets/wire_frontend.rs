//! Whatever a client sends: no panic, the same in pieces as whole, and what was read is written back as it came.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use pgentra_wire::frontend::{self, AuthenticationAnswer};
use pgentra_wire::oauthbearer::ClientMessage;
use pgentra_wire::scram::{ClientFinal, ClientFirst};
use pgentra_wire::startup::{self, FirstPacket};

fuzz_target!(|data: &[u8]| {
    let whole = read(data, data.len().max(1), FirstPacket::decode);
    assert_eq!(whole, read(data, 3, FirstPacket::decode));
    let mut again = BytesMut::new();
    for packet in whole.iter().flatten() {
        match packet {
            FirstPacket::Startup(start) => start.encode(&mut again),
            FirstPacket::Cancel(cancel) => cancel.encode(&mut again),
            FirstPacket::SslRequest => startup::encode_ssl_request(&mut again),
            FirstPacket::GssEncRequest => startup::encode_gssenc_request(&mut again),
            // Its layout is not ours, so it cannot be written back, nor what came after it be compared.
            FirstPacket::Unsupported(_) => return,
        }
        if again.len() > data.len() || again[..] != data[..again.len()] {
            // What is behind the code of a request for encryption is ignored, and not written back.
            assert!(matches!(packet, FirstPacket::SslRequest | FirstPacket::GssEncRequest));
            return;
        }
    }
    answers(data);
    scram(data);
});

/// The parts of a SCRAM message are the message.
fn scram(data: &[u8]) {
    if let Ok(first) = ClientFirst::decode(data) {
        assert_eq!([first.header, first.bare].concat().as_bytes(), data);
        assert!(first.bare.contains(&format!(",r={}", first.nonce)));
    }
    if let Ok(last) = ClientFinal::decode(data) {
        assert_eq!(format!("{},p={}", last.without_proof, last.proof).as_bytes(), data);
        assert!(last.without_proof.starts_with(&format!("c={},r={}", last.channel_binding, last.nonce)));
    }
}

fn answers(data: &[u8]) {
    let Ok(answers) = read(data, data.len().max(1), AuthenticationAnswer::decode) else {
        return;
    };
    let mut again = BytesMut::new();
    for answer in &answers {
        let start = again.len();
        frontend::encode_sasl_response(answer.sasl_response(), &mut again).expect("it was read");
        let mut other = BytesMut::new();
        if let Ok(password) = answer.password() {
            frontend::encode_password(password, &mut other).expect("it was read");
            assert_eq!(other.split(), again[start..]);
        }
        if let Ok(initial) = answer.sasl_initial() {
            initial.encode(&mut other).expect("it was read");
            assert_eq!(other.split(), again[start..]);
            if let Some(Ok(message)) = initial.data.map(ClientMessage::decode) {
                message.encode(&mut other).expect("it was read");
                assert_eq!(ClientMessage::decode(&other), Ok(message));
            }
        }
    }
    assert_eq!(&data[..again.len()], &again[..]);
}

fn read<T, E>(
    data: &[u8],
    piece: usize,
    decode: impl Fn(&mut BytesMut) -> Result<Option<T>, E>,
) -> Result<Vec<T>, E> {
    let (mut buf, mut values) = (BytesMut::new(), Vec::new());
    for piece in data.chunks(piece) {
        buf.extend_from_slice(piece);
        while let Some(value) = decode(&mut buf)? {
            values.push(value);
        }
    }
    Ok(values)
}

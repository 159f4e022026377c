//! Each decoder reads what the encoder wrote, whole or in pieces, and no input causes a panic or unbounded memory.

#![expect(clippy::unwrap_used, reason = "a test, whose helpers stand outside of test functions")]

use bytes::{BufMut, Bytes, BytesMut};
use pgentra_wire::backend::{
    Authentication, BackendKeyData, BackendMessage, Mechanisms, NegotiateProtocolVersion, ParameterStatus,
    TransactionStatus,
};
use pgentra_wire::fields::{FieldCode, Fields, Severity};
use pgentra_wire::frontend::{self, AuthenticationAnswer, SaslInitialResponse};
use pgentra_wire::oauthbearer::{BearerRefusal, ClientMessage};
use pgentra_wire::scram::{ChannelBinding, ClientFinal, ClientFirst};
use pgentra_wire::startup::{
    self, CancelKey, CancelRequest, EncryptionAnswer, FirstPacket, ProtocolVersion, StartupMessage,
};
use pgentra_wire::{WireError, limits};
use proptest::collection::vec;
use proptest::prelude::*;

/// Feeds `bytes` in pieces, as a socket would, and decodes whenever something came.
fn in_pieces<T, E>(
    bytes: &[u8],
    pieces: &[usize],
    decode: impl Fn(&mut BytesMut) -> Result<Option<T>, E>,
) -> Result<Vec<T>, E> {
    let (mut buf, mut values, mut rest, mut next) =
        (BytesMut::new(), Vec::new(), bytes, pieces.iter().cycle());
    while !rest.is_empty() {
        let (piece, after) = rest.split_at((*next.next().unwrap()).min(rest.len()));
        rest = after;
        buf.put_slice(piece);
        loop {
            let before = buf.clone();
            match decode(&mut buf)? {
                Some(value) => values.push(value),
                None => {
                    assert_eq!(buf, before, "\"more is needed\" consumes nothing");
                    break;
                }
            }
        }
    }
    Ok(values)
}

fn pieces() -> impl Strategy<Value = Vec<usize>> {
    vec(1_usize..40, 1..8)
}

/// Bytes without NUL.
fn text() -> impl Strategy<Value = Vec<u8>> {
    vec(1_u8..=255, 0..40)
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    vec(1_u8..=255, 1..40)
}

fn key() -> impl Strategy<Value = CancelKey> {
    vec(any::<u8>(), limits::MIN_CANCEL_KEY..=limits::MAX_CANCEL_KEY)
        .prop_map(|key| CancelKey::new(key).unwrap())
}

fn version() -> impl Strategy<Value = ProtocolVersion> {
    any::<u16>().prop_map(|minor| ProtocolVersion { major: 3, minor })
}

fn first_packet() -> impl Strategy<Value = FirstPacket> {
    let start = (version(), text(), vec((name(), text()), 0..8)).prop_map(|(version, user, parameters)| {
        let start = StartupMessage::new(version, user).unwrap();
        let with = |start: StartupMessage, (name, value)| start.with(name, value).unwrap();
        FirstPacket::Startup(parameters.into_iter().fold(start, with))
    });
    let cancel = (any::<u32>(), key())
        .prop_map(|(process_id, key)| FirstPacket::Cancel(CancelRequest { process_id, key }));
    prop_oneof![start, cancel, Just(FirstPacket::SslRequest), Just(FirstPacket::GssEncRequest)]
}

fn encode_first(packet: &FirstPacket, out: &mut BytesMut) {
    match packet {
        FirstPacket::Startup(start) => start.encode(out),
        FirstPacket::Cancel(cancel) => cancel.encode(out),
        FirstPacket::SslRequest => startup::encode_ssl_request(out),
        FirstPacket::GssEncRequest => startup::encode_gssenc_request(out),
        FirstPacket::Unsupported(_) => unreachable!("no client of ours sends one"),
    }
}

fn data() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..100).prop_map(Bytes::from)
}

fn authentication() -> impl Strategy<Value = Authentication> {
    prop_oneof![
        Just(Authentication::Ok),
        Just(Authentication::KerberosV5),
        Just(Authentication::CleartextPassword),
        any::<[u8; 4]>().prop_map(|salt| Authentication::Md5Password { salt }),
        Just(Authentication::ScmCredential),
        Just(Authentication::Gss),
        data().prop_map(Authentication::GssContinue),
        Just(Authentication::Sspi),
        vec("[A-Z0-9-]{1,20}", 1..5).prop_map(|names| {
            Authentication::Sasl(Mechanisms::new(names.iter().map(String::as_str)).unwrap())
        }),
        data().prop_map(Authentication::SaslContinue),
        data().prop_map(Authentication::SaslFinal),
    ]
}

fn fields() -> impl Strategy<Value = Fields> {
    let severity = prop_oneof![
        Just(Severity::Error),
        Just(Severity::Fatal),
        Just(Severity::Panic),
        Just(Severity::Warning),
        Just(Severity::Notice)
    ];
    (severity, "[0-9A-Z]{5}", "\\PC{0,40}", vec((any::<u8>(), any::<String>()), 0..8)).prop_map(
        |(severity, sqlstate, message, more)| {
            let fields = Fields::new(severity, &sqlstate, &message);
            more.into_iter().fold(fields, |fields, (code, text)| fields.with(FieldCode(code), &text))
        },
    )
}

fn backend_message() -> impl Strategy<Value = BackendMessage> {
    prop_oneof![
        authentication().prop_map(BackendMessage::Authentication),
        fields().prop_map(BackendMessage::ErrorResponse),
        fields().prop_map(BackendMessage::NoticeResponse),
        (text(), text()).prop_map(|(name, value)| BackendMessage::ParameterStatus(ParameterStatus {
            name: name.into(),
            value: value.into()
        })),
        (any::<u32>(), key())
            .prop_map(|(process_id, key)| BackendMessage::BackendKeyData(BackendKeyData { process_id, key })),
        prop_oneof![
            Just(TransactionStatus::Idle),
            Just(TransactionStatus::Open),
            Just(TransactionStatus::Failed)
        ]
        .prop_map(BackendMessage::ReadyForQuery),
        (version(), vec(text(), 0..5)).prop_map(|(newest, options)| {
            let options = options.iter().map(Vec::as_slice);
            BackendMessage::NegotiateProtocolVersion(NegotiateProtocolVersion::new(newest, options).unwrap())
        }),
    ]
}

#[derive(Debug)]
enum Answer {
    Password(Vec<u8>),
    SaslInitial(Vec<u8>, Option<Vec<u8>>),
    Sasl(Vec<u8>),
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        text().prop_map(Answer::Password),
        (name(), proptest::option::of(vec(any::<u8>(), 0..100)))
            .prop_map(|(mechanism, data)| Answer::SaslInitial(mechanism, data)),
        vec(any::<u8>(), 0..100).prop_map(Answer::Sasl),
    ]
}

/// Bytes that reach the inside of a decoder more often than random ones: true headers before random bodies.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let tag = proptest::sample::select(b"RENSKZvpQ\x16\0".to_vec());
    let code = proptest::sample::select(vec![0_u32, 3, 5, 10, 11, 196_608, 80_877_102, 80_877_103]);
    let framed = (tag, 0_u32..60, code, vec(any::<u8>(), 0..80)).prop_map(|(tag, length, code, body)| {
        let mut bytes = vec![tag];
        bytes.extend(length.to_be_bytes());
        bytes.extend(code.to_be_bytes());
        bytes.extend(body);
        bytes
    });
    let first = (8_u32..80, any::<u32>(), vec(any::<u8>(), 0..80)).prop_map(|(length, code, body)| {
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend((80_877_100 + code % 8).to_be_bytes());
        bytes.extend(body);
        bytes
    });
    prop_oneof![vec(any::<u8>(), 0..200), framed, first]
}

proptest! {
    #[test]
    fn first_packets(packets in vec(first_packet(), 1..4), pieces in pieces()) {
        let mut bytes = BytesMut::new();
        packets.iter().for_each(|packet| encode_first(packet, &mut bytes));
        prop_assert_eq!(in_pieces(&bytes, &pieces, FirstPacket::decode).unwrap(), packets);
    }

    #[test]
    fn backend_messages(messages in vec(backend_message(), 1..6), pieces in pieces()) {
        let mut bytes = BytesMut::new();
        for message in &messages {
            message.encode(&mut bytes).unwrap();
        }
        prop_assert_eq!(in_pieces(&bytes, &pieces, BackendMessage::decode).unwrap(), messages);
    }

    #[test]
    fn authentication_answers(answers in vec(answer(), 1..4), pieces in pieces()) {
        let mut bytes = BytesMut::new();
        for answer in &answers {
            match answer {
                Answer::Password(password) => frontend::encode_password(password, &mut bytes).unwrap(),
                Answer::SaslInitial(mechanism, data) => {
                    SaslInitialResponse { mechanism, data: data.as_deref() }.encode(&mut bytes).unwrap();
                }
                Answer::Sasl(data) => frontend::encode_sasl_response(data, &mut bytes).unwrap(),
            }
        }
        let read = in_pieces(&bytes, &pieces, AuthenticationAnswer::decode).unwrap();
        prop_assert_eq!(read.len(), answers.len());
        for (read, answer) in read.iter().zip(&answers) {
            match answer {
                Answer::Password(password) => prop_assert_eq!(read.password().unwrap(), &password[..]),
                Answer::SaslInitial(mechanism, data) => {
                    let expected = SaslInitialResponse { mechanism, data: data.as_deref() };
                    prop_assert_eq!(read.sasl_initial().unwrap(), expected);
                }
                Answer::Sasl(data) => prop_assert_eq!(read.sasl_response(), &data[..]),
            }
        }
    }

    #[test]
    fn oauthbearer_client_messages(token in "[A-Za-z0-9._~+/-]{1,60}={0,2}") {
        for message in [ClientMessage::Token(&token), ClientMessage::Discovery] {
            let mut bytes = BytesMut::new();
            message.encode(&mut bytes).unwrap();
            prop_assert_eq!(ClientMessage::decode(&bytes).unwrap(), message);
        }
    }

    #[test]
    fn oauthbearer_refusals(
        status in any::<String>(),
        url in proptest::option::of(any::<String>()),
        scope in proptest::option::of(any::<String>()),
    ) {
        let refusal = BearerRefusal {
            status: status.into(),
            openid_configuration: url.map(Into::into),
            scope: scope.map(Into::into),
        };
        let mut bytes = BytesMut::new();
        refusal.encode(&mut bytes);
        prop_assert_eq!(BearerRefusal::decode(&bytes).unwrap(), refusal);
    }

    #[test]
    fn scram_messages(
        binding in proptest::option::of("[a-z-]{1,20}"),
        user in "[^,=\\p{C}]{0,20}",
        nonce in "[!-+--~]{1,40}",
        extension in proptest::option::of("[a-oq-z]=[!-+--~]{0,10}"),
        proof in "[A-Za-z0-9+/]{0,44}={0,2}",
    ) {
        let flag = binding.as_ref().map_or("n".to_owned(), |name| format!("p={name}"));
        let more = extension.map(|it| format!(",{it}")).unwrap_or_default();
        let (header, bare) = (format!("{flag},,"), format!("n={user},r={nonce}{more}"));
        let text = format!("{header}{bare}");
        let channel_binding = binding.as_deref().map_or(ChannelBinding::Unsupported, ChannelBinding::Used);
        let first = ClientFirst { channel_binding, header: &header, bare: &bare, nonce: &nonce };
        prop_assert_eq!(ClientFirst::decode(text.as_bytes()).unwrap(), first);
        let without_proof = format!("c=biws,r={nonce}{more}");
        let text = format!("{without_proof},p={proof}");
        let last = ClientFinal {
            channel_binding: "biws",
            nonce: &nonce,
            without_proof: &without_proof,
            proof: &proof,
        };
        prop_assert_eq!(ClientFinal::decode(text.as_bytes()).unwrap(), last);
    }

    /// No decoder panics, each answers the same to the pieces as to the whole, what it read it can write again
    /// byte for byte, and none waits for more than its limit.
    #[test]
    fn hostile_bytes(bytes in hostile(), pieces in pieces()) {
        let whole = [bytes.len().max(1)];
        let read = in_pieces(&bytes, &whole, FirstPacket::decode);
        prop_assert_eq!(&in_pieces(&bytes, &pieces, FirstPacket::decode), &read);
        let read = in_pieces(&bytes, &whole, BackendMessage::decode);
        prop_assert_eq!(&in_pieces(&bytes, &pieces, BackendMessage::decode), &read);
        if let Ok(messages) = read {
            let mut again = BytesMut::new();
            messages.iter().for_each(|message| message.encode(&mut again).unwrap());
            prop_assert_eq!(&bytes[..again.len()], &again[..]);
        }
        let bodies = |read: Result<Vec<AuthenticationAnswer>, WireError>| {
            read.map(|all| all.iter().map(|answer| answer.sasl_response().to_vec()).collect::<Vec<_>>())
        };
        let read = bodies(in_pieces(&bytes, &whole, AuthenticationAnswer::decode));
        prop_assert_eq!(&bodies(in_pieces(&bytes, &pieces, AuthenticationAnswer::decode)), &read);
        for body in read.iter().flatten() {
            let mut buf = BytesMut::new();
            frontend::encode_sasl_response(body, &mut buf).unwrap();
            let answer = AuthenticationAnswer::decode(&mut buf).unwrap().unwrap();
            let _ = (answer.password().is_ok(), answer.sasl_initial().is_ok());
        }
        let _ = EncryptionAnswer::decode(&mut BytesMut::from(&bytes[..]));
        let _ = (ClientMessage::decode(&bytes).is_ok(), BearerRefusal::decode(&bytes).is_ok());
        let _ = (ClientFirst::decode(&bytes).is_ok(), ClientFinal::decode(&bytes).is_ok());
    }

    /// Invariant 5: no length is trusted before it is bounded.
    /// A header alone decides: beyond the limit is an error at once, so the caller never buffers more than the limit.
    #[test]
    fn no_decoder_waits_for_more_than_its_limit(length in any::<u32>(), tag in any::<u8>()) {
        let framed = |tag: u8| {
            let mut buf = BytesMut::from(&[tag][..]);
            buf.put_u32(length);
            buf
        };
        let waits = |answer: bool, limit: usize| !answer || length as usize <= limit;
        let first = FirstPacket::decode(&mut BytesMut::from(&length.to_be_bytes()[..]));
        prop_assert!(waits(matches!(first, Ok(None)), limits::STARTUP_PACKET + 4));
        let backend = BackendMessage::decode(&mut framed(tag));
        prop_assert!(waits(matches!(backend, Ok(None)), limits::BACKEND_MESSAGE));
        let answer = AuthenticationAnswer::decode(&mut framed(b'p'));
        prop_assert!(waits(matches!(answer, Ok(None)), limits::AUTH_MESSAGE));
    }
}

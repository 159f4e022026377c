//! A client whose messages are written by the test.

use bytes::{Buf, BytesMut};
use pgentra_wire::backend::{Authentication, BackendMessage};
use pgentra_wire::fields::Fields;
use pgentra_wire::frame::Header;
use pgentra_wire::frontend::{SaslInitialResponse, encode_password, encode_sasl_response};
use pgentra_wire::startup::StartupMessage;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// First packets at which PostgreSQL closes the connection without an answer.
pub(crate) const NO_FIRST_PACKET: [&[u8]; 9] = [
    // Terminate, from a driver that gives up before it is connected.
    b"X\0\0\0\x04",
    b"Q\0\0\0\x0dSELECT 1\0",
    b"GET / HTTP/1.1\r\n\r\n",
    b"\0\0\0\0",
    b"\0\0\0\x07abc",
    b"\0\0\x27\x15",
    b"\xff\xff\xff\xff",
    // Cancel requests without a process id, and with a key that is too short.
    b"\0\0\0\x08\x04\xd2\x16\x2e",
    b"\0\0\0\x0e\x04\xd2\x16\x2e\0\0\0\x01ab",
];

pub(crate) struct Raw<S> {
    stream: S,
    received: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, received: BytesMut::new() }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    pub(crate) async fn start(&mut self, start: &StartupMessage) {
        let mut out = BytesMut::new();
        start.encode(&mut out);
        self.send(&out).await;
    }

    pub(crate) async fn password(&mut self, password: &[u8]) {
        let mut out = BytesMut::new();
        encode_password(password, &mut out).unwrap();
        self.send(&out).await;
    }

    /// The next message; `None` at the end.
    pub(crate) async fn read(&mut self) -> Option<BackendMessage> {
        loop {
            if let Some(message) = BackendMessage::decode(&mut self.received).unwrap() {
                return Some(message);
            }
            if self.stream.read_buf(&mut self.received).await.unwrap() == 0 {
                return None;
            }
        }
    }

    /// Answers a SCRAM exchange up to AuthenticationOk, as libpq does inside TLS: it supports
    /// channel binding, and states that the server does not.
    pub(crate) async fn scram(&mut self, password: &str) {
        let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unrequested());
        loop {
            let mut out = BytesMut::new();
            match self.read().await {
                Some(BackendMessage::Authentication(Authentication::Sasl(_))) => {
                    let data = Some(scram.message());
                    SaslInitialResponse { mechanism: b"SCRAM-SHA-256", data }.encode(&mut out).unwrap();
                }
                Some(BackendMessage::Authentication(Authentication::SaslContinue(data))) => {
                    scram.update(&data).unwrap();
                    encode_sasl_response(scram.message(), &mut out).unwrap();
                }
                Some(BackendMessage::Authentication(Authentication::SaslFinal(data))) => {
                    scram.finish(&data).unwrap();
                    continue;
                }
                Some(BackendMessage::Authentication(Authentication::Ok)) => return,
                other => panic!("{other:?} in a SCRAM exchange"),
            }
            self.send(&out).await;
        }
    }

    /// The SQLSTATE of the next error, past messages that this crate has no names for.
    pub(crate) async fn later_error(&mut self) -> String {
        loop {
            match Header::peek(&self.received).unwrap() {
                Some(header) if self.received.len() >= Header::SIZE + header.body && header.tag != b'E' => {
                    self.received.advance(Header::SIZE + header.body);
                }
                Some(header) if header.tag == b'E' => match self.read().await {
                    Some(BackendMessage::ErrorResponse(fields)) => return fields.sqlstate().into_owned(),
                    other => panic!("{other:?} instead of an error"),
                },
                _ => assert_ne!(self.stream.read_buf(&mut self.received).await.unwrap(), 0),
            }
        }
    }

    /// Everything up to ReadyForQuery.
    pub(crate) async fn until_ready(&mut self) -> Vec<BackendMessage> {
        let mut messages = Vec::new();
        loop {
            match self.read().await.expect("more messages") {
                BackendMessage::ReadyForQuery(_) => return messages,
                message => messages.push(message),
            }
        }
    }

    /// The next message, which must be an error and the last one.
    pub(crate) async fn error(&mut self) -> Fields {
        let fields = match self.read().await {
            Some(BackendMessage::ErrorResponse(fields)) => fields,
            other => panic!("{other:?} instead of an error"),
        };
        assert_eq!(self.read().await, None);
        fields
    }

    /// One byte that is not a message.
    pub(crate) async fn byte(&mut self) -> u8 {
        self.stream.read_u8().await.unwrap()
    }

    pub(crate) fn into_stream(self) -> S {
        self.stream
    }
}

//! A server whose messages are written by the test.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use pgentra_connect::Connector;
use pgentra_emulator::certificates::Authority;
use pgentra_wire::backend::{
    Authentication, BackendKeyData, BackendMessage, ParameterStatus, TransactionStatus,
};
use pgentra_wire::fields::{Fields, Severity};
use pgentra_wire::frontend::AuthenticationAnswer;
use pgentra_wire::startup::{CancelKey, CancelRequest, FirstPacket, StartupMessage};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::fixture::Stage;

/// The proxy's check of a pooled session.
const CHECK: &str = pgentra_session::kept::FINGERPRINT_QUERY;

pub(crate) struct Scripted {
    listener: TcpListener,
    tls: TlsAcceptor,
    roots: String,
}

/// A connection that a proxy made.
pub(crate) struct Connected {
    pub(crate) stream: TlsStream<TcpStream>,
    received: BytesMut,
    /// The token that it was signed in with.
    pub(crate) token: String,
}

impl Scripted {
    pub(crate) async fn new() -> Self {
        let authority = Authority::generate().unwrap();
        let config = authority.issue(&["localhost"]).unwrap().server_config(&[b"postgresql"]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { listener, tls: TlsAcceptor::from(Arc::clone(&config)), roots: authority.pem().to_owned() }
    }

    pub(crate) fn connector(&self, stage: &Stage) -> Connector {
        stage.connector_to(self.listener.local_addr().unwrap().port(), "", &self.roots)
    }

    /// The next connection, without an answer.
    pub(crate) async fn tcp(&self) -> (TcpStream, std::net::SocketAddr) {
        self.listener.accept().await.unwrap()
    }

    /// The next connection, inside TLS.
    pub(crate) async fn accept(&self) -> Connected {
        let (mut stream, _) = self.listener.accept().await.unwrap();
        // As PostgreSQL does: sent without delay.
        stream.set_nodelay(true).unwrap();
        stream.read_exact(&mut [0; 8]).await.unwrap();
        stream.write_all(b"S").await.unwrap();
        Connected {
            stream: self.tls.accept(stream).await.unwrap(),
            received: BytesMut::new(),
            token: String::new(),
        }
    }

    /// The next connection, signed in.
    pub(crate) async fn session(&self, process_id: u32) -> Connected {
        let mut connected = self.accept().await;
        connected.start_up().await;
        connected.let_in(process_id, b"key!").await;
        connected
    }

    /// Signs in every connection until `done`, with increasing process ids.
    pub(crate) async fn answer_from<T>(&self, process_id: u32, done: impl Future<Output = T>) -> T {
        let mut kept = Vec::new();
        let answering = async {
            for process_id in process_id.. {
                kept.push(self.session(process_id).await);
            }
        };
        tokio::select! {
            value = done => value,
            () = answering => panic!("no more process ids"),
        }
    }
}

impl Connected {
    pub(crate) async fn send(&mut self, messages: &[BackendMessage]) {
        let mut out = BytesMut::new();
        messages.iter().for_each(|message| message.encode(&mut out).unwrap());
        self.stream.write_all(&out).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Reads the start-up and the token, without checking the token.
    pub(crate) async fn start_up(&mut self) -> StartupMessage {
        let start = loop {
            match FirstPacket::decode(&mut self.received).unwrap() {
                Some(FirstPacket::Startup(start)) => break start,
                Some(other) => panic!("{other:?} instead of a start-up"),
                None => self.more().await,
            }
        };
        self.send(&[BackendMessage::Authentication(Authentication::CleartextPassword)]).await;
        let answer = loop {
            match AuthenticationAnswer::decode(&mut self.received).unwrap() {
                Some(answer) => break answer,
                None => self.more().await,
            }
        };
        self.token = String::from_utf8(answer.password().unwrap().to_vec()).unwrap();
        start
    }

    pub(crate) async fn let_in(&mut self, process_id: u32, key: &[u8]) {
        self.let_in_and_say(process_id, key, None).await;
    }

    /// The same with a further message in the same write.
    pub(crate) async fn let_in_and_say(&mut self, process_id: u32, key: &[u8], more: Option<BackendMessage>) {
        let key = CancelKey::new(Bytes::copy_from_slice(key)).unwrap();
        let mut messages = vec![
            BackendMessage::Authentication(Authentication::Ok),
            setting("TimeZone", "UTC"),
            BackendMessage::BackendKeyData(BackendKeyData { process_id, key }),
            BackendMessage::ReadyForQuery(TransactionStatus::Idle),
        ];
        messages.extend(more);
        self.send(&messages).await;
    }

    /// Reads a cancel request, the only message of such a connection.
    pub(crate) async fn cancel_request(&mut self) -> CancelRequest {
        loop {
            match FirstPacket::decode(&mut self.received).unwrap() {
                Some(FirstPacket::Cancel(request)) => return request,
                Some(other) => panic!("{other:?} instead of a request to cancel"),
                None => self.more().await,
            }
        }
    }

    /// The bytes that come next.
    pub(crate) async fn expect(&mut self, bytes: &[u8]) {
        while self.received.len() < bytes.len() {
            self.more().await;
        }
        assert_eq!(self.received.split_to(bytes.len()), bytes);
    }

    /// Answers the fingerprint query with this digit repeated.
    pub(crate) async fn identify(&mut self, digit: u8) {
        let sql = CHECK.trim_end();
        let length = u32::try_from(sql.len() + 5).unwrap();
        self.expect(&[b"Q", &length.to_be_bytes()[..], sql.as_bytes(), b"\0"].concat()).await;
        let row = [b"T\0\0\0\x06\0\x01D\0\0\0\x4a\0\x01\0\0\0\x40", &[digit; 64][..]].concat();
        let answer = [&row[..], b"C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I"].concat();
        self.stream.write_all(&answer).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Sends bytes that are not of the protocol.
    pub(crate) async fn talk_nonsense(&mut self) {
        self.stream.write_all(b"?\0\0\0\x04").await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Waits until the proxy hangs up, after no message but Terminate.
    pub(crate) async fn until_left(mut self) {
        let mut rest = Vec::from(&self.received[..]);
        let _ = self.stream.read_to_end(&mut rest).await;
        assert!(rest.is_empty() || rest == b"X\0\0\0\x04", "{rest:?}");
    }

    async fn more(&mut self) {
        assert_ne!(self.stream.read_buf(&mut self.received).await.unwrap(), 0, "hung up");
    }
}

pub(crate) fn setting(name: &'static str, value: &'static str) -> BackendMessage {
    let (name, value) = (Bytes::from_static(name.as_bytes()), Bytes::from_static(value.as_bytes()));
    BackendMessage::ParameterStatus(ParameterStatus { name, value })
}

pub(crate) fn fatal(sqlstate: &str) -> BackendMessage {
    BackendMessage::ErrorResponse(Fields::new(Severity::Fatal, sqlstate, "the end"))
}

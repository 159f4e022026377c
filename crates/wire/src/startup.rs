//! The first packet of a connection, which has no type byte: start-up, request for encryption, cancel.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{WireError, cstring, limits};

/// First byte of a TLS record that carries a handshake. A client that begins with it wants TLS at once
/// (`sslnegotiation=direct`, PostgreSQL 17); a first packet begins with 0, as its length is at most 10,000.
pub const TLS_HANDSHAKE: u8 = 0x16;

/// The protocol name that direct TLS must agree on (ALPN; PostgreSQL documentation, "SSL Session Encryption").
pub const ALPN: &[u8] = b"postgresql";

const CANCEL_REQUEST: u32 = code(1234, 5678);
const SSL_REQUEST: u32 = code(1234, 5679);
const GSSENC_REQUEST: u32 = code(1234, 5680);
/// Bytes of a packet that is only a length word and a request code.
const BARE_PACKET: usize = 8;

/// A protocol version. The order is that of the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProtocolVersion {
    /// 3 in every version that is spoken today.
    pub major: u16,
    /// 0 (PostgreSQL 7.4 to 17) or 2 (PostgreSQL 18); others are negotiated down.
    pub minor: u16,
}

impl ProtocolVersion {
    /// Protocol 3.0: cancel keys have four bytes.
    pub const V3_0: Self = Self { major: 3, minor: 0 };
    /// Protocol 3.2: cancel keys have up to 256 bytes.
    pub const V3_2: Self = Self { major: 3, minor: 2 };

    /// The version as the protocol writes it.
    pub fn code(self) -> u32 {
        code(self.major, self.minor)
    }

    /// The version with this code in the start-up packet; the reverse of [`ProtocolVersion::code`].
    pub fn from_code(code: u32) -> Self {
        let [a, b, c, d] = code.to_be_bytes();
        Self { major: u16::from_be_bytes([a, b]), minor: u16::from_be_bytes([c, d]) }
    }
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The first packet of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirstPacket {
    /// The client starts a session with this role, database and settings.
    Startup(StartupMessage),
    /// It asks for TLS; the answer is one byte.
    SslRequest,
    /// It asks for GSSAPI encryption; the answer is one byte.
    GssEncRequest,
    /// It wants the statement of another session cancelled; there is no answer.
    Cancel(CancelRequest),
    /// A start-up of another major version, whose layout is unknown.
    Unsupported(ProtocolVersion),
}

/// Why a first packet cannot be read, by what PostgreSQL does then (`ProcessStartupPacket` in `backend_startup.c`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirstPacketError {
    /// It closes the connection without an answer: a length that no first packet has, such as that of a Terminate in its
    /// place, or a cancel request that is none.
    Unanswered(WireError),
    /// It answers with SQLSTATE 08P01: a start-up whose inside is malformed.
    Refused(WireError),
}

impl fmt::Display for FirstPacketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unanswered(error) | Self::Refused(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for FirstPacketError {}

impl FirstPacket {
    /// Cuts a first packet off the front of `buf`. Look for [`is_direct_tls`] before. Bytes behind the code of a request for
    /// encryption are ignored, as PostgreSQL does.
    ///
    /// # Errors
    /// A length outside of [`limits::STARTUP_PACKET`], or an inside that PostgreSQL would refuse too.
    pub fn decode(buf: &mut BytesMut) -> Result<Option<Self>, FirstPacketError> {
        let Some((length, _)) = buf.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        // Both limits are PostgreSQL's; its own count leaves the length word out.
        let (shortest, longest) = (BARE_PACKET, 4 + limits::STARTUP_PACKET);
        if !(shortest..=longest).contains(&length) {
            let limit = if length < shortest { shortest } else { longest };
            return Err(FirstPacketError::Unanswered(WireError::Length {
                what: "start-up packet",
                length,
                limit,
            }));
        }
        if buf.len() < length {
            return Ok(None);
        }
        let mut body = buf.split_to(length).freeze();
        body.advance(4);
        let code = body.get_u32();
        match code {
            CANCEL_REQUEST => {
                CancelRequest::decode(body).map(Self::Cancel).map_err(FirstPacketError::Unanswered)
            }
            SSL_REQUEST => Ok(Self::SslRequest),
            GSSENC_REQUEST => Ok(Self::GssEncRequest),
            _ => match ProtocolVersion::from_code(code) {
                version if version.major == 3 => StartupMessage::decode(version, body)
                    .map(Self::Startup)
                    .map_err(FirstPacketError::Refused),
                version => Ok(Self::Unsupported(version)),
            },
        }
        .map(Some)
    }
}

/// Whether a connection begins with TLS itself instead of a first packet. `None`: no byte is there yet.
pub fn is_direct_tls(buf: &[u8]) -> Option<bool> {
    buf.first().map(|byte| *byte == TLS_HANDSHAKE)
}

/// Appends an SSLRequest packet, 8 bytes.
pub fn encode_ssl_request(out: &mut BytesMut) {
    out.put_u32(8);
    out.put_u32(SSL_REQUEST);
}

/// Appends a GSSENCRequest packet, 8 bytes.
pub fn encode_gssenc_request(out: &mut BytesMut) {
    out.put_u32(8);
    out.put_u32(GSSENC_REQUEST);
}

/// The server's answer to a request for encryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncryptionAnswer {
    /// `S` or `G`: the handshake comes next. Bytes that already follow must be refused by the caller: they came
    /// from before the encryption began, so an attacker may have written them (CVE-2021-23222).
    Accepted,
    /// `N`: the connection stays in the clear.
    Refused,
    /// `E`, not consumed: an ErrorResponse of a very old or failing server, sent in the clear and so not to be
    /// believed (CVE-2024-10977).
    Error,
}

impl EncryptionAnswer {
    /// Reads the answer to an SSLRequest.
    ///
    /// # Errors
    /// A byte that is none of the three.
    pub fn decode(buf: &mut BytesMut) -> Result<Option<Self>, WireError> {
        let answer = match buf.first() {
            None => return Ok(None),
            Some(b'S') => Self::Accepted,
            Some(b'N') => Self::Refused,
            Some(b'E') => return Ok(Some(Self::Error)),
            Some(_) => return Err(WireError::Malformed("the answer to the request for TLS is not S or N")),
        };
        buf.advance(1);
        Ok(Some(answer))
    }
}

/// A start-up: the protocol version and the parameters of the session.
///
/// Names and values are bytes, as their encoding is only known to the database. A parameter may come twice; the
/// last one counts, as in PostgreSQL. Two are equal if they have the same parameters in the same order.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct StartupMessage {
    version: ProtocolVersion,
    /// `name NUL value NUL` for each parameter; checked.
    parameters: Bytes,
}

impl StartupMessage {
    /// A start-up for `user` without any other parameter.
    ///
    /// # Errors
    /// A NUL byte in the name, or a name beyond [`limits::STARTUP_PACKET`].
    pub fn new(version: ProtocolVersion, user: impl AsRef<[u8]>) -> Result<Self, WireError> {
        Self { version, parameters: Bytes::new() }.with("user", user)
    }

    /// The same with another protocol version.
    #[must_use]
    pub fn with_version(self, version: ProtocolVersion) -> Self {
        Self { version, ..self }
    }

    /// The same with a parameter set: it replaces every earlier one of that name.
    ///
    /// # Errors
    /// An empty name, a NUL byte, or a packet beyond [`limits::STARTUP_PACKET`].
    pub fn with(self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<Self, WireError> {
        let (name, value) = (name.as_ref(), value.as_ref());
        if name.is_empty() {
            return Err(WireError::Malformed("a start-up parameter has no name"));
        }
        let mut parameters = BytesMut::with_capacity(self.parameters.len() + name.len() + value.len() + 2);
        for (kept, value) in self.parameters().filter(|(kept, _)| *kept != name) {
            cstring::put(&mut parameters, kept, "start-up parameter")?;
            cstring::put(&mut parameters, value, "start-up parameter")?;
        }
        cstring::put(&mut parameters, name, "start-up parameter")?;
        cstring::put(&mut parameters, value, "start-up parameter")?;
        // The version before them and the NUL byte behind them count as well.
        let length = parameters.len() + 5;
        if length > limits::STARTUP_PACKET {
            let what = "start-up packet";
            return Err(WireError::Length { what, length, limit: limits::STARTUP_PACKET });
        }
        Ok(Self { parameters: parameters.freeze(), ..self })
    }

    /// The same without the parameters that `drop` names.
    #[must_use]
    pub fn without(self, drop: impl Fn(&[u8]) -> bool) -> Self {
        let mut parameters = BytesMut::with_capacity(self.parameters.len());
        for (name, value) in self.parameters().filter(|(name, _)| !drop(name)) {
            for text in [name, value] {
                parameters.put_slice(text);
                parameters.put_u8(0);
            }
        }
        Self { parameters: parameters.freeze(), ..self }
    }

    /// The protocol version that the client asks for.
    pub fn version(&self) -> ProtocolVersion {
        self.version
    }

    /// Every parameter in the order sent: name and value.
    pub fn parameters(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = &self.parameters[..];
        std::iter::from_fn(move || {
            let (name, after) = cstring::split(rest)?;
            let (value, after) = cstring::split(after)?;
            rest = after;
            Some((name, value))
        })
    }

    /// The value of a parameter: the last one of that name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.parameters().filter(|(found, _)| *found == name.as_bytes()).last().map(|(_, value)| value)
    }

    /// The name of the role. Empty or absent is an error of the client that a server answers with 28000.
    pub fn user(&self) -> &[u8] {
        self.get("user").unwrap_or_default()
    }

    /// The database: the role's name when none is named, or an empty one.
    pub fn database(&self) -> &[u8] {
        self.get("database").filter(|name| !name.is_empty()).unwrap_or_else(|| self.user())
    }

    /// The protocol options asked for: parameters whose names begin with `_pq_.`.
    pub fn protocol_options(&self) -> impl Iterator<Item = &[u8]> {
        self.parameters().map(|(name, _)| name).filter(|name| name.starts_with(b"_pq_."))
    }

    /// Appends the packet, with its length first. It has no type byte.
    pub fn encode(&self, out: &mut BytesMut) {
        let length = self.parameters.len() + 9;
        out.reserve(length);
        // Both ways to make one keep it within `limits::STARTUP_PACKET`.
        out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        out.put_u32(self.version.code());
        out.put_slice(&self.parameters);
        out.put_u8(0);
    }

    fn decode(version: ProtocolVersion, mut body: Bytes) -> Result<Self, WireError> {
        let mut rest = &body[..];
        loop {
            match cstring::split(rest) {
                None => return Err(WireError::Malformed("the start-up packet does not end with a NUL byte")),
                Some(([], [])) => break,
                Some(([], _)) => {
                    return Err(WireError::Malformed("bytes follow the end of the start-up packet"));
                }
                Some((_, after)) => match cstring::split(after) {
                    None => return Err(WireError::Malformed("a start-up parameter has no value")),
                    Some((_, after)) => rest = after,
                },
            }
        }
        body.truncate(body.len() - 1);
        Ok(Self { version, parameters: body })
    }
}

impl fmt::Debug for StartupMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes| String::from_utf8_lossy(bytes);
        f.debug_struct("StartupMessage")
            .field("version", &self.version)
            .field("parameters", &self.parameters().map(|(n, v)| (text(n), text(v))).collect::<Vec<_>>())
            .finish()
    }
}

/// The secret that allows to cancel a session's statement. Its `Debug` form shows only its length.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CancelKey(Bytes);

impl CancelKey {
    /// A key of 4 to 256 bytes; protocol 3.0 knows only 4.
    ///
    /// # Errors
    /// Another length.
    pub fn new(key: impl Into<Bytes>) -> Result<Self, WireError> {
        let key = key.into();
        let (what, length) = ("cancel key", key.len());
        match length {
            ..limits::MIN_CANCEL_KEY => {
                Err(WireError::Length { what, length, limit: limits::MIN_CANCEL_KEY })
            }
            limits::MIN_CANCEL_KEY..=limits::MAX_CANCEL_KEY => Ok(Self(key)),
            _ => Err(WireError::Length { what, length, limit: limits::MAX_CANCEL_KEY }),
        }
    }

    /// The bytes of the key.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CancelKey({} bytes)", self.0.len())
    }
}

/// A request to cancel the statement that a session runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CancelRequest {
    /// The process id from that session's BackendKeyData.
    pub process_id: u32,
    /// The key from that session's BackendKeyData.
    pub key: CancelKey,
}

impl CancelRequest {
    /// Appends the packet, with its length first. It has no type byte.
    pub fn encode(&self, out: &mut BytesMut) {
        let key = self.key.expose();
        // A key has at most 256 bytes.
        out.put_u32(u32::try_from(12 + key.len()).unwrap_or(u32::MAX));
        out.put_u32(CANCEL_REQUEST);
        out.put_u32(self.process_id);
        out.put_slice(key);
    }

    fn decode(mut body: Bytes) -> Result<Self, WireError> {
        if body.len() < 4 {
            return Err(WireError::Malformed("the cancel request has no process id"));
        }
        let process_id = body.get_u32();
        Ok(Self { process_id, key: CancelKey::new(body)? })
    }
}

const fn code(major: u16, minor: u16) -> u32 {
    ((major as u32) << 16) | minor as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(body: &[u8]) -> BytesMut {
        let mut buf = BytesMut::new();
        buf.put_u32(u32::try_from(body.len() + 4).unwrap());
        buf.put_slice(body);
        buf
    }

    #[test]
    fn a_malformed_start_up_is_refused() {
        for (about, body) in [
            ("start-up without end", &b"\0\x03\0\0"[..]),
            ("start-up without final NUL", b"\0\x03\0\0user\0me\0"),
            ("parameter without value", b"\0\x03\0\0user\0"),
            ("bytes behind the end", b"\0\x03\0\0user\0me\0\0more\0"),
            ("open value", b"\0\x03\0\0user\0me"),
        ] {
            let mut buf = packet(body);
            let read = FirstPacket::decode(&mut buf);
            assert!(matches!(read, Err(FirstPacketError::Refused(_))), "{about}: {read:?}");
        }
    }

    #[test]
    fn what_postgresql_does_not_answer_is_told_from_what_it_refuses() {
        for (about, bytes) in [
            ("Terminate", &b"X\0\0\0\x04"[..]),
            ("a query", b"Q\0\0\0\x0dSELECT 1\0"),
            ("HTTP", b"GET / HTTP/1.1\r\n\r\n"),
            ("no length", b"\0\0\0\0"),
            ("no code", b"\0\0\0\x07\0\0\0"),
            ("a byte too long", b"\0\0\x27\x15"),
            ("negative", b"\xff\xff\xff\xff"),
            ("cancel without process id", b"\0\0\0\x0a\x04\xd2\x16\x2e\0\0"),
            ("cancel without key", b"\0\0\0\x0c\x04\xd2\x16\x2e\0\0\0\x01"),
            ("cancel with a short key", b"\0\0\0\x0f\x04\xd2\x16\x2e\0\0\0\x01abc"),
        ] {
            let read = FirstPacket::decode(&mut BytesMut::from(bytes));
            assert!(matches!(read, Err(FirstPacketError::Unanswered(_))), "{about}: {read:?}");
        }
        // The length is the one that was sent.
        let error = FirstPacket::decode(&mut BytesMut::from(&b"X\0\0\0\x04"[..])).unwrap_err();
        assert_eq!(error.to_string(), "start-up packet of 1476395008 bytes is longer than 10004");
    }

    #[test]
    fn bytes_behind_a_request_for_encryption_are_ignored() {
        for (body, request) in [
            (&b"\x04\xd2\x16\x2fx"[..], FirstPacket::SslRequest),
            (b"\x04\xd2\x16\x30xyz", FirstPacket::GssEncRequest),
        ] {
            let mut buf = packet(body);
            buf.put_slice(b"next");
            assert_eq!(FirstPacket::decode(&mut buf), Ok(Some(request)));
            assert_eq!(&buf[..], b"next", "a packet is as long as it says");
        }
    }

    #[test]
    fn the_longest_packet_is_that_of_postgresql() {
        let value = |length| vec![b'x'; length];
        // version 4, "user" 5, "a" 2, "o" 2, the value's NUL 1, the final NUL 1
        let room = limits::STARTUP_PACKET - 15;
        let message = StartupMessage::new(ProtocolVersion::V3_0, "a").unwrap();
        let longest = message.clone().with("o", value(room)).unwrap();
        let mut buf = BytesMut::new();
        longest.encode(&mut buf);
        assert_eq!(buf.len(), 4 + limits::STARTUP_PACKET);
        assert_eq!(FirstPacket::decode(&mut buf).unwrap(), Some(FirstPacket::Startup(longest)));
        assert!(message.with("o", value(room + 1)).is_err());
        let mut buf = BytesMut::from(&10_005_u32.to_be_bytes()[..]);
        assert!(FirstPacket::decode(&mut buf).is_err(), "refused from its length word alone");
    }

    #[test]
    fn the_last_of_two_parameters_counts() {
        let mut buf = packet(b"\0\x03\0\0user\0first\0user\0last\0\0");
        let Some(FirstPacket::Startup(message)) = FirstPacket::decode(&mut buf).unwrap() else { panic!() };
        assert_eq!(message.user(), b"last");
        assert_eq!(message.database(), b"last");
        let message = message.with("user", "only").unwrap();
        assert_eq!(message.parameters().count(), 1);
    }

    #[test]
    fn protocol_options_can_be_dropped() {
        let message = StartupMessage::new(ProtocolVersion::V3_2, "me").unwrap();
        let message = message.with("_pq_.one", "1").unwrap().with("database", "d").unwrap();
        assert_eq!(message.protocol_options().collect::<Vec<_>>(), [b"_pq_.one"]);
        let message = message.without(|name| name.starts_with(b"_pq_."));
        assert_eq!(message.protocol_options().count(), 0);
        assert_eq!((message.user(), message.database()), (&b"me"[..], &b"d"[..]));
    }

    #[test]
    fn another_major_version_is_named() {
        let mut buf = packet(b"\0\x02\0\0whatever");
        let version = ProtocolVersion { major: 2, minor: 0 };
        assert_eq!(FirstPacket::decode(&mut buf).unwrap(), Some(FirstPacket::Unsupported(version)));
        assert_eq!(version.to_string(), "2.0");
    }

    #[test]
    fn answers_to_the_request_for_tls() {
        for (bytes, answer, left) in [
            (&b""[..], Ok(None), 0),
            (b"S", Ok(Some(EncryptionAnswer::Accepted)), 0),
            (b"Sx", Ok(Some(EncryptionAnswer::Accepted)), 1),
            (b"N", Ok(Some(EncryptionAnswer::Refused)), 0),
            (b"E\0", Ok(Some(EncryptionAnswer::Error)), 2),
        ] {
            let mut buf = BytesMut::from(bytes);
            assert_eq!(EncryptionAnswer::decode(&mut buf), answer);
            assert_eq!(buf.len(), left);
        }
        assert!(EncryptionAnswer::decode(&mut BytesMut::from(&b"H"[..])).is_err());
    }

    #[test]
    fn direct_tls_is_told_by_its_first_byte() {
        assert_eq!(is_direct_tls(b""), None);
        assert_eq!(is_direct_tls(&[TLS_HANDSHAKE, 3, 1]), Some(true));
        let mut request = BytesMut::new();
        encode_ssl_request(&mut request);
        assert_eq!(is_direct_tls(&request), Some(false));
    }

    #[test]
    fn a_cancel_key_is_not_shown() {
        let key = CancelKey::new(Bytes::from_static(b"secret")).unwrap();
        assert_eq!(format!("{key:?}"), "CancelKey(6 bytes)");
    }
}

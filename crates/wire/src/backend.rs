//! What a server sends before its first ReadyForQuery.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::fields::Fields;
use crate::frame::{self, Bound};
use crate::startup::{CancelKey, ProtocolVersion};
use crate::{WireError, cstring, limits};

const BOUND: Bound = Bound { limit: limits::BACKEND_MESSAGE, what: "server message" };

/// One message of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendMessage {
    /// `R`: an authentication request, or AuthenticationOk.
    Authentication(Authentication),
    /// `E`: the end, with its reason.
    ErrorResponse(Fields),
    /// `N`: a warning.
    NoticeResponse(Fields),
    /// `S`: a setting of the session.
    ParameterStatus(ParameterStatus),
    /// `K`: the process id and the secret key of a cancel request.
    BackendKeyData(BackendKeyData),
    /// `Z`: the session is ready.
    ReadyForQuery(TransactionStatus),
    /// `v`: the server speaks less than the client asked for.
    NegotiateProtocolVersion(NegotiateProtocolVersion),
}

impl BackendMessage {
    /// Cuts a message off the front of `buf`.
    ///
    /// # Errors
    /// A length beyond [`limits::BACKEND_MESSAGE`], a malformed inside, or a message that does not belong before
    /// the first ReadyForQuery.
    pub fn decode(buf: &mut BytesMut) -> Result<Option<Self>, WireError> {
        let Some((tag, body)) = frame::split(buf, BOUND)? else {
            return Ok(None);
        };
        let body = body.freeze();
        match tag {
            b'R' => Authentication::decode(body).map(Self::Authentication),
            b'E' => Fields::decode(body).map(Self::ErrorResponse),
            b'N' => Fields::decode(body).map(Self::NoticeResponse),
            b'S' => ParameterStatus::decode(body).map(Self::ParameterStatus),
            b'K' => BackendKeyData::decode(body).map(Self::BackendKeyData),
            b'Z' => TransactionStatus::decode(&body).map(Self::ReadyForQuery),
            b'v' => NegotiateProtocolVersion::decode(body).map(Self::NegotiateProtocolVersion),
            tag => Err(WireError::Unexpected { tag }),
        }
        .map(Some)
    }

    /// Appends the message.
    ///
    /// # Errors
    /// A message that [`BackendMessage::decode`] would refuse; `out` is unchanged then.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), WireError> {
        match self {
            Self::Authentication(it) => frame::put(out, b'R', BOUND, |out| it.put_body(out)),
            Self::ErrorResponse(it) => frame::put(out, b'E', BOUND, |out| {
                it.put_body(out);
                Ok(())
            }),
            Self::NoticeResponse(it) => frame::put(out, b'N', BOUND, |out| {
                it.put_body(out);
                Ok(())
            }),
            Self::ParameterStatus(it) => frame::put(out, b'S', BOUND, |out| {
                cstring::put(out, &it.name, "setting")?;
                cstring::put(out, &it.value, "setting")
            }),
            Self::BackendKeyData(it) => frame::put(out, b'K', BOUND, |out| {
                out.put_u32(it.process_id);
                out.put_slice(it.key.expose());
                Ok(())
            }),
            Self::ReadyForQuery(it) => frame::put(out, b'Z', BOUND, |out| {
                out.put_u8(it.byte());
                Ok(())
            }),
            Self::NegotiateProtocolVersion(it) => frame::put(out, b'v', BOUND, |out| {
                out.put_u32(it.newest.code());
                out.put_u32(it.count);
                out.put_slice(&it.options);
                Ok(())
            }),
        }
    }
}

/// An authentication request, by the code of an Authentication message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authentication {
    /// 0: the client is authenticated.
    Ok,
    /// 2: Kerberos V5, no longer used by any server.
    KerberosV5,
    /// 3: the password in clear text. Azure Database for PostgreSQL asks for an Entra token by this request; PostgreSQL 18
    /// asks for a token by [`Authentication::Sasl`] with [`crate::oauthbearer::MECHANISM`].
    CleartextPassword,
    /// 5: an MD5 digest with this salt.
    Md5Password {
        /// Random bytes of the server.
        salt: [u8; 4],
    },
    /// 6: credentials of the operating system, no longer used by any server.
    ScmCredential,
    /// 7: GSSAPI; the tokens follow in `GssContinue`.
    Gss,
    /// 8: more of GSSAPI or SSPI.
    GssContinue(Bytes),
    /// 9: SSPI, the GSSAPI of Windows.
    Sspi,
    /// 10: SASL, by one of these mechanisms.
    Sasl(Mechanisms),
    /// 11: the server's part of a SASL exchange.
    SaslContinue(Bytes),
    /// 12: the server's last part of a SASL exchange.
    SaslFinal(Bytes),
}

impl Authentication {
    fn decode(mut body: Bytes) -> Result<Self, WireError> {
        if body.len() < 4 {
            return Err(WireError::Malformed("the authentication message has no code"));
        }
        let code = body.get_u32();
        let bare = match code {
            0 => Self::Ok,
            2 => Self::KerberosV5,
            3 => Self::CleartextPassword,
            6 => Self::ScmCredential,
            7 => Self::Gss,
            9 => Self::Sspi,
            5 => {
                let salt = body[..].try_into();
                return salt
                    .map(|salt| Self::Md5Password { salt })
                    .map_err(|_| WireError::Malformed("the salt does not have four bytes"));
            }
            8 => return Ok(Self::GssContinue(body)),
            10 => return Mechanisms::decode(body).map(Self::Sasl),
            11 => return Ok(Self::SaslContinue(body)),
            12 => return Ok(Self::SaslFinal(body)),
            _ => return Err(WireError::Malformed("unknown authentication code")),
        };
        if body.is_empty() {
            Ok(bare)
        } else {
            Err(WireError::Malformed("bytes follow the authentication code"))
        }
    }

    fn put_body(&self, out: &mut BytesMut) -> Result<(), WireError> {
        let (code, data): (u32, &[u8]) = match self {
            Self::Ok => (0, &[]),
            Self::KerberosV5 => (2, &[]),
            Self::CleartextPassword => (3, &[]),
            Self::Md5Password { salt } => (5, salt),
            Self::ScmCredential => (6, &[]),
            Self::Gss => (7, &[]),
            Self::GssContinue(data) => (8, data),
            Self::Sspi => (9, &[]),
            Self::Sasl(mechanisms) => (10, &mechanisms.0),
            Self::SaslContinue(data) => (11, data),
            Self::SaslFinal(data) => (12, data),
        };
        out.put_u32(code);
        out.put_slice(data);
        Ok(())
    }
}

/// The names of SASL mechanisms that a server offers, its favourite first.
#[derive(Clone, PartialEq, Eq)]
pub struct Mechanisms(
    /// `name NUL` for each, then one NUL; checked.
    Bytes,
);

impl Mechanisms {
    /// The mechanisms of these names.
    ///
    /// # Errors
    /// No name at all, an empty one, or one with a NUL byte.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, WireError> {
        let mut list = BytesMut::new();
        for name in names {
            if name.is_empty() {
                return Err(WireError::Malformed("a SASL mechanism has no name"));
            }
            cstring::put(&mut list, name.as_bytes(), "SASL mechanism")?;
        }
        list.put_u8(0);
        Self::decode(list.freeze())
    }

    /// The names of the mechanisms, in the server's order of preference.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|byte| *byte == 0).take_while(|name| !name.is_empty())
    }

    /// Whether the server offers this mechanism.
    pub fn offers(&self, name: &str) -> bool {
        self.iter().any(|offered| offered == name.as_bytes())
    }

    fn decode(body: Bytes) -> Result<Self, WireError> {
        let mut rest = &body[..];
        let mut any = false;
        loop {
            match cstring::split(rest) {
                None => return Err(WireError::Malformed("the list of SASL mechanisms does not end")),
                Some(([], [])) if any => return Ok(Self(body)),
                Some(([], _)) => {
                    return Err(WireError::Malformed("the list of SASL mechanisms is malformed"));
                }
                Some((_, after)) => (rest, any) = (after, true),
            }
        }
    }
}

impl fmt::Debug for Mechanisms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(String::from_utf8_lossy)).finish()
    }
}

/// A setting of the session that the client should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterStatus {
    /// Its name, such as `server_version`.
    pub name: Bytes,
    /// The value, as `SHOW` prints it.
    pub value: Bytes,
}

impl ParameterStatus {
    fn decode(mut body: Bytes) -> Result<Self, WireError> {
        let malformed = WireError::Malformed("the setting is not two texts");
        match cstring::split(&body).map(|(name, after)| (name.len(), cstring::split(after))) {
            Some((length, Some((_, [])))) => {
                let name = body.split_to(length);
                let value = body.slice(1..body.len() - 1);
                Ok(Self { name, value })
            }
            _ => Err(malformed),
        }
    }
}

/// Process id and secret key for a CancelRequest of this session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendKeyData {
    /// The server process of the session.
    pub process_id: u32,
    /// The secret key of the process id.
    pub key: CancelKey,
}

impl BackendKeyData {
    fn decode(mut body: Bytes) -> Result<Self, WireError> {
        if body.len() < 4 {
            return Err(WireError::Malformed("the cancel key has no process id"));
        }
        let process_id = body.get_u32();
        Ok(Self { process_id, key: CancelKey::new(body)? })
    }
}

/// The transaction that a session is in when it is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionStatus {
    /// `I`: outside a transaction block.
    Idle,
    /// `T`: in a transaction block.
    Open,
    /// `E`: in a failed transaction block; only `ROLLBACK` is accepted.
    Failed,
}

impl TransactionStatus {
    fn byte(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::Open => b'T',
            Self::Failed => b'E',
        }
    }

    fn decode(body: &[u8]) -> Result<Self, WireError> {
        match body {
            b"I" => Ok(Self::Idle),
            b"T" => Ok(Self::Open),
            b"E" => Ok(Self::Failed),
            _ => Err(WireError::Malformed("unknown transaction status")),
        }
    }
}

/// The server speaks an older minor version, or does not know some protocol options.
#[derive(Clone, PartialEq, Eq)]
pub struct NegotiateProtocolVersion {
    newest: ProtocolVersion,
    count: u32,
    /// `name NUL` for each option; checked.
    options: Bytes,
}

impl NegotiateProtocolVersion {
    /// The newest version that the server speaks, and the options that it does not know.
    ///
    /// # Errors
    /// An option with a NUL byte.
    pub fn new<'a>(
        newest: ProtocolVersion,
        options: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Self, WireError> {
        let mut list = BytesMut::new();
        let mut count = 0;
        for option in options {
            cstring::put(&mut list, option, "protocol option")?;
            count += 1;
        }
        Ok(Self { newest, count, options: list.freeze() })
    }

    /// The newest version that the server speaks.
    ///
    /// The documentation calls the field a minor version; servers send the whole version code, as libpq expects.
    pub fn newest(&self) -> ProtocolVersion {
        self.newest
    }

    /// The options that the server does not know.
    pub fn options(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.options[..];
        std::iter::from_fn(move || {
            let (option, after) = cstring::split(rest)?;
            rest = after;
            Some(option)
        })
    }

    fn decode(mut body: Bytes) -> Result<Self, WireError> {
        if body.len() < 8 {
            return Err(WireError::Malformed("the version negotiation is too short"));
        }
        let newest = ProtocolVersion::from_code(body.get_u32());
        let count = body.get_u32();
        let found = Self { newest, count, options: body };
        // The count of the message is not trusted: the loop is bounded by the body, as each option has at least a NUL.
        let ends = found.options.last().is_none_or(|byte| *byte == 0);
        if ends && found.options().count() == count as usize {
            Ok(found)
        } else {
            Err(WireError::Malformed("the version negotiation does not list what it counts"))
        }
    }
}

impl fmt::Debug for NegotiateProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NegotiateProtocolVersion")
            .field("newest", &self.newest)
            .field("options", &self.options().map(String::from_utf8_lossy).collect::<Vec<_>>())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: u8, body: &[u8]) -> BytesMut {
        let mut buf = BytesMut::new();
        buf.put_u8(tag);
        buf.put_u32(u32::try_from(body.len() + 4).unwrap());
        buf.put_slice(body);
        buf
    }

    #[test]
    fn malformed_messages_are_refused() {
        for (about, tag, body) in [
            ("query answers do not come yet", b'T', &b""[..]),
            ("no code", b'R', b"\0\0\0"),
            ("unknown code", b'R', b"\0\0\0\x63"),
            ("tail behind Ok", b'R', b"\0\0\0\0x"),
            ("short salt", b'R', b"\0\0\0\x05abc"),
            ("long salt", b'R', b"\0\0\0\x05abcde"),
            ("no mechanism", b'R', b"\0\0\0\x0a\0"),
            ("open list", b'R', b"\0\0\0\x0aSCRAM-SHA-256\0"),
            ("tail behind the list", b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0x"),
            ("setting without value", b'S', b"TimeZone\0"),
            ("setting with a tail", b'S', b"TimeZone\0UTC\0x"),
            ("key without process id", b'K', b"\0\0\0"),
            ("short key", b'K', b"\0\0\0\x01abc"),
            ("long key", b'K', &[0; 4 + 257]),
            ("unknown status", b'Z', b"X"),
            ("no status", b'Z', b""),
            ("two statuses", b'Z', b"II"),
            ("short negotiation", b'v', b"\0\x03\0\0\0\0\0"),
            ("count above the list", b'v', b"\0\x03\0\0\xff\xff\xff\xff_pq_.a\0"),
            ("count below the list", b'v', b"\0\x03\0\0\0\0\0\0_pq_.a\0"),
            ("open option", b'v', b"\0\x03\0\0\0\0\0\x01_pq_.a"),
        ] {
            assert!(BackendMessage::decode(&mut message(tag, body)).is_err(), "{about}");
        }
    }

    #[test]
    fn a_message_over_the_limit_is_neither_read_nor_written() {
        let mut buf = BytesMut::from(&b"R\0\x01\0\0"[..]);
        assert!(BackendMessage::decode(&mut buf).is_err());
        let data = Bytes::from(vec![0; limits::BACKEND_MESSAGE - 7]);
        let message = BackendMessage::Authentication(Authentication::SaslContinue(data));
        let mut out = BytesMut::new();
        assert!(message.encode(&mut out).is_err());
        assert!(out.is_empty());
    }

    #[test]
    fn mechanisms_are_found_by_name() {
        let offered = Mechanisms::new(["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]).unwrap();
        assert!(offered.offers("SCRAM-SHA-256"));
        assert!(!offered.offers("OAUTHBEARER"));
        assert!(Mechanisms::new([]).is_err());
        assert!(Mechanisms::new([""]).is_err());
        assert!(Mechanisms::new(["a\0b"]).is_err());
    }
}

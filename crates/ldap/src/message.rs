//! The few messages of LDAP (RFC 4511) that PostgreSQL's authentication takes.

use std::fmt;

use bytes::BytesMut;
use lber::common::TagClass;
use lber::structure::{PL, StructureTag};
use lber::structures::{ASNTag as _, Enumerated, Integer, OctetString, Sequence, Tag};
use lber::universal::Types;
use lber::{parse, write};
use zeroize::{Zeroize as _, Zeroizing};

use crate::shape::{self, BadMessage};

/// What a client asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum LdapRequest {
    /// A simple bind of version 3.
    Bind {
        /// The id of the message.
        id: u32,
        /// The name: of a role, with what `pg_hba.conf` puts around it.
        name: String,
        /// The password: a token.
        password: Password,
    },
    /// The end of the conversation. It is not answered.
    Unbind,
    /// The end of an earlier request. It is not answered.
    Abandon,
    /// Anything else.
    Other {
        /// The id of the message.
        id: u32,
        /// What it is.
        kind: OtherRequest,
    },
}

/// A request that is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherRequest {
    /// A bind of version 2, or of none that exists.
    BindVersion,
    /// A bind by SASL.
    BindSasl,
    /// A search, as of `ldapbasedn` in `pg_hba.conf`.
    Search,
    /// StartTLS, a change of the directory, a comparison: the connection is closed without an answer.
    Unanswered,
}

/// The password of a simple bind. It is overwritten on drop, and its `Debug` form does not show it.
#[derive(PartialEq, Eq)]
pub struct Password(Zeroizing<Vec<u8>>);

impl Password {
    /// Its bytes.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Password({} bytes)", self.0.len())
    }
}

/// The result of an operation (RFC 4511 section 4.1.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResultCode {
    Success = 0,
    ProtocolError = 2,
    AuthMethodNotSupported = 7,
    InvalidDnSyntax = 34,
    InvalidCredentials = 49,
    Unavailable = 52,
    UnwillingToPerform = 53,
}

/// The operations that are told apart (RFC 4511 section 4.2 and on): the number of their APPLICATION tag.
mod operation {
    pub(super) const BIND_REQUEST: u64 = 0;
    pub(super) const BIND_RESPONSE: u64 = 1;
    pub(super) const UNBIND_REQUEST: u64 = 2;
    pub(super) const SEARCH_REQUEST: u64 = 3;
    pub(super) const SEARCH_RESULT_DONE: u64 = 5;
    pub(super) const MODIFY_REQUEST: u64 = 6;
    pub(super) const ADD_REQUEST: u64 = 8;
    pub(super) const DEL_REQUEST: u64 = 10;
    pub(super) const MODIFY_DN_REQUEST: u64 = 12;
    pub(super) const COMPARE_REQUEST: u64 = 14;
    pub(super) const ABANDON_REQUEST: u64 = 16;
    pub(super) const EXTENDED_REQUEST: u64 = 23;
}

/// The tag of a password in a bind, and of a SASL mechanism: the choice `AuthenticationChoice`.
const SIMPLE: u64 = 0;
const SASL: u64 = 3;

/// The tag of the controls of a message.
const CONTROLS: u64 = 0;

impl LdapRequest {
    /// Cuts a message off the front of `received` and overwrites its bytes there; `None` while it is not whole.
    ///
    /// # Errors
    /// A length beyond 68 KiB, known from the first bytes alone; a malformed inside; a response.
    pub fn decode(received: &mut BytesMut) -> Result<Option<LdapRequest>, BadMessage> {
        let Some(length) = shape::length(received)? else { return Ok(None) };
        if received.len() < length {
            return Ok(None);
        }
        let mut message = received.split_to(length);
        let read = read(&message);
        message.zeroize();
        read.map(Some)
    }
}

fn read(message: &[u8]) -> Result<LdapRequest, BadMessage> {
    shape::check(message)?;
    let (_, message) = parse::parse_tag(message).map_err(|_| BadMessage)?;
    let mut parts = constructed(message)?.into_iter();
    let id = message_id(&primitive(parts.next(), Types::Integer)?)?;
    let request = parts.next().filter(|request| request.class == TagClass::Application).ok_or(BadMessage)?;
    // Controls may follow. RFC 4511 section 4.1.11 has those ignored that are not critical, and no client sends PostgreSQL's
    // bind with another.
    let ended = parts.next().is_none_or(|last| (last.class, last.id) == (TagClass::Context, CONTROLS));
    if !ended || parts.next().is_some() {
        return Err(BadMessage);
    }
    let other = |kind| Ok(LdapRequest::Other { id, kind });
    match request.id {
        operation::BIND_REQUEST => bind(id, constructed(request)?),
        operation::UNBIND_REQUEST => Ok(LdapRequest::Unbind),
        operation::ABANDON_REQUEST => Ok(LdapRequest::Abandon),
        operation::SEARCH_REQUEST => other(OtherRequest::Search),
        operation::EXTENDED_REQUEST
        | operation::MODIFY_REQUEST
        | operation::ADD_REQUEST
        | operation::DEL_REQUEST
        | operation::MODIFY_DN_REQUEST
        | operation::COMPARE_REQUEST => other(OtherRequest::Unanswered),
        _ => Err(BadMessage),
    }
}

fn bind(id: u32, parts: Vec<StructureTag>) -> Result<LdapRequest, BadMessage> {
    let [version, name, mut authentication] = <[_; 3]>::try_from(parts).map_err(|_| BadMessage)?;
    // First, so that it is overwritten whatever is wrong with the rest.
    let password = match &mut authentication.payload {
        PL::P(password) => Some(Password(Zeroizing::new(std::mem::take(password)))),
        PL::C(_) => None,
    };
    let version = primitive(Some(version), Types::Integer)?;
    let name = primitive(Some(name), Types::OctetString)?;
    let name = String::from_utf8(name).map_err(|_| BadMessage)?;
    match (authentication.class, authentication.id, password) {
        (TagClass::Context, SIMPLE, Some(password)) => match *version {
            [3] => Ok(LdapRequest::Bind { id, name, password }),
            _ => Ok(LdapRequest::Other { id, kind: OtherRequest::BindVersion }),
        },
        (TagClass::Context, SASL, None) => Ok(LdapRequest::Other { id, kind: OtherRequest::BindSasl }),
        _ => Err(BadMessage),
    }
}

/// `MessageID ::= INTEGER (0 .. maxInt)`, with a `maxInt` of 2³¹ - 1.
fn message_id(bytes: &[u8]) -> Result<u32, BadMessage> {
    match bytes {
        [first @ ..=0x7f, rest @ ..] if rest.len() <= 3 => {
            Ok(rest.iter().fold(u32::from(*first), |value, byte| value << 8 | u32::from(*byte)))
        }
        _ => Err(BadMessage),
    }
}

fn constructed(element: StructureTag) -> Result<Vec<StructureTag>, BadMessage> {
    element.expect_constructed().ok_or(BadMessage)
}

/// The content of an element of a simple type.
fn primitive(element: Option<StructureTag>, of: Types) -> Result<Vec<u8>, BadMessage> {
    let of = (TagClass::Universal, of as u64);
    let element = element.filter(|element| (element.class, element.id) == of).ok_or(BadMessage)?;
    element.expect_primitive().ok_or(BadMessage)
}

/// The answer to a bind.
pub(crate) fn bind_response(id: u32, code: ResultCode, text: &str) -> Result<Vec<u8>, BadMessage> {
    result(id, operation::BIND_RESPONSE, code, text)
}

/// The refusal of a request that is none of a simple bind.
pub(crate) fn refusal(id: u32, kind: OtherRequest) -> Result<Vec<u8>, BadMessage> {
    use ResultCode::{AuthMethodNotSupported, ProtocolError, UnwillingToPerform};
    match kind {
        OtherRequest::BindVersion => bind_response(id, ProtocolError, "only version 3 of LDAP is supported"),
        OtherRequest::BindSasl => {
            bind_response(id, AuthMethodNotSupported, "only a simple bind is supported")
        }
        OtherRequest::Search => {
            let text = "there is no directory: use ldapprefix and ldapsuffix, not ldapbasedn";
            result(id, operation::SEARCH_RESULT_DONE, UnwillingToPerform, text)
        }
        OtherRequest::Unanswered => Err(BadMessage),
    }
}

/// A message with an `LDAPResult`, whose matched name is empty.
fn result(id: u32, operation: u64, code: ResultCode, diagnostic: &str) -> Result<Vec<u8>, BadMessage> {
    let text = |text: &str| Tag::OctetString(OctetString { inner: text.into(), ..OctetString::default() });
    let code = Tag::Enumerated(Enumerated { inner: code as i64, ..Enumerated::default() });
    let inner = vec![code, text(""), text(diagnostic)];
    let result = Tag::Sequence(Sequence { id: operation, class: TagClass::Application, inner });
    let id = Tag::Integer(Integer { inner: id.into(), ..Integer::default() });
    let message = Tag::Sequence(Sequence { inner: vec![id, result], ..Sequence::default() });
    let mut bytes = BytesMut::new();
    write::encode_into(&mut bytes, message.into_structure()).map_err(|_| BadMessage)?;
    Ok(bytes.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bind of a client, in BER.
    fn bind(version: u8, authentication: &[u8]) -> BytesMut {
        let parts = [&[2, 1, version][..], b"\x04\x06myuser", authentication].concat();
        let request = [&b"\x02\x01\x07"[..], &element(0x60, &parts)].concat();
        BytesMut::from(&element(0x30, &request)[..])
    }

    fn simple(password: &str) -> Vec<u8> {
        element(0x80, password.as_bytes())
    }

    /// An element whose length takes four bytes, as libldap writes it.
    fn element(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).unwrap().to_be_bytes();
        [&[tag, 0x84][..], &length, content].concat()
    }

    #[test]
    fn a_simple_bind() {
        let token = "x".repeat(65_530);
        let mut received = bind(3, &simple(&token));
        received.extend_from_slice(b"rest");
        let Ok(Some(LdapRequest::Bind { id, name, password })) = LdapRequest::decode(&mut received) else {
            panic!("no bind");
        };
        assert_eq!((id, &*name, password.expose()), (7, "myuser", token.as_bytes()));
        assert_eq!(format!("{password:?}"), "Password(65530 bytes)");
        assert_eq!(&received[..], b"rest");
    }

    #[test]
    fn in_pieces() {
        let whole = bind(3, &simple("secret"));
        for end in 0..whole.len() {
            assert_eq!(LdapRequest::decode(&mut BytesMut::from(&whole[..end])), Ok(None), "{end}");
        }
    }

    #[test]
    fn other_requests() {
        let sasl = element(0xa3, b"\x04\x05PLAIN");
        for (mut received, kind) in [
            (bind(2, &simple("secret")), OtherRequest::BindVersion),
            (bind(3, &sasl), OtherRequest::BindSasl),
            (BytesMut::from(&b"\x30\x05\x02\x01\x07\x63\x00"[..]), OtherRequest::Search),
            (BytesMut::from(&b"\x30\x05\x02\x01\x07\x77\x00"[..]), OtherRequest::Unanswered),
            (BytesMut::from(&b"\x30\x05\x02\x01\x07\x4a\x00"[..]), OtherRequest::Unanswered),
        ] {
            assert_eq!(LdapRequest::decode(&mut received), Ok(Some(LdapRequest::Other { id: 7, kind })));
        }
        for (message, expected) in [
            // What libldap sends at the end.
            (&b"\x30\x05\x02\x01\x02\x42\x00"[..], Ok(Some(LdapRequest::Unbind))),
            // With controls.
            (b"\x30\x07\x02\x01\x02\x42\x00\xa0\x00", Ok(Some(LdapRequest::Unbind))),
            (b"\x30\x06\x02\x01\x02\x50\x01\x01", Ok(Some(LdapRequest::Abandon))),
        ] {
            assert_eq!(LdapRequest::decode(&mut BytesMut::from(message)), expected, "{message:x?}");
        }
        let response = bind_response(1, ResultCode::Success, "").unwrap();
        assert_eq!(LdapRequest::decode(&mut BytesMut::from(&response[..])), Err(BadMessage));
    }

    #[test]
    fn what_is_no_request() {
        for bad in [
            &b"\x30\x00"[..],
            b"\x30\x03\x02\x01\x02",
            // The id: below zero, beyond 2^31, empty, of another class or type, an element with elements.
            b"\x30\x05\x02\x01\x80\x42\x00",
            b"\x30\x09\x02\x05\x01\0\0\0\0\x42\x00",
            b"\x30\x04\x02\x00\x42\x00",
            b"\x30\x05\x80\x01\x02\x42\x00",
            b"\x30\x05\x04\x01\x02\x42\x00",
            b"\x30\x05\x22\x01\x02\x42\x00",
            // The operation: of another class, an answer, one that does not exist.
            b"\x30\x05\x02\x01\x02\x02\x00",
            b"\x30\x05\x02\x01\x02\x65\x00",
            b"\x30\x05\x02\x01\x02\x7e\x00",
            // More behind it than controls.
            b"\x30\x07\x02\x01\x02\x42\x00\x42\x00",
            b"\x30\x09\x02\x01\x02\x42\x00\xa0\x00\xa0\x00",
            // A bind without a password, with a name that is not UTF-8, with a third way of authentication.
            b"\x30\x0a\x02\x01\x02\x60\x05\x02\x01\x03\x04\x00",
            b"\x30\x0d\x02\x01\x02\x60\x08\x02\x01\x03\x04\x01\xff\x80\x00",
            b"\x30\x0c\x02\x01\x02\x60\x07\x02\x01\x03\x04\x00\x81\x00",
        ] {
            assert_eq!(LdapRequest::decode(&mut BytesMut::from(bad)), Err(BadMessage), "{bad:x?}");
        }
    }

    #[test]
    fn an_answer_is_as_openldap_writes_it() {
        let answer = bind_response(1, ResultCode::InvalidCredentials, "no").unwrap();
        assert_eq!(answer, b"\x30\x0e\x02\x01\x01\x61\x09\x0a\x01\x31\x04\x00\x04\x02no");
    }
}

//! The few messages of LDAP (RFC 4511) that PostgreSQL's authentication takes.

use std::fmt;

use bytes::{Bytes, BytesMut};
use rasn_ldap::{
    AuthenticationChoice, BindResponse, LdapMessage, LdapResult, ProtocolOp, ResultCode, SearchResultDone,
};
use zeroize::Zeroize as _;

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
pub struct Password(BytesMut);

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

impl Drop for Password {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

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
    let message: LdapMessage = rasn::ber::decode(message).map_err(|_| BadMessage)?;
    let id = message.message_id;
    let other = |kind| Ok(LdapRequest::Other { id, kind });
    match message.protocol_op {
        ProtocolOp::BindRequest(bind) => match bind.authentication {
            AuthenticationChoice::Simple(octets) => {
                // The library's copy is the only one, so that it can be overwritten.
                let octets = Bytes::from(octets).try_into_mut();
                let password = Password(octets.unwrap_or_else(|shared| BytesMut::from(&shared[..])));
                match bind.version {
                    3 => Ok(LdapRequest::Bind { id, name: bind.name.0, password }),
                    _ => other(OtherRequest::BindVersion),
                }
            }
            _ => other(OtherRequest::BindSasl),
        },
        ProtocolOp::UnbindRequest(_) => Ok(LdapRequest::Unbind),
        ProtocolOp::AbandonRequest(_) => Ok(LdapRequest::Abandon),
        ProtocolOp::SearchRequest(_) => other(OtherRequest::Search),
        ProtocolOp::ExtendedReq(_)
        | ProtocolOp::ModifyRequest(_)
        | ProtocolOp::AddRequest(_)
        | ProtocolOp::DelRequest(_)
        | ProtocolOp::ModDnRequest(_)
        | ProtocolOp::CompareRequest(_) => other(OtherRequest::Unanswered),
        _ => Err(BadMessage),
    }
}

/// The answer to a bind.
pub(crate) fn bind_response(id: u32, code: ResultCode, text: &str) -> Result<Vec<u8>, BadMessage> {
    let response = BindResponse::new(code, "".into(), text.into(), None, None);
    encode(id, ProtocolOp::BindResponse(response))
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
            let result = LdapResult::new(UnwillingToPerform, "".into(), text.into());
            encode(id, ProtocolOp::SearchResDone(SearchResultDone(result)))
        }
        OtherRequest::Unanswered => Err(BadMessage),
    }
}

fn encode(id: u32, operation: ProtocolOp) -> Result<Vec<u8>, BadMessage> {
    rasn::ber::encode(&LdapMessage::new(id, operation)).map_err(|_| BadMessage)
}

#[cfg(test)]
mod tests {
    use rasn_ldap::{BindRequest, SaslCredentials};

    use super::*;

    fn bind(version: u8, authentication: AuthenticationChoice) -> BytesMut {
        let request = BindRequest::new(version, "myuser".into(), authentication);
        BytesMut::from(&encode(7, ProtocolOp::BindRequest(request)).unwrap()[..])
    }

    fn simple(password: &str) -> AuthenticationChoice {
        AuthenticationChoice::Simple(password.as_bytes().to_vec().into())
    }

    #[test]
    fn a_simple_bind() {
        let token = "x".repeat(65_530);
        let mut received = bind(3, simple(&token));
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
        let whole = bind(3, simple("secret"));
        for end in 0..whole.len() {
            assert_eq!(LdapRequest::decode(&mut BytesMut::from(&whole[..end])), Ok(None), "{end}");
        }
    }

    #[test]
    fn other_requests() {
        let sasl = AuthenticationChoice::Sasl(SaslCredentials::new("PLAIN".into(), None));
        for (mut received, kind) in
            [(bind(2, simple("secret")), OtherRequest::BindVersion), (bind(3, sasl), OtherRequest::BindSasl)]
        {
            assert_eq!(LdapRequest::decode(&mut received), Ok(Some(LdapRequest::Other { id: 7, kind })));
        }
        // What libldap sends at the end.
        let mut unbind = BytesMut::from(&b"\x30\x05\x02\x01\x02\x42\x00"[..]);
        assert_eq!(LdapRequest::decode(&mut unbind), Ok(Some(LdapRequest::Unbind)));
        let response = bind_response(1, ResultCode::Success, "").unwrap();
        assert_eq!(LdapRequest::decode(&mut BytesMut::from(&response[..])), Err(BadMessage));
    }

    #[test]
    fn an_answer_is_as_openldap_writes_it() {
        let answer = bind_response(1, ResultCode::InvalidCredentials, "no").unwrap();
        assert_eq!(answer, b"\x30\x0e\x02\x01\x01\x61\x09\x0a\x01\x31\x04\x00\x04\x02no");
    }
}

//! Internals of this crate that fuzz targets use, compiled in their builds alone.

use bytes::BytesMut;
use pgentra_wire::backend::ParameterStatus;

use super::relay::Filter as _;
use super::tracker::ProtocolTracker;

/// [`ProtocolTracker`], fed in the way that the relay feeds it.
#[derive(Default)]
pub struct Conversation(ProtocolTracker);

/// The state of a conversation.
#[derive(Debug, PartialEq)]
pub struct Known {
    /// Every request is answered, and no transaction is open.
    pub is_at_rest: bool,
    /// The server has sent whole messages only.
    pub is_between_answers: bool,
    /// The client has left an idle session, and the server has not been told.
    pub ended_idle: bool,
}

impl Conversation {
    /// Takes in bytes from the client; returns those that are forwarded to the server.
    pub fn client(&mut self, bytes: &[u8]) -> BytesMut {
        let mut bytes = BytesMut::from(bytes);
        if !self.0.stays() {
            self.0.rewrite(&mut bytes);
        }
        bytes
    }

    /// Takes in bytes from the server.
    pub fn server(&mut self, bytes: &[u8]) {
        if !self.0.stays() {
            self.0.see(bytes);
        }
    }

    /// What the tracker knows after the bytes so far.
    pub fn known(&self) -> Known {
        Known {
            is_at_rest: self.0.is_at_rest(),
            is_between_answers: self.0.is_between_answers(),
            ended_idle: self.0.ended_idle(),
        }
    }

    /// The settings that the server reported, each with its last value.
    pub fn into_settings(self) -> Vec<ParameterStatus> {
        self.0.into_settings()
    }
}

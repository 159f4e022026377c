//! What fuzz targets reach of this module, in their builds alone.

use bytes::BytesMut;
use pgentra_wire::backend::ParameterStatus;

use super::relay::Filter as _;
use super::tracker::ProtocolTracker;

/// [`ProtocolTracker`], as the relay tells it what flows.
#[derive(Default)]
pub struct Conversation(ProtocolTracker);

/// What is known of a conversation.
#[derive(Debug, PartialEq)]
pub struct Known {
    /// Everything is answered, and no transaction is open.
    pub is_at_rest: bool,
    /// What the server sent are whole messages.
    pub is_between_answers: bool,
    /// The client has gone, and the server does not know.
    pub ended_idle: bool,
}

impl Conversation {
    /// The client sent these bytes; what of them goes to the server.
    pub fn client(&mut self, bytes: &[u8]) -> BytesMut {
        let mut bytes = BytesMut::from(bytes);
        if !self.0.stays() {
            self.0.rewrite(&mut bytes);
        }
        bytes
    }

    /// The server sent these bytes.
    pub fn server(&mut self, bytes: &[u8]) {
        if !self.0.stays() {
            self.0.see(bytes);
        }
    }

    /// Where it stands.
    pub fn known(&self) -> Known {
        Known {
            is_at_rest: self.0.is_at_rest(),
            is_between_answers: self.0.is_between_answers(),
            ended_idle: self.0.ended_idle(),
        }
    }

    /// The settings that the server reported.
    pub fn into_settings(self) -> Vec<ParameterStatus> {
        self.0.into_settings()
    }
}

//! What fuzz targets reach of this module, in their builds alone.

use bytes::BytesMut;
use pgentra_wire::backend::ParameterStatus;

use super::position::Position;
use super::relay::Rewrite as _;

/// [`Position`], as the relay tells it what flows.
#[derive(Default)]
pub struct Conversation(Position);

/// What is known of a conversation.
#[derive(Debug, PartialEq)]
pub struct Known {
    /// Everything is answered, and no transaction is open.
    pub is_at_rest: bool,
    /// What the server sent are whole messages.
    pub is_between_answers: bool,
    /// The client has gone, and the server does not know.
    pub was_left_at_rest: bool,
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
            was_left_at_rest: self.0.was_left_at_rest(),
        }
    }

    /// The settings that the server reported.
    pub fn into_settings(self) -> Vec<ParameterStatus> {
        self.0.into_settings()
    }
}

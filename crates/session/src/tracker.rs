//! Tracks whether the server's session is idle, so that the pool can give it to another client.

use bytes::{Bytes, BytesMut};
use pgentra_wire::backend::{BackendMessage, ParameterStatus};
use pgentra_wire::frame::Header;
use pgentra_wire::limits;

use super::relay::Filter;

/// Follows the messages of both sides; it reads their headers and little else.
///
/// It may take an idle session for a busy one, but never a busy one for an idle one: each message
/// that a server may answer with ReadyForQuery adds to `pending`, and only ReadyForQuery subtracts.
/// (PostgreSQL documentation, "Message Flow".)
#[derive(Debug, Default)]
pub struct ProtocolTracker {
    client: Frames,
    server: Frames,
    /// Requests that ReadyForQuery has not answered yet.
    pending: u64,
    /// A message of the extended protocol came after the last request: without a Sync, the server
    /// may have more to send.
    unsynced: bool,
    transaction: Transaction,
    presence: Presence,
    /// A message did not fit the protocol: the state is unknown from then on, and nothing further
    /// is read.
    lost: bool,
    /// A ParameterStatus that is not complete yet.
    setting: BytesMut,
    settings: Vec<ParameterStatus>,
}

/// The transaction status of the last ReadyForQuery.
#[derive(Debug, Default, PartialEq)]
enum Transaction {
    #[default]
    None,
    Open,
}

/// Whether the client is connected.
#[derive(Debug, Default, PartialEq)]
enum Presence {
    #[default]
    Here,
    /// It left while the session was idle, and the server has not been told.
    Left,
    /// It left at another moment, and the server gets the Terminate.
    Gone,
}

impl ProtocolTracker {
    /// Whether the client left an idle session, which the server still keeps open.
    pub fn ended_idle(&self) -> bool {
        self.presence == Presence::Left
    }

    /// Takes in bytes from the client. `Some(length)`: the number of bytes before its Terminate.
    pub fn client(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut rest = bytes;
        while !self.lost {
            // The first byte is enough to know Terminate, none of which may reach the server.
            if self.client.is_between() && rest.first() == Some(&b'X') {
                return Some(bytes.len() - rest.len());
            }
            match self.client.step(&mut rest) {
                None => return None,
                Some(Step::Head(_) | Step::Body(..)) => {}
                Some(Step::End(tag)) => self.client_said(tag),
                Some(Step::Malformed) => self.lost = true,
            }
        }
        None
    }

    /// Takes in bytes from the server.
    pub fn server(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !self.lost
            && let Some(step) = self.server.step(&mut rest)
        {
            match step {
                Step::Head(b'S') => self.setting.clear(),
                Step::Head(tag) => self.server_says(tag),
                Step::Body(b'Z', status) => {
                    self.transaction = if status == b"I" { Transaction::None } else { Transaction::Open };
                }
                Step::Body(b'S', part) if self.setting.len() + part.len() <= limits::BACKEND_MESSAGE => {
                    self.setting.extend_from_slice(part);
                }
                Step::Body(b'S', _) => self.lost = true,
                Step::Body(..) => {}
                Step::End(b'Z') => self.answered(),
                Step::End(b'S') => self.set(),
                Step::End(_) => {}
                Step::Malformed => self.lost = true,
            }
        }
    }

    fn leave(&mut self) {
        if self.presence == Presence::Here {
            self.presence = if self.is_at_rest() { Presence::Left } else { Presence::Gone };
        }
    }

    /// Whether every request is answered and no transaction is open.
    pub fn is_at_rest(&self) -> bool {
        let between = self.client.is_between() && self.server.is_between();
        !self.lost && between && self.pending == 0 && !self.unsynced && self.transaction == Transaction::None
    }

    /// Whether the server has sent whole messages only, so that another one may be inserted.
    pub fn is_between_answers(&self) -> bool {
        !self.lost && self.server.is_between()
    }

    /// The settings that the server reported, each with its last value.
    pub fn into_settings(self) -> Vec<ParameterStatus> {
        self.settings
    }

    fn client_said(&mut self, tag: u8) {
        match tag {
            // Query, Sync, FunctionCall.
            b'Q' | b'S' | b'F' => {
                self.pending += 1;
                self.unsynced = false;
            }
            // CopyData, CopyDone, CopyFail: they belong to a request before them; outside of COPY
            // the server ignores them.
            b'd' | b'c' | b'f' => {}
            _ => self.unsynced = true,
        }
    }

    fn server_says(&mut self, tag: u8) {
        // Notices and notifications come at any time; an error or a result only after a request.
        let asked = self.pending > 0 || self.unsynced;
        self.lost |= !asked && !matches!(tag, b'N' | b'A');
    }

    fn answered(&mut self) {
        match self.pending.checked_sub(1) {
            Some(left) => self.pending = left,
            None => self.lost = true,
        }
    }

    fn set(&mut self) {
        let mut message = BytesMut::with_capacity(Header::SIZE + self.setting.len());
        message.extend_from_slice(b"S");
        let length = u32::try_from(self.setting.len() + 4).unwrap_or(u32::MAX);
        message.extend_from_slice(&length.to_be_bytes());
        message.unsplit(self.setting.split());
        match BackendMessage::decode(&mut message) {
            Ok(Some(BackendMessage::ParameterStatus(setting))) => keep(&mut self.settings, setting),
            _ => self.lost = true,
        }
    }
}

impl Filter for ProtocolTracker {
    fn rewrite(&mut self, bytes: &mut BytesMut) {
        if self.presence != Presence::Here {
            return;
        }
        if let Some(before) = self.client(bytes) {
            self.leave();
            if self.presence == Presence::Left {
                bytes.truncate(before);
            }
        }
    }

    fn see(&mut self, bytes: &[u8]) {
        self.server(bytes);
    }

    fn hang_up(&mut self) {
        self.leave();
    }

    fn stays(&self) -> bool {
        self.ended_idle()
    }
}

/// Replaces the setting of the same name, or adds it.
pub fn keep(settings: &mut Vec<ParameterStatus>, setting: ParameterStatus) {
    // A slice of a large buffer would keep all of that buffer in memory.
    let ParameterStatus { name, value } = setting;
    let setting =
        ParameterStatus { name: Bytes::copy_from_slice(&name), value: Bytes::copy_from_slice(&value) };
    match settings.iter_mut().find(|known| known.name == setting.name) {
        Some(known) => *known = setting,
        None => settings.push(setting),
    }
}

/// Splits a stream into messages without storing them.
#[derive(Debug, Default)]
struct Frames {
    header: [u8; Header::SIZE],
    /// Bytes of the header received so far.
    have: usize,
    /// Bytes of the body that are still to come, once the header is complete.
    left: usize,
}

/// The next part of a stream.
enum Step<'a> {
    /// A message of this type begins.
    Head(u8),
    /// Bytes of the body of a message of this type.
    Body(u8, &'a [u8]),
    /// A message of this type is complete.
    End(u8),
    Malformed,
}

impl Frames {
    fn is_between(&self) -> bool {
        self.have == 0
    }

    /// Reads the next part of `rest`; `None` when all of it was read.
    fn step<'a>(&mut self, rest: &mut &'a [u8]) -> Option<Step<'a>> {
        let [tag, ..] = self.header;
        if self.have == Header::SIZE {
            if self.left == 0 {
                self.have = 0;
                return Some(Step::End(tag));
            }
            let (part, after) = rest.split_at(self.left.min(rest.len()));
            *rest = after;
            self.left -= part.len();
            return (!part.is_empty()).then_some(Step::Body(tag, part));
        }
        let missing = &mut self.header[self.have..];
        let (part, after) = rest.split_at(missing.len().min(rest.len()));
        missing[..part.len()].copy_from_slice(part);
        *rest = after;
        self.have += part.len();
        match Header::peek(&self.header[..self.have]) {
            Ok(None) => None,
            Ok(Some(Header { tag, body })) => {
                self.left = body;
                Some(Step::Head(tag))
            }
            Err(_) => Some(Step::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const READY: &[u8] = b"Z\0\0\0\x05I";

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut message = vec![tag];
        message.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        message.extend_from_slice(body);
        message
    }

    /// One message of each type, without a body.
    fn bare(tags: &str) -> Vec<u8> {
        tags.bytes().flat_map(|tag| message(tag, b"")).collect()
    }

    /// The state after these client messages and then these server messages: `I`, `T` and `E` are
    /// ReadyForQuery with that status.
    fn after(client: &str, server: &str) -> ProtocolTracker {
        let mut tracker = ProtocolTracker::default();
        assert_eq!(tracker.client(&bare(client)), None);
        for tag in server.bytes() {
            match tag {
                b'I' | b'T' | b'E' => tracker.server(&message(b'Z', &[tag])),
                tag => tracker.server(&message(tag.to_ascii_uppercase(), b"")),
            }
        }
        tracker
    }

    #[test]
    fn rest_is_when_everything_is_answered_and_no_transaction_is_open() {
        for (about, client, server, rest) in [
            ("no message", "", "", true),
            ("a query", "Q", "cI", true),
            ("without its answer", "Q", "", false),
            ("half answered", "Q", "c", false),
            ("one of two is answered", "QQ", "cI", false),
            ("both are", "QQ", "cIcI", true),
            ("BEGIN", "Q", "cT", false),
            ("a failed transaction", "QQ", "cTeE", false),
            ("and its end", "QQQ", "cTeEcI", true),
            ("a batch", "PBDES", "12dcI", true),
            ("a batch without Sync", "PBDE", "12dc", false),
            ("Flush makes none", "PBDEH", "12dc", false),
            ("a batch behind a query", "QP", "cI1", false),
            ("COPY in", "Qddc", "gcI", true),
            ("that goes on", "Qdd", "g", false),
            ("CopyFail", "Qdf", "geI", true),
            ("data for a COPY that failed", "Qddc", "eI", true),
            ("a Sync that COPY swallowed", "PBESdcS", "gcI", false),
            ("FunctionCall", "F", "vI", true),
            ("an unknown message type", "!", "", false),
            ("notices at any time", "Q", "cIna", true),
            ("the server ends the session", "Q", "cIe", false),
            ("an answer to nothing", "", "c", false),
            ("ready without a request", "", "I", false),
            ("what was lost stays lost", "Q", "IIcI", false),
        ] {
            assert_eq!(after(client, server).is_at_rest(), rest, "{about}");
        }
    }

    #[test]
    fn after_a_message_that_makes_no_sense_nothing_is_taken_in() {
        let setting = message(b'S', b"a\0b\0");
        // A length that no message has, and an answer without a request.
        for nonsense in [&b"T\0\0\0\0"[..], &bare("C")] {
            let (mut whole, mut pieces) = (ProtocolTracker::default(), ProtocolTracker::default());
            let said = [nonsense, &setting, READY].concat();
            whole.server(&said);
            said.iter().for_each(|byte| pieces.server(&[*byte]));
            for tracker in [whole, pieces] {
                assert!(!tracker.is_at_rest() && !tracker.is_between_answers());
                assert!(tracker.into_settings().is_empty());
            }
        }
        let mut tracker = ProtocolTracker::default();
        assert_eq!(tracker.client(b"Q\0\0\0\0X"), None, "the server gets this Terminate");
    }

    #[test]
    fn a_half_message_is_no_rest() {
        for (client, server) in
            [(&b"Q\0\0"[..], &b""[..]), (b"d\0\0\0\x09ab", b""), (b"", b"N\0\0"), (b"", b"A")]
        {
            let mut tracker = ProtocolTracker::default();
            assert_eq!(tracker.client(client), None);
            tracker.server(server);
            assert!(!tracker.is_at_rest(), "{client:?} {server:?}");
        }
    }

    #[test]
    fn a_length_that_cannot_be_is_no_rest() {
        let mut tracker = ProtocolTracker::default();
        assert_eq!(tracker.client(b"Q\0\0\0\x03"), None);
        assert!(!tracker.is_at_rest());
        let mut tracker = ProtocolTracker::default();
        tracker.server(b"N\0\0\0\0");
        assert!(!tracker.is_at_rest());
    }

    #[test]
    fn terminate_is_cut_off_and_nothing_behind_it_is_read() {
        for (sent, before) in [(&b"X"[..], 0), (b"X\0\0\0\x04", 0), (b"S\0\0\0\x04X\0\0\0\x04Q", 5)] {
            let mut tracker = ProtocolTracker::default();
            assert_eq!(tracker.client(sent), Some(before));
            assert_eq!(tracker.is_at_rest(), before == 0);
        }
        // Inside of a message the byte X has no meaning.
        let mut tracker = ProtocolTracker::default();
        assert_eq!(tracker.client(&message(b'Q', b"X\0X")), None);
    }

    #[test]
    fn a_client_leaves_a_session_at_rest_or_ends_it() {
        for (about, first, answers, last, sent, stays) in [
            ("Terminate", "Q", "cI", "X", "", true),
            ("Terminate, and more behind it", "Q", "cI", "XQ", "", true),
            ("in a transaction", "Q", "cT", "X", "X", false),
            ("behind a query", "", "", "QX", "QX", false),
            ("before the answer", "Q", "", "X", "X", false),
        ] {
            let mut tracker = after(first, answers);
            let mut bytes = BytesMut::from(&bare(last)[..]);
            tracker.rewrite(&mut bytes);
            assert_eq!(bytes, bare(sent), "{about}");
            assert_eq!(tracker.stays(), stays, "{about}");
            // Later messages of the server change nothing.
            tracker.see(&[&message(b'C', b""), READY].concat());
            assert_eq!(tracker.ended_idle(), stays, "{about}");
        }
        for (client, server, stays) in [("Q", "cI", true), ("Q", "cT", false), ("Q", "", false)] {
            let mut tracker = after(client, server);
            tracker.hang_up();
            assert_eq!(tracker.stays(), stays);
        }
    }

    #[test]
    fn settings_are_kept_with_their_last_value() {
        let mut tracker = ProtocolTracker::default();
        for value in ["UTC", "Europe/Paris"] {
            let body = format!("TimeZone\0{value}\0");
            for byte in message(b'S', body.as_bytes()) {
                tracker.server(&[byte]);
            }
        }
        assert!(tracker.is_at_rest());
        let settings = tracker.into_settings();
        assert_eq!(settings.len(), 1);
        assert_eq!((&*settings[0].name, &*settings[0].value), (&b"TimeZone"[..], &b"Europe/Paris"[..]));

        let mut tracker = ProtocolTracker::default();
        tracker.server(&message(b'S', b"no value"));
        assert!(!tracker.is_at_rest());
        let mut tracker = ProtocolTracker::default();
        tracker.server(&message(b'S', &[b'x'; limits::BACKEND_MESSAGE + 1]));
        assert!(!tracker.is_at_rest());
    }

    proptest! {
        /// The result does not depend on how a stream is cut into pieces.
        #[test]
        fn pieces_do_not_matter(tags in proptest::collection::vec((0..9_usize, 0..40_usize), 0..30), piece in 1..64_usize) {
            let (mut client, mut server) = (Vec::new(), Vec::new());
            for (tag, body) in tags {
                client.extend(message(b"QSFdcPBDE"[tag], &vec![b'X'; body]));
                match b"CTDZ1ZNAE"[tag] {
                    b'Z' => server.extend_from_slice(READY),
                    tag => server.extend(message(tag, &vec![b'X'; body])),
                }
            }
            let (mut whole, mut pieces) = (ProtocolTracker::default(), ProtocolTracker::default());
            whole.client(&client);
            whole.server(&server);
            client.chunks(piece).for_each(|bytes| assert_eq!(pieces.client(bytes), None));
            server.chunks(piece).for_each(|bytes| pieces.server(bytes));
            prop_assert_eq!(format!("{whole:?}"), format!("{pieces:?}"));
        }

        #[test]
        fn no_bytes_do_harm(client: Vec<u8>, server: Vec<u8>) {
            let mut tracker = ProtocolTracker::default();
            let before = tracker.client(&client);
            prop_assert!(before.is_none_or(|before| before <= client.len()));
            tracker.server(&server);
        }
    }
}

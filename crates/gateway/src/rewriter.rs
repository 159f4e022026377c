//! Rewrites statements of a client on the way to the server.

use bytes::{BufMut, BytesMut};
use pgentra_session::relay::Filter;
use pgentra_wire::frame::Header;

/// Longest message that is rewritten, in bytes without its header. Only messages of the simple and
/// extended protocol that carry a statement are held until they are complete; a longer one is
/// forwarded unchanged.
pub(crate) const LONGEST: usize = 16 * 1024;

/// Rewrites the statements in a client's messages. Starts when the session is ready.
pub(crate) struct StatementRewriter {
    /// The statements to send; `None`: those that were received. They have to grow by less than
    /// [`LONGEST`] times three.
    rewrite: fn(&[u8]) -> Option<Vec<u8>>,
    /// Bytes of the current message that are forwarded unchanged.
    passing: usize,
    /// The beginning of a message that is not complete yet.
    held: BytesMut,
}

impl StatementRewriter {
    pub(crate) fn new(rewrite: fn(&[u8]) -> Option<Vec<u8>>) -> Self {
        Self { rewrite, passing: 0, held: BytesMut::new() }
    }

    fn put(&self, tag: u8, message: &[u8], out: &mut BytesMut) {
        let body = &message[Header::SIZE..];
        // A Parse has the name of the statement first.
        let name = match tag {
            b'P' => body.iter().position(|byte| *byte == 0).map_or(0, |end| end + 1),
            _ => 0,
        };
        let (name, rest) = body.split_at(name);
        let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
        let (sql, tail) = rest.split_at(end);
        let Some(rewritten) = (self.rewrite)(sql) else {
            out.extend_from_slice(message);
            return;
        };
        let length = name.len() + rewritten.len() + tail.len() + 4;
        out.put_u8(tag);
        out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        for part in [name, &rewritten, tail] {
            out.put_slice(part);
        }
    }
}

impl Filter for StatementRewriter {
    fn rewrite(&mut self, bytes: &mut BytesMut) {
        if self.held.is_empty() && self.passing >= bytes.len() {
            self.passing -= bytes.len();
            return;
        }
        let mut received = bytes.split();
        if !self.held.is_empty() {
            self.held.extend_from_slice(&received);
            received = std::mem::take(&mut self.held);
        }
        let mut out = BytesMut::with_capacity(received.len());
        loop {
            let now = self.passing.min(received.len());
            out.extend_from_slice(&received.split_to(now));
            self.passing -= now;
            if received.is_empty() {
                break;
            }
            match Header::peek(&received) {
                // Not the protocol: the bytes are forwarded, and the server reports the error.
                Err(_) => self.passing = usize::MAX,
                Ok(None) => break,
                Ok(Some(header)) if !carries_statement(header) => self.passing = Header::SIZE + header.body,
                Ok(Some(header)) if received.len() < Header::SIZE + header.body => break,
                Ok(Some(header)) => {
                    let message = received.split_to(Header::SIZE + header.body);
                    self.put(header.tag, &message, &mut out);
                }
            }
        }
        self.held = received;
        *bytes = out;
    }
}

/// Whether the message is a Query or a Parse.
fn carries_statement(header: Header) -> bool {
    matches!(header.tag, b'Q' | b'P') && header.body <= LONGEST
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::setting::rename;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut message = vec![tag];
        message.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        message.extend(body);
        message
    }

    fn query(sql: &str) -> Vec<u8> {
        message(b'Q', format!("{sql}\0").as_bytes())
    }

    fn through(bytes: &[u8], pieces: &[usize]) -> Vec<u8> {
        let (mut renamer, mut out, mut rest, mut next) =
            (StatementRewriter::new(rename), Vec::new(), bytes, pieces.iter().cycle());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at((*next.next().unwrap()).min(rest.len()));
            rest = after;
            let mut buf = BytesMut::from(piece);
            renamer.rewrite(&mut buf);
            out.extend_from_slice(&buf);
        }
        out
    }

    #[test]
    fn only_the_name_of_the_setting_is_changed() {
        for (typed, known) in [
            ("SET aad_validate_oids_in_tenant = off;", "SET pgentra.aad_validate_oids_in_tenant = off;"),
            ("set AAD_Validate_Oids_In_Tenant to on", "set pgentra.aad_validate_oids_in_tenant to on"),
            (
                "SET LOCAL aad_validate_oids_in_tenant=off",
                "SET LOCAL pgentra.aad_validate_oids_in_tenant=off",
            ),
            (
                "SET SESSION aad_validate_oids_in_tenant=off",
                "SET SESSION pgentra.aad_validate_oids_in_tenant=off",
            ),
            ("SHOW aad_validate_oids_in_tenant", "SHOW pgentra.aad_validate_oids_in_tenant"),
            (
                "/* ; */ RESET -- x\n aad_validate_oids_in_tenant;",
                "/* ; */ RESET -- x\n pgentra.aad_validate_oids_in_tenant;",
            ),
            (
                "SET aad_validate_oids_in_tenant = off; CREATE ROLE a PASSWORD 'b' IN ROLE azure_ad_user; RESET aad_validate_oids_in_tenant",
                "SET pgentra.aad_validate_oids_in_tenant = off; CREATE ROLE a PASSWORD 'b' IN ROLE azure_ad_user; RESET pgentra.aad_validate_oids_in_tenant",
            ),
        ] {
            assert_eq!(through(&query(typed), &[7]), query(known), "{typed}");
            let parse = |sql: &str| message(b'P', format!("name\0{sql}\0\0\x01\0\0\0\x17").as_bytes());
            assert_eq!(through(&parse(typed), &[1]), parse(known), "{typed}");
        }
    }

    #[test]
    fn what_only_looks_like_it_is_left_alone() {
        for sql in [
            "SELECT aad_validate_oids_in_tenant FROM t",
            "SELECT 'SET aad_validate_oids_in_tenant = off'",
            "SELECT $$; SET aad_validate_oids_in_tenant = off$$",
            "SELECT 1 -- ; SET aad_validate_oids_in_tenant = off",
            "/* SET */ aad_validate_oids_in_tenant",
            "SET \"aad_validate_oids_in_tenant\" = off",
            "SET pgentra.aad_validate_oids_in_tenant = off",
            "SET aad_validate_oids_in_tenant.x = off",
            "SET x = aad_validate_oids_in_tenant",
            "SET xaad_validate_oids_in_tenant = off",
            "ALTER ROLE x SET aad_validate_oids_in_tenant = off",
        ] {
            assert_eq!(through(&query(sql), &[5]), query(sql), "{sql}");
        }
    }

    #[test]
    fn other_messages_and_long_ones_pass() {
        let copy = message(b'd', b"SET aad_validate_oids_in_tenant = off\0");
        let long = query(&format!("SET aad_validate_oids_in_tenant = off; -- {}", "x".repeat(LONGEST)));
        let bytes = [copy, long].concat();
        assert_eq!(through(&bytes, &[1000]), bytes);
    }

    #[test]
    fn what_is_not_the_protocol_passes() {
        let bytes = [b"Q\0\0\0\x03".to_vec(), query("SET aad_validate_oids_in_tenant = off")].concat();
        assert_eq!(through(&bytes, &[3]), bytes);
    }

    fn any_message() -> impl Strategy<Value = Vec<u8>> {
        let tag = proptest::sample::select(b"QPdBEX".to_vec());
        let sql = proptest::sample::select(vec![
            "SET aad_validate_oids_in_tenant = off",
            "SHOW aad_validate_oids_in_tenant; SELECT 'aad_validate_oids_in_tenant'",
            "SELECT 1",
            "",
        ]);
        (tag, vec(any::<u8>(), 0..30), sql, vec(any::<u8>(), 0..30)).prop_map(|(tag, before, sql, after)| {
            message(tag, &[&before, sql.as_bytes(), b"\0", &after].concat())
        })
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(messages in vec(any_message(), 1..6), pieces in vec(1_usize..50, 1..8)) {
            let bytes = messages.concat();
            prop_assert_eq!(through(&bytes, &pieces), through(&bytes, &[bytes.len()]));
        }

        #[test]
        fn a_message_stays_a_message(messages in vec(any_message(), 1..6)) {
            let out = through(&messages.concat(), &[64]);
            let (mut rest, mut count) = (&out[..], 0);
            while let Some(header) = Header::peek(rest).unwrap() {
                prop_assert_eq!(header.tag, messages[count][0]);
                rest = &rest[Header::SIZE + header.body..];
                count += 1;
            }
            prop_assert_eq!(count, messages.len());
        }

        #[test]
        fn what_does_not_name_the_setting_passes_as_it_is(bytes in vec(any::<u8>(), 1..200), pieces in vec(1_usize..50, 1..8)) {
            let out = through(&bytes, &pieces);
            prop_assert_eq!(&out[..], &bytes[..out.len()]);
        }
    }
}

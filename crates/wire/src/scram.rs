//! The client's messages of the SASL mechanism SCRAM-SHA-256 (RFC 5802 section 7, RFC 7677), as PostgreSQL's
//! server reads it.
//!
//! The user name in the first message is not read: PostgreSQL takes that of the start-up packet, and libpq sends an empty
//! one. Extensions that a client may add are skipped, and the one that a server must not skip (`m=`) is refused.

use std::fmt;

use crate::WireError;

/// The name of the mechanism.
pub const MECHANISM: &str = "SCRAM-SHA-256";

/// The name of the mechanism where the exchange is bound to the TLS channel.
pub const MECHANISM_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// The client's flag for channel binding to TLS (`gs2-cbind-flag`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelBinding<'a> {
    /// `n`: the client does not support channel binding.
    Unsupported,
    /// `y`: the client supports it, and the server's list had no `-PLUS` mechanism. A server that offered one has to
    /// refuse: an attacker on the network removed it from the list.
    NotOffered,
    /// `p=`: the client uses this type of channel binding.
    Used(&'a str),
}

/// The client's first message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientFirst<'a> {
    /// The channel binding flag of the message.
    pub channel_binding: ChannelBinding<'a>,
    /// The part in front, which is repeated in base64 in the last message, before the binding's data.
    pub header: &'a str,
    /// The rest (`client-first-message-bare`): the first part of the AuthMessage.
    pub bare: &'a str,
    /// The client's part of the nonce, printable ASCII without commas.
    pub nonce: &'a str,
}

impl<'a> ClientFirst<'a> {
    /// Reads the message.
    ///
    /// # Errors
    /// What PostgreSQL refuses too: an authorization identity, a mandatory extension, an empty nonce or one with
    /// unprintable characters, anything malformed.
    pub fn decode(data: &'a [u8]) -> Result<Self, WireError> {
        let text = printable(data)?;
        let (flag, rest) = text.split_once(',').ok_or_else(malformed)?;
        let channel_binding = match (flag, flag.split_once('=')) {
            ("n", _) => ChannelBinding::Unsupported,
            ("y", _) => ChannelBinding::NotOffered,
            (_, Some(("p", name))) if !name.is_empty() => ChannelBinding::Used(name),
            _ => return Err(malformed()),
        };
        let (identity, bare) = rest.split_once(',').ok_or_else(malformed)?;
        if !identity.is_empty() {
            return Err(WireError::Malformed("SCRAM with an authorization identity is not supported"));
        }
        if bare.starts_with("m=") {
            return Err(WireError::Malformed("the client requires a SCRAM extension that is not supported"));
        }
        let mut attributes = bare.split(',');
        attributes.next().and_then(|name| name.strip_prefix("n=")).ok_or_else(malformed)?;
        let nonce = attributes.next().and_then(|nonce| nonce.strip_prefix("r=")).ok_or_else(malformed)?;
        // as `is_scram_printable` of PostgreSQL: the characters of RFC 5802's `printable` and no others
        if nonce.is_empty()
            || !nonce.bytes().all(|byte| byte.is_ascii_graphic())
            || !attributes.all(is_attribute)
        {
            return Err(malformed());
        }
        Ok(Self { channel_binding, header: &text[..text.len() - bare.len()], bare, nonce })
    }
}

/// The client's last message. Its `Debug` form does not show the proof.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ClientFinal<'a> {
    /// The header of the first message and the data of the channel binding, in base64.
    pub channel_binding: &'a str,
    /// The random characters of both sides.
    pub nonce: &'a str,
    /// Everything before the proof (`client-final-message-without-proof`): the last part of the AuthMessage.
    pub without_proof: &'a str,
    /// That the client knows the password, in base64.
    pub proof: &'a str,
}

impl<'a> ClientFinal<'a> {
    /// Reads the message.
    ///
    /// # Errors
    /// Anything malformed.
    pub fn decode(data: &'a [u8]) -> Result<Self, WireError> {
        let text = printable(data)?;
        let (without_proof, proof) = text.rsplit_once(',').ok_or_else(malformed)?;
        let proof = proof.strip_prefix("p=").ok_or_else(malformed)?;
        let mut attributes = without_proof.split(',');
        let channel_binding = attributes.next().and_then(|it| it.strip_prefix("c=")).ok_or_else(malformed)?;
        let nonce = attributes.next().and_then(|it| it.strip_prefix("r=")).ok_or_else(malformed)?;
        // A proof comes once, and last.
        if !attributes.all(|attribute| is_attribute(attribute) && !attribute.starts_with("p=")) {
            return Err(malformed());
        }
        Ok(Self { channel_binding, nonce, without_proof, proof })
    }
}

impl fmt::Debug for ClientFinal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientFinal")
            .field("channel_binding", &self.channel_binding)
            .field("nonce", &self.nonce)
            .finish_non_exhaustive()
    }
}

/// A text without control characters. A user name may be any UTF-8; all else is ASCII, which its reader compares.
fn printable(data: &[u8]) -> Result<&str, WireError> {
    let text = std::str::from_utf8(data).map_err(|_| malformed())?;
    if text.chars().any(char::is_control) { Err(malformed()) } else { Ok(text) }
}

/// One letter, `=`, and a value.
fn is_attribute(text: &str) -> bool {
    matches!(text.as_bytes(), [letter, b'=', ..] if letter.is_ascii_alphabetic())
}

fn malformed() -> WireError {
    WireError::Malformed("malformed SCRAM message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_messages() {
        for (text, channel_binding, header, nonce) in [
            ("n,,n=user,r=rOprNGfwEbeRWgbNEkqO", ChannelBinding::Unsupported, "n,,", "rOprNGfwEbeRWgbNEkqO"),
            ("y,,n=,r=abc", ChannelBinding::NotOffered, "y,,", "abc"),
            (
                "p=tls-server-end-point,,n=*,r=a=b,x=later",
                ChannelBinding::Used("tls-server-end-point"),
                "p=tls-server-end-point,,",
                "a=b",
            ),
        ] {
            let read = ClientFirst::decode(text.as_bytes()).unwrap();
            let bare = &text[header.len()..];
            assert_eq!(read, ClientFirst { channel_binding, header, bare, nonce }, "{text}");
        }
        for bad in [
            "",
            "n",
            "n,",
            "n,,",
            "x,,n=,r=a",
            "n=,,n=,r=a",
            "p=,,n=,r=a",
            "p,,n=,r=a",
            "n,,r=a",
            "n,,n=,r=",
            "n,,n=",
            "n,,n=,c=a",
            "n,,n=,r=a,",
            "n,,n=,r=a,??",
            "n,,n=,r=a\n",
            "n,,n=,r=\u{7f}",
            "n,,n=,r=a b",
            "n,,n=,r=\u{e9}",
        ] {
            assert_eq!(ClientFirst::decode(bad.as_bytes()), Err(malformed()), "{bad:?}");
        }
        for (bad, why) in
            [("n,a=other,n=,r=a", "authorization identity"), ("n,,m=x,n=,r=a", "extension that is not")]
        {
            assert!(ClientFirst::decode(bad.as_bytes()).unwrap_err().to_string().contains(why));
        }
        assert!(ClientFirst::decode(b"n,,n=\xff,r=a").is_err());
    }

    #[test]
    fn last_messages() {
        let text = "c=biws,r=ab,x=later,p=cHJvb2Y=";
        let read = ClientFinal::decode(text.as_bytes()).unwrap();
        let without_proof = "c=biws,r=ab,x=later";
        assert_eq!(
            read,
            ClientFinal { channel_binding: "biws", nonce: "ab", without_proof, proof: "cHJvb2Y=" }
        );
        assert!(!format!("{read:?}").contains("cHJvb2Y"));
        for bad in [
            "",
            "p=a",
            "c=a,p=a",
            "r=a,c=a,p=a",
            "c=a,r=b",
            "c=a,r=b,p=a,x=b",
            "c=a,r=b,,p=a",
            "c=a,r=b,p=c,p=d",
        ] {
            assert!(ClientFinal::decode(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}

use std::fmt;

/// Bytes that are not the protocol, or a value that has no place in it.
///
/// It names what was read and never repeats received bytes, so it can be logged: a password may be among them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WireError {
    /// A length word above the limit, or below what the message needs at least.
    Length {
        /// The message that was being read or written.
        what: &'static str,
        /// The length as the peer stated it, or of the value to write.
        length: usize,
        /// The limit that it broke; see [`crate::limits`].
        limit: usize,
    },
    /// A message whose inside does not follow the protocol; says what is wrong.
    Malformed(&'static str),
    /// A message that has no place in this part of the conversation.
    Unexpected {
        /// The type byte of the message.
        tag: u8,
    },
    /// A NUL byte inside a text that the protocol ends with a NUL byte.
    Nul(&'static str),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { what, length, limit } if length > limit => {
                write!(f, "{what} of {length} bytes is longer than {limit}")
            }
            Self::Length { what, length, limit } => {
                write!(f, "{what} of {length} bytes is shorter than {limit}")
            }
            Self::Malformed(what) => f.write_str(what),
            Self::Unexpected { tag } if tag.is_ascii_graphic() => {
                write!(f, "unexpected message type \"{}\"", char::from(*tag))
            }
            Self::Unexpected { tag } => write!(f, "unexpected message type 0x{tag:02x}"),
            Self::Nul(what) => write!(f, "{what} contains a NUL byte"),
        }
    }
}

impl std::error::Error for WireError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_says_what_is_wrong() {
        for (error, text) in [
            (
                WireError::Length { what: "start-up packet", length: 10_001, limit: 10_000 },
                "start-up packet of 10001 bytes is longer than 10000",
            ),
            (
                WireError::Length { what: "cancel key", length: 3, limit: 4 },
                "cancel key of 3 bytes is shorter than 4",
            ),
            (WireError::Malformed("no final NUL"), "no final NUL"),
            (WireError::Unexpected { tag: b'Q' }, "unexpected message type \"Q\""),
            (WireError::Unexpected { tag: 0 }, "unexpected message type 0x00"),
            (WireError::Nul("user name"), "user name contains a NUL byte"),
        ] {
            assert_eq!(error.to_string(), text);
        }
    }
}

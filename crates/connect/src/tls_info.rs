//! The TLS version and cipher suite of a connection.

use std::fmt;

use rustls::{CommonState, HandshakeKind};

/// What TLS was agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsInfo {
    version: String,
    cipher: String,
    resumed: bool,
}

impl TlsInfo {
    /// The version, such as `TLSv1.3`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The cipher suite, such as `TLS13_AES_256_GCM_SHA384`.
    pub fn cipher(&self) -> &str {
        &self.cipher
    }

    /// Whether an earlier TLS session was resumed, which saves the server's signature.
    pub fn resumed(&self) -> bool {
        self.resumed
    }

    pub(crate) fn of(connection: &CommonState) -> TlsInfo {
        let version = connection.protocol_version().and_then(|version| version.as_str());
        let cipher = connection.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
        TlsInfo {
            version: version.unwrap_or("unknown").replace('_', "."),
            cipher: cipher.unwrap_or("unknown").to_owned(),
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }
}

impl fmt::Display for TlsInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.version, self.cipher, if self.resumed { ", resumed" } else { "" })
    }
}

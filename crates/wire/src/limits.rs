//! Every limit of this crate, each with its reason.

/// Longest body of a first packet, its length word not counted: `MAX_STARTUP_PACKET_LENGTH` of PostgreSQL.
pub const STARTUP_PACKET: usize = 10_000;

/// Longest authentication message of a client, its length word counted: `PG_MAX_AUTH_TOKEN_LENGTH` of PostgreSQL.
///
/// Sized there for tickets and tokens of several kilobytes. See [`PASSWORD`] for what fits in it.
pub const AUTH_MESSAGE: usize = 65_535;

/// Longest password, and so the longest token, that fits into [`AUTH_MESSAGE`]: four bytes are its length word,
/// one is the final NUL.
pub const PASSWORD: usize = AUTH_MESSAGE - 5;

/// Longest token that fits into an OAUTHBEARER message within [`AUTH_MESSAGE`]: beside the token there are four bytes of
/// the length word, twelve of the mechanism's name, four of the length of the data, and eighteen of RFC 7628's frame.
pub const BEARER_TOKEN: usize = AUTH_MESSAGE - 38;

/// Longest message of a server before the first ReadyForQuery, its length word counted.
///
/// libpq gives up at 30,000 bytes there; we leave room for translated errors and are still far from harm.
pub const BACKEND_MESSAGE: usize = 65_535;

/// Shortest cancel key: the only length of protocol 3.0.
pub const MIN_CANCEL_KEY: usize = 4;

/// Longest cancel key of protocol 3.2 (PostgreSQL: "the maximum key length is 256 bytes").
pub const MAX_CANCEL_KEY: usize = 256;

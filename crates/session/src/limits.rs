//! The limits of one listener.

use std::time::Duration;

/// What one listener takes on. Every number has a default that suits a small server.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Sessions at the same time; a further client is refused with SQLSTATE 53300. Default 100, as PostgreSQL's
    /// `max_connections`.
    pub connections: usize,
    /// Clients that are asked what they want and who they are at the same time, for each listener; and connections to the
    /// server that are opened at the same time. A further client waits for its turn. Default 256: each holds less than 100 KiB.
    pub starting: usize,
    /// Connections of which nothing was received yet, or that wait for their turn, for each listener. When there is one more,
    /// the oldest of the address with the most is closed. Default 16384: each holds some kilobytes and a file handle.
    pub waiting: usize,
    /// Time from the connection to the end of the client's first packet: its start-up packet, or its request for TLS. Afterwards
    /// it is told SQLSTATE 57014. Default 10 seconds; never more than `start_up`.
    pub first_packet: Duration,
    /// Time from the connection to the session, in which TLS, start-up, token and the upstream's own start-up have to
    /// fit; afterwards the client is told SQLSTATE 57014. Default 60 seconds, as PostgreSQL's
    /// `authentication_timeout`.
    pub start_up: Duration,
    /// Time that sessions are given to end by themselves at a shutdown, before their server processes are terminated
    /// (SQLSTATE 57P01). Default 5 seconds.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 100,
            starting: 256,
            waiting: 16_384,
            first_packet: Duration::from_secs(10),
            start_up: Duration::from_secs(60),
            drain: Duration::from_secs(5),
        }
    }
}

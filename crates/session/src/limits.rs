//! The limits of one listener.

use std::time::Duration;

use tokio::time::Instant;

/// The limits of one listener. Every number has a default that suits a small server.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Sessions at the same time; a further client is refused with SQLSTATE 53300. Default 100, as PostgreSQL's
    /// `max_connections`.
    pub connections: usize,
    /// Clients in start-up and authentication at the same time, for each listener; also the
    /// connections to the server that are opened at the same time. A further client waits. Default
    /// 256: each takes less than 100 KiB.
    pub starting: usize,
    /// Connections that have sent nothing yet or wait for start-up, for each listener. When there
    /// is one more, the oldest of the address with the most is closed. Default 16384: each takes
    /// some kilobytes and a file handle.
    pub waiting: usize,
    /// Time from the connection to the end of the client's first packet: its start-up packet, or
    /// its request for TLS. Afterwards the client gets SQLSTATE 57014. Default 10 seconds; never
    /// more than `start_up`.
    pub first_packet: Duration,
    /// Time from the connection to the session: TLS, start-up, token and the upstream's own
    /// start-up. Afterwards the client gets SQLSTATE 57014. Default 60 seconds, as PostgreSQL's
    /// `authentication_timeout`.
    pub start_up: Duration,
    /// Time that sessions have to end by themselves at a shutdown, before their server processes
    /// are terminated (SQLSTATE 57P01). Default 5 seconds.
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

impl Limits {
    /// When the first packet of a client must be there that connects now.
    pub fn first_packet_deadline(&self) -> Instant {
        Instant::now() + self.first_packet.min(self.start_up)
    }
}

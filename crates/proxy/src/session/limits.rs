use std::time::Duration;

/// What one listener takes on. Every number has a default that suits a small server.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Sessions at the same time; a further client is refused with SQLSTATE 53300. Default 100, as PostgreSQL's
    /// `max_connections`.
    pub connections: usize,
    /// Connections that have not become sessions yet; a further one waits in the listener's queue. Default 256: each
    /// holds less than 100 KiB, and a flood of silent ones is cleared away by `start_up`.
    pub starting: usize,
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
            start_up: Duration::from_secs(60),
            drain: Duration::from_secs(5),
        }
    }
}

use std::time::Duration;

/// How long the parts of a start took.
#[derive(Debug, Clone, Copy, Default)]
pub struct StartTimings {
    /// Making the folder and, where the server is the embedded one, unpacking it.
    pub unpack: Duration,
    /// The run of `initdb`, which creates the cluster.
    pub initdb: Duration,
    /// From the start of the server until it took connections.
    pub start: Duration,
}

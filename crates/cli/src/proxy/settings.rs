//! What is set, with its defaults.

use std::time::Duration;

use super::place::Place;
use crate::arguments::Identity;

/// What holds for the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) drain_timeout: Duration,
    pub(crate) danger_listen_beyond_loopback: bool,
}

/// What holds for a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Its own listeners; empty: the process-wide ones are shared out.
    pub(crate) listen: Vec<Place>,
    pub(crate) pin: bool,
    pub(crate) max_connections: usize,
    pub(crate) start_up_timeout: Duration,
    pub(crate) identity: Identity,
}

impl Default for Process {
    fn default() -> Self {
        Self { drain_timeout: Duration::from_secs(5), danger_listen_beyond_loopback: false }
    }
}

impl Default for Target {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            pin: false,
            max_connections: 100,
            start_up_timeout: Duration::from_secs(60),
            identity: Identity::default(),
        }
    }
}

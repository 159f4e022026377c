//! Periodic messages.

use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

/// The next time of a periodic message, if there is a service manager.
pub(crate) struct Beat(Option<Interval>);

impl Beat {
    /// `None`: it never comes.
    pub(crate) fn every(period: Option<Duration>) -> Self {
        Self(period.map(|period| {
            let mut interval = interval(period);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        }))
    }

    /// Waits for the next time. Cancel-safe.
    pub(crate) async fn next(&mut self) {
        match &mut self.0 {
            Some(interval) => {
                interval.tick().await;
            }
            None => std::future::pending().await,
        }
    }
}

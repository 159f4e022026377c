//! What can go wrong on the way to a token, on demand.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::endpoint::Endpoint;

/// A fault in one response.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// This response instead of the regular one.
    Answer {
        /// HTTP status code; one outside 100..=999 becomes 500.
        status: u16,
        /// Headers, among them the content type.
        headers: Vec<(String, String)>,
        /// The body, sent as it is.
        body: String,
    },
    /// The right answer, after this long on tokio's clock.
    Slow(Duration),
    /// No answer at all; the connection stays open until one side closes it.
    Hang,
    /// The right answer, cut off after this many bytes of it, status line and headers included.
    Cut {
        /// How many bytes still arrive.
        after: usize,
    },
    /// The right status and headers, and the first half of the body: no valid JSON.
    Malformed,
    /// The right status, and a JSON body whose token never seems to end.
    HugeBody {
        /// Length of the body in bytes; it is generated as it is sent, not held in memory.
        bytes: u64,
    },
    /// The regular response with a validly signed token of at least this size.
    HugeToken {
        /// Least length of the token in bytes.
        bytes: usize,
    },
    /// The token is minted by a clock this far ahead.
    ClockAhead(Duration),
    /// The token is minted by a clock this far behind.
    ClockBehind(Duration),
    /// The tenant rolls its signing key over before it answers.
    RollOver,
    /// Numbers arrive as text and text that is a number arrives as a number.
    WrongTypes,
    /// The token that was last given out here comes again, even if it has expired.
    SameToken,
    /// Lifetime of the token.
    ShortLife(Duration),
}

impl Fault {
    /// An answer with this status and this JSON text.
    pub fn status(status: u16, body: impl Into<String>) -> Self {
        let headers = vec![("Content-Type".to_owned(), "application/json; charset=utf-8".to_owned())];
        Self::Answer { status, headers, body: body.into() }
    }

    /// 429 with `Retry-After` in whole seconds, as the metadata service answers above its limit of 20 requests a
    /// second.
    pub fn throttled(retry_after: Duration) -> Self {
        let headers = vec![
            ("Content-Type".to_owned(), "application/json; charset=utf-8".to_owned()),
            ("Retry-After".to_owned(), retry_after.as_secs().to_string()),
        ];
        let body = r#"{"error":"too_many_requests","error_description":"Too many requests"}"#.to_owned();
        Self::Answer { status: 429, headers, body }
    }

    /// 410: the metadata service is restarting and will be back within 70 seconds
    /// (Microsoft: how-to-use-vm-token, "Error handling").
    pub fn gone() -> Self {
        Self::status(410, r#"{"error":"gone","error_description":"IMDS is being updated"}"#)
    }

    /// A response with status 302 and the header `Location`.
    pub fn redirect(to: impl Into<String>) -> Self {
        Self::Answer { status: 302, headers: vec![("Location".to_owned(), to.into())], body: String::new() }
    }

    /// 200 with the HTML log-in page of a captive portal.
    pub fn captive_portal() -> Self {
        let headers = vec![("Content-Type".to_owned(), "text/html; charset=utf-8".to_owned())];
        let body = "<!DOCTYPE html>\n<html><head><title>Welcome</title></head>\
                    <body><h1>Sign in to the network</h1></body></html>\n";
        Self::Answer { status: 200, headers, body: body.to_owned() }
    }

    /// 403 with the text of Docker Desktop's network, which answers for unassigned addresses.
    pub fn unreachable() -> Self {
        let headers = vec![("Content-Type".to_owned(), "text/plain; charset=utf-8".to_owned())];
        let body = "connecting to 169.254.169.254:80: connecting to 169.254.169.254:80: dial tcp 169.254.169.254:80: \
                    connectex: A socket operation was attempted to an unreachable network.";
        Self::Answer { status: 403, headers, body: body.to_owned() }
    }
}

/// A fault that requests will suffer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ActiveFault {
    /// The endpoint that it is for; `None`: any.
    pub endpoint: Option<Endpoint>,
    /// What goes wrong.
    pub fault: Fault,
    /// How many more requests suffer it; `None`: all of them.
    pub left: Option<usize>,
}

/// The queue of faults, in the order in which they were pushed.
///
/// Each request takes the first fault for its endpoint out of the queue. A lasting fault is used when the queue has none
/// for the endpoint.
#[derive(Debug, Default)]
pub struct Faults(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    once: VecDeque<(Option<Endpoint>, Fault)>,
    lasting: Vec<(Option<Endpoint>, Fault)>,
}

impl Faults {
    /// The next request suffers `fault`: at `endpoint`, or anywhere if that is `None`.
    pub fn push(&self, endpoint: impl Into<Option<Endpoint>>, fault: Fault) {
        self.queue().once.push_back((endpoint.into(), fault));
    }

    /// Every request from now on suffers `fault`, until [`Faults::clear`].
    pub fn push_lasting(&self, endpoint: impl Into<Option<Endpoint>>, fault: Fault) {
        self.queue().lasting.push((endpoint.into(), fault));
    }

    /// The faults that have not happened yet, in their order, and then the lasting ones. Equal ones are one entry.
    pub fn active(&self) -> Vec<ActiveFault> {
        let queue = self.queue();
        let mut active: Vec<ActiveFault> = Vec::new();
        for (endpoint, fault) in &queue.once {
            match active.iter_mut().find(|it| it.endpoint == *endpoint && it.fault == *fault) {
                Some(same) => same.left = same.left.map(|left| left + 1),
                None => {
                    let (endpoint, fault) = (*endpoint, fault.clone());
                    active.push(ActiveFault { endpoint, fault, left: Some(1) });
                }
            }
        }
        let lasting = queue.lasting.iter().cloned();
        active.extend(lasting.map(|(endpoint, fault)| ActiveFault { endpoint, fault, left: None }));
        active
    }

    /// Removes every fault of this kind for this endpoint, also a lasting one.
    pub fn remove(&self, endpoint: Option<Endpoint>, fault: &Fault) {
        let is_other = |it: &(Option<Endpoint>, Fault)| it.0 != endpoint || it.1 != *fault;
        let mut queue = self.queue();
        queue.once.retain(is_other);
        queue.lasting.retain(is_other);
    }

    /// Removes all faults, also the lasting ones.
    pub fn clear(&self) {
        *self.queue() = Queue::default();
    }

    /// How many pushed faults have not happened yet; lasting ones do not count.
    pub fn pending(&self) -> usize {
        self.queue().once.len()
    }

    pub(crate) fn take(&self, endpoint: Endpoint) -> Option<Fault> {
        let meant = |target: &Option<Endpoint>| target.is_none_or(|target| target == endpoint);
        let mut queue = self.queue();
        // Pushed faults before lasting ones, so that a test can put an exception into an outage.
        if let Some(position) = queue.once.iter().position(|(target, _)| meant(target)) {
            return queue.once.remove(position).map(|(_, fault)| fault);
        }
        queue.lasting.iter().find(|(target, _)| meant(target)).map(|(_, fault)| fault.clone())
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_takes_the_first_fault_meant_for_it() {
        let faults = Faults::default();
        faults.push(Endpoint::AppService, Fault::Hang);
        faults.push(None, Fault::Malformed);
        faults.push_lasting(Endpoint::ImdsToken, Fault::WrongTypes);
        assert_eq!(faults.take(Endpoint::ImdsToken), Some(Fault::Malformed));
        assert_eq!(faults.take(Endpoint::ImdsToken), Some(Fault::WrongTypes));
        assert_eq!(faults.take(Endpoint::ImdsToken), Some(Fault::WrongTypes));
        assert_eq!(faults.pending(), 1);
        assert_eq!(faults.take(Endpoint::AppService), Some(Fault::Hang));
        assert_eq!(faults.take(Endpoint::AppService), None);
        faults.clear();
        assert_eq!(faults.take(Endpoint::ImdsToken), None);
    }

    #[test]
    fn faults_are_listed_and_removed() {
        let faults = Faults::default();
        faults.push(Endpoint::AppService, Fault::Hang);
        faults.push(None, Fault::Malformed);
        faults.push(Endpoint::AppService, Fault::Hang);
        faults.push_lasting(None, Fault::Malformed);
        let listed = || faults.active().into_iter().map(|it| (it.endpoint, it.left)).collect::<Vec<_>>();
        assert_eq!(listed(), [(Some(Endpoint::AppService), Some(2)), (None, Some(1)), (None, None)]);
        faults.take(Endpoint::AppService);
        assert_eq!(faults.active()[0].left, Some(1));
        faults.remove(None, &Fault::Malformed);
        assert_eq!(listed(), [(Some(Endpoint::AppService), Some(1))]);
        faults.remove(None, &Fault::Hang);
        assert_eq!(listed().len(), 1);
    }
}

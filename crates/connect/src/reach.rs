//! The search among several hosts for the one to take.
//!
//! The rule is libpq's (PostgreSQL, "Specifying Multiple Hosts"): a host that cannot be reached, does not answer in time,
//! or says that it accepts no connections now (57P03) leads on to the next; any other failure ends the search, so that a
//! refused token is not sent to one server after the other.

use std::error::Error as _;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pgentra_wire::frame::Header;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use crate::connector::{Connector, SignInAttempt};
use crate::dial::{self, Dialed, Watch};
use crate::error::{ConnectError, ConnectErrorKind};
use crate::refusal::Refusal;
use crate::server_state::{self, Untold};
use crate::signed_in::{SignedIn, Timings};
use crate::target::{HostSpec, Target};
use pgentra_wire::session_attrs::ServerState;
use pgentra_wire::session_attrs::SessionAttrs;

/// The message Terminate (PostgreSQL documentation, "Message Formats").
const TERMINATE: &[u8] = b"X\0\0\0\x04";
/// Time to tell a server that its session is not wanted.
const FAREWELL: Duration = Duration::from_secs(1);

/// One search: what failed so far.
struct HostSearch<'a> {
    target: &'a Target,
    failures: Vec<(&'a HostSpec, HostFailure)>,
    timings: Timings,
    /// A session with a server that is taken if there is no better one (`prefer-standby`).
    second_best: Option<SignedIn>,
}

/// Why a host is not the one.
enum HostFailure {
    Error(ConnectError),
    /// It signed us in, and is of another kind: what it is, behind its name.
    WrongKind(String),
}

impl Connector {
    /// A session with the first of these hosts that is wanted. `order` has indexes of [`Target::endpoints`].
    pub(crate) async fn reach(
        &self,
        attempt: SignInAttempt<'_>,
        order: &[usize],
    ) -> Result<SignedIn, ConnectError> {
        let target = self.target();
        let mut search =
            HostSearch { target, failures: Vec::new(), timings: Timings::default(), second_best: None };
        for &number in order {
            let Some(endpoint) = target.endpoints().get(number) else { continue };
            if let Some(signed_in) = self.reach_host(attempt, (number, endpoint), &mut search).await? {
                if let Some(other) = search.second_best.take() {
                    other.terminate().await;
                }
                return Ok(signed_in);
            }
        }
        match search.second_best.take() {
            Some(signed_in) => Ok(signed_in),
            None => Err(search.failed()),
        }
    }

    /// A session with the first address of a host that is wanted.
    ///
    /// # Errors
    /// A failure that ends the whole search.
    async fn reach_host<'a>(
        &self,
        attempt: SignInAttempt<'_>,
        (number, endpoint): (usize, &'a HostSpec),
        search: &mut HostSearch<'a>,
    ) -> Result<Option<SignedIn>, ConnectError> {
        let target = self.target();
        let (limit, watch) = (target.connect_timeout(), Watch::of(target));
        let began = Instant::now();
        let addresses = dial::addresses(endpoint, limit).await;
        search.timings.dns += began.elapsed();
        let mut addresses = match addresses {
            Ok(addresses) => addresses,
            Err(error) => {
                search.failures.push((endpoint, HostFailure::Error(error)));
                return Ok(None);
            }
        };
        target.load_balance_hosts().arrange(&mut addresses);
        while !addresses.is_empty() {
            let dialling = Instant::now();
            let reached = dial::race(addresses, |address| dial::dial(address, watch, limit)).await;
            search.timings.dial += dialling.elapsed();
            let Dialed { stream, address, began, others } = match reached {
                Ok(reached) => reached,
                Err(error) => {
                    search.failures.push((endpoint, HostFailure::Error(error)));
                    break;
                }
            };
            // If this address is not the one, the name may have others: those of a cluster, for example.
            addresses = others;
            tracing::debug!(host = endpoint.host, %address, "connected");
            let deadline = began + limit;
            let entered = self.enter_wanted(stream, endpoint, attempt, deadline).await;
            match entered {
                Ok((signed_in, true)) => {
                    return Ok(Some(signed_in.reached_at((number, address), search.timings)));
                }
                Ok((signed_in, false)) => search.is_not_wanted(signed_in, (number, endpoint), address).await,
                Err(error) if leads_on(&error) => search.failures.push((endpoint, HostFailure::Error(error))),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Signs in, and says whether the server is a wanted one.
    async fn enter_wanted(
        &self,
        stream: TcpStream,
        endpoint: &HostSpec,
        attempt: SignInAttempt<'_>,
        deadline: Instant,
    ) -> Result<(SignedIn, bool), ConnectError> {
        let wanted = self.target().session_attrs();
        let mut signed_in: SignedIn<TcpStream> =
            self.enter(stream, &endpoint.host, attempt, deadline).await?;
        signed_in.state = ServerState::reported(&signed_in.ready.parameters);
        if wanted == SessionAttrs::Any {
            return Ok((signed_in, true));
        }
        let fits = match signed_in.state {
            Some(state) => wanted.fits(state),
            None => {
                let limit = self.target().connect_timeout();
                let asked = timeout_at(deadline, signed_in.ask_state()).await;
                asked.map_err(|_| slow_to_tell(endpoint, limit))?.is_ok_and(|state| wanted.fits(state))
            }
        };
        Ok((signed_in, fits))
    }
}

impl<'a> HostSearch<'a> {
    /// Keeps the session as the second best, or ends it.
    async fn is_not_wanted(
        &mut self,
        signed_in: SignedIn,
        (number, endpoint): (usize, &'a HostSpec),
        address: SocketAddr,
    ) {
        let what = match signed_in.state {
            Some(state) => format!("is {state}"),
            None => "does not say what it is".to_owned(),
        };
        self.failures.push((endpoint, HostFailure::WrongKind(what)));
        let is_usable = self.target.session_attrs() == SessionAttrs::PreferStandby;
        match is_usable && self.second_best.is_none() {
            true => self.second_best = Some(signed_in.reached_at((number, address), self.timings)),
            false => signed_in.terminate().await,
        }
    }

    /// Why there is no session: each host that was tried, with what it lacked.
    fn failed(mut self) -> ConnectError {
        if let [(_, HostFailure::Error(_))] = &self.failures[..]
            && let Some((_, HostFailure::Error(error))) = self.failures.pop()
        {
            return error;
        }
        let was_wrong = self.failures.iter().any(|(_, failure)| matches!(failure, HostFailure::WrongKind(_)));
        let mut message = match was_wrong {
            true => format!("no server fits target_session_attrs={}", self.target.session_attrs()),
            false => "no server can be reached".to_owned(),
        };
        let mut last = None;
        for (index, (endpoint, failure)) in self.failures.into_iter().enumerate() {
            message.push_str(if index == 0 { ": " } else { "; " });
            // Writing to a string cannot fail.
            let _ = match failure {
                HostFailure::WrongKind(what) => write!(message, "{endpoint} {what}"),
                HostFailure::Error(error) => {
                    let written = write!(message, "{endpoint}: {}", chain(&error));
                    last = Some(error);
                    written
                }
            };
        }
        match last {
            _ if was_wrong => ConnectError::new(ConnectErrorKind::Tcp, message).hinting(WRONG_KIND),
            None => ConnectError::config("no server is named"),
            Some(last) => {
                let error = ConnectError::new(last.kind(), message);
                let error = last.server_message().cloned().into_iter().fold(error, ConnectError::saying);
                last.hint().into_iter().fold(error, ConnectError::hinting)
            }
        }
    }
}

impl<S> SignedIn<S>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    /// Asks the server whether it is a standby, and whether the session only reads. The session has to be idle.
    ///
    /// Not cancel-safe: after a drop the session cannot be used.
    ///
    /// # Errors
    /// The connection broke, or the server gave another answer; the session is of no use then.
    pub async fn ask_state(&mut self) -> Result<ServerState, ConnectError> {
        let end = after_ready(&self.ready.said);
        let received = BytesMut::from(&self.ready.said[end..]);
        let asked = server_state::ask(&mut self.stream, received).await;
        let answer = asked.map_err(|untold| match untold {
            Untold::Broken(error) => {
                ConnectError::protocol("the connection broke before the server told its state").because(error)
            }
            Untold::Unexpected => ConnectError::protocol("the server does not tell whether it is a standby"),
            Untold::Refused => ConnectError::protocol("the server refuses to tell whether it is a standby"),
        })?;
        self.state = Some(answer.state);
        self.ready.said = Bytes::from([&self.ready.said[..end], &*answer.aside].concat());
        Ok(answer.state)
    }

    /// Tells the server that the session is over, and closes the connection. It takes a second at most.
    pub async fn terminate(mut self) {
        let told = async {
            self.stream.write_all(TERMINATE).await?;
            self.stream.shutdown().await
        };
        let told: Result<io::Result<()>, _> = timeout(FAREWELL, told).await;
        if !matches!(told, Ok(Ok(()))) {
            tracing::debug!("a server could not be told that its session is not wanted");
        }
    }
}

/// The length of the greeting: up to ReadyForQuery, with it.
fn after_ready(said: &[u8]) -> usize {
    let mut end = 0;
    while let Ok(Some(header)) = Header::peek(&said[end..]) {
        let next = end + Header::SIZE + header.body;
        if next > said.len() {
            break;
        }
        end = next;
        if header.tag == b'Z' {
            return end;
        }
    }
    said.len()
}

/// Whether the next host is tried after this failure.
fn leads_on(error: &ConnectError) -> bool {
    match error.kind() {
        ConnectErrorKind::Dns | ConnectErrorKind::Tcp | ConnectErrorKind::Timeout => true,
        ConnectErrorKind::Refused(refusal) => refusal == Refusal::NotReady,
        _ => false,
    }
}

const WRONG_KIND: &str =
    "name all servers, separated by commas; after a failover one may need a moment to become the primary";

fn slow_to_tell(endpoint: &HostSpec, limit: Duration) -> ConnectError {
    let message = format!("{endpoint} did not tell within {limit:?} whether it is a standby");
    ConnectError::new(ConnectErrorKind::Timeout, message)
        .hinting("give it more time with connect_timeout; a server that is overloaded answers like this")
}

/// An error with its causes, in one line.
fn chain(error: &ConnectError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

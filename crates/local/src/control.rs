//! The control socket in the folder of a local cloud: its status, its clock, its
//! faults, its principals, its end.

use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use futures_util::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use pgentra_system::Env;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use crate::clock::CloudClock;
pub use crate::clock::FURTHEST;
use crate::error::{Failure, FailureKind, ToldFailure};
use crate::faults::{CloudFaults, FaultList, KnownEndpoint, KnownFault, MOST_TIMES};
use crate::folder;
use crate::principals::{self, MemberKind, MemberName, MembersAnswer, MembershipChange, TenantMember};
use crate::state::Snapshots;
use crate::status::Status;

/// Longest request in bytes: some words, and two names of 64 characters or the path of a file.
const LONGEST_REQUEST: u64 = 1024 + 4096;
/// Longest answer in bytes; a description takes some kilobytes.
const LONGEST_ANSWER: u64 = 1 << 20;
/// Time for an answer on the local socket; a process without one hangs.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// Time for PostgreSQL to stop.
const STOP_TIME: Duration = Duration::from_secs(30);
/// Time for a state to be written, which takes a second for each 50 MB of a database.
const SAVE_TIME: Duration = Duration::from_secs(30 * 60);

/// The server's end of the socket.
pub struct Control {
    listener: UnixListener,
    waiting: Vec<UnixStream>,
}

impl Control {
    /// Listens in the folder of a local cloud.
    pub fn bind(folder: &Path) -> Result<Self, Failure> {
        let listener = UnixListener::bind(socket(folder))
            .map_err(|error| Failure::machine("cannot listen on the control socket", error))?;
        Ok(Self { listener, waiting: Vec::new() })
    }

    /// Answers requests until one asks for the end, or `stop` is cancelled. The client that asked
    /// for the end sees its connection close when the returned value is dropped, after everything
    /// is removed.
    pub async fn serve(
        mut self,
        status: &Status,
        clock: &CloudClock,
        faults: &CloudFaults,
        snapshots: &Snapshots,
        stop: &CancellationToken,
    ) -> Self {
        // At the same time: a change that waits for PostgreSQL, or a client that sends nothing, does not delay
        // other clients.
        let mut answers = FuturesUnordered::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return self,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => answers.push(answer(stream, status, clock, faults, snapshots)),
                    Err(error) => {
                        tracing::warn!(%error, "a connection to the control socket could not be accepted");
                    }
                },
                Some(asked) = answers.next() => if let Some(asked) = asked {
                    self.waiting.push(asked);
                    while let Some(Some(asked)) = answers.next().now_or_never() {
                        self.waiting.extend(asked);
                    }
                    return self;
                },
            }
        }
    }
}

impl Control {
    /// Says to the clients that asked for the end that the local cloud has ended, and whether its state was saved.
    pub async fn ended(&mut self, saved: &Result<(), Failure>) {
        let told = saved.as_ref().copied().map_err(ToldFailure::from);
        let told = serde_json::to_vec(&told).unwrap_or_default();
        for client in &mut self.waiting {
            // A client that has left needs no answer.
            let _ = client.write_all(&told).await;
        }
    }
}

/// Answers the request of a connection; returns the connection if the request asks for the end.
async fn answer(
    mut stream: UnixStream,
    status: &Status,
    clock: &CloudClock,
    faults: &CloudFaults,
    snapshots: &Snapshots,
) -> Option<UnixStream> {
    let asked = match tokio::time::timeout(ANSWER_TIME, request(&mut stream)).await {
        Ok(Ok(asked)) => asked,
        Ok(Err(error)) => {
            tracing::warn!(%error, "a request on the control socket failed");
            return None;
        }
        Err(_) => {
            tracing::warn!("a connection to the control socket sent no request in time");
            return None;
        }
    };
    let answer = match asked {
        ControlRequest::Status => serde_json::to_vec(status),
        ControlRequest::Advance(by) => {
            let now = clock.advance(by).duration_since(UNIX_EPOCH).unwrap_or_default();
            Ok(now.as_secs().to_string().into_bytes())
        }
        ControlRequest::Faults(change) => {
            let changed = match change {
                FaultChange::None => Ok(()),
                FaultChange::Set { fault, at, times } => faults.set(fault, at, times).await,
                FaultChange::Clear { fault: Some(fault), at } => {
                    faults.clear(fault, at);
                    Ok(())
                }
                FaultChange::Clear { fault: None, .. } => {
                    faults.clear_all();
                    Ok(())
                }
            };
            serde_json::to_vec(&changed.map(|()| faults.list()))
        }
        ControlRequest::Members(kind, change) => {
            let azure = clock.azure();
            serde_json::to_vec(&match &change {
                MemberChange::None => Ok(principals::members(azure, kind)),
                MemberChange::Add(name) => principals::add(azure, kind, name),
                MemberChange::Remove(name) => principals::remove(azure, kind, name),
            })
        }
        ControlRequest::Membership(group, change) => {
            serde_json::to_vec(&principals::change_membership(clock.azure(), &group, &change))
        }
        ControlRequest::Snapshot { file, is_replaced } => {
            let saved = snapshots.save(Path::new(&file), is_replaced).await;
            serde_json::to_vec(&saved.map_err(|failure| ToldFailure::from(&failure)))
        }
        ControlRequest::Down => return Some(stream),
    };
    let _ = stream.write_all(&answer.unwrap_or_default()).await;
    None
}

/// Asks the local cloud in this folder for its status. `None`: none runs there.
pub async fn status(folder: &Path) -> Result<Option<Status>, Failure> {
    document(folder, "status", "its description").await
}

/// Changes the faults of the local cloud in this folder, and returns them. `None`: none runs there.
///
/// # Errors
/// If the local cloud refuses the change or does not answer.
pub async fn change_faults(folder: &Path, change: FaultChange) -> Result<Option<FaultList>, Failure> {
    let answer: Option<Result<FaultList, String>> = document(folder, &change.line(), "its faults").await?;
    answer.transpose().map_err(|refused| Failure::new(FailureKind::Usage, refused))
}

/// Changes the principals of this kind in the local cloud of this folder, and returns them. `None`:
/// none runs there.
///
/// # Errors
/// If the local cloud refuses the change or does not answer.
pub async fn change_members(
    folder: &Path,
    kind: MemberKind,
    change: &MemberChange,
) -> Result<Option<Vec<TenantMember>>, Failure> {
    let answer: Option<MembersAnswer> = document(folder, &change.line(kind), "its principals").await?;
    answer.transpose().map_err(|refused| Failure::new(FailureKind::Usage, refused))
}

/// Changes the members of a group in the local cloud of this folder, and returns them. `None`: none
/// runs there.
///
/// # Errors
/// If the local cloud refuses the change or does not answer.
pub async fn change_membership(
    folder: &Path,
    group: &MemberName,
    change: &MembershipChange,
) -> Result<Option<Vec<TenantMember>>, Failure> {
    let line = membership_line(group, change);
    let answer: Option<MembersAnswer> = document(folder, &line, "the members of a group").await?;
    answer.transpose().map_err(|refused| Failure::new(FailureKind::Usage, refused))
}

/// Saves the state of the local cloud in this folder into `file`, whose path is absolute; returns the size of the file
/// in bytes. `None`: none runs there.
///
/// # Errors
/// If the file is there already and `is_replaced` does not allow that, a local cloud uses it, or it cannot be written.
pub async fn snapshot(folder: &Path, file: &Path, is_replaced: bool) -> Result<Option<u64>, Failure> {
    let request = file.to_str().and_then(|file| parse(&snapshot_line(file, is_replaced)));
    let Some(ControlRequest::Snapshot { file, is_replaced }) = request else {
        let message = format!("{} is no name for a file that a local cloud writes", file.display());
        return Err(Failure::new(FailureKind::Usage, message).with_hint("give a name without line breaks"));
    };
    let line = snapshot_line(&file, is_replaced);
    let answer: Option<Result<u64, ToldFailure>> =
        document_within(SAVE_TIME, folder, &line, "a snapshot").await?;
    Ok(answer.transpose()?)
}

/// Sends a request and reads the document that answers it.
async fn document<T: DeserializeOwned>(folder: &Path, line: &str, what: &str) -> Result<Option<T>, Failure> {
    document_within(ANSWER_TIME, folder, line, what).await
}

async fn document_within<T: DeserializeOwned>(
    time: Duration,
    folder: &Path,
    line: &str,
    what: &str,
) -> Result<Option<T>, Failure> {
    let Some(mut stream) = connect(folder).await? else { return Ok(None) };
    let answer = async {
        stream.write_all(format!("{line}\n").as_bytes()).await?;
        let mut bytes = Vec::new();
        stream.take(LONGEST_ANSWER).read_to_end(&mut bytes).await?;
        Ok::<_, std::io::Error>(bytes)
    };
    let bytes = bounded(time, answer).await?;
    if bytes.is_empty() {
        return Err(Failure::new(FailureKind::Machine, "the local cloud ended before it answered"));
    }
    let document = serde_json::from_slice(&bytes).map_err(|error| {
        Failure::machine(&format!("the local cloud answered something else than {what}"), error)
    })?;
    Ok(Some(document))
}

/// The status of each of this user's local clouds that runs, by name. A cloud that does not answer is
/// left out.
pub async fn list(env: &Env) -> Vec<Status> {
    let mut running = Vec::new();
    for name in folder::cloud_names(env) {
        match status(&folder::folder_of(env, &name)).await {
            Ok(found) => running.extend(found),
            Err(error) => tracing::debug!(%name, %error, "it is not known whether this local cloud runs"),
        }
    }
    running
}

/// Advances the clock of the local cloud in this folder; returns its time in seconds since 1970.
/// `None`: none runs there.
pub async fn advance(folder: &Path, by: Duration) -> Result<Option<u64>, Failure> {
    let Some(mut stream) = connect(folder).await? else { return Ok(None) };
    let answer = async {
        stream.write_all(format!("advance {}\n", by.as_secs()).as_bytes()).await?;
        let mut text = String::new();
        stream.take(LONGEST_REQUEST).read_to_string(&mut text).await?;
        text.parse().map_err(std::io::Error::other)
    };
    bounded(ANSWER_TIME, answer).await.map(Some)
}

/// Asks the local cloud in this folder to stop, and waits until it has ended. `None`: none runs there. Returns the file
/// that its state was written into.
///
/// # Errors
/// If it does not end, or its state could not be written.
pub async fn down(folder: &Path) -> Result<Option<Option<PathBuf>>, Failure> {
    let running = status(folder).await.ok().flatten();
    let is_known = running.is_some();
    let state = running.and_then(|status| status.state);
    let Some(mut stream) = connect(folder).await? else { return Ok(None) };
    let gone = async {
        stream.write_all(b"down\n").await?;
        let mut rest = Vec::new();
        stream.take(LONGEST_ANSWER).read_to_end(&mut rest).await?;
        Ok(rest)
    };
    let time = if state.is_some() { SAVE_TIME } else { STOP_TIME };
    match serde_json::from_slice::<Result<(), ToldFailure>>(&bounded(time, gone).await?) {
        Ok(Ok(())) => Ok(Some(state)),
        Ok(Err(told)) => Err(told.into()),
        // It was killed, and has no state to lose.
        Err(_) if is_known && state.is_none() => Ok(Some(None)),
        Err(_) => {
            let message = "the local cloud ended before it had saved its state";
            Err(Failure::new(FailureKind::Machine, message)
                .with_hint("its file has the state of the stop before"))
        }
    }
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("control.sock")
}

async fn connect(folder: &Path) -> Result<Option<UnixStream>, Failure> {
    folder::check_ours(folder)?;
    match UnixStream::connect(socket(folder)).await {
        Ok(stream) => Ok(Some(stream)),
        // There is no socket, or no process listens on it any more.
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(Failure::machine("cannot reach the local cloud", error)),
    }
}

async fn bounded<T>(time: Duration, work: impl Future<Output = std::io::Result<T>>) -> Result<T, Failure> {
    match tokio::time::timeout(time, work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Failure::machine("the local cloud hung up", error)),
        Err(_) => Err(Failure::new(
            FailureKind::Machine,
            format!("the local cloud did not answer within {} s", time.as_secs()),
        )
        .with_hint("end its process; what it made is then removed by its watchdog")),
    }
}

/// A change of the faults of a local cloud.
#[derive(Clone, Copy, Debug)]
pub enum FaultChange {
    /// No change.
    None,
    /// A fault is switched on.
    Set {
        /// The fault.
        fault: &'static KnownFault,
        /// Where it is switched on.
        at: &'static KnownEndpoint,
        /// For how many requests, at most [`MOST_TIMES`]. `None`: until it is switched off.
        times: Option<usize>,
    },
    /// Faults are switched off.
    Clear {
        /// The fault. `None`: all.
        fault: Option<&'static KnownFault>,
        /// Where it is switched off. `None`: at each endpoint.
        at: Option<&'static KnownEndpoint>,
    },
}

impl FaultChange {
    fn line(&self) -> String {
        let at = |at: &Option<&KnownEndpoint>| at.map_or_else(|| "*".to_owned(), KnownEndpoint::name);
        match self {
            Self::None => "faults".to_owned(),
            Self::Set { fault, at, times } => {
                format!("faults set {} {} {}", fault.name, at.name(), times.unwrap_or_default())
            }
            Self::Clear { fault, at: place } => {
                format!("faults clear {} {}", fault.map_or("*", |it| it.name), at(place))
            }
        }
    }

    /// The change that [`FaultChange::line`] wrote, without the first word.
    fn parse(words: &[&str]) -> Option<Self> {
        let fault = |name: &str| KnownFault::named(name);
        let at = |name: &str| KnownEndpoint::named(name);
        match words {
            [] => Some(Self::None),
            ["set", name, place, times] => {
                let times = times.parse().ok().filter(|times| *times <= MOST_TIMES)?;
                let times = (times > 0).then_some(times);
                Some(Self::Set { fault: fault(name)?, at: at(place)?, times })
            }
            ["clear", "*", "*"] => Some(Self::Clear { fault: None, at: None }),
            ["clear", name, "*"] => Some(Self::Clear { fault: Some(fault(name)?), at: None }),
            ["clear", name, place] => Some(Self::Clear { fault: Some(fault(name)?), at: Some(at(place)?) }),
            _ => None,
        }
    }
}

/// A change of the principals of a local cloud.
#[derive(Clone, Debug)]
pub enum MemberChange {
    /// No change.
    None,
    /// A principal is added.
    Add(MemberName),
    /// A principal is removed, by its name or its object id.
    Remove(MemberName),
}

impl MemberChange {
    fn line(&self, kind: MemberKind) -> String {
        match self {
            Self::None => format!("{kind} list"),
            Self::Add(name) => format!("{kind} add {name}"),
            Self::Remove(name) => format!("{kind} remove {name}"),
        }
    }

    /// The change that [`MemberChange::line`] wrote.
    fn parse(line: &str) -> Option<(MemberKind, Self)> {
        let (kind, change) = line.split_once(' ')?;
        let kind = match kind {
            "identity" => MemberKind::Identity,
            "user" => MemberKind::User,
            "group" => MemberKind::Group,
            _ => return None,
        };
        let change = match change.split_once(' ') {
            None if change == "list" => Self::None,
            Some(("add", name)) => Self::Add(name.parse().ok()?),
            Some(("remove", name)) => Self::Remove(name.parse().ok()?),
            _ => return None,
        };
        Some((kind, change))
    }
}

/// A tab ends the name of the group: no name has control characters.
fn membership_line(group: &MemberName, change: &MembershipChange) -> String {
    match change {
        MembershipChange::None => format!("membership list {group}"),
        MembershipChange::Add(member) => format!("membership add {group}\t{member}"),
        MembershipChange::Remove(member) => format!("membership remove {group}\t{member}"),
    }
}

/// The change that [`membership_line`] wrote, without the first word.
fn parse_membership(change: &str) -> Option<(MemberName, MembershipChange)> {
    let (verb, names) = change.split_once(' ')?;
    let (group, member) = match names.split_once('\t') {
        Some((group, member)) => (group, Some(member.parse().ok()?)),
        None => (names, None),
    };
    let change = match (verb, member) {
        ("list", None) => MembershipChange::None,
        ("add", Some(member)) => MembershipChange::Add(member),
        ("remove", Some(member)) => MembershipChange::Remove(member),
        _ => return None,
    };
    Some((group.parse().ok()?, change))
}

/// The path is the rest of the line.
fn snapshot_line(file: &str, is_replaced: bool) -> String {
    format!("snapshot {} {file}", if is_replaced { "replace" } else { "new" })
}

/// The file and whether it may be replaced, as [`snapshot_line`] wrote it, without the first word.
fn parse_snapshot(words: &str) -> Option<ControlRequest> {
    let (verb, file) = words.split_once(' ')?;
    let is_replaced = match verb {
        "new" => false,
        "replace" => true,
        _ => return None,
    };
    let is_path = file.starts_with('/') && file.len() <= 4096 && !file.contains(['\n', '\0']);
    is_path.then(|| ControlRequest::Snapshot { file: file.to_owned(), is_replaced })
}

enum ControlRequest {
    Snapshot { file: String, is_replaced: bool },
    Members(MemberKind, MemberChange),
    Membership(MemberName, MembershipChange),
    Status,
    Advance(Duration),
    Faults(FaultChange),
    Down,
}

/// The request in a line, as a client writes it; `None` if a local cloud takes no such request.
pub fn canonical_request(line: &str) -> Option<String> {
    Some(match parse(line)? {
        ControlRequest::Members(kind, change) => change.line(kind),
        ControlRequest::Membership(group, change) => membership_line(&group, &change),
        ControlRequest::Status => "status".to_owned(),
        ControlRequest::Advance(by) => format!("advance {}", by.as_secs()),
        ControlRequest::Faults(change) => change.line(),
        ControlRequest::Down => "down".to_owned(),
        ControlRequest::Snapshot { file, is_replaced } => snapshot_line(&file, is_replaced),
    })
}

async fn request(stream: &mut UnixStream) -> std::io::Result<ControlRequest> {
    let mut line = Vec::new();
    let mut limited = stream.take(LONGEST_REQUEST);
    while !line.ends_with(b"\n") {
        if limited.read_buf(&mut line).await? == 0 {
            break;
        }
    }
    let line = std::str::from_utf8(&line).unwrap_or_default().strip_suffix('\n').unwrap_or_default();
    parse(line).ok_or_else(|| std::io::Error::other("an unknown request, or a value out of its range"))
}

fn parse(line: &str) -> Option<ControlRequest> {
    let words: Vec<&str> = line.split(' ').collect();
    match words[..] {
        ["status"] => Some(ControlRequest::Status),
        ["down"] => Some(ControlRequest::Down),
        ["advance", seconds] => {
            let by = seconds.parse().map(Duration::from_secs).ok().filter(|by| *by <= FURTHEST);
            by.map(ControlRequest::Advance)
        }
        ["faults", ref change @ ..] => FaultChange::parse(change).map(ControlRequest::Faults),
        ["membership", ..] => {
            let (group, change) = parse_membership(line.strip_prefix("membership ")?)?;
            Some(ControlRequest::Membership(group, change))
        }
        ["snapshot", ..] => parse_snapshot(line.strip_prefix("snapshot ")?),
        _ => MemberChange::parse(line).map(|(kind, change)| ControlRequest::Members(kind, change)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::{ENDPOINTS, FAULTS};

    #[test]
    fn a_change_of_faults_is_read_as_it_is_written() {
        let (fault, at) = (&FAULTS[0], &ENDPOINTS[0]);
        for change in [
            FaultChange::None,
            FaultChange::Set { fault, at, times: None },
            FaultChange::Set { fault, at, times: Some(MOST_TIMES) },
            FaultChange::Clear { fault: None, at: None },
            FaultChange::Clear { fault: Some(fault), at: None },
            FaultChange::Clear { fault: Some(fault), at: Some(at) },
        ] {
            let line = change.line();
            let Some(ControlRequest::Faults(read)) = parse(&line) else { panic!("{line}") };
            assert_eq!(read.line(), line);
        }
        let longest = |names: Vec<String>| names.into_iter().map(|name| name.len()).max().unwrap_or_default();
        let fault = longest(FAULTS.iter().map(|it| it.name.to_owned()).collect());
        let place = longest(ENDPOINTS.iter().map(KnownEndpoint::name).collect());
        assert!((fault + place + "faults set   1000\n".len()) as u64 <= LONGEST_REQUEST);
    }

    #[test]
    fn a_change_of_principals_is_read_as_it_is_written() {
        let name: MemberName = "ö".repeat(64).parse().unwrap();
        for kind in [MemberKind::Identity, MemberKind::User, MemberKind::Group] {
            for change in
                [MemberChange::None, MemberChange::Add(name.clone()), MemberChange::Remove(name.clone())]
            {
                let line = change.line(kind);
                assert!((line.len() as u64) < LONGEST_REQUEST);
                let Some(ControlRequest::Members(of, read)) = parse(&line) else { panic!("{line}") };
                assert_eq!(read.line(of), line);
            }
        }
    }

    #[test]
    fn a_change_of_a_group_is_read_as_it_is_written() {
        let name: MemberName = "ö ö".repeat(21).parse().unwrap();
        for change in [
            MembershipChange::None,
            MembershipChange::Add(name.clone()),
            MembershipChange::Remove(name.clone()),
        ] {
            let line = membership_line(&name, &change);
            assert!((line.len() as u64) < LONGEST_REQUEST);
            let Some(ControlRequest::Membership(group, read)) = parse(&line) else { panic!("{line}") };
            assert_eq!(membership_line(&group, &read), line);
        }
    }

    #[test]
    fn bad_requests_are_refused() {
        for line in [
            "",
            "stats",
            "status ",
            "advance",
            "advance -1",
            "advance 99999999999",
            "faults set slow imds-token",
            "faults set slow imds-token 1001",
            "faults set slow nowhere 1",
            "faults set slowly imds-token 1",
            "faults clear * imds-token",
            "faults clear",
            "identity",
            "identity add",
            "identity add ",
            "robot list",
            "membership",
            "membership list",
            "membership list a\tb",
            "membership add a",
            "membership add a\t",
            "membership rename a\tb",
            "snapshot",
            "snapshot /a",
            "snapshot new",
            "snapshot new a",
            "snapshot old /a",
        ] {
            assert!(parse(line).is_none(), "{line}");
        }
    }
}

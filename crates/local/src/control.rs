//! The control socket in the folder of a local cloud: its status, its clock, its end.

use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use pgentra_system::Env;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use crate::clock::CloudClock;
pub use crate::clock::FURTHEST;
use crate::error::{Failure, FailureKind};
use crate::folder;
use crate::status::Status;

/// Longest request in bytes: a word and a number.
const LONGEST_REQUEST: u64 = 32;
/// Longest answer in bytes; a description takes some kilobytes.
const LONGEST_ANSWER: u64 = 1 << 20;
/// Time for an answer on the local socket; a process without one hangs.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// Time for PostgreSQL to stop.
const STOP_TIME: Duration = Duration::from_secs(30);

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
    pub async fn serve(mut self, status: &Status, clock: &CloudClock, stop: &CancellationToken) -> Self {
        loop {
            let mut stream = tokio::select! {
                () = stop.cancelled() => return self,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "a connection to the control socket could not be accepted");
                        continue;
                    }
                },
            };
            match tokio::time::timeout(ANSWER_TIME, request(&mut stream)).await {
                Ok(Ok(ControlRequest::Status)) => {
                    let answer = serde_json::to_vec(status).unwrap_or_default();
                    let _ = stream.write_all(&answer).await;
                }
                Ok(Ok(ControlRequest::Advance(by))) => {
                    let now = clock.advance(by).duration_since(UNIX_EPOCH).unwrap_or_default();
                    let now = now.as_secs().to_string();
                    let _ = stream.write_all(now.as_bytes()).await;
                }
                Ok(Ok(ControlRequest::Down)) => {
                    self.waiting.push(stream);
                    return self;
                }
                Ok(Err(error)) => tracing::warn!(%error, "a request on the control socket failed"),
                Err(_) => tracing::warn!("a connection to the control socket sent no request in time"),
            }
        }
    }
}

/// Asks the local cloud in this folder for its status. `None`: none runs there.
pub async fn status(folder: &Path) -> Result<Option<Status>, Failure> {
    let Some(mut stream) = connect(folder).await? else { return Ok(None) };
    let answer = async {
        stream.write_all(b"status\n").await?;
        let mut bytes = Vec::new();
        stream.take(LONGEST_ANSWER).read_to_end(&mut bytes).await?;
        Ok::<_, std::io::Error>(bytes)
    };
    let bytes = bounded(ANSWER_TIME, answer).await?;
    let description = serde_json::from_slice(&bytes).map_err(|error| {
        Failure::machine("the local cloud answered something else than its description", error)
    })?;
    Ok(Some(description))
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

/// Asks the local cloud in this folder to stop, and waits until it has ended. `false`: none runs
/// there.
pub async fn down(folder: &Path) -> Result<bool, Failure> {
    let Some(mut stream) = connect(folder).await? else { return Ok(false) };
    let gone = async {
        stream.write_all(b"down\n").await?;
        let mut rest = Vec::new();
        stream.take(LONGEST_ANSWER).read_to_end(&mut rest).await
    };
    bounded(STOP_TIME, gone).await?;
    Ok(true)
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

enum ControlRequest {
    Status,
    Advance(Duration),
    Down,
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
    match line.split_once(' ') {
        None if line == "status" => Ok(ControlRequest::Status),
        None if line == "down" => Ok(ControlRequest::Down),
        Some(("advance", seconds)) => {
            let by = seconds.parse().map(Duration::from_secs).ok().filter(|by| *by <= FURTHEST);
            by.map(ControlRequest::Advance)
                .ok_or_else(|| std::io::Error::other("a time that is too far away"))
        }
        _ => Err(std::io::Error::other("an unknown request")),
    }
}

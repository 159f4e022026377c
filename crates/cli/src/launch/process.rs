//! The process that serves the listener for one program, and ends with it.

use std::path::PathBuf;
use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;

use pgentra_local::Janitor;
use pgentra_proxy::{ClientAuth, Listener, ShutdownTokens};
use pgentra_session::UnixSocket;
use pgentra_system::{Env, System};
#[cfg(target_os = "linux")]
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
#[cfg(target_os = "linux")]
use rustix::process::{PidfdFlags, pidfd_open};
use uuid::Uuid;

use super::arguments::{Access, ExecListener};
use super::client::{self, ListenerReport};
use super::listener::{self, NewListener};
use super::reached::Reached;
use crate::output;
use crate::platform::stop_signal;
use crate::problem::{Outcome, Problem};

/// PostgreSQL's port, which is part of the socket's name. The folder is this program's own.
const PORT: u16 = 5432;
/// How often the program is looked for where the system cannot say when it ends.
const LOOK: Duration = Duration::from_secs(1);

/// Serves the program's connections until it ends.
///
/// The first process only starts a second one and ends, so that the listener is no child of the
/// program: a program that waits for all of its children would wait for ever.
pub(crate) async fn serve(system: &System, arguments: ExecListener) -> Outcome {
    let ExecListener { access, program, detached } = arguments;
    if !detached {
        return client::command(system.env(), &["--detached", "--program", &program.to_string()], &access)?
            .stdout(Stdio::inherit())
            .spawn()
            .map(drop)
            .map_err(|error| Problem::ours("cannot start the listener", error));
    }
    let mut ended = pin!(end_of(program));
    let opened = tokio::select! {
        () = &mut ended => return Ok(()),
        opened = open(system, &access) => opened,
    };
    let (open, folder, reached) = match opened {
        Ok(opened) => opened,
        Err(problem) => {
            // The program's process shows it, after it has removed its progress display.
            say(&ListenerReport::failed(&problem))?;
            return Err(problem.told());
        }
    };
    say(&ListenerReport::of(reached))?;
    let stop = stop_signal()?;
    let tokens = ShutdownTokens::default();
    let mut serving = pin!(open.proxy.serve(open.listener, tokens.clone()));
    tokio::select! {
        () = &mut ended => {}
        () = stop.cancelled() => {}
        () = &mut serving => return Ok(()),
    }
    // Processes that the program left behind lose their sessions, as they lose the listener.
    tokens.serving.cancel();
    tokens.waiting.cancel();
    serving.await;
    if let Some(folder) = folder {
        folder.finish().map_err(|error| Problem::ours("cannot remove the listener's folder", error))?;
    }
    Ok(())
}

/// Opens the listener that the arguments ask for. The folder is that of a Unix socket; it is removed
/// with its janitor, also after SIGKILL.
async fn open(
    system: &System,
    access: &Access,
) -> Outcome<(listener::OpenListener, Option<Janitor>, Reached)> {
    let (open, (folder, reached)) = listener::open(system, access, || {
        if access.way.tcp {
            let (listener, client_auth, reached) = listener::tcp()?;
            return Ok((listener, client_auth, (None, reached)));
        }
        let (folder, (listener, client_auth, reached)) = unix(system.env())?;
        Ok((listener, client_auth, (Some(folder), reached)))
    })
    .await?;
    Ok((open, folder, reached))
}

/// A Unix socket in a folder of this user alone. Only processes of this user may connect.
fn unix(env: &Env) -> Outcome<(Janitor, NewListener)> {
    let parent = ["XDG_RUNTIME_DIR", "TMPDIR"]
        .into_iter()
        .find_map(|name| env.get(name).map(PathBuf::from).filter(|folder| folder.is_dir()))
        .unwrap_or_else(|| PathBuf::from("/tmp"));
    // A name that no other user can occupy in advance.
    let path = parent.join(format!("pgentra-exec-{}", Uuid::new_v4().simple()));
    let cannot_listen = |error: std::io::Error| {
        Problem::ours("cannot listen on a Unix socket", error)
            .hint("set TMPDIR to a folder that you can write to, or use --tcp")
    };
    let folder = Janitor::create(&path).map_err(cannot_listen)?;
    let socket = UnixSocket::bind(folder.folder(), PORT).map_err(cannot_listen)?;
    let host = folder.folder().to_string_lossy().into_owned();
    let reached = Reached { host, port: PORT, password: None };
    Ok((folder, (Listener::Unix(socket), ClientAuth::default(), reached)))
}

fn say(answer: &ListenerReport) -> Outcome {
    let line = serde_json::to_string(answer).map_err(|error| Problem::ours("cannot render JSON", error))?;
    output::exact(&format!("{line}\n"))
}

/// Returns when the process has ended.
pub(crate) async fn end_of(program: i32) {
    let Some(pid) = Pid::from_raw(program) else { return };
    #[cfg(target_os = "linux")]
    // An error is that of a kernel before 5.3, of a filter for system calls, or of a process that
    // has ended, which is found below.
    if let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) {
        let (sender, ended) = tokio::sync::oneshot::channel();
        // tokio has no safe way to wait for a file descriptor, so a thread of its own does it.
        std::thread::spawn(move || {
            // A pidfd is readable from the end of its process on (pidfd_open(2)).
            while poll(&mut [PollFd::new(&process, PollFlags::IN)], None) == Err(Errno::INTR) {}
            let _ = sender.send(());
        });
        let _ = ended.await;
        return;
    }
    while test_kill_process(pid) != Err(Errno::SRCH) {
        tokio::time::sleep(LOOK).await;
    }
}

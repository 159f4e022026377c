//! The process that serves the auth proxy's listener for one program, and ends with it.

use std::path::PathBuf;
use std::pin::pin;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use pgentra_connect::Connector;
use pgentra_local::Janitor;
use pgentra_proxy::{AuthProxy, ClientAuth, Listener, Options, ProxyHandle, ShutdownTokens, Users};
use pgentra_session::{Limits, UnixSocket, bind_tcp};
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
use crate::blame::Blame;
use crate::problem::{Outcome, Problem};
use crate::{output, sign_in};

/// Sessions at the same time. The server's own limit is the one that a program should meet.
const CONNECTIONS: usize = 10_000;
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
    let (open, answer) = match opened {
        Ok(opened) => opened,
        Err(problem) => {
            // The program's process shows it, after it has removed its progress display.
            say(&ListenerReport::failed(&problem))?;
            return Err(problem.told());
        }
    };
    say(&answer)?;
    drop(answer);
    let stop = crate::local::up::end_on_signals()?;
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
    if let Some(folder) = open.folder {
        folder.finish().map_err(|error| Problem::ours("cannot remove the listener's folder", error))?;
    }
    Ok(())
}

/// A listener that does not serve yet.
struct OpenListener {
    proxy: ProxyHandle,
    listener: Listener,
    /// The folder of a Unix socket. It is removed with its janitor, also after SIGKILL.
    folder: Option<Janitor>,
}

async fn open(system: &System, access: &Access) -> Outcome<(OpenListener, ListenerReport)> {
    let target = sign_in::target(system, &access.connection)?;
    let (credential, resource) = sign_in::credential_for(system, &access.identity, Some(&target))?;
    let connector = Connector::new(target.for_any_role(), credential, resource)?;
    // Without a token no connection can succeed, and the program would show the reason worse.
    connector.token_ready().await?;
    let (listener, folder, client_auth, answer) = if access.way.tcp { tcp()? } else { unix(system.env())? };
    let limits = Limits { connections: CONNECTIONS, ..Limits::default() };
    let proxy = AuthProxy::new(connector, Options { limits, client_auth, ..Options::default() });
    Ok((OpenListener { proxy: ProxyHandle::new(Arc::new(proxy)), listener, folder }, answer))
}

type NewListener = (Listener, Option<Janitor>, ClientAuth, ListenerReport);

/// A Unix socket in a folder of this user alone. Only processes of this user may connect.
fn unix(env: &Env) -> Outcome<NewListener> {
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
    let answer =
        ListenerReport::Socket { folder: folder.folder().to_string_lossy().into_owned(), port: PORT };
    Ok((Listener::Unix(socket), Some(folder), ClientAuth::default(), answer))
}

/// A port of 127.0.0.1. Other users of this machine can reach it, so it asks for a password that is
/// made for this run.
fn tcp() -> Outcome<NewListener> {
    let listener = bind_tcp(([127, 0, 0, 1], 0).into())
        .map_err(|error| Problem::ours("cannot listen on 127.0.0.1", error))?;
    let port = listener
        .local_addr()
        .map_err(|error| Problem::ours("cannot find the listener's port", error))?
        .port();
    // 244 random bits.
    let password = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    // A program may connect as any role that the identity can sign in as, as psql does with `\c`.
    let users = Users::with_one_password(&password.clone().into())
        .map_err(|error| Problem::new(Blame::Usage, error))?;
    let client_auth = ClientAuth { users: Some(users), ..ClientAuth::default() };
    let listener = Listener::tcp(listener, &client_auth)
        .map_err(|error| Problem::ours("cannot listen on 127.0.0.1", error))?;
    Ok((listener, None, client_auth, ListenerReport::Tcp { port, password }))
}

fn say(answer: &ListenerReport) -> Outcome {
    let line = serde_json::to_string(answer).map_err(|error| Problem::ours("cannot render JSON", error))?;
    output::exact(&format!("{line}\n"))
}

/// Returns when the process has ended.
async fn end_of(program: i32) {
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

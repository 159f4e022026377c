//! The auth proxy's listener for one program.

use std::sync::Arc;
use std::time::Duration;

use pgentra_connect::Connector;
use pgentra_proxy::{AuthProxy, ClientAuth, Listener, Options, ProxyHandle, Users};
use pgentra_session::{Limits, bind_tcp};
use pgentra_system::System;
use uuid::Uuid;

use super::arguments::Access;
use super::reached::Reached;
use crate::blame::Blame;
use crate::problem::{Outcome, Problem};
use crate::sign_in;

/// Sessions at the same time. The server's own limit is the one that a program should meet.
const CONNECTIONS: usize = 10_000;

/// A listener that does not serve yet.
pub(super) struct OpenListener {
    pub(super) proxy: ProxyHandle,
    pub(super) listener: Listener,
}

/// A listener, what its clients must prove, and how the program reaches it.
pub(super) type NewListener = (Listener, ClientAuth, Reached);

/// Opens a listener with `listen`, and waits for the first token.
///
/// # Errors
/// There is no token, or no listener.
pub(super) async fn open<T>(
    system: &System,
    access: &Access,
    listen: impl FnOnce() -> Outcome<(Listener, ClientAuth, T)>,
) -> Outcome<(OpenListener, T)> {
    let target = sign_in::target(system, &access.connection)?;
    let (credential, resource) = sign_in::credential_for(system, &access.identity, Some(&target))?;
    let connector = Connector::new(target.for_any_role(), credential, resource)?;
    // Without a token no connection can succeed, and the program would show the reason worse.
    connector.token_ready().await?;
    let (listener, client_auth, more) = listen()?;
    let limits = Limits { connections: CONNECTIONS, ..Limits::default() };
    // One program has few sessions: none of them is for asking servers what they are.
    let server_role_interval = Duration::ZERO;
    let options = Options { limits, client_auth, server_role_interval, ..Options::default() };
    let proxy = AuthProxy::new(connector, options);
    Ok((OpenListener { proxy: ProxyHandle::new(Arc::new(proxy)), listener }, more))
}

/// A port of 127.0.0.1. Other users of this machine can reach it, so it asks for a password that is
/// made for this run.
///
/// # Errors
/// The system gives no port.
pub(super) fn tcp() -> Outcome<NewListener> {
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
    let reached = Reached { host: "127.0.0.1".to_owned(), port, password: Some(password.into()) };
    Ok((listener, client_auth, reached))
}

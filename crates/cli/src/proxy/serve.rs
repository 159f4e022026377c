//! What `pgentra proxy` does.

use std::sync::Arc;

use futures_util::future::join_all;
use pgentra_identity::World;
use pgentra_proxy::inject::{Injector, Listener, Naming, Options};
use pgentra_proxy::session::{Limits, UnixSocket};
use tokio::net::TcpListener;

use super::arguments::Proxy;
use super::configuration::{Configuration, Configured, Credentials};
use super::place::Place;
use super::settings::Process;
use crate::local::up::end_on_signals;
use crate::output;
use crate::problem::{Blame, Outcome, Problem};

/// Lets clients in until Ctrl-C or SIGTERM, then waits for their sessions.
pub(crate) async fn run(world: &World, arguments: Proxy) -> Outcome {
    let configuration = Configuration::gather(world, &arguments, &mut Credentials::default())?;
    let stop = end_on_signals()?;
    let mut serving = Vec::new();
    let mut ready = Vec::new();
    for target in &configuration.targets {
        let injector = injector(&configuration.process, target);
        for place in &target.settings.listen {
            let (listener, address) = bind(place).await?;
            ready.push(format!("listening on {address} for {}", target.name));
            serving.push((Arc::clone(&injector), listener));
        }
    }
    // Said when all of them are there.
    ready.iter().for_each(|line| output::say(line));
    let serving = serving.into_iter().map(|(injector, listener)| {
        // A task each, so that they share no thread.
        tokio::spawn(injector.serve(listener, stop.clone()))
    });
    for served in join_all(serving).await {
        served.map_err(|error| Problem::ours("a listener ended", error))?;
    }
    Ok(())
}

fn injector(process: &Process, Configured { connector, settings, .. }: &Configured) -> Arc<Injector> {
    let limits = Limits {
        connections: settings.max_connections,
        start_up: settings.start_up_timeout,
        drain: process.drain_timeout,
        ..Limits::default()
    };
    let naming = if settings.pin { Naming::Pinned } else { Naming::Same };
    Arc::new(Injector::new(connector.clone(), Options { naming, limits, ..Options::default() }))
}

/// Listens, and says on what.
async fn bind(place: &Place) -> Outcome<(Listener, String)> {
    let bound = match place {
        Place::Tcp(address) => TcpListener::bind(address).await.and_then(|listener| {
            let address = listener.local_addr()?.to_string();
            Ok((Listener::Tcp(listener), address))
        }),
        Place::Unix { folder, port } => UnixSocket::bind(folder, *port).map(|socket| {
            let path = socket.path().display().to_string();
            (Listener::Unix(socket), path)
        }),
    };
    bound.map_err(|error| {
        Problem::new(Blame::Ours, format!("cannot listen on {place}: {error}"))
            .hint("give another address with --listen; port 0 takes any free one")
    })
}

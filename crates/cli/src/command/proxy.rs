//! `pgentra proxy`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use pgentra_connect::{Connector, Target};
use pgentra_identity::World;
use pgentra_proxy::inject::{Injector, Listener, Naming, Options};
use pgentra_proxy::session::{Limits, UnixSocket};
use tokio::net::TcpListener;

use crate::arguments::{Place, Proxy};
use crate::local::up::end_on_signals;
use crate::problem::{Blame, Outcome, Problem};
use crate::{output, sign_in};

/// Lets clients in until Ctrl-C or SIGTERM, then waits for their sessions.
pub(crate) async fn run(world: &World, arguments: Proxy) -> Outcome {
    let places = places(&arguments)?;
    let stop = end_on_signals()?;
    let mut serving = Vec::new();
    let mut ready = Vec::new();
    for (injector, places) in injectors(world, &arguments)?.into_iter().zip(places) {
        for place in places {
            let (listener, address) = bind(&place).await?;
            ready.push(format!("listening on {address} for {}", injector.0));
            serving.push((Arc::clone(&injector.1), listener));
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

/// One for each server, and what it is called in the line that says it is ready.
fn injectors(world: &World, arguments: &Proxy) -> Outcome<Vec<(String, Arc<Injector>)>> {
    let (credential, resource) = sign_in::credential(world, &arguments.identity)?;
    let limits = Limits {
        connections: arguments.max_connections,
        start_up: Duration::from_secs(arguments.start_up_timeout),
        drain: Duration::from_secs(arguments.drain_timeout),
        ..Limits::default()
    };
    let naming = if arguments.pin { Naming::Pinned } else { Naming::Same };
    let conninfos: Vec<_> = match &arguments.targets[..] {
        [] => vec![None],
        targets => targets.iter().map(|target| Some(target.as_str())).collect(),
    };
    let injector = |conninfo| {
        let target = Target::resolve_server(&sign_in::layers(world, conninfo, &arguments.server)?)?;
        let name = name(&target);
        let connector = Connector::new(target, credential.clone(), resource.clone())?;
        Ok((name, Arc::new(Injector::new(connector, Options { naming, limits: limits.clone() }))))
    };
    conninfos.into_iter().map(injector).collect()
}

/// The listeners of each server.
fn places(arguments: &Proxy) -> Outcome<Vec<Vec<Place>>> {
    let servers = arguments.targets.len().max(1);
    let places = match &arguments.listen[..] {
        [] => count_up(&Place::default(), servers)?,
        places if servers == 1 => vec![places.to_vec()],
        [first] => count_up(first, servers)?,
        places if places.len() == servers => places.iter().map(|place| vec![place.clone()]).collect(),
        places => {
            let message = format!("--listen is given {} times for {servers} servers", places.len());
            return Err(Problem::new(Blame::Usage, message)
                .hint("give it once for each server, once for all, or leave it out"));
        }
    };
    if !arguments.danger_listen_beyond_loopback && !places.iter().flatten().all(Place::is_local) {
        let message =
            "whoever reaches an address beyond the loopback interface would have the identity's rights";
        return Err(Problem::new(Blame::Usage, message).hint(
            "listen on 127.0.0.1, [::1] or a Unix socket; --danger-listen-beyond-loopback does it all the same",
        ));
    }
    Ok(places)
}

fn count_up(first: &Place, servers: usize) -> Outcome<Vec<Vec<Place>>> {
    let nth = |number| first.further(number).map(|place| vec![place]);
    (0..servers).map(nth).collect::<Option<_>>().ok_or_else(|| {
        Problem::new(Blame::Usage, "there are not so many ports").hint("give a lower --listen")
    })
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
        let place = match place {
            Place::Tcp(address) => address.to_string(),
            Place::Unix { folder, port } => format!("{}:{port}", folder.display()),
        };
        Problem::new(Blame::Ours, format!("cannot listen on {place}: {error}"))
            .hint("give another address with --listen; port 0 takes any free one")
    })
}

fn name(target: &Target) -> String {
    let servers: Vec<_> = target.endpoints().iter().map(ToString::to_string).collect();
    let mut name = servers.join(", ");
    for (what, named) in [("role", target.named_user()), ("database", target.named_database())] {
        if let Some(named) = named {
            name.push_str(&format!(", {what} \"{named}\""));
        }
    }
    name
}

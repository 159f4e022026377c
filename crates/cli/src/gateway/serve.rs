//! Runs `pgentra gateway` from start to end.

use std::time::Duration;

use pgentra_gateway::GatewayTelemetry;
use pgentra_gateway_config::{GatewayConfiguration, GatewayReloadState, GatewaySources, LiveGateway};
use pgentra_settings::{InheritedSockets, ObservedEndpoints, SettingsError};
use pgentra_system::System;
use tokio_util::sync::CancellationToken;

use super::arguments::{GatewayArguments, GatewayCommand};
use super::{check, directory, init, ldap};
use crate::output;
use crate::platform::{SignalEvent, Signals};
use crate::problem::{Outcome, Problem};
use crate::service::{Beat, Console, Notify};

/// How often a changed status is sent to the service manager.
const LOOK: Duration = Duration::from_secs(5);

/// Serves clients until Ctrl-C or SIGTERM, then drains. SIGHUP reloads the configuration.
pub(crate) async fn run(system: &System, mut arguments: GatewayArguments) -> Outcome {
    match arguments.command.take() {
        Some(GatewayCommand::Init(arguments)) => return init::run(system, arguments).await,
        Some(GatewayCommand::Ldap(arguments)) => return ldap::run(system, arguments).await,
        None => {}
    }
    let sources = arguments.sources();
    let inherited = InheritedSockets::from_systemd(system.env()).map_err(problem)?;
    if arguments.check_config || arguments.check {
        let held = GatewayReloadState::new(inherited.or_assumed()).with_directories(directory::source());
        let configuration = GatewayConfiguration::gather(system, &sources, &held).map_err(problem)?;
        if arguments.check {
            return check::run(system, configuration, &arguments).await;
        }
        let mut text = String::new();
        for server in &configuration.servers {
            text.push_str(&format!(
                "clients of {} are led to {}\n",
                check::listeners(&configuration),
                server.name
            ));
        }
        return output::result(&format!("{text}the configuration is valid\n"));
    }
    let held = GatewayReloadState::new(inherited).with_directories(directory::source());
    let configuration = GatewayConfiguration::gather(system, &sources, &held).map_err(problem)?;
    let telemetry = &configuration.process.telemetry;
    let console = Console::new(system, telemetry.log_format, "pgentra::gateway");
    let mut signals = Signals::listen()?;
    let stop = CancellationToken::new();
    let (clock, stopping) = (system.clock().clone(), stop.clone());
    let seen = ObservedEndpoints::open(telemetry, |audit| {
        GatewayTelemetry::new(move || clock.now(), stopping, audit)
    })
    .await
    .map_err(problem)?;
    let mut live = LiveGateway::new(system, seen.telemetry().clone(), stop.clone());
    let lines = live.apply(configuration, &held).await.map_err(problem)?;
    seen.telemetry().started();
    // Printed when all listeners are open.
    lines.iter().chain(seen.lines()).for_each(|line| console.say(line));
    let notify = Notify::from_env(system.env());
    let mut beat = Beat::every(notify.beat());
    let mut look = Beat::every(Some(LOOK));
    let mut said = live.status();
    notify.ready(&said);
    loop {
        tokio::select! {
            () = look.next() => {
                let now = live.status();
                if notify.is_heard() && now != said {
                    notify.status(&now);
                    said = now;
                }
            }
            told = signals.next() => match told {
                SignalEvent::Stop => break,
                SignalEvent::Reload => {
                    reload(system, &sources, (&held, &mut live, &seen), (&notify, &console)).await;
                }
            },
            () = stop.cancelled() => break,
            () = beat.next() => notify.alive(),
        }
    }
    // Counted before the shutdown, because sessions may end at once.
    let sessions = live.sessions();
    stop.cancel();
    console.say(&format!("stopping; {sessions} session(s) to wait for"));
    notify.stopping(&format!("waiting for {sessions} session(s)"));
    loop {
        tokio::select! {
            () = live.ended() => break,
            // The second signal skips the drain, and the third one ends without messages to
            // clients.
            SignalEvent::Stop = signals.next() => {
                let sessions = live.sessions();
                if !live.skip_drain() {
                    break;
                }
                console.say(&format!("stopping at once; {sessions} session(s) are ended"));
            }
            () = beat.next() => notify.alive(),
        }
    }
    seen.close().await;
    Ok(())
}

/// An invalid configuration changes nothing.
async fn reload(
    system: &System,
    sources: &GatewaySources,
    (held, live, seen): (&GatewayReloadState, &mut LiveGateway, &ObservedEndpoints<GatewayTelemetry>),
    (notify, console): (&Notify, &Console),
) {
    notify.reloading();
    let applied = match GatewayConfiguration::gather(system, sources, held) {
        Ok(configuration) => {
            if let Some(line) = seen.reload(&configuration.process.telemetry) {
                console.say(line);
            }
            live.apply(configuration, held).await
        }
        Err(error) => Err(error),
    };
    match applied {
        Ok(lines) if lines.is_empty() => console.say("reloaded: nothing has changed"),
        Ok(lines) => lines.iter().for_each(|line| console.say(&format!("reloaded: {line}"))),
        Err(error) => {
            console.say("the new configuration is refused, the one before stays");
            console.problem(&problem(error));
        }
    }
    notify.ready(&live.status());
}

/// What is wrong with the configuration.
pub(crate) fn problem(error: SettingsError) -> Problem {
    Problem::of_settings(error, "pgentra gateway")
}

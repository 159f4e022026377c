//! Runs `pgentra proxy` from start to end.

use std::pin::pin;
use std::time::Duration;

use pgentra_proxy_config::{
    Configuration, InheritedSockets, Key, ReloadState, RunningProxy, Sources, TelemetryEndpoints,
    open_telemetry,
};
use pgentra_system::System;

use super::arguments::{Proxy, ProxyCommand};
use super::{check, greeting, hash_password, print_config, wait};
use crate::problem::Outcome;
use crate::service::{Beat, Console, Notify, SignalEvent, Signals};

/// How long the first token request may delay the readiness message to the service manager. It is
/// shorter than the service manager's start timeout, because a restart does not help when the
/// metadata service is down.
const FIRST_TOKEN: Duration = Duration::from_secs(30);
/// How often a changed status is sent to the service manager, and a late token is looked for.
const LOOK: Duration = Duration::from_secs(5);

/// Serves clients until Ctrl-C or SIGTERM, then drains. SIGHUP reloads the configuration.
pub(crate) async fn run(system: &System, mut arguments: Proxy) -> Outcome {
    match arguments.command.take() {
        Some(ProxyCommand::Wait(wait)) => return wait::run(system, wait).await,
        Some(ProxyCommand::HashPassword { role }) => return hash_password::run(&role),
        None => {}
    }
    let sources = arguments.sources();
    let inherited = InheritedSockets::from_systemd(system.env())?;
    if arguments.check_config {
        let mut held = ReloadState::new(inherited.or_assumed());
        return check::configuration(&Configuration::gather(system, &sources, &mut held)?);
    }
    let mut held = ReloadState::new(inherited);
    let configuration = Configuration::gather(system, &sources, &mut held)?;
    if arguments.check {
        return check::run(configuration, arguments.output).await;
    }
    if let Some(program) = arguments.print_config {
        return print_config::run(&configuration, program).await;
    }
    let console = Console::new(system, configuration.process.telemetry.log_format, "pgentra::proxy");
    let mut signals = Signals::listen()?;
    let mut running = RunningProxy::default();
    let seen = open_telemetry(system, &configuration.process.telemetry, running.stop()).await?;
    running.set_telemetry(seen.telemetry().clone());
    let lines = running.apply(configuration, &held).await?;
    seen.telemetry().started();
    // Printed when all listeners are open.
    lines.iter().chain(seen.lines()).for_each(|line| console.say(line));
    if let Some(warning) = port_warning(system, &arguments) {
        console.say(&warning);
    }
    let notify = Notify::from_env(system.env());
    let mut beat = Beat::every(notify.beat());
    let mut look = Beat::every(Some(LOOK));
    let mut said = String::new();
    // Targets that had no token at the last look.
    let mut lacking = 0;
    let telemetry = seen.telemetry().clone();
    let mut first_tokens = pin!(telemetry.await_tokens(FIRST_TOKEN));
    let mut is_ready = false;
    let stop = running.stop().clone();
    loop {
        tokio::select! {
            () = &mut first_tokens, if !is_ready => {
                is_ready = true;
                lacking = greeting::greet(&running, &console);
                said = running.status();
                notify.ready(&said);
            }
            () = look.next(), if is_ready => {
                let still = greeting::without_token(&running).len();
                if still < lacking {
                    greeting::say_signed_in(&running, &console);
                }
                lacking = still.min(lacking);
                let now = running.status();
                if notify.is_heard() && now != said {
                    notify.status(&now);
                    said = now;
                }
            }
            told = signals.next() => match told {
                SignalEvent::Stop => break,
                SignalEvent::Reload => {
                    reload(system, &sources, (&mut held, &mut running, &seen), (&notify, &console)).await;
                }
            },
            () = stop.cancelled() => break,
            () = beat.next() => notify.alive(),
        }
    }
    // Counted before the shutdown, because sessions may end at once.
    let sessions = running.sessions();
    stop.cancel();
    console.say(&format!("stopping; {sessions} session(s) to wait for"));
    notify.stopping(&format!("waiting for {sessions} session(s)"));
    loop {
        tokio::select! {
            () = running.ended() => break,
            // The second signal skips the drain, and the third one ends without messages to
            // clients.
            SignalEvent::Stop = signals.next() => {
                let sessions = running.sessions();
                if !running.skip_drain() {
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

/// Warns about `--port`, which is the server's port as in psql. In other proxies it is the
/// listener's port; a user who means that gives no `--listen`.
fn port_warning(system: &System, arguments: &Proxy) -> Option<String> {
    let port = arguments.server.port.as_deref()?;
    let is_listen = |(key, _): &(&Key, Vec<String>)| key.name == "listen";
    let says_listen = arguments.config.is_some()
        || arguments.flags.0.iter().any(is_listen)
        || arguments.targets.iter().any(|target| target.contains("listen="))
        || ["PGENTRA_LISTEN", "PGENTRA_CONFIG"].into_iter().any(|name| system.env().has(name));
    let warning = format!("warning: --port {port} is the server's port; --listen says where clients come in");
    (!says_listen).then_some(warning)
}

/// An invalid configuration changes nothing.
async fn reload(
    system: &System,
    sources: &Sources,
    (held, running, seen): (&mut ReloadState, &mut RunningProxy, &TelemetryEndpoints),
    (notify, console): (&Notify, &Console),
) {
    notify.reloading();
    let applied = match Configuration::gather(system, sources, held) {
        Ok(configuration) => {
            if let Some(line) = seen.reload(&configuration.process.telemetry) {
                console.say(line);
            }
            running.apply(configuration, held).await
        }
        Err(error) => Err(error),
    };
    match applied {
        Ok(lines) if lines.is_empty() => console.say("reloaded: nothing has changed"),
        Ok(lines) => lines.iter().for_each(|line| console.say(&format!("reloaded: {line}"))),
        Err(error) => {
            console.say("the new configuration is refused, the one before stays");
            console.problem(&error.into());
        }
    }
    notify.ready(&running.status());
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use pgentra_system::Env;

    use super::*;
    use crate::arguments::{Arguments, Command};

    #[test]
    fn a_port_that_may_be_meant_for_the_listener_is_told() {
        let warning = |variables: &[(&str, &str)], words: &[&str]| {
            let system = System::builder().env(Env::from_map(variables.iter().copied())).build();
            let words = [&["pgentra", "proxy"], words].concat();
            let Command::Proxy(arguments) = Arguments::try_parse_from(words).unwrap().command else {
                panic!()
            };
            port_warning(&system, &arguments)
        };
        let told = warning(&[], &["db.example", "--port", "6432"]).unwrap();
        assert!(told.starts_with("warning: --port 6432 is the server's port"), "{told}");
        for (variables, words) in [
            (&[][..], &["db.example"][..]),
            (&[], &["db.example", "--port", "1", "--listen", "2"]),
            (&[], &["postgresql://db.example?listen=2", "--port", "1"]),
            (&[], &["--port", "1", "--config", "/f"]),
            (&[("PGENTRA_LISTEN", "2")], &["db.example", "--port", "1"]),
        ] {
            assert_eq!(warning(variables, words), None, "{words:?}");
        }
    }
}

//! Runs `pgentra gateway ldap` from start to end.

use std::sync::Arc;
use std::time::Duration;

use pgentra_connect::quote;
use pgentra_gateway::{Flavour, Gateway, RoleSource};
use pgentra_gateway_config::{GatewayConfiguration, GatewayReloadState, GatewaySources};
use pgentra_ldap::{LdapResponder, Options};
use pgentra_session::bind_tcp;
use pgentra_session::login_error::chain;
use pgentra_settings::InheritedSockets;
use pgentra_system::System;
use tokio_util::sync::CancellationToken;

use super::arguments::Ldap;
use crate::blame::Blame;
use crate::platform::{SignalEvent, Signals};
use crate::problem::{Outcome, Problem};
use crate::service::{Console, Notify};

/// How often it is looked whether signing keys are due for renewal.
const KEY_CHECK: Duration = Duration::from_secs(60);

/// Verifies tokens until Ctrl-C or SIGTERM.
pub(crate) async fn run(system: &System, arguments: Ldap) -> Outcome {
    let sources = GatewaySources { file: arguments.config.clone(), flags: Vec::new() };
    let held = GatewayReloadState::new(InheritedSockets::from_systemd(system.env()).map_err(problem)?)
        .with_directories(super::directory::source());
    let configuration = GatewayConfiguration::gather(system, &sources, &held).map_err(problem)?;
    let console = Console::new(system, configuration.process.telemetry.log_format, "pgentra::gateway");
    let wanted = arguments.server.as_deref();
    let server = configuration.servers.into_iter().find(|it| wanted.is_none_or(|name| it.name == name));
    let Some(server) = server else {
        let message = format!("the configuration has no server {}", quote::name(wanted.unwrap_or_default()));
        return Err(
            Problem::new(Blame::Usage, message).hint("list its servers: pgentra gateway --check-config")
        );
    };
    if matches!(server.config.roles, RoleSource::Database(Flavour::Single)) {
        let message =
            "flavour single cannot be verified by LDAP: PostgreSQL compares an id with the role's password";
        return Err(
            Problem::new(Blame::Usage, message).hint("take flavour flexible, or none with a mapping file")
        );
    }
    let listener = bind_tcp(arguments.listen).map_err(|error| {
        Problem::new(Blame::Network, format!("cannot listen at {}: {error}", arguments.listen))
            .hint("a port below 1024 takes root or CAP_NET_BIND_SERVICE; --listen names another one")
    })?;
    let address = listener.local_addr().unwrap_or(arguments.listen);
    let gateway = Arc::new(Gateway::new(server.config));
    let options = Options { prefix: arguments.prefix, suffix: arguments.suffix, ..Options::default() };
    let line = format!(
        "ldap ldapserver={} ldapport={} ldapprefix={} ldapsuffix={}",
        address.ip(),
        address.port(),
        quote::name(&options.prefix),
        quote::name(&options.suffix)
    );
    let responder = Arc::new(LdapResponder::new(gateway.clone(), options));
    let mut signals = Signals::listen()?;
    let stop = CancellationToken::new();
    let mut serving = std::pin::pin!(responder.serve(listener, stop.clone()));
    let notify = Notify::from_env(system.env());
    console.say(&format!("roles of {} sign in by: {line}", server.name));
    notify.ready("verifying tokens");
    let mut keys = tokio::time::interval(KEY_CHECK);
    loop {
        tokio::select! {
            served = &mut serving => {
                return served.map_err(|error| {
                    Problem::new(Blame::Usage, chain(&error)).hint("--listen 127.0.0.1:389")
                });
            }
            told = signals.next() => match told {
                SignalEvent::Stop => {
                    notify.stopping("stopping");
                    stop.cancel();
                }
                SignalEvent::Reload => console.say("the configuration is read at the start: restart it"),
            },
            _ = keys.tick() => {
                if let Err(error) = gateway.refresh_keys().await {
                    console.say(&format!("signing keys cannot be renewed, the old ones stay in use: {}", chain(&error)));
                }
            }
        }
    }
}

fn problem(error: pgentra_settings::SettingsError) -> Problem {
    Problem::of_settings(error, "pgentra gateway ldap")
}

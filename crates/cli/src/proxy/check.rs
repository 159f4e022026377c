//! `pgentra proxy --check`: signs in to every target once, without listening. `--check-config`:
//! checks the configuration only.

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use pgentra_connect::{ConnectError, Connector};
use pgentra_proxy_config::{Configuration, ListenerKind, TargetConfig};
use serde::Serialize;
use tokio::time::Instant;

use crate::catalogue::Finding;
use crate::options::Format;
use crate::output;
use crate::problem::{Outcome, Problem};
use crate::progress::waiting;

/// The result for a target.
#[derive(Debug, Serialize)]
struct Checked {
    target: String,
    ok: bool,
    /// Without a role no sign-in is possible: only token, address and certificate were checked.
    role: Option<String>,
    database: Option<String>,
    address: Option<SocketAddr>,
    tls: Option<String>,
    seconds: f64,
    exit_code: u8,
    error: Option<String>,
    hint: Option<String>,
    /// The finding for `pgentra doctor --explain`.
    finding: Option<&'static str>,
}

/// Prints the result for each target. The exit code is that of the first failure.
pub(crate) async fn run(configuration: Configuration, format: Format) -> Outcome {
    let targets = configuration.targets.into_iter().map(|configured| async move {
        let began = Instant::now();
        let reached = reach(&configured.connector).await.map_err(Problem::from);
        let checked = Checked::of(&configured, &reached, began.elapsed());
        (checked, reached.err())
    });
    let done = waiting("signing in to every target", join_all(targets)).await;
    let (checked, problems): (Vec<_>, Vec<_>) = done.into_iter().unzip();
    match format {
        Format::Json => output::json(&checked)?,
        Format::Text => output::result(&checked.iter().map(Checked::text).collect::<String>())?,
    }
    let number = checked.len();
    let mut failed: Vec<_> = problems.into_iter().flatten().collect();
    if failed.is_empty() {
        return Ok(());
    }
    let message = format!("{} of {number} target(s) cannot be served", failed.len());
    let first = failed.remove(0);
    let hint = first.hint_text().unwrap_or("the reasons are in the lines above").to_owned();
    let problem = match first.finding() {
        Some(finding) => Problem::found(first.blame(), finding, message),
        None => Problem::new(first.blame(), message),
    };
    Err(problem.hint(hint))
}

/// Prints a line for each target of a valid configuration.
pub(crate) fn configuration(configuration: &Configuration) -> Outcome {
    let mut text = String::new();
    for TargetConfig { name, settings, .. } in &configuration.targets {
        for kind in ListenerKind::ALL {
            let places: Vec<_> = settings.places(kind).iter().map(ToString::to_string).collect();
            if !places.is_empty() {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{} for {name}{kind}", places.join(", "));
            }
        }
    }
    output::result(&format!("{text}the configuration is valid\n"))
}

/// The address of a connection, and its TLS version.
struct Reached {
    address: Option<SocketAddr>,
    tls: String,
}

async fn reach(connector: &Connector) -> Result<Reached, ConnectError> {
    if connector.target().named_user().is_some() {
        let session = connector.connect().await?;
        let reached = Reached { address: session.address(), tls: session.tls().to_string() };
        session.close().await?;
        return Ok(reached);
    }
    connector.token_ready().await?;
    let mut last = None;
    for endpoint in connector.target().endpoints() {
        let addresses = match connector.resolve(endpoint).await {
            Ok(addresses) => addresses,
            Err(error) => {
                last = Some(error);
                continue;
            }
        };
        for address in addresses {
            match connector.dial(address).await {
                Ok(stream) => {
                    let secured = connector.secure(stream, &endpoint.host).await?;
                    return Ok(Reached { address: Some(address), tls: secured.tls().to_string() });
                }
                Err(error) => last = Some(error),
            }
        }
    }
    // Every host gives at least one address or an error.
    match last {
        Some(error) => Err(error),
        None => {
            connector.connect().await.map(|session| Reached { address: None, tls: session.tls().to_string() })
        }
    }
}

impl Checked {
    fn of(configured: &TargetConfig, reached: &Result<Reached, Problem>, took: Duration) -> Self {
        let target = configured.connector.target();
        let named = |name: Option<&str>| name.map(str::to_owned);
        let problem = reached.as_ref().err();
        let reached = reached.as_ref().ok();
        Self {
            target: configured.name.clone(),
            ok: problem.is_none(),
            role: named(target.named_user()),
            database: named(target.named_database()),
            address: reached.and_then(|reached| reached.address),
            tls: reached.map(|reached| reached.tls.clone()),
            seconds: took.as_secs_f64(),
            exit_code: problem.map_or(0, |problem| problem.blame() as u8),
            error: problem.map(Problem::chain),
            hint: problem.and_then(|problem| problem.hint_text()).map(str::to_owned),
            finding: problem.and_then(Problem::finding).map(Finding::id),
        }
    }

    fn text(&self) -> String {
        let Self { target, tls, seconds, .. } = self;
        let mut text = match (&self.error, tls) {
            (Some(error), _) => format!("failed  {target}: {error}\n"),
            (None, tls) => {
                let tls = tls.as_deref().unwrap_or_default();
                let what = match &self.role {
                    Some(_) => "signed in",
                    None => "token and certificate are good; name a role to have it sign in",
                };
                format!("ok      {target}: {what} ({tls}, {seconds:.3} s)\n")
            }
        };
        if let Some(hint) = &self.hint {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "        hint: {}", hint.replace('\n', "\n        "));
        }
        if let Some(finding) = self.finding {
            let _ = writeln!(text, "        see: pgentra doctor --explain {finding}");
        }
        text
    }
}

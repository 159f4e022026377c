//! Every folder below `scenarios/` is one situation on one host: its variables and files, what is asked on the wire and
//! what comes back, and what must come of it. This test plays them all, over real HTTP on loopback, on paused time.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod file;
mod server;

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pgentra_identity::{
    AccessToken, Cloud, ConfigError, Credential, Resource, Selector, TokenError, TokenErrorKind,
};
use pgentra_system::{Env, Files, Finished, Processes, RuntimeClock, System};
use tokio::time::Instant;

use crate::file::{Outcome, Scenario};
use crate::server::Server;

#[test]
fn every_scenario_ends_as_it_says() {
    let mut folders: Vec<PathBuf> = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    folders.sort();
    assert!(folders.len() >= 40, "only {} scenarios were found", folders.len());
    let mut report = String::new();
    for folder in folders {
        let (about, problems) = play(&folder);
        if !problems.is_empty() {
            let name = folder.file_name().unwrap().to_string_lossy();
            writeln!(report, "\n{name}: {about}\n  - {}", problems.join("\n  - ")).unwrap();
        }
    }
    assert!(report.is_empty(), "{report}");
}

fn play(folder: &Path) -> (String, Vec<String>) {
    let text = std::fs::read_to_string(folder.join("scenario.toml")).unwrap();
    let scenario: Scenario = match toml::from_str(&text) {
        Ok(scenario) => scenario,
        Err(error) => return (String::new(), vec![error.to_string()]),
    };
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let mut problems = runtime.block_on(run(&scenario));
    drop(guard);
    let log = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    problems.extend(
        scenario
            .secrets()
            .into_iter()
            .filter(|secret| log.contains(secret.as_str()))
            .map(|_| "a secret was logged".to_owned()),
    );
    let missing = scenario.logs.iter().filter(|fragment| !log.contains(fragment.as_str()));
    problems.extend(missing.map(|fragment| format!("it was not logged: {fragment}")));
    (scenario.about, problems)
}

async fn run(scenario: &Scenario) -> Vec<String> {
    let server = Server::start(scenario).await;
    let now = UNIX_EPOCH + Duration::from_secs(scenario.now);
    let variables = scenario.env.iter().map(|(name, value)| (name.clone(), server.fill(value)));
    let files = Files::in_memory();
    for (path, content) in &scenario.files {
        files.put(path, content.as_bytes());
    }
    for (path, target) in &scenario.links {
        files.link(path, target);
    }
    let system = System::builder()
        .env(Env::from_map(variables))
        .files(files)
        .clock(RuntimeClock::starting_at(now))
        .processes(programs(scenario))
        .route("169.254.169.254", 80, server.metadata_address())
        .route("127.0.0.1", 40342, server.address())
        .route("localhost", 40342, server.address())
        .build();
    let mut problems = Vec::new();
    let mut last: Option<Credential> = None;
    for outcome in &scenario.outcome {
        tokio::time::sleep(Duration::from_secs(outcome.after_s)).await;
        let kept = last.take().filter(|_| outcome.again);
        let credential = match kept.map_or_else(|| credential(scenario, system.clone()), Ok) {
            Ok(credential) => credential,
            Err(error) => {
                problems.extend(check_config(outcome, &error));
                continue;
            }
        };
        let resource: Resource = scenario.resource.parse().unwrap();
        let began = Instant::now();
        let result = credential.token(&resource).await;
        problems.extend(check(scenario, outcome, &result, now));
        let took = began.elapsed().as_secs_f64();
        if let Some([least, most]) = outcome.took_s
            && !(least..=most).contains(&took)
        {
            problems.push(format!("it took {took} s"));
        }
        if let Some(source) = &outcome.decided
            && credential.decision().source().map(|name| name.as_str()) != Some(source)
        {
            problems.push(format!("decided otherwise:\n{}", credential.decision()));
        }
        last = Some(credential);
    }
    problems.extend(server.problems());
    problems
}

fn credential(scenario: &Scenario, system: System) -> Result<Credential, ConfigError> {
    let mut builder = Credential::builder(system);
    if let Some(selector) = &scenario.selector {
        builder = builder.selector(match selector.split_once(' ') {
            Some(("client-id", id)) => Selector::ClientId(id.parse().unwrap()),
            Some(("object-id", id)) => Selector::ObjectId(id.parse().unwrap()),
            Some(("resource-id", id)) => Selector::ResourceId(id.to_owned()),
            _ => Selector::Default,
        });
    }
    if let Some(source) = &scenario.source {
        builder = builder.source(source.parse().unwrap());
    }
    if let Some(command) = &scenario.command {
        builder = builder.command(command);
    }
    if let Some(cloud) = &scenario.cloud {
        builder = builder.cloud(cloud.parse::<Cloud>().unwrap());
    }
    if let Some(tenant) = &scenario.tenant {
        builder = builder.tenant(tenant);
    }
    if let Some(deadline) = scenario.deadline_s {
        builder = builder.deadline(Duration::from_secs(deadline));
    }
    builder.build()
}

/// The installed programs; one that is called with other arguments than expected says so and fails.
fn programs(scenario: &Scenario) -> Processes {
    let programs = scenario.program.clone();
    Processes::scripted(move |call| {
        let Some(program) = programs.iter().find(|program| program.name == call.program) else {
            return Err(std::io::ErrorKind::NotFound.into());
        };
        let variables: BTreeMap<_, _> = call.variables.iter().cloned().collect();
        if program.arguments != call.arguments
            || !program.variables.iter().all(|(k, v)| variables.get(k) == Some(v))
        {
            return Err(std::io::Error::other(format!("called unexpectedly: {:?}", call.arguments)));
        }
        Ok(Finished {
            code: Some(program.code),
            stdout: file::expand(&program.stdout).into_bytes().into(),
            stderr: program.stderr.clone().into_bytes(),
        })
    })
}

fn check(
    scenario: &Scenario,
    outcome: &Outcome,
    result: &Result<AccessToken, TokenError>,
    now: SystemTime,
) -> Vec<String> {
    let mut problems = Vec::new();
    match result {
        Ok(token) => {
            if outcome.token.as_ref().map(|text| file::expand(text)).as_deref() != Some(token.expose_secret())
            {
                problems.push(format!("the token is {:?}", token.expose_secret()));
            }
            let since = token.expires_on().duration_since(UNIX_EPOCH).unwrap().as_secs();
            if outcome.expires_on.is_some_and(|expected| expected != since) {
                problems.push(format!("it expires on {since}"));
            }
            let wait = token.refresh_on().duration_since(now).unwrap_or_default().as_secs();
            if outcome.refresh_in.is_some_and(|expected| expected.abs_diff(wait) > 1) {
                problems.push(format!("it is refreshed in {wait} s"));
            }
            if outcome.source.as_deref().is_some_and(|expected| expected != token.source().as_str()) {
                problems.push(format!("it comes from {}", token.source()));
            }
        }
        Err(error) => problems.extend(check_error(scenario, outcome, error)),
    }
    problems
}

fn check_error(scenario: &Scenario, outcome: &Outcome, error: &TokenError) -> Vec<String> {
    let mut problems = Vec::new();
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(one) = cause {
        if told.ends_with(&one.to_string()) {
            problems.push(format!("an error repeats its cause: {told}"));
        }
        write!(told, "\ncaused by: {one}").unwrap();
        cause = one.source();
    }
    let hint = error.hint().unwrap_or_default();
    let kind = match error.kind() {
        TokenErrorKind::NoSource => "no-source",
        TokenErrorKind::Network => "network",
        TokenErrorKind::Timeout => "timeout",
        TokenErrorKind::Refused { .. } => "refused",
        TokenErrorKind::BadAnswer => "bad-answer",
        TokenErrorKind::Expired => "expired",
        TokenErrorKind::Config => "config",
        _ => "another",
    };
    let whole = format!("{kind}: {told}\nhint: {hint}");
    if outcome.error.as_deref() != Some(kind) {
        problems.push(format!("the error is {whole}"));
    }
    if outcome.status.is_some() && outcome.status != error.status() {
        problems.push(format!("the status is {:?}", error.status()));
    }
    if outcome.source.is_some() && outcome.source.as_deref() != error.source_name().map(|name| name.as_str())
    {
        problems.push(format!("the error names {:?}", error.source_name()));
    }
    for fragment in outcome.says.iter().filter(|fragment| !told.contains(fragment.as_str())) {
        problems.push(format!("it does not say {fragment:?} but {whole}"));
    }
    for fragment in outcome.hint.iter().filter(|fragment| !hint.contains(fragment.as_str())) {
        problems.push(format!("the hint is not {fragment:?} but {hint:?}"));
    }
    let debug = format!("{error:?}");
    for secret in scenario.secrets() {
        if whole.contains(&secret) || debug.contains(&secret) {
            problems.push(format!("a secret is shown: {whole}"));
        }
    }
    problems
}

fn check_config(outcome: &Outcome, error: &ConfigError) -> Vec<String> {
    let told = format!("{error}\nhint: {}", error.hint().unwrap_or_default());
    let mut problems = Vec::new();
    if outcome.error.as_deref() != Some("cannot-be-built") {
        problems.push(format!("it cannot be built: {told}"));
    }
    let fragments = outcome.says.iter().chain(&outcome.hint);
    problems.extend(
        fragments
            .filter(|part| !told.contains(part.as_str()))
            .map(|part| format!("it does not say {part:?} but {told}")),
    );
    problems
}

/// Everything that is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

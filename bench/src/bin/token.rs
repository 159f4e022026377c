//! The token engine beside `azure_identity`, and `pgentra token` beside other ways to get a token at a shell.
//!
//! `cargo xtask bench token` builds and runs it. A local Azure answers; every row interleaves both sides and prints the
//! median of its rounds, and the ratio. Sides differ in what they can do, so each row says what is measured.

use std::env;
use std::hint::black_box;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use azure_core::credentials::TokenCredential;
use azure_identity::ManagedIdentityCredential;
use pgentra_emulator::{Clock, Endpoint, LocalAzure, Options};
use pgentra_identity::{Cloud, Credential, Resource};
use pgentra_system::System;
use secrecy::ExposeSecret;

/// Reads in one round of a cached row.
const READS: u32 = 300_000;
/// Rounds of every row; odd, so that the median is one of them.
const ROUNDS: usize = 9;
/// Callers that want a token at once when there is none.
const WAITERS: usize = 10_000;
/// Rounds of the cold processes.
const PROCESSES: usize = 15;

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match env::args().nth(1).as_deref() {
        Some("measure") => runtime.block_on(measure()),
        binary => runtime.block_on(orchestrate(binary.map(str::to_owned))),
    }
}

/// Starts the local Azure and, with its variables, the process that measures: variables are set for it alone.
async fn orchestrate(binary: Option<String>) -> Result<()> {
    environment();
    let azure = LocalAzure::start(Options::new(Clock::following(SystemTime::now))).await?;
    let service = azure.app_service();
    let status = tokio::process::Command::new(env::current_exe()?)
        .arg("measure")
        .env("IDENTITY_ENDPOINT", &service.endpoint)
        .env("IDENTITY_HEADER", service.header.expose_secret())
        .status()
        .await?;
    ensure!(status.success(), "the measuring process failed");
    println!("requests that reached the endpoint: {}", azure.journal().count(Endpoint::AppService));
    if let Some(binary) = binary {
        let url = azure.metadata_url().to_owned();
        tokio::task::spawn_blocking(move || cold_processes(&binary, &url)).await??;
    }
    azure.stop().await;
    Ok(())
}

async fn measure() -> Result<()> {
    let resource = Cloud::Public.postgres_resource();
    let ours = Credential::builder(System::real()).build()?;
    let theirs = ManagedIdentityCredential::new(None)?;
    let scope = resource.scope();
    let scopes = [scope.as_str()];
    ours.token(&resource).await?;
    theirs.get_token(&scopes, None).await?;

    println!("\ncached read, ns per call (median of {ROUNDS} rounds of {READS})");
    let mut rows = Rows::default();
    for _ in 0..ROUNDS {
        rows.clock.push(time(READS, || {
            black_box(SystemTime::now());
        }));
        rows.borrowed.push(time(READS, || {
            black_box(ours.with_cached(&resource, |token| token.expires_on()));
        }));
        let start = Instant::now();
        for _ in 0..READS {
            black_box(ours.token(&resource).await?);
        }
        rows.cloned.push(per(start.elapsed(), READS));
        let start = Instant::now();
        for _ in 0..READS {
            black_box(theirs.get_token(&scopes, None).await?);
        }
        rows.theirs.push(per(start.elapsed(), READS));
    }
    let theirs_alone = median(&mut rows.theirs);
    println!("  the clock alone                    {:8.1}", median(&mut rows.clock));
    for (name, row) in
        [("with_cached (borrowed)", &mut rows.borrowed), ("token() (cloned)", &mut rows.cloned)]
    {
        let ours = median(row);
        println!("  pgentra {name:<26} {ours:8.1}   {:.1} times as fast", theirs_alone / ours);
    }
    println!("  azure_identity get_token           {theirs_alone:8.1}");

    two_threads(&ours, &theirs, &resource).await?;
    cold_start(&resource).await
}

#[derive(Default)]
struct Rows {
    clock: Vec<f64>,
    borrowed: Vec<f64>,
    cloned: Vec<f64>,
    theirs: Vec<f64>,
}

/// The same read from two threads at once: flat means that readers do not wait for each other.
async fn two_threads(
    ours: &Credential,
    theirs: &Arc<ManagedIdentityCredential>,
    resource: &Resource,
) -> Result<()> {
    println!("\ncached read on two threads at once, ns per call (median of {ROUNDS} rounds)");
    let (mut borrowed, mut cloned, mut peers) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        borrowed.push(
            both(|| {
                let (ours, resource) = (ours.clone(), resource.clone());
                move || async move {
                    for _ in 0..READS {
                        black_box(ours.with_cached(&resource, |token| token.expires_on()));
                    }
                }
            })
            .await?,
        );
        cloned.push(
            both(|| {
                let (ours, resource) = (ours.clone(), resource.clone());
                move || async move {
                    for _ in 0..READS {
                        let _ = black_box(ours.token(&resource).await);
                    }
                }
            })
            .await?,
        );
        peers.push(
            both(|| {
                let (theirs, scope) = (theirs.clone(), resource.scope());
                move || async move {
                    for _ in 0..READS {
                        let _ = black_box(theirs.get_token(&[scope.as_str()], None).await);
                    }
                }
            })
            .await?,
        );
    }
    let theirs = median(&mut peers);
    for (name, row) in [("with_cached (borrowed)", &mut borrowed), ("token() (cloned)", &mut cloned)] {
        let ours = median(row);
        println!("  pgentra {name:<26} {ours:8.1}   {:.1} times as fast", theirs / ours);
    }
    println!("  azure_identity get_token           {theirs:8.1}");
    Ok(())
}

/// Runs one reader on each of two threads and returns ns per call.
async fn both<F, Fut>(make: impl Fn() -> F) -> Result<f64>
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let start = Instant::now();
    let (one, two) = (tokio::spawn(make()()), tokio::spawn(make()()));
    one.await?;
    two.await?;
    Ok(per(start.elapsed(), READS))
}

/// Ten thousand callers want a token when there is none.
async fn cold_start(resource: &Resource) -> Result<()> {
    println!(
        "\n{WAITERS} callers at once and no token yet, ms until all have one (median of {ROUNDS} rounds)"
    );
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let credential = Credential::builder(System::real()).build()?;
        ours.push(
            crowd(|| {
                let (credential, resource) = (credential.clone(), resource.clone());
                async move { credential.token(&resource).await.is_ok() }
            })
            .await?,
        );
        let credential = ManagedIdentityCredential::new(None)?;
        theirs.push(
            crowd(|| {
                let (credential, scope) = (credential.clone(), resource.scope());
                async move { credential.get_token(&[scope.as_str()], None).await.is_ok() }
            })
            .await?,
        );
    }
    let (ours, theirs) = (median(&mut ours), median(&mut theirs));
    println!("  pgentra                            {ours:8.2}   {:.1} times as fast", theirs / ours);
    println!("  azure_identity                     {theirs:8.2}");
    Ok(())
}

async fn crowd<Fut: Future<Output = bool> + Send + 'static>(make: impl Fn() -> Fut) -> Result<f64> {
    let start = Instant::now();
    let tasks: Vec<_> = (0..WAITERS).map(|_| tokio::spawn(make())).collect();
    for task in tasks {
        ensure!(task.await?, "a caller got no token");
    }
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// `pgentra token` as a process from nothing, beside the article's pipeline and the Python SDK where it is installed.
fn cold_processes(binary: &str, metadata: &str) -> Result<()> {
    let url = format!(
        "{metadata}/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fossrdbms-aad.database.windows.net"
    );
    let mut ways = vec![
        ("pgentra token", vec![binary.to_owned(), "token".to_owned()]),
        (
            "curl | jq",
            vec!["sh".into(), "-c".into(), format!("curl -s '{url}' -H Metadata:true | jq -r .access_token")],
        ),
    ];
    if let Ok(python) = env::var("PGENTRA_BENCH_PYTHON") {
        let program = "from azure.identity import ManagedIdentityCredential as C; \
             print(C().get_token('https://ossrdbms-aad.database.windows.net/.default').token)";
        ways.push(("python azure-identity", vec![python, "-c".to_owned(), program.to_owned()]));
    }
    // az signs in only where a Resource Manager answers, which the local cloud has not; its own start takes half a second.
    println!("\n(no row for az: it cannot sign in to the local cloud alone)");
    let mut times = vec![Vec::new(); ways.len()];
    for _ in 0..PROCESSES {
        for ((name, words), times) in ways.iter().zip(&mut times) {
            let start = Instant::now();
            let output = Command::new(&words[0])
                .args(&words[1..])
                .env("AZURE_POD_IDENTITY_AUTHORITY_HOST", metadata)
                .stderr(Stdio::null())
                .output()
                .with_context(|| format!("cannot run {name}"))?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
            ensure!(output.status.success() && output.stdout.starts_with(b"eyJ"), "{name} printed no token");
        }
    }
    println!("\na token from a cold process, ms (median of {PROCESSES} rounds)");
    let ours = median(&mut times[0].clone());
    for ((name, _), times) in ways.iter().zip(&mut times) {
        let time = median(times);
        println!("  {name:<34} {time:8.1}   {:.2} of pgentra's time", time / ours);
    }
    Ok(())
}

fn environment() {
    let rustc =
        Command::new("rustc").arg("--version").output().map(|output| output.stdout).unwrap_or_default();
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpu.lines().find_map(|line| line.strip_prefix("model name\t: ")).unwrap_or("unknown processor");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("{model}, {cores} cores; {}", String::from_utf8_lossy(&rustc).trim());
    println!("azure_identity 1.0 through App Service; read the ratios, the machine is shared");
}

fn time(times: u32, mut work: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..times {
        work();
    }
    per(start.elapsed(), times)
}

fn per(span: Duration, times: u32) -> f64 {
    span.as_secs_f64() * 1e9 / f64::from(times)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

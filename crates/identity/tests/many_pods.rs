//! A hundred pods that start in the same second ask a token service that refuses what is above its limits, and refresh
//! their tokens later. Over real HTTP on loopback, on paused time.
//!
//! `cargo test -p pgentra-identity --test many_pods -- --nocapture` prints the table of docs/refresh.md.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod stage;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use pgentra_identity::Credential;
use pgentra_system::System;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep, sleep_until};

use crate::stage::{Answer, POSTGRESQL, read_request, system};

const PODS: usize = 100;
const SECOND: Duration = Duration::from_secs(1);
/// How long the service works on a token.
const WORK: Duration = Duration::from_millis(100);

/// What a token service takes before it answers 429.
#[derive(Clone, Copy)]
struct Limits {
    a_second: usize,
    at_once: usize,
    /// Seconds of its `Retry-After`, if it sends one.
    retry_after: Option<u64>,
    /// Seconds that its tokens live.
    life: u64,
}

#[derive(Default)]
struct Seen {
    /// When the requests of the last second were taken.
    taken: VecDeque<Instant>,
    now: usize,
    requests: Vec<Instant>,
    throttled: usize,
}

impl Seen {
    fn takes(&mut self, limits: Limits) -> bool {
        let now = Instant::now();
        self.requests.push(now);
        while self.taken.front().is_some_and(|at| now - *at >= SECOND) {
            self.taken.pop_front();
        }
        let takes = self.taken.len() < limits.a_second && self.now < limits.at_once;
        if takes {
            self.taken.push_back(now);
            self.now += 1;
        } else {
            self.throttled += 1;
        }
        takes
    }

    /// The most requests within a second.
    fn most(&self) -> usize {
        let within =
            |from: &Instant| self.requests.iter().filter(|at| *at >= from && **at - *from < SECOND).count();
        self.requests.iter().map(within).max().unwrap_or_default()
    }
}

async fn service(limits: Limits) -> (String, Arc<Mutex<Seen>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Seen::default()));
    let counted = seen.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let seen = counted.clone();
            tokio::spawn(async move {
                let Some(_) = read_request(&mut stream).await else { return };
                if seen.lock().unwrap().takes(limits) {
                    sleep(WORK).await;
                    seen.lock().unwrap().now -= 1;
                    let body = format!(r#"{{"access_token":"opaque-token","expires_in":{}}}"#, limits.life);
                    Answer::new(200, body).send(&mut stream).await;
                } else {
                    let answer = Answer::new(429, "");
                    let asked = limits.retry_after.map(|seconds| seconds.to_string());
                    let answer =
                        asked.iter().fold(answer, |answer, value| answer.header("retry-after", value));
                    answer.send(&mut stream).await;
                }
            });
        }
    });
    (url, seen)
}

/// What came of it.
struct Outcome {
    without_token: usize,
    last_token: Duration,
    start: Seen,
    refresh: Seen,
}

async fn play(limits: Limits, host: fn(&str) -> System) -> Outcome {
    let (url, seen) = service(limits).await;
    let began = Instant::now();
    let resource = &POSTGRESQL.parse().unwrap();
    let pods: Vec<_> = (0..PODS).map(|_| Credential::builder(host(&url)).build().unwrap()).collect();
    let ask = |pod: Credential| async move { (pod.token(resource).await.is_ok(), began.elapsed()) };
    let first = join_all(pods.iter().cloned().map(ask)).await;
    let start = std::mem::take(&mut *seen.lock().unwrap());

    // A pod with clients reads its token all the time, which starts the refresh when it is due.
    let refresh = if limits.life > 7200 { limits.life / 2 } else { limits.life - 300 };
    let due = began + Duration::from_secs(refresh);
    join_all(pods.iter().map(|pod| async move {
        sleep_until(due - 2 * 60 * SECOND).await;
        while Instant::now() < due + 2 * 60 * SECOND {
            let _may_be_refused = pod.token(resource).await;
            sleep(SECOND).await;
        }
    }))
    .await;
    let refresh = std::mem::take(&mut *seen.lock().unwrap());
    Outcome {
        without_token: first.iter().filter(|(has_token, _)| !has_token).count(),
        last_token: first.iter().map(|(_, at)| *at).max().unwrap(),
        start,
        refresh,
    }
}

fn one_node(service: &str) -> System {
    system(&[("AZURE_POD_IDENTITY_AUTHORITY_HOST", service)]).build()
}

fn workload_identity(service: &str) -> System {
    system(&[
        ("AZURE_CLIENT_ID", "853b9a84-5bfa-4b22-a3f3-0b9a43d9ad8a"),
        ("AZURE_TENANT_ID", "contoso.example"),
        ("AZURE_FEDERATED_TOKEN_FILE", "/token"),
        ("AZURE_AUTHORITY_HOST", service),
    ])
    .build()
}

#[tokio::test(start_paused = true)]
async fn each_of_a_hundred_pods_gets_a_token_and_their_refreshes_are_spread() {
    // The metadata service: 20 requests a second and 5 at once (Microsoft: instance-metadata-service, "rate limiting").
    let metadata = Limits { a_second: 20, at_once: 5, retry_after: None, life: 86_400 };
    // Entra does not publish its limit. It names the wait.
    let entra = Limits { a_second: 20, at_once: PODS, retry_after: Some(5), life: 3600 };
    println!(
        "| token service | requests at start | refused with 429 | last pod has its token | requests a second at refresh, at most |"
    );
    println!("|---|---|---|---|---|");
    for (name, limits, host) in [
        ("metadata service of one node", metadata, one_node as fn(&str) -> System),
        ("Entra, `Retry-After: 5`", entra, workload_identity),
    ] {
        let outcome = play(limits, host).await;
        println!(
            "| {name} | {} | {} | {:.1} s | {} |",
            outcome.start.requests.len(),
            outcome.start.throttled,
            outcome.last_token.as_secs_f64(),
            outcome.refresh.most(),
        );
        assert_eq!(outcome.without_token, 0, "{name}");
        assert!(outcome.last_token < Duration::from_secs(30), "{name}: {:?}", outcome.last_token);
        // Six refreshes that begin within the tenth of a second of one answer are one too many for the metadata service.
        assert!(outcome.refresh.throttled < PODS / 10, "{name}: {}", outcome.refresh.throttled);
        assert_eq!(outcome.refresh.requests.len() - outcome.refresh.throttled, PODS, "{name}");
        assert!(outcome.refresh.most() < 20, "{name}: {}", outcome.refresh.most());
    }
}

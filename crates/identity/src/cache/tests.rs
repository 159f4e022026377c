use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use secrecy::SecretString;
use tokio::time::{advance, sleep};

use super::*;
use crate::token::Life;
use crate::{NoToken, Reason, Selector, SourceName, TokenRequest, TokenSource};
use pgentra_system::RuntimeClock;

const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);
const START: u64 = 1_800_000_000;

/// What a scripted source answers: after a wait, a token of this text and life, or a refusal.
type Line = (Duration, Result<(&'static str, Duration), u16>);

#[derive(Debug)]
struct Script {
    lines: Mutex<VecDeque<Line>>,
    asked: AtomicUsize,
    clock: Arc<dyn Clock>,
}

impl TokenSource for Script {
    fn name(&self) -> SourceName {
        SourceName::External
    }

    fn token<'a>(&'a self, request: TokenRequest<'a>) -> BoxFuture<'a, Result<AccessToken, NoToken>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let line = self.lines.lock().unwrap().pop_front();
        let line = line.expect("the source was asked once too often");
        async move {
            sleep(line.0).await;
            let (text, life) = line.1.map_err(|status| {
                TokenError::new(TokenErrorKind::Refused { status }, "no").at(SourceName::External)
            })?;
            let now = self.clock.now();
            let life = Life { now, expires_on: now + life, refresh_in: None };
            Ok(AccessToken::new(SecretString::from(text), life, SourceName::External, request.resource))
        }
        .boxed()
    }
}

struct Bench {
    cache: Arc<Cache>,
    script: Arc<Script>,
    resource: Resource,
}

fn bench(lines: impl IntoIterator<Item = Line>) -> Bench {
    let clock: Arc<dyn Clock> = Arc::new(RuntimeClock::starting_at(UNIX_EPOCH + Duration::from_secs(START)));
    let lines = Mutex::new(lines.into_iter().collect());
    let script = Arc::new(Script { lines, asked: AtomicUsize::new(0), clock: clock.clone() });
    let chain = Arc::new(Chain::new(vec![script.clone()], Selector::Default));
    let cache = Arc::new(Cache::new(chain, clock, 90 * SECOND));
    Bench { cache, script, resource: "https://one.example".parse().unwrap() }
}

impl Bench {
    async fn text(&self) -> String {
        match self.cache.token(&self.resource).await {
            Ok(token) => token.expose_secret().to_owned(),
            Err(error) => format!("error: {error}"),
        }
    }

    fn asked(&self) -> usize {
        self.script.asked.load(Ordering::SeqCst)
    }

    /// Lets a request that was started in the background run to its end.
    async fn settle(&self) {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
}

fn token(text: &'static str, life: Duration) -> Line {
    (Duration::ZERO, Ok((text, life)))
}

fn refusal() -> Line {
    (Duration::ZERO, Err(500))
}

#[tokio::test(start_paused = true)]
async fn one_request_serves_every_waiter() {
    let bench = bench([(SECOND, Ok(("a", HOUR)))]);
    let all = (0..1000).map(|_| bench.text());
    assert!(futures_util::future::join_all(all).await.iter().all(|text| text == "a"));
    assert_eq!(bench.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn every_waiter_gets_the_same_error_and_the_next_caller_asks_anew() {
    let bench = bench([(SECOND, Err(400)), token("a", HOUR)]);
    let all = futures_util::future::join_all((0..20).map(|_| bench.text())).await;
    assert!(all.iter().all(|text| text.starts_with("error")), "{all:?}");
    assert_eq!(bench.asked(), 1);
    assert_eq!(bench.text().await, "a");
}

#[tokio::test(start_paused = true)]
async fn cancelling_one_waiter_cancels_nobody_else_and_not_the_request() {
    let bench = bench([(10 * SECOND, Ok(("a", HOUR)))]);
    let patient = {
        let (cache, resource) = (bench.cache.clone(), bench.resource.clone());
        tokio::spawn(async move { cache.token(&resource).await })
    };
    bench.settle().await;
    // The first waiter is the one that gives up, and so is every other but one.
    assert!(tokio::time::timeout(SECOND, bench.cache.token(&bench.resource)).await.is_err());
    assert_eq!(patient.await.unwrap().unwrap().expose_secret(), "a");
    assert_eq!(bench.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_outlives_the_only_caller() {
    let bench = bench([(10 * SECOND, Ok(("a", HOUR)))]);
    assert!(tokio::time::timeout(SECOND, bench.cache.token(&bench.resource)).await.is_err());
    sleep(10 * SECOND).await;
    assert_eq!(bench.text().await, "a");
    assert_eq!(bench.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_old_token_is_served_while_its_successor_is_fetched() {
    let bench = bench([token("old", HOUR), (20 * SECOND, Ok(("new", HOUR)))]);
    assert_eq!(bench.text().await, "old");
    advance(HOUR - 200 * SECOND).await;
    assert_eq!(bench.text().await, "old"); // starts the refresh, does not wait for it
    sleep(10 * SECOND).await;
    assert_eq!(bench.text().await, "old"); // still under way
    sleep(11 * SECOND).await;
    assert_eq!(bench.text().await, "new");
    assert_eq!(bench.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_comes_when_it_is_due_and_at_most_a_minute_earlier() {
    for (life, due) in [(24 * HOUR, 12 * HOUR), (HOUR, HOUR - 300 * SECOND), (300 * SECOND, 150 * SECOND)] {
        let bench = bench([token("a", life), token("b", life)]);
        bench.text().await;
        let early = MAX_JITTER.min(due / 10);
        advance(due - early - SECOND).await;
        assert_eq!(bench.text().await, "a");
        bench.settle().await;
        assert_eq!(bench.asked(), 1, "life {life:?}: not before its time");
        advance(early + SECOND).await;
        assert_eq!(bench.text().await, "a");
        bench.settle().await;
        assert_eq!(bench.asked(), 2, "life {life:?}: in time");
        assert_eq!(bench.text().await, "b");
    }
}

/// Invariant 7: a failed refresh never invalidates a token that is still valid.
#[tokio::test(start_paused = true)]
async fn a_failed_refresh_keeps_the_old_token_and_backs_off_doubling() {
    let lines = std::iter::once(token("old", 24 * HOUR)).chain((0..7).map(|_| refusal()));
    let bench = bench(lines.chain([token("new", 24 * HOUR)]));
    bench.text().await;
    advance(12 * HOUR).await;
    for (failures, wait) in [(1, 30), (2, 60), (3, 120), (4, 240), (5, 480), (6, 600), (7, 600)] {
        assert_eq!(bench.text().await, "old");
        bench.settle().await;
        let health = bench.cache.health(&bench.resource);
        assert_eq!((health.failures, bench.asked()), (failures, failures as usize + 1));
        assert_eq!(health.last_error.unwrap().status(), Some(500));
        advance(wait * SECOND - SECOND).await;
        assert_eq!(bench.text().await, "old");
        bench.settle().await;
        assert_eq!(bench.asked(), failures as usize + 1, "not before {wait} s");
        advance(SECOND).await;
    }
    assert_eq!(bench.text().await, "old");
    bench.settle().await;
    assert_eq!(bench.text().await, "new");
    let health = bench.cache.health(&bench.resource);
    assert!(health.failures == 0 && health.last_error.is_none() && health.expires_on.is_some());
    assert_eq!((health.succeeded, health.failed), (2, 7), "both counted from the start");
    assert_eq!(health.obtained_on, Some(bench.cache.clock.now()));
}

#[tokio::test(start_paused = true)]
async fn an_expired_token_is_neither_cached_nor_served() {
    let bench = bench([token("dead", Duration::ZERO), token("a", HOUR), refusal()]);
    assert!(bench.text().await.contains("already expired"));
    assert_eq!(bench.text().await, "a");
    advance(HOUR).await;
    assert!(bench.text().await.starts_with("error"), "an expired token was served");
}

#[tokio::test(start_paused = true)]
async fn in_its_last_moments_the_old_token_is_better_than_an_error() {
    let bench = bench([token("old", HOUR), refusal(), token("new", HOUR)]);
    bench.text().await;
    advance(HOUR - 5 * SECOND).await;
    assert_eq!(bench.text().await, "old"); // asked for another, in vain
    assert_eq!(bench.text().await, "new");
    assert_eq!(bench.asked(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_token_with_a_short_life_is_used_not_asked_for_each_time() {
    let bench = bench([token("a", 100 * SECOND)]);
    for _ in 0..10 {
        assert_eq!(bench.text().await, "a");
    }
    bench.settle().await;
    assert_eq!(bench.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_same_token_again_is_not_asked_for_at_once() {
    // A platform's own cache gives the same token until shortly before its end.
    let bench = bench([token("a", 40 * SECOND), token("a", 20 * SECOND)]);
    bench.text().await;
    advance(20 * SECOND).await;
    for _ in 0..5 {
        assert_eq!(bench.text().await, "a");
        bench.settle().await;
    }
    assert_eq!(bench.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_forced_refresh_says_whether_the_same_token_came_back() {
    let bench = bench([token("a", HOUR), token("a", HOUR), token("b", HOUR)]);
    let (cache, resource) = (&bench.cache, &bench.resource);
    let first = cache.token(resource).await.unwrap();
    assert!(matches!(cache.refresh(resource, &first).await.unwrap(), Refreshed::Same(_)));
    // Within half a minute the answer is known.
    assert!(matches!(cache.refresh(resource, &first).await.unwrap(), Refreshed::Same(_)));
    assert_eq!(bench.asked(), 2);
    advance(31 * SECOND).await;
    let Refreshed::New(second) = cache.refresh(resource, &first).await.unwrap() else { panic!("not new") };
    assert_eq!(second.expose_secret(), "b");
    // Another connection was rejected with the first token: its successor is already there.
    assert!(matches!(cache.refresh(resource, &first).await.unwrap(), Refreshed::New(_)));
    assert_eq!(bench.asked(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_failed_forced_refresh_leaves_the_token_to_others() {
    let bench = bench([token("a", HOUR), refusal()]);
    let first = bench.cache.token(&bench.resource).await.unwrap();
    assert!(bench.cache.refresh(&bench.resource, &first).await.is_err());
    assert_eq!(bench.text().await, "a");
}

#[tokio::test(start_paused = true)]
async fn one_resource_never_waits_for_another() {
    let bench = bench([(50 * SECOND, Ok(("slow", HOUR))), token("fast", HOUR)]);
    let slow = {
        let (cache, resource) = (bench.cache.clone(), bench.resource.clone());
        tokio::spawn(async move { cache.token(&resource).await })
    };
    bench.settle().await;
    let other = "https://two.example".parse().unwrap();
    let fast = tokio::time::timeout(SECOND, bench.cache.token(&other)).await.unwrap().unwrap();
    assert_eq!((fast.expose_secret(), fast.resource()), ("fast", &other));
    assert_eq!(slow.await.unwrap().unwrap().expose_secret(), "slow");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_never_answers_is_cut_off() {
    let bench = bench([(9000 * SECOND, Ok(("late", HOUR)))]);
    let began = Instant::now();
    let error = bench.cache.token(&bench.resource).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Timeout);
    assert_eq!(began.elapsed().as_secs(), 90);
}

#[tokio::test(start_paused = true)]
async fn a_panicking_source_is_an_error_and_not_the_end() {
    let bench = bench([]);
    let error = bench.cache.token(&bench.resource).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Abandoned);
    bench.script.lines.lock().unwrap().push_back(token("a", HOUR));
    assert_eq!(bench.text().await, "a");
}

#[test]
fn a_request_lost_with_its_runtime_is_sent_again() {
    let runtime =
        || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let first = runtime();
    let bench = first.block_on(async {
        let bench = bench([(10 * SECOND, Ok(("lost", HOUR))), token("a", HOUR)]);
        assert!(tokio::time::timeout(SECOND, bench.cache.token(&bench.resource)).await.is_err());
        bench
    });
    drop(first);
    assert_eq!(runtime().block_on(bench.text()), "a");
}

#[test]
fn a_runtime_that_is_gone_is_an_error_and_no_deadlock() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let handle = runtime.handle().clone();
    let bench = runtime.block_on(async { bench([token("a", HOUR)]) });
    assert!(bench.cache.token(&bench.resource).now_or_never().unwrap().is_err(), "outside any runtime");
    drop(runtime);
    let _inside = handle.enter();
    let error = bench.cache.token(&bench.resource).now_or_never().unwrap().unwrap_err();
    assert_eq!((error.kind(), bench.asked()), (TokenErrorKind::Abandoned, 0));
}

#[tokio::test(start_paused = true)]
async fn too_many_resources_are_refused() {
    let bench = bench((0..MAX_RESOURCES).map(|_| token("a", HOUR)));
    for number in 0..MAX_RESOURCES {
        bench.cache.token(&format!("https://{number}.example").parse().unwrap()).await.unwrap();
    }
    let error = bench.cache.token(&bench.resource).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Config);
}

#[tokio::test(start_paused = true)]
async fn a_cached_read_needs_no_waiting_and_no_lock() {
    let bench = bench([token("a", HOUR)]);
    bench.text().await;
    // Holding the lock of the request does not block readers.
    let slot = bench.cache.slot(&bench.resource).unwrap();
    let _held = slot.state.lock().unwrap();
    assert!(bench.cache.token(&bench.resource).now_or_never().unwrap().is_ok());
    let text = bench.cache.with_cached(&bench.resource, |token| token.expose_secret().len());
    assert_eq!(text, Some(1));
}

/// The chain goes on after "does not apply here", stops at "failed", and keeps every reason.
#[tokio::test(start_paused = true)]
async fn the_chain_goes_on_only_where_a_source_does_not_apply() {
    #[derive(Debug)]
    struct Absent;
    impl TokenSource for Absent {
        fn name(&self) -> SourceName {
            SourceName::Imds
        }
        fn token<'a>(&'a self, _: TokenRequest<'a>) -> BoxFuture<'a, Result<AccessToken, NoToken>> {
            std::future::ready(Err(NoToken::NotApplicable(Reason::new("nothing there")))).boxed()
        }
    }
    let there = bench([token("a", HOUR), refusal()]);
    let resource = &there.resource;
    let deadline = Instant::now() + HOUR;
    let chain =
        Chain::new(vec![Arc::new(Absent), there.script.clone(), there.script.clone()], Selector::Default);
    assert_eq!(chain.token(resource, deadline).await.unwrap().expose_secret(), "a");
    let error = chain.token(resource, deadline).await.unwrap_err();
    assert_eq!(
        (error.kind(), there.asked()),
        (TokenErrorKind::Refused { status: 500 }, 2),
        "asked only once more"
    );
    assert_eq!(error.reasons().len(), 1);
    let none = Chain::new(vec![Arc::new(Absent), Arc::new(Absent)], Selector::Default);
    let error = none.token(resource, deadline).await.unwrap_err();
    assert_eq!((error.kind(), error.reasons().len()), (TokenErrorKind::NoSource, 2));
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(cause, "imds: nothing there; imds: nothing there");
    assert!(!error.to_string().contains("nothing there") && error.hint().is_some());
}

//! From a name to its addresses, with a bound on the look-ups under way.
//!
//! A look-up is a blocking system call (`getaddrinfo`) that cannot be cancelled: it holds a thread, and a socket to the
//! resolver, until the resolver answers or gives up, also after the caller has stopped waiting.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use tokio::net::lookup_host;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Look-ups of one name at the same time. One would do, but for the packet that is lost: a resolver asks again after five
/// seconds as a rule (resolv.conf(5)), which only those are to wait for who asked with it.
const AT_ONCE: usize = 4;

/// A look-up that began less than this ago is shared.
const SHARED: Duration = Duration::from_secs(1);

/// More addresses than this are not kept.
const ADDRESSES: usize = 16;

/// An answer, for each that waits for it.
type LookUpResult = Result<Arc<[SocketAddr]>, Arc<io::Error>>;

type Resolve = dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync;

/// The look-ups of the process.
static SYSTEM: LazyLock<LookUps> = LazyLock::new(|| LookUps::new(|name| system(name).boxed()));

/// The addresses of a name with port 0, at most [`ADDRESSES`], as the system orders them. Waits for as long as the resolver takes; one that
/// stops waiting leaves the look-up to others that ask for the same name.
pub(crate) async fn look_up(name: &str) -> LookUpResult {
    SYSTEM.look_up(name).await
}

async fn system(name: String) -> io::Result<Vec<SocketAddr>> {
    Ok(lookup_host((name, 0)).await?.collect())
}

/// Look-ups under way, of which those of one name are shared.
struct LookUps {
    resolve: Box<Resolve>,
    under_way: Arc<Mutex<UnderWay>>,
}

#[derive(Default)]
struct UnderWay {
    begun: u64,
    /// Those of each name in the order in which they began.
    names: HashMap<String, Vec<LookUp>>,
}

struct LookUp {
    number: u64,
    began: Instant,
    answer: Shared<oneshot::Receiver<LookUpResult>>,
}

impl LookUps {
    fn new(
        resolve: impl Fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync + 'static,
    ) -> Self {
        Self { resolve: Box::new(resolve), under_way: Arc::default() }
    }

    async fn look_up(&self, name: &str) -> LookUpResult {
        loop {
            let answer = self.join(name);
            // The look-up was started on another runtime, which was shut down: start it again on this one.
            if let Ok(answer) = answer.await {
                return answer;
            }
        }
    }

    /// The youngest look-up of the name; a new one where that is not young enough, and there are not too many.
    fn join(&self, name: &str) -> Shared<oneshot::Receiver<LookUpResult>> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let known = under_way.names.get(name).map(Vec::as_slice).unwrap_or_default();
        if let Some(youngest) = known.last()
            && (youngest.began.elapsed() < SHARED || known.len() >= AT_ONCE)
        {
            return youngest.answer.clone();
        }
        under_way.begun += 1;
        let number = under_way.begun;
        let (sender, receiver) = oneshot::channel();
        let answer = receiver.shared();
        let look_up = LookUp { number, began: Instant::now(), answer: answer.clone() };
        under_way.names.entry(name.to_owned()).or_default().push(look_up);
        drop(under_way);
        let place = LookUpGuard { under_way: Arc::clone(&self.under_way), name: name.to_owned(), number };
        let resolving = (self.resolve)(name.to_owned());
        tokio::spawn(async move {
            let answer = resolving.await;
            drop(place);
            let answer =
                answer.map(|addresses| addresses.into_iter().take(ADDRESSES).collect()).map_err(Arc::new);
            // An error means that no caller waits any more.
            let _ = sender.send(answer);
        });
        answer
    }
}

/// A look-up counts as under way until this is dropped, with its task at the latest.
struct LookUpGuard {
    under_way: Arc<Mutex<UnderWay>>,
    name: String,
    number: u64,
}

impl Drop for LookUpGuard {
    fn drop(&mut self) {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = under_way.names.get_mut(&self.name) {
            known.retain(|look_up| look_up.number != self.number);
            if known.is_empty() {
                under_way.names.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::task::JoinSet;
    use tokio::time::{sleep, timeout};

    use super::*;

    fn addresses(last: u8, count: usize) -> Vec<SocketAddr> {
        vec![SocketAddr::from(([192, 0, 2, last], 0)); count]
    }

    /// A resolver that counts what it is asked for, and answers by the name and the number of the question.
    fn resolver(
        answer: impl Fn(String, usize) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync + 'static,
    ) -> (Arc<LookUps>, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let look_ups = LookUps::new(move |name| answer(name, counted.fetch_add(1, Ordering::Relaxed)));
        (Arc::new(look_ups), asked)
    }

    fn names(look_ups: &LookUps) -> usize {
        look_ups.under_way.lock().unwrap().names.len()
    }

    #[tokio::test(start_paused = true)]
    async fn clients_of_a_silent_resolver_share_a_few_look_ups_and_each_has_its_own_time() {
        let (look_ups, asked) = resolver(|_, _| pending().boxed());
        let mut clients = JoinSet::new();
        // Forty in a second, for a minute: each gives up after five seconds.
        for _ in 0..60 {
            for _ in 0..40 {
                let look_ups = Arc::clone(&look_ups);
                clients.spawn(async move {
                    let began = Instant::now();
                    assert!(timeout(Duration::from_secs(5), look_ups.look_up("db.example")).await.is_err());
                    assert_eq!(began.elapsed(), Duration::from_secs(5));
                });
            }
            sleep(Duration::from_secs(1)).await;
        }
        while let Some(client) = clients.join_next().await {
            client.unwrap();
        }
        assert_eq!(asked.load(Ordering::Relaxed), AT_ONCE);
        // Another name has look-ups of its own.
        let _ = timeout(Duration::from_secs(5), look_ups.look_up("other.example")).await;
        assert_eq!(asked.load(Ordering::Relaxed), AT_ONCE + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn one_look_up_answers_all_that_came_while_it_was_young() {
        for fails in [false, true] {
            let (look_ups, asked) = resolver(move |_, number| {
                async move {
                    sleep(Duration::from_millis(1500)).await;
                    if fails {
                        Err(io::Error::other(format!("answer {number}")))
                    } else {
                        Ok(addresses(7, 40))
                    }
                }
                .boxed()
            });
            let (first, second) =
                tokio::join!(look_ups.look_up("db.example"), look_ups.look_up("db.example"));
            for answer in [first, second] {
                match answer {
                    Ok(found) => assert_eq!((&found[..], fails), (&addresses(7, ADDRESSES)[..], false)),
                    Err(error) => assert_eq!((&*error.to_string(), fails), ("answer 0", true)),
                }
            }
            assert_eq!((asked.load(Ordering::Relaxed), names(&look_ups)), (1, 0), "nothing is kept");
            let _ = look_ups.look_up("db.example").await;
            assert_eq!(asked.load(Ordering::Relaxed), 2, "the next one asks anew");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_up_that_hangs_holds_up_those_alone_that_asked_with_it() {
        let (look_ups, _) = resolver(|_, number| match number {
            0 => pending().boxed(),
            _ => async { Ok(addresses(8, 1)) }.boxed(),
        });
        let early = timeout(Duration::from_secs(30), look_ups.look_up("db.example"));
        let late = async {
            sleep(SHARED).await;
            let began = Instant::now();
            let answer = look_ups.look_up("db.example").await.unwrap();
            assert_eq!((&answer[..], began.elapsed()), (&addresses(8, 1)[..], Duration::ZERO));
        };
        let (early, ()) = tokio::join!(early, late);
        assert!(early.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_is_free_again_once_its_look_up_has_ended() {
        let (look_ups, asked) = resolver(|_, _| {
            async {
                sleep(Duration::from_secs(40)).await;
                Err(io::ErrorKind::TimedOut.into())
            }
            .boxed()
        });
        for _ in 0..20 {
            let _ = timeout(SHARED, look_ups.look_up("db.example")).await;
        }
        assert_eq!(asked.load(Ordering::Relaxed), AT_ONCE);
        sleep(Duration::from_secs(40)).await;
        assert_eq!(names(&look_ups), 0);
        let _ = timeout(SHARED, look_ups.look_up("db.example")).await;
        assert_eq!(asked.load(Ordering::Relaxed), AT_ONCE + 1);
    }

    #[test]
    fn a_runtime_that_ends_takes_its_look_ups_along_and_no_others() {
        let (look_ups, asked) = resolver(|_, number| match number {
            0 => pending().boxed(),
            _ => async { Ok(addresses(9, 1)) }.boxed(),
        });
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let first = runtime();
        let answer = {
            let _entered = first.enter();
            look_ups.join("db.example")
        };
        drop(first);
        assert!(matches!(answer.now_or_never(), Some(Err(_))), "it will not be answered");
        assert_eq!(names(&look_ups), 0);
        let found = runtime().block_on(look_ups.look_up("db.example")).unwrap();
        assert_eq!((&found[..], asked.load(Ordering::Relaxed)), (&addresses(9, 1)[..], 2));
    }

    #[tokio::test]
    async fn the_systems_resolver_knows_this_machine() {
        let found = look_up("localhost").await.unwrap();
        assert!(!found.is_empty() && found.iter().all(|address| address.ip().is_loopback()), "{found:?}");
    }
}

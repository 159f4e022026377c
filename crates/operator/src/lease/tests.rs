use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use serde_json::{Value, json};
use tower::service_fn;

use super::*;

/// An API server that has at most one Lease, and counts its versions as the real one does.
#[derive(Clone, Default)]
struct FakeApi {
    lease: Arc<Mutex<Option<Value>>>,
}

/// What is between a replica and the API server.
#[derive(Clone, Default)]
struct Network {
    /// How late the answer to a write is.
    late: Arc<Mutex<Duration>>,
    is_gone: Arc<AtomicBool>,
}

impl FakeApi {
    fn holder(&self) -> Option<String> {
        let lease = self.lease.lock().unwrap();
        lease.as_ref()?["spec"]["holderIdentity"].as_str().map(str::to_owned)
    }

    fn answer(&self, method: &Method, sent: Option<Value>) -> (StatusCode, Value) {
        let failed = |code: u16, reason: &str| {
            let status = json!({ "kind": "Status", "status": "Failure", "message": "", "reason": reason, "code": code });
            (StatusCode::from_u16(code).unwrap(), status)
        };
        let mut lease = self.lease.lock().unwrap();
        let version = lease.as_ref().map(|lease| lease["metadata"]["resourceVersion"].clone());
        match (method.as_str(), sent, version) {
            ("GET", _, None) => failed(404, "NotFound"),
            ("GET", _, Some(_)) => (StatusCode::OK, lease.clone().unwrap()),
            ("POST", Some(_), Some(_)) => failed(409, "AlreadyExists"),
            ("PUT", Some(sent), Some(version)) if sent["metadata"]["resourceVersion"] != version => {
                failed(409, "Conflict")
            }
            (_, Some(mut sent), version) => {
                let next = version.and_then(|version| version.as_str()?.parse().ok()).unwrap_or(0_u64) + 1;
                sent["metadata"]["resourceVersion"] = json!(next.to_string());
                *lease = Some(sent.clone());
                (StatusCode::OK, sent)
            }
            (method, None, _) => panic!("{method} without a body"),
        }
    }

    fn replica(&self, name: &str) -> LeaderLease {
        self.replica_behind(name, &Network::default())
    }

    fn replica_behind(&self, name: &str, network: &Network) -> LeaderLease {
        let (fake, network) = (self.clone(), network.clone());
        let service = service_fn(move |request: Request<Body>| {
            let (fake, network) = (fake.clone(), network.clone());
            async move {
                if network.is_gone.load(Ordering::Relaxed) {
                    std::future::pending::<()>().await;
                }
                let (parts, body) = request.into_parts();
                let sent = serde_json::from_slice(&body.collect_bytes().await.unwrap()).ok();
                let (status, answer) = fake.answer(&parts.method, sent);
                // The server has written what was sent before its answer is here.
                if parts.method != Method::GET {
                    let late = *network.late.lock().unwrap();
                    sleep(late).await;
                }
                let body = Body::from(serde_json::to_vec(&answer).unwrap());
                Ok::<_, std::convert::Infallible>(Response::builder().status(status).body(body).unwrap())
            }
        });
        let client = kube::Client::new(service, "pgentra");
        LeaderLease::new(Api::default_namespaced(client), "operator", name.to_owned(), &System::real())
    }
}

#[tokio::test(start_paused = true)]
async fn one_replica_leads_until_it_gives_the_lease_back() {
    let api = FakeApi::default();
    let (one, two) = (api.replica("one"), api.replica("two"));
    one.acquire(|leader| panic!("{leader} leads")).await;
    assert_eq!(api.holder().as_deref(), Some("one"));
    let waiting = tokio::spawn({
        let two = two.clone();
        async move { two.acquire(|leader| assert_eq!(leader, "one")).await }
    });
    // It renews for longer than a Lease lives.
    let held = timeout(3 * DURATION, one.hold(Instant::now())).await;
    assert!(held.is_err() && !waiting.is_finished(), "the Lease was lost while it was renewed");
    one.release().await.unwrap();
    assert_eq!(api.holder(), None);
    timeout(2 * RETRY, waiting).await.unwrap().unwrap();
    assert_eq!(api.holder().as_deref(), Some("two"));
    // A replica that does not hold it gives nothing back, and sees at its next renewal that it does not lead.
    one.release().await.unwrap();
    assert_eq!(api.holder().as_deref(), Some("two"));
    timeout(2 * RETRY, one.hold(Instant::now())).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_is_gone_is_followed_after_the_lease_has_run_out() {
    let api = FakeApi::default();
    api.replica("one").acquire(|_| ()).await;
    let began = Instant::now();
    api.replica("two").acquire(|leader| assert_eq!(leader, "one")).await;
    let took = began.elapsed();
    assert!(took >= DURATION && took < DURATION + 2 * RETRY, "{took:?}");
    let lease = api.lease.lock().unwrap().clone().unwrap();
    assert_eq!(lease["spec"]["leaseTransitions"], 2);
}

/// The holder's time begins when it asks, not when it is answered: another replica counts from the write.
#[tokio::test(start_paused = true)]
async fn a_late_answer_makes_no_second_leader() {
    let late = DEADLINE - Duration::from_secs(2);
    for is_renewal in [false, true] {
        let api = FakeApi::default();
        let network = Network::default();
        *network.late.lock().unwrap() = if is_renewal { Duration::ZERO } else { late };
        let one = api.replica_behind("one", &network);
        let began = Instant::now();
        let leader = tokio::spawn(async move {
            let asked = one.acquire(|leader| panic!("{leader} leads")).await;
            one.hold(asked).await;
            Instant::now()
        });
        sleep(RETRY / 2).await;
        let other = tokio::spawn({
            let two = api.replica("two");
            async move {
                two.acquire(|leader| assert_eq!(leader, "one")).await;
                Instant::now()
            }
        });
        if is_renewal {
            *network.late.lock().unwrap() = late;
            sleep(RETRY).await;
        }
        // The answer to the last write is on its way, and nothing comes after it.
        network.is_gone.store(true, Ordering::Relaxed);
        let (ended, led) = (leader.await.unwrap(), other.await.unwrap());
        let (ended, led) = (ended - began, led - began);
        assert!(
            ended > late && ended < led,
            "renewal {is_renewal}: one works until {ended:?}, two from {led:?}"
        );
    }
}

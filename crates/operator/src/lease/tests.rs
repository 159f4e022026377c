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
        let fake = self.clone();
        let service = service_fn(move |request: Request<Body>| {
            let fake = fake.clone();
            async move {
                let (parts, body) = request.into_parts();
                let sent = serde_json::from_slice(&body.collect_bytes().await.unwrap()).ok();
                let (status, answer) = fake.answer(&parts.method, sent);
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
    let held = timeout(3 * DURATION, one.hold()).await;
    assert!(held.is_err() && !waiting.is_finished(), "the Lease was lost while it was renewed");
    one.release().await.unwrap();
    assert_eq!(api.holder(), None);
    timeout(2 * RETRY, waiting).await.unwrap().unwrap();
    assert_eq!(api.holder().as_deref(), Some("two"));
    // A replica that does not hold it gives nothing back, and sees at its next renewal that it does not lead.
    one.release().await.unwrap();
    assert_eq!(api.holder().as_deref(), Some("two"));
    timeout(2 * RETRY, one.hold()).await.unwrap();
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

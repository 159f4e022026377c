use std::sync::Mutex;

use http::{Method, Request, Response};
use kube::client::Body;
use kube::runtime::events::Reporter;
use kube::runtime::{reflector, watcher};
use pgentra_identity::{IdentityOptions, SourceName};
use serde_json::{Value, json};
use tower::service_fn;

use super::*;

fn resource(name: &str, created: &str, status: Value) -> PostgresRoles {
    let server = "postgresql://operator@one.example.com/app";
    serde_json::from_value(json!({
        "apiVersion": "pgentra.dev/v1alpha1", "kind": "PostgresRoles",
        "metadata": {
            "namespace": "team", "name": name, "uid": name, "resourceVersion": "1", "generation": 1,
            "creationTimestamp": created,
        },
        "spec": { "server": server, "role": [{ "name": "readers", "login": false }] },
        "status": status,
    }))
    .unwrap()
}

/// What an earlier comparison found is not told by a look that compares nothing.
#[tokio::test]
async fn a_look_that_is_refused_tells_no_older_plan() {
    let before = json!({
        "observedGeneration": 1, "systemIdentifier": "9", "changes": 1, "plan": ["+ role readers: without login"],
    });
    let mine = resource("mine", "2026-11-29T15:00:00Z", before);
    let has = json!({ "roles": [{ "name": "readers", "created": false }] });
    let other = resource("other", "2026-11-29T14:00:00Z", has);

    let written = Arc::new(Mutex::new(Vec::<Value>::new()));
    let (patches, answered) = (written.clone(), serde_json::to_vec(&mine).unwrap());
    let service = service_fn(move |request: Request<Body>| {
        let (patches, answered) = (patches.clone(), answered.clone());
        async move {
            let (parts, body) = request.into_parts();
            let sent = body.collect_bytes().await.unwrap();
            let is_status = parts.method == Method::PATCH && parts.uri.path().ends_with("/status");
            if is_status {
                patches.lock().unwrap().push(serde_json::from_slice(&sent).unwrap());
            }
            // An event is answered as it was sent.
            let answer = if is_status { answered } else { sent.to_vec() };
            Ok::<_, std::convert::Infallible>(Response::new(Body::from(answer)))
        }
    });
    let client = kube::Client::new(service, "team");
    let (store, mut writer) = reflector::store();
    for one in [mine.clone(), other] {
        writer.apply_watcher_event(&watcher::Event::Apply(one));
    }
    let identity = IdentityOptions { source: Some(SourceName::Imds), ..IdentityOptions::default() };
    let system = System::real();
    let allowed = vec!["one.example.com".parse().unwrap()];
    let reporter = Reporter { controller: "test".to_owned(), instance: None };
    let context = ControllerContext {
        client: client.clone(),
        servers: Arc::new(AllowedServers::new(&system, &identity, allowed, None).unwrap()),
        system,
        recorder: Recorder::new(client, reporter),
        metrics: RolesMetrics::default(),
        claims: Claims::default(),
        schedule: Schedule::default(),
        store,
    };
    reconcile(Arc::new(mine), Arc::new(context)).await.unwrap();

    let written = written.lock().unwrap();
    let status = &written.last().unwrap()["status"];
    assert_eq!((&status["changes"], &status["plan"]), (&Value::Null, &json!([])), "{status}");
    assert_eq!(status["lastChecked"], Value::Null, "{status}");
    for condition in status["conditions"].as_array().unwrap() {
        let says = (&condition["status"], &condition["reason"]);
        assert_eq!(says, (&json!("False"), &json!("RoleOwnedElsewhere")), "{status}");
    }
}

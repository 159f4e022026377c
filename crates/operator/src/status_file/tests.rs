use std::sync::Arc;

use http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use serde_json::Value;
use tower::service_fn;

use super::*;
use crate::resource::RoleStatus;

/// An API server that has one resource, and refuses what is made of another version of it.
#[derive(Clone)]
struct FakeApi(Arc<std::sync::Mutex<Value>>);

impl FakeApi {
    fn new() -> Self {
        let resource = json!({
            "apiVersion": "pgentra.dev/v1alpha1", "kind": "PostgresRoles",
            "metadata": { "namespace": "team", "name": "one", "uid": "7", "resourceVersion": "1" },
            "spec": { "server": "postgresql://me@one.example.com/app" },
        });
        Self(Arc::new(std::sync::Mutex::new(resource)))
    }

    fn resource(&self) -> PostgresRoles {
        serde_json::from_value(self.0.lock().unwrap().clone()).unwrap()
    }

    /// Changes the resource, as another client does.
    fn change(&self, patch: &Value) {
        let mut resource = self.0.lock().unwrap();
        json_patch::merge(&mut resource, patch);
        let version: u64 = resource["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
        resource["metadata"]["resourceVersion"] = json!((version + 1).to_string());
    }

    fn file(&self) -> StatusFile {
        let fake = self.clone();
        let service = service_fn(move |request: Request<Body>| {
            let fake = fake.clone();
            async move {
                let (parts, body) = request.into_parts();
                let sent = body.collect_bytes().await.unwrap();
                let mut status = StatusCode::OK;
                if parts.method == Method::PATCH {
                    let sent: Value = serde_json::from_slice(&sent).unwrap();
                    let version = &sent["metadata"]["resourceVersion"];
                    match fake.0.lock().unwrap()["metadata"]["resourceVersion"] == *version {
                        true => {}
                        false => status = StatusCode::CONFLICT,
                    }
                    if status == StatusCode::OK {
                        fake.change(&sent);
                    }
                }
                let answer = match status {
                    StatusCode::OK => fake.0.lock().unwrap().clone(),
                    _ => json!({ "kind": "Status", "status": "Failure", "reason": "Conflict", "code": 409 }),
                };
                let body = Body::from(serde_json::to_vec(&answer).unwrap());
                Ok::<_, std::convert::Infallible>(Response::builder().status(status).body(body).unwrap())
            }
        });
        StatusFile::new(kube::Client::new(service, "team"), &self.resource())
    }

    fn roles(&self) -> Vec<RoleStatus> {
        self.resource().status.unwrap_or_default().roles
    }
}

fn status(name: &str) -> PostgresRolesStatus {
    let role = RoleStatus { name: name.to_owned(), created: true, oid: Some(7) };
    PostgresRolesStatus { roles: vec![role], ..PostgresRolesStatus::default() }
}

fn is_conflict(written: Result<(), kube::Error>) -> bool {
    matches!(written, Err(kube::Error::Api(refusal)) if refusal.code == 409)
}

#[tokio::test]
async fn a_status_of_an_older_version_is_not_written_over_a_newer_one() {
    let api = FakeApi::new();
    let (late, file) = (api.file(), api.file());
    file.write(&status("made")).await.unwrap();
    file.write(&status("made")).await.unwrap();
    // A look that began with what the watch had before.
    assert!(is_conflict(late.write(&PostgresRolesStatus::default()).await));
    assert_eq!(api.roles(), status("made").roles);
    // So does the removal of the finalizer.
    assert!(is_conflict(late.write_finalizers(&[]).await));
    file.write_finalizers(&["one/two".to_owned()]).await.unwrap();
    file.write(&status("again")).await.unwrap();
    assert_eq!(api.roles(), status("again").roles);
}

#[tokio::test]
async fn a_change_of_the_rest_of_the_resource_keeps_no_status_away() {
    let api = FakeApi::new();
    let file = api.file();
    api.change(&json!({ "spec": { "interval": "1h" }, "metadata": { "labels": { "a": "b" } } }));
    file.write(&status("one")).await.unwrap();
    api.change(&json!({ "spec": { "interval": "2h" } }));
    file.write(&status("two")).await.unwrap();
    assert_eq!(api.roles(), status("two").roles);
    assert_eq!(api.resource().spec.interval, "2h");
    // Another resource of the same name is another resource.
    api.change(&json!({ "metadata": { "uid": "8" } }));
    assert!(is_conflict(file.write(&status("three")).await));
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_does_not_answer_is_not_waited_for_for_ever() {
    let service = service_fn(|_: Request<Body>| async {
        std::future::pending::<()>().await;
        Ok::<_, std::convert::Infallible>(Response::new(Body::empty()))
    });
    let file = StatusFile::new(kube::Client::new(service, "team"), &FakeApi::new().resource());
    let began = tokio::time::Instant::now();
    let hour = std::time::Duration::from_secs(3600);
    let written = tokio::time::timeout(hour, file.write(&status("a"))).await.unwrap();
    let error = written.unwrap_err().to_string();
    assert!(error.contains("no answer in 15 seconds"), "{error}");
    let finalizers = tokio::time::timeout(hour, file.write_finalizers(&[])).await.unwrap();
    assert!(finalizers.is_err() && began.elapsed() < 2 * hour);
}

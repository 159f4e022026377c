//! How long is waited, on tokio's paused clock, for a Resource Manager that answers what a test says. It speaks plain HTTP,
//! as is allowed on this machine: a paused clock leaps ahead within the many steps of a TLS handshake.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use pgentra_azure::arm::{AzureHostType, ResourceManager, Wanted};
use pgentra_azure::{AzureError, AzureErrorKind, Endpoints};
use pgentra_identity::{Cloud, Credential};
use pgentra_system::{Env, ManualClock, System};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::time::Instant;

const VM: &str = "/subscriptions/S/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/vm";

/// An answer: status, headers, body.
type Answer = (u16, String, String);

fn answer(status: u16, headers: &str, body: &str) -> Answer {
    (status, headers.to_owned(), body.to_owned())
}

/// A virtual machine, with an identity of its own or without.
fn vm(has_identity: bool) -> Answer {
    let identity =
        r#","identity":{"type":"SystemAssigned","principalId":"11111111-2222-4333-8444-555555555555"}"#;
    answer(200, "", &format!(r#"{{"id":"{VM}","name":"vm"{}}}"#, if has_identity { identity } else { "" }))
}

/// What an assignment comes to where the requests after the token's are answered in this way; and how long it took.
async fn assign(
    answers: impl FnMut(&str, &str) -> Answer + Send + 'static,
) -> (Result<(), AzureError>, Duration) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(serve(listener, address.clone(), Arc::new(Mutex::new(answers))));
    let env = Env::from_map([("MSI_ENDPOINT", format!("{address}/token"))]);
    let system = System::builder()
        .env(env)
        .clock(ManualClock::at(UNIX_EPOCH + Duration::from_secs(1_900_000_000)))
        .build();
    let credential = Credential::builder(system.clone()).build().unwrap();
    let endpoints = Endpoints::of(Cloud::Public).unwrap().with_resource_manager(&address).unwrap();
    let subscription = "00000000-0000-0000-0000-000000000000";
    let manager = ResourceManager::new(&system, &credential, &endpoints, Some(subscription)).await.unwrap();
    let began = Instant::now();
    let result = async {
        let vm = manager.host(AzureHostType::VirtualMachine, Some("g"), "vm").await?;
        manager.assign(&vm, &Wanted::SystemAssigned).await.map(drop)
    };
    let result = result.await;
    (result, began.elapsed())
}

async fn serve(
    listener: TcpListener,
    address: String,
    answers: Arc<Mutex<impl FnMut(&str, &str) -> Answer + Send + 'static>>,
) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.windows(4).any(|end| end == b"\r\n\r\n") {
            let mut part = [0; 4096];
            match stream.read(&mut part).await.unwrap() {
                0 => break,
                read => request.extend_from_slice(&part[..read]),
            }
        }
        let request = String::from_utf8(request).unwrap();
        let (status, headers, body) = match request.split_whitespace().collect::<Vec<_>>()[..] {
            [_, "/token", ..] => {
                answer(200, "", r#"{"access_token":"t","expires_on":"1900086400","token_type":"Bearer"}"#)
            }
            [method, path, ..] => (answers.lock().await)(method, path),
            _ => return,
        };
        let headers = headers.replace("SELF", &address);
        let head = format!(
            "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_throttled_request_waits_as_long_as_it_is_told() {
    let mut patches = 0;
    let (result, took) = assign(move |method, _| match method {
        "PATCH" if patches == 0 => {
            patches += 1;
            answer(429, "Retry-After: 17\r\n", "{}")
        }
        "PATCH" => {
            patches += 1;
            answer(200, "", "{}")
        }
        _ => vm(patches > 1),
    })
    .await;
    result.unwrap();
    assert_eq!(took.as_secs(), 17);
}

#[tokio::test(start_paused = true)]
async fn throttling_that_does_not_end_is_given_up() {
    let (result, took) = assign(|_, _| answer(429, "Retry-After: 50\r\n", "{}")).await;
    assert_eq!(result.unwrap_err().kind(), AzureErrorKind::Throttled);
    assert!((100..=180).contains(&took.as_secs()), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_question_is_asked_again_and_a_change_is_not() {
    let mut gets = 0;
    let (result, took) = assign(move |method, _| {
        gets += 1;
        match method {
            "PATCH" => answer(503, "", "{}"),
            _ if gets < 3 => answer(503, "", "{}"),
            _ => vm(false),
        }
    })
    .await;
    assert_eq!(result.unwrap_err().kind(), AzureErrorKind::Refused);
    assert_eq!(took.as_secs(), 3, "one second, then two");
}

#[tokio::test(start_paused = true)]
async fn an_operation_is_watched_as_often_as_it_says() {
    for (named, interval) in [("Retry-After: 20\r\n", 20), ("", 5)] {
        let mut asked = 0;
        let (result, took) = assign(move |method, path| match (method, path) {
            ("PATCH", _) => answer(202, &format!("Azure-AsyncOperation: SELF/operation\r\n{named}"), ""),
            (_, "/operation") => {
                asked += 1;
                let status = if asked < 4 { "Updating" } else { "Succeeded" };
                answer(200, named, &format!(r#"{{"status":"{status}"}}"#))
            }
            _ => vm(asked > 0),
        })
        .await;
        result.unwrap();
        assert_eq!(took.as_secs(), 4 * interval);
    }
    // the older form: 202 until it is done
    let mut asked = 0;
    let (result, took) = assign(move |method, path| match (method, path) {
        ("PATCH", _) => answer(202, "Location: SELF/result\r\nRetry-After: 7\r\n", ""),
        (_, "/result") => {
            asked += 1;
            answer(if asked < 2 { 202 } else { 200 }, "Retry-After: 7\r\n", "")
        }
        _ => vm(asked > 0),
    })
    .await;
    result.unwrap();
    assert_eq!(took.as_secs(), 14);
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_never_ends_is_named_and_left_alone() {
    let (result, took) = assign(|method, path| match (method, path) {
        ("PATCH", _) => answer(202, "Azure-AsyncOperation: SELF/operation\r\n", ""),
        (_, "/operation") => answer(200, "Retry-After: 4000000000\r\n", r#"{"status":"InProgress"}"#),
        _ => vm(false),
    })
    .await;
    let error = result.unwrap_err();
    assert_eq!(error.kind(), AzureErrorKind::StillRunning);
    assert!(
        error.to_string().contains("virtual machine vm") && error.to_string().contains("still running"),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("identity show"));
    assert!((500..=600).contains(&took.as_secs()), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_change_that_others_undid_is_not_called_done() {
    let (result, _) =
        assign(|method, _| if method == "PATCH" { answer(200, "", "{}") } else { vm(false) }).await;
    assert_eq!(result.unwrap_err().kind(), AzureErrorKind::Conflict);
}

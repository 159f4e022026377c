use std::time::Duration;

use pgentra_emulator::{Draft, Endpoint, Fault, LocalAzure, ResponseOutcome};
use secrecy::ExposeSecret as _;
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::client::{POSTGRESQL, Reply, START, imds, start};
use crate::jwt;

/// One token request that suffers `fault`.
async fn suffer(azure: &LocalAzure, fault: Fault) -> Reply {
    azure.faults().push(Endpoint::ImdsToken, fault);
    let reply = imds(azure, "").send().await.unwrap();
    assert_eq!(azure.faults().pending(), 0);
    reply
}

#[tokio::test]
async fn canned_answers_come_as_they_are() {
    let azure = start().await;
    let throttled = suffer(&azure, Fault::throttled(Duration::from_secs(7))).await;
    assert_eq!((throttled.status, &throttled.headers["retry-after"]), (429, &"7".parse().unwrap()));
    assert_eq!(suffer(&azure, Fault::gone()).await.status, 410);
    let custom = suffer(&azure, Fault::status(503, "busy")).await;
    assert_eq!((custom.status, custom.text()), (503, "busy".to_owned()));
    assert_eq!(suffer(&azure, Fault::status(42, "")).await.status, 500);
    let redirect = suffer(&azure, Fault::redirect("http://elsewhere.example/")).await;
    assert_eq!(
        (redirect.status, &redirect.headers["location"]),
        (302, &"http://elsewhere.example/".parse().unwrap())
    );
    let portal = suffer(&azure, Fault::captive_portal()).await;
    assert_eq!(portal.status, 200);
    assert_eq!(portal.headers["content-type"], "text/html; charset=utf-8");
    let docker = suffer(&azure, Fault::unreachable()).await;
    assert_eq!(docker.status, 403);
    assert!(docker.text().contains("unreachable"));
    assert_eq!(imds(&azure, "").send().await.unwrap().status, 200);
}

#[tokio::test]
async fn a_fault_waits_for_its_endpoint() {
    let azure = start().await;
    azure.faults().push(Endpoint::AppService, Fault::gone());
    assert_eq!(imds(&azure, "").send().await.unwrap().status, 200);
    assert_eq!(azure.faults().pending(), 1);
    azure.faults().push_lasting(None, Fault::status(500, "{}"));
    for _ in 0..3 {
        assert_eq!(imds(&azure, "").send().await.unwrap().status, 500);
    }
    azure.faults().clear();
    assert_eq!(imds(&azure, "").send().await.unwrap().status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_slow_answer_is_late_and_right() {
    let azure = start().await;
    let before = Instant::now();
    let reply = suffer(&azure, Fault::Slow(Duration::from_secs(20))).await;
    assert!(before.elapsed() >= Duration::from_secs(20));
    assert_eq!(reply.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_request_never_ends_by_itself() {
    let azure = start().await;
    azure.faults().push(None, Fault::Hang);
    let waited = timeout(Duration::from_secs(3600), imds(&azure, "").send()).await;
    assert!(waited.is_err());
    assert_eq!(azure.journal().entries()[0].outcome, ResponseOutcome::Hung);
    azure.stop().await;
}

#[tokio::test]
async fn an_answer_is_cut_at_any_byte() {
    let azure = start().await;
    for after in [0, 1, 40, 400, 900] {
        azure.faults().push(None, Fault::Cut { after });
        assert!(imds(&azure, "").send().await.is_err(), "after {after}");
    }
    assert!(azure.journal().entries().iter().all(|entry| entry.outcome == ResponseOutcome::Cut(200)));
}

#[tokio::test]
async fn bodies_can_be_broken() {
    let azure = start().await;
    let malformed = suffer(&azure, Fault::Malformed).await;
    assert_eq!(malformed.status, 200);
    assert!(malformed.text().starts_with(r#"{"access_token":"#));
    assert!(serde_json::from_slice::<serde_json::Value>(&malformed.body).is_err());

    let swapped = suffer(&azure, Fault::WrongTypes).await.json();
    assert_eq!(swapped["expires_on"], json!(START + 86_400));

    let bytes = 5_000_001;
    let huge = suffer(&azure, Fault::HugeBody { bytes }).await;
    assert_eq!(huge.body.len() as u64, bytes);
    assert!(huge.body.starts_with(br#"{"access_token":"AAAA"#));
    assert_eq!(huge.headers["content-length"], "5000001");
}

/// Answers are dated by the clock of the local cloud, not the machine's.
#[tokio::test]
async fn a_wrong_clock_shows_in_the_date() {
    let azure = start().await;
    let ahead = |seconds| Fault::ClockAhead(Duration::from_secs(seconds));
    for (fault, date) in [
        (ahead(0), "Sun, 17 Mar 2030 17:46:40 GMT"),
        (ahead(61), "Sun, 17 Mar 2030 17:47:41 GMT"),
        (Fault::ClockBehind(Duration::from_secs(60)), "Sun, 17 Mar 2030 17:45:40 GMT"),
    ] {
        assert_eq!(suffer(&azure, fault).await.headers["date"], date);
    }
}

#[tokio::test]
async fn tokens_can_be_odd_and_still_properly_signed() {
    let azure = start().await;
    let huge = suffer(&azure, Fault::HugeToken { bytes: 70_000 }).await.token();
    assert!(huge.len() > 70_000);
    assert!(jwt::claims(&azure, &huge).await["padding"].is_string());

    for (fault, exp) in [
        (Fault::ClockAhead(Duration::from_secs(600)), START + 86_400 + 600),
        (Fault::ClockBehind(Duration::from_secs(600)), START + 86_400 - 600),
        (Fault::ShortLife(Duration::from_secs(30)), START + 30),
    ] {
        let about = format!("{fault:?}");
        let reply = suffer(&azure, fault).await;
        assert_eq!(reply.json()["expires_on"], json!(exp.to_string()), "{about}");
        assert_eq!(jwt::claims(&azure, &reply.token()).await["exp"], json!(exp), "{about}");
    }
}

#[tokio::test]
async fn the_same_token_comes_again_even_when_it_has_expired() {
    let azure = start().await;
    let first = imds(&azure, "").send().await.unwrap().token();
    azure.clock().advance(Duration::from_secs(100_000));
    let again = suffer(&azure, Fault::SameToken).await;
    assert_eq!(again.token(), first);
    assert_eq!(again.json()["expires_in"], "0");
    assert_ne!(imds(&azure, "").send().await.unwrap().token(), first);
}

#[tokio::test]
async fn a_rollover_changes_the_signing_key() {
    let azure = start().await;
    let key = || async { jwt::published(&azure).await["keys"][0]["kid"].clone() };
    let before = key().await;
    suffer(&azure, Fault::RollOver).await;
    assert_ne!(key().await, before);
}

#[tokio::test]
async fn the_journal_names_everything_and_tells_nothing() {
    let azure = start().await;
    let client = azure.vm().client_id().to_string();
    let ask = imds(&azure, &format!("&client_id={client}")).header("authorization", "Bearer sesame");
    let token = ask.body("open=sesame").send().await.unwrap().token();
    let entries = azure.journal().entries();
    let entry = &entries[0];
    assert_eq!(entry.endpoint, Some(Endpoint::ImdsToken));
    assert_eq!((&*entry.method, &*entry.path), ("GET", "/metadata/identity/oauth2/token"));
    assert_eq!(entry.query_keys, ["api-version", "resource", "client_id"]);
    for name in ["metadata", "authorization"] {
        assert!(entry.header_names.iter().any(|other| other == name), "{name}");
    }
    assert_eq!(entry.outcome, ResponseOutcome::Answered(200));
    assert_eq!(entry.at, crate::client::start_time());
    let printed = format!("{azure:?}");
    let minted = azure.mint(&Draft::of_user(azure.administrator(), POSTGRESQL)).unwrap();
    for secret in [
        "sesame",
        &token,
        minted.expose_secret(),
        azure.application().secret().expose_secret(),
        azure.app_service().header.expose_secret(),
    ] {
        assert!(!printed.contains(secret) && !format!("{entries:?}").contains(secret));
    }
    assert!(!format!("{entries:?}").contains(&client));
}

//! What a good token says about its owner.

use std::time::{Duration, SystemTime};

use pgentra_verify::{Groups, Principal, SubjectKind};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::mint::{CLIENT, NOW_SECONDS, OBJECT, TENANT, app_claims, merge, now, user_claims, verifier};

async fn principal(mut claims: Value, changes: Value) -> Principal {
    merge(&mut claims, &changes);
    verifier().verify(&crate::mint::sign(&claims), now()).await.unwrap()
}

#[tokio::test]
async fn a_managed_identity() {
    let principal = principal(app_claims(), json!({})).await;
    assert_eq!(principal.tenant(), Some(TENANT));
    assert_eq!(principal.object_id().to_string(), OBJECT);
    assert_eq!(principal.app_id().unwrap().to_string(), CLIENT);
    assert_eq!(principal.kind(), SubjectKind::App);
    assert_eq!(principal.groups(), &Groups::Absent);
    assert_eq!(principal.user_principal_name(), None);
    assert!(!principal.multi_factor());
    assert_eq!(principal.not_before(), SystemTime::UNIX_EPOCH + Duration::from_secs(NOW_SECONDS - 60));
    assert_eq!(principal.expires_on(), SystemTime::UNIX_EPOCH + Duration::from_secs(NOW_SECONDS + 86_340));
    assert_eq!(principal.audience(), crate::mint::AUDIENCE);
    assert_eq!(principal.issuer(), format!("https://sts.windows.net/{TENANT}/"));
}

#[tokio::test]
async fn a_person() {
    let principal = principal(user_claims(), json!({})).await;
    assert_eq!(principal.kind(), SubjectKind::User);
    assert_eq!(principal.user_principal_name(), Some("ada@example.com"));
    assert!(principal.multi_factor());
    let group = Uuid::from_u128(0xdddddddd_0000_4000_8000_000000000005);
    assert!(principal.groups().contains(group));
    assert!(!principal.groups().contains(Uuid::from_u128(7)));
}

#[tokio::test]
async fn application_or_person() {
    let cases = [
        ("idtyp decides", app_claims(), json!({}), SubjectKind::App),
        (
            "idtyp user decides, whatever the rest looks like",
            app_claims(),
            json!({"idtyp": "user"}),
            SubjectKind::User,
        ),
        ("no idtyp, own subject, no scp", app_claims(), json!({"idtyp": null}), SubjectKind::App),
        ("no idtyp, another subject", app_claims(), json!({"idtyp": null, "sub": "x"}), SubjectKind::User),
        ("no idtyp, no subject", app_claims(), json!({"idtyp": null, "sub": null}), SubjectKind::User),
        (
            "no idtyp, but delegated",
            app_claims(),
            json!({"idtyp": null, "scp": "user_impersonation"}),
            SubjectKind::User,
        ),
        ("a person's token has no idtyp", user_claims(), json!({}), SubjectKind::User),
    ];
    for (why, claims, changes, kind) in cases {
        assert_eq!(principal(claims, changes).await.kind(), kind, "{why}");
    }
}

#[tokio::test]
async fn the_client_id_of_either_version() {
    for (changes, expected) in [
        (json!({}), Some(CLIENT)),
        (json!({"appid": null, "azp": CLIENT}), Some(CLIENT)),
        (json!({"azp": CLIENT}), Some(CLIENT)),
        (json!({"appid": null}), None),
    ] {
        let app_id = principal(app_claims(), changes.clone()).await.app_id();
        assert_eq!(app_id.map(|id| id.to_string()).as_deref(), expected, "{changes}");
    }
}

#[tokio::test]
async fn groups_listed_overflowing_or_absent() {
    let group = "dddddddd-0000-4000-8000-000000000004";
    let listed = Groups::Listed(vec![group.parse().unwrap()]);
    let cases = [
        (json!({"groups": [group]}), listed.clone()),
        (json!({"groups": [group, "Database readers"]}), listed),
        (json!({"groups": []}), Groups::Listed(Vec::new())),
        (json!({"groups": null}), Groups::Absent),
        (
            json!({"groups": null, "_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"endpoint": "https://evil.example"}}}),
            Groups::Overage,
        ),
        (json!({"groups": null, "_claim_names": {"wids": "src1"}}), Groups::Absent),
        (json!({"groups": null, "hasgroups": true}), Groups::Overage),
        (json!({"groups": null, "hasgroups": "true"}), Groups::Overage),
        (json!({"groups": null, "hasgroups": false}), Groups::Absent),
    ];
    for (changes, expected) in cases {
        assert_eq!(principal(user_claims(), changes.clone()).await.groups(), &expected, "{changes}");
    }
    assert!(!Groups::Overage.contains(group.parse().unwrap()));
}

#[tokio::test]
async fn names_in_their_order() {
    for (changes, expected) in [
        (json!({"preferred_username": "second", "unique_name": "third"}), Some("ada@example.com")),
        (json!({"upn": null, "preferred_username": "second", "unique_name": "third"}), Some("second")),
        (
            json!({"upn": null, "unique_name": "live.com#guest@example.com"}),
            Some("live.com#guest@example.com"),
        ),
        (json!({"upn": null, "unique_name": null}), None),
    ] {
        let principal = principal(user_claims(), changes.clone()).await;
        assert_eq!(principal.user_principal_name(), expected, "{changes}");
    }
}

#[tokio::test]
async fn a_second_factor_only_where_it_is_named() {
    for (methods, expected) in [
        (json!(["pwd", "mfa"]), true),
        (json!(["pwd"]), false),
        (json!(["mfa2", "MFA"]), false),
        (json!(null), false),
    ] {
        assert_eq!(principal(user_claims(), json!({"amr": methods})).await.multi_factor(), expected);
    }
}

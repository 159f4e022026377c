//! What a program is told that watches the logins of a gateway.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use eventually::{DEADLINE, eventually};
use pgentra_emulator::Draft;
use pgentra_gateway::{GatewayTelemetry, LoginCheck, LoginEvent, LoginOutcome};
use uuid::Uuid;

use crate::fixture::{RESOURCE, Running, Stage, run};
use crate::raw::Raw;
use crate::start_up::start;

/// Role, object id, and the check that refused with its SQLSTATE.
type Decision = (String, Option<Uuid>, Option<(LoginCheck, String)>);

#[derive(Clone, Default)]
struct Decisions(Arc<Mutex<Vec<Decision>>>);

impl Decisions {
    async fn gateway(&self, stage: &Stage) -> Running {
        let decisions = self.clone();
        let telemetry = GatewayTelemetry::observed(move |event| decisions.keep(event));
        stage.gateway_with(|config| config.telemetry = telemetry).await
    }

    fn keep(&self, event: &LoginEvent<'_>) {
        assert!(event.client.ip().is_loopback());
        let refused = match event.outcome {
            LoginOutcome::Refused { check, error } => Some((check, error.sqlstate().into_owned())),
            LoginOutcome::Left { check } => Some((check, "left".to_owned())),
            _ => None,
        };
        let object_id = event.principal.map(pgentra_verify::Principal::object_id);
        self.0.lock().unwrap().push((event.role.unwrap_or_default().to_owned(), object_id, refused));
    }

    /// The only decision since the last call.
    async fn only(&self) -> Decision {
        // A client may have its session a moment before the decision is told.
        eventually(DEADLINE, "a decision", async || !self.0.lock().unwrap().is_empty()).await;
        let decisions = std::mem::take(&mut *self.0.lock().unwrap());
        assert_eq!(decisions.len(), 1, "{decisions:?}");
        decisions.into_iter().next().unwrap()
    }
}

#[test]
fn each_refusal_names_the_check_that_refused() {
    run(async {
        let stage = Stage::flexible().await;
        let (azure, decisions) = (stage.azure(), Decisions::default());
        let admin = stage.administrator(&stage.gateway().await).await;
        let (vm, other) = (azure.vm().object_id(), azure.user_assigned().object_id());
        for (role, oid) in [("w_vm", vm), ("w_other", other)] {
            let sql = format!(
                "SELECT pgaadauth_create_principal_with_oid('{role}', '{oid}', 'service', false, false)"
            );
            admin.batch_execute(&sql).await.unwrap();
        }
        let gateway = decisions.gateway(stage).await;
        let draft = || Draft::of_identity(azure.vm(), RESOURCE);
        let (now, day) = (azure.clock().now(), Duration::from_secs(24 * 60 * 60));
        let mut forged = stage.token(&draft());
        let end = forged.len() - 20;
        let changed = if &forged[end..=end] == "A" { "B" } else { "A" };
        forged.replace_range(end..=end, changed);
        let management = Draft::of_identity(azure.vm(), "https://management.azure.com/");
        for (role, database, token, check) in [
            ("w_vm", "postgres", "a password".to_owned(), LoginCheck::Format),
            ("w_vm", "postgres", forged, LoginCheck::Signature),
            ("w_vm", "postgres", stage.token(&draft().issued(now - 2 * day).lifetime(day)), LoginCheck::Time),
            ("w_vm", "postgres", stage.token(&draft().without("exp")), LoginCheck::Time),
            ("w_vm", "postgres", stage.token(&management), LoginCheck::Audience),
            (
                "w_vm",
                "postgres",
                stage.token(&draft().claim("iss", "https://a.example/")),
                LoginCheck::Issuer,
            ),
            ("w_vm", "postgres", stage.token(&draft().without("oid")), LoginCheck::Principal),
            ("w_other", "postgres", stage.vm_token(), LoginCheck::Principal),
            ("w_vm", "nowhere", stage.vm_token(), LoginCheck::Server),
            ("w_nothing", "postgres", stage.vm_token(), LoginCheck::Role),
        ] {
            gateway.refusal(role, database, &token).await;
            let (asked, object_id, refused) = decisions.only().await;
            let (found, sqlstate) = refused.unwrap();
            assert_eq!((&*asked, found), (role, check), "{sqlstate}");
            // The owner of a token is known once the token was verified.
            let is_verified = matches!(check, LoginCheck::Server) || role == "w_other";
            assert_eq!(object_id, is_verified.then_some(vm), "{role} {check}");
        }
        // A client that hangs up where it is asked for a token.
        drop(gateway.dial().await);
        let mut asked = Raw::new(gateway.dial_tls().await);
        asked.start(&start("w_vm")).await;
        asked.read().await.unwrap();
        drop(asked);
        eventually(DEADLINE, "the client has left", async || !decisions.0.lock().unwrap().is_empty()).await;
        assert_eq!(
            decisions.only().await,
            ("w_vm".to_owned(), None, Some((LoginCheck::Format, "left".to_owned())))
        );
        let client = gateway.connect("w_vm", "postgres", &stage.vm_token()).await.unwrap();
        assert_eq!(decisions.only().await, ("w_vm".to_owned(), Some(vm), None));
        drop(client);
    });
}

#[test]
fn the_password_of_a_single_server_is_the_check_of_the_principal() {
    run(async {
        let stage = Stage::single().await;
        let decisions = Decisions::default();
        let gateway = decisions.gateway(stage).await;
        let admin = stage.administrator(&gateway).await;
        decisions.only().await;
        let other = stage.azure().user_assigned().client_id();
        let sql = format!(
            "SET aad_validate_oids_in_tenant = off; CREATE ROLE w_single WITH LOGIN PASSWORD '{other}' IN ROLE azure_ad_user;"
        );
        admin.batch_execute(&sql).await.unwrap();
        gateway.refusal("w_single", "postgres", &stage.vm_token()).await;
        let refused = decisions.only().await.2;
        assert_eq!(refused, Some((LoginCheck::Principal, "28000".to_owned())));
    });
}

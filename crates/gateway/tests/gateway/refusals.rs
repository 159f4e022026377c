//! Every refusal: its SQLSTATE, its message, and its hint.

use std::time::Duration;

use pgentra_emulator::{Draft, LocalAzure};
use pgentra_verify::{FetchError, KeySource, Policy, Verifier};
use serde_json::json;
use std::sync::Arc;
use uuid::Uuid;

use crate::fixture::{RESOURCE, Running, Stage, azure, run, token, vm_token};

struct Roles {
    gateway: Running,
    azure: &'static LocalAzure,
}

/// Roles of each kind. Made once by the first test that needs them.
async fn roles() -> Roles {
    static MADE: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
    let (stage, azure) = (Stage::flexible().await, azure().await);
    let gateway = stage.gateway().await;
    MADE.get_or_init(|| async {
        let admin = stage.administrator(&gateway).await;
        for (role, oid, kind, mfa) in [
            ("r_service", azure.vm().object_id(), "service", false),
            ("r_other_service", azure.user_assigned().object_id(), "service", false),
            ("r_user", azure.administrator().object_id(), "user", false),
            ("r_other_user", Uuid::from_u128(7), "user", false),
            ("r_group", azure.group().object_id(), "group", false),
            ("r_mfa", azure.administrator().object_id(), "user", true),
        ] {
            let sql = format!(
                "SELECT pgaadauth_create_principal_with_oid('{role}', '{oid}', '{kind}', false, {mfa})"
            );
            admin.batch_execute(&sql).await.unwrap();
        }
    })
    .await;
    Roles { gateway, azure }
}

impl Roles {
    fn vm(&self) -> Draft {
        Draft::of_identity(self.azure.vm(), RESOURCE)
    }

    fn user(&self) -> Draft {
        Draft::of_user(self.azure.administrator(), RESOURCE)
    }

    async fn check(&self, role: &str, password: &str, expected: &str) {
        let (code, message, hint) = self.gateway.refusal(role, "postgres", password).await;
        assert_eq!((&*code, &*message), ("28000", expected), "{role}");
        assert!(!hint.is_empty(), "{message}");
        // Neither message nor hint contains the token.
        assert!(!message.contains(password) && !hint.contains(password));
    }
}

/// Invariant 8: a client that was accepted always gets an answer, with a SQLSTATE and a hint.
#[test]
fn tokens_that_are_not_good() {
    run(async {
        let roles = roles().await;
        let day = Duration::from_secs(24 * 60 * 60);
        let now = roles.azure.clock().now();
        let validation =
            "An error occurred while validating the access token. Please acquire a new token and retry";
        let foreign = format!("https://sts.windows.net/{}/", Uuid::from_u128(9));
        for (draft, expected) in [
            (
                roles.vm().issued(now - 2 * day).lifetime(day),
                "The access token has expired. Acquire a new token and try again.".to_owned(),
            ),
            (roles.vm().issued(now + day), validation.to_owned()),
            (
                Draft::of_identity(roles.azure.vm(), "https://management.azure.com/"),
                format!(
                    "The access token doesn't have a valid audience claim. Acquire a new token for resource \"{RESOURCE}\""
                ),
            ),
            (
                roles.vm().without("oid"),
                "The access token doesn't have a valid oid claim. Acquire a new token and try again"
                    .to_owned(),
            ),
            (roles.vm().claim("iss", foreign), validation.to_owned()),
            (roles.vm().claim("tid", Uuid::from_u128(9).to_string()), validation.to_owned()),
        ] {
            roles.check("r_service", &token(&draft).await, &expected).await;
        }
        let mut forged = vm_token().await;
        let end = forged.len() - 20;
        let changed = if &forged[end..=end] == "A" { "B" } else { "A" };
        forged.replace_range(end..=end, changed);
        roles.check("r_service", &forged, validation).await;
    });
}

#[test]
fn what_is_no_token() {
    run(async {
        let roles = roles().await;
        let quoted = format!("\"{}\"", vm_token().await);
        let expected = "The access token has invalid format. Please ensure the token is passed exactly as returned by the authentication endpoint and retry.";
        for password in ["a password", &quoted, "{\"access_token\":\"x\"}", "é"] {
            roles.check("r_service", password, expected).await;
        }
    });
}

#[test]
fn good_tokens_for_another_role() {
    run(async {
        let roles = roles().await;
        let (vm, user) = (roles.azure.vm(), roles.azure.administrator());
        let outsider = roles.user().claim("groups", json!([Uuid::from_u128(8).to_string()]));
        let overage = roles.user().without("groups").claim("_claim_names", json!({"groups": "src1"}));
        let group = format!(
            "Microsoft Entra access token not valid for role \"r_group\" (does not contain group ID {})",
            roles.azure.group().object_id()
        );
        for (role, draft, expected) in [
            (
                "r_service",
                roles.user(),
                "Service principals cannot generate AAD_AUTH_TOKENTYPE_APP_USER tokens for role \"r_service\"".to_owned(),
            ),
            (
                "r_user",
                roles.vm(),
                "Microsoft Entra user token for role \"r_user\" is neither an AAD_AUTH_TOKENTYPE_APP_USER or an AAD_AUTH_TOKENTYPE_APP_OBO token.".to_owned(),
            ),
            (
                "r_other_service",
                roles.vm(),
                format!(
                    "Service principal oid mismatch for role \"The oid in the security label [{}] does not match the appid [{}] or oid [{}] in the token.\"",
                    roles.azure.user_assigned().object_id(),
                    vm.client_id(),
                    vm.object_id()
                ),
            ),
            (
                "r_other_user",
                roles.user(),
                format!(
                    "Microsoft Entra user principal oid mismatch for role \"r_other_user\". The oid in the security label [{}] does not match the oid [{}] in the token.",
                    Uuid::from_u128(7),
                    user.object_id()
                ),
            ),
            ("r_group", outsider, group.clone()),
            ("r_group", overage, group.clone()),
            ("r_group", roles.vm(), group),
            (
                "r_mfa",
                roles.user().claim("amr", json!(["pwd"])),
                "The access token doesn't have a valid mfa claim. Sign in with multifactor authentication and try again".to_owned(),
            ),
        ] {
            roles.check(role, &token(&draft).await, &expected).await;
        }
        let second_factor = roles.user().claim("amr", json!(["pwd", "mfa"]));
        roles.gateway.connect("r_mfa", "postgres", &token(&second_factor).await).await.unwrap();
        roles.gateway.connect("r_user", "postgres", &token(&roles.user()).await).await.unwrap();
    });
}

#[test]
fn a_role_without_a_mapping_goes_through_the_servers_own_authentication() {
    run(async {
        let stage = Stage::flexible().await;
        let gateway = stage.gateway().await;
        stage
            .superuser()
            .await
            .batch_execute("CREATE ROLE own_password LOGIN PASSWORD 'sesame'")
            .await
            .unwrap();
        gateway.connect("own_password", "postgres", "sesame").await.unwrap();
        for role in ["own_password", "nobody_at_all"] {
            let (code, message, _) = gateway.refusal(role, "postgres", &vm_token().await).await;
            assert_eq!(code, "28P01");
            assert_eq!(message, format!("password authentication failed for user \"{role}\""));
        }
    });
}

#[test]
fn what_the_server_says_at_the_start_reaches_the_client() {
    run(async {
        let roles = roles().await;
        let (code, message, _) = roles.gateway.refusal("r_service", "nowhere", &vm_token().await).await;
        assert_eq!((&*code, &*message), ("3D000", "database \"nowhere\" does not exist"));
        let superuser = Stage::flexible().await.superuser().await;
        superuser.batch_execute("CREATE DATABASE closed ALLOW_CONNECTIONS false").await.unwrap();
        let (code, ..) = roles.gateway.refusal("r_service", "closed", &vm_token().await).await;
        assert_eq!(code, "55000");
    });
}

#[test]
fn a_server_that_is_not_there() {
    run(async {
        let gateway = Stage::flexible()
            .await
            .gateway_with(|config| {
                let pgentra_gateway::UpstreamAddress::Unix { port, .. } = &mut config.upstream else {
                    return;
                };
                *port += 1;
            })
            .await;
        let (code, message, hint) = gateway.refusal("anyone", "postgres", "x").await;
        assert_eq!((&*code, &*message), ("57P03", "the gateway cannot reach its PostgreSQL server"));
        assert!(!hint.is_empty());
    });
}

#[test]
fn keys_that_cannot_be_fetched() {
    struct Nothing;
    impl KeySource for Nothing {
        fn fetch(&self) -> pgentra_verify::BoxFuture<'_, Result<Vec<u8>, FetchError>> {
            Box::pin(async { Err(FetchError::new("no route")) })
        }
    }
    run(async {
        roles().await;
        let policy = Policy::builder(azure().await.tenant()).audience(RESOURCE).build().unwrap();
        let verifier = Arc::new(Verifier::new(policy, Nothing));
        let gateway = Stage::flexible().await.gateway_with(|config| config.verifiers = vec![verifier]).await;
        let (code, message, _) = gateway.refusal("r_service", "postgres", &vm_token().await).await;
        assert_eq!(code, "57P03");
        assert_eq!(
            message,
            "The access token can't be validated, because the signing keys of the tenant are not available."
        );
    });
}

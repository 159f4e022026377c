//! The gateway's log, which never contains a token.

use std::io;
use std::sync::{LazyLock, Mutex};

use pgentra_emulator::Draft;
use secrecy::ExposeSecret;
use tracing_subscriber::filter::LevelFilter;

use crate::fixture::{RESOURCE, Stage, azure, run, token, vm_token};

static LOG: LazyLock<Mutex<Vec<u8>>> = LazyLock::new(Mutex::default);

struct Log;

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Keeps everything that any test of this program logs.
pub(crate) fn keep() {
    tracing_subscriber::fmt().with_writer(|| Log).with_ansi(false).with_max_level(LevelFilter::TRACE).init();
}

fn log() -> String {
    String::from_utf8(LOG.lock().unwrap().clone()).unwrap()
}

/// Invariant 2: a token cannot be printed and is never logged.
#[test]
fn who_signed_in_is_written_down_and_no_token_ever() {
    run(async {
        let (stage, azure) = (Stage::flexible().await, azure().await);
        let gateway = stage.gateway().await;
        let admin = stage.administrator(&gateway).await;
        let oid = azure.vm().object_id();
        let sql = format!(
            "SELECT pgaadauth_create_principal_with_oid('audited', '{oid}', 'service', false, false)"
        );
        admin.batch_execute(&sql).await.unwrap();
        let good = vm_token().await;
        gateway.connect("audited", "postgres", &good).await.unwrap();
        let user = token(&Draft::of_user(azure.administrator(), RESOURCE)).await;
        gateway.refusal("audited", "postgres", &user).await;
        gateway.refusal("audited", "postgres", "a password instead of a token").await;
        gateway.refusal("no such role\nforged line", "postgres", &good).await;

        let log = log();
        let appid = azure.vm().client_id();
        let line = format!(
            "Microsoft Entra ID connection authorized oid={oid} appid={appid} role=\"audited\" database=\"postgres\""
        );
        assert!(log.contains(&line), "{log}");
        let administrator = azure.administrator();
        let (oid, upn) = (administrator.object_id(), administrator.user_principal_name());
        assert!(log.contains(&format!("Microsoft Entra ID connection authorized oid={oid} UPN={upn} ")));
        assert!(log.contains("an access token does not fit the role"));
        assert!(!log.contains("\nforged line"));
        for secret in [&good, &user, "mistook", stage.service().password.expose_secret()] {
            assert!(!log.contains(secret));
            // Nor its signature: with known claims, a token can be put together from it.
            assert!(!log.contains(secret.rsplit('.').next().unwrap()));
        }
    });
}

//! Reading a cached token allocates nothing.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use pgentra_identity::{Credential, Resource};
use pgentra_system::{Env, ManualClock, Processes, System};

#[test]
fn a_cached_read_allocates_nothing() {
    let stdout = r#"{"accessToken":"opaque-token","expires_on":1800003600}"#;
    let system = System::builder()
        .env(Env::from_map([("AZURE_TOKEN_CREDENTIALS", "AzureCliCredential")]))
        .clock(ManualClock::at(UNIX_EPOCH + Duration::from_secs(1_800_000_000)))
        .processes(Processes::scripted(move |_| {
            let stdout = stdout.as_bytes().to_vec().into();
            Ok(pgentra_system::Finished { code: Some(0), stdout, stderr: Vec::new() })
        }))
        .build();
    let credential = Credential::builder(system).build().unwrap();
    let resource: Resource = "https://ossrdbms-aad.database.windows.net".parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let runtime = Arc::new(runtime);
    runtime.block_on(async {
        credential.token(&resource).await.unwrap();
        let mut length = 0;
        let used = allocation_counter::measure(|| {
            for _ in 0..100 {
                let read = futures_util::FutureExt::now_or_never(credential.token(&resource));
                length += read.unwrap().unwrap().expose_secret().len();
                length += credential.with_cached(&resource, |token| token.expose_secret().len()).unwrap();
            }
        });
        assert_eq!((used.count_total, length), (0, 2 * 100 * "opaque-token".len()));
    });
}

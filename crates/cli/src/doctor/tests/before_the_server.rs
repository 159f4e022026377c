//! Faults of the configuration, the token source, the token and its claims.

use std::time::Duration;

use pgentra_emulator::{Endpoint, Fault};
use pgentra_identity::{Cloud, Credential};
use pgentra_local::Flavour;
use pgentra_system::{Clock, Env, System, SystemClock};

use super::fake::Fake;
use super::stage::Stage;
use crate::time::unix;
use pgentra_local::Host;

/// A port of loopback on which no process listens.
const CLOSED_PORT: u16 = 1;
const UNKNOWN_ID: &str = "00000000-1111-2222-3333-444444444444";
const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::test(flavor = "multi_thread")]
async fn faults_before_the_server() {
    let mut stage = Stage::new(Flavour::Flexible).await;
    configuration(&mut stage).await;
    source(&mut stage).await;
    metadata_service(&mut stage).await;
    claims(&mut stage).await;
    stage.end().await;
}

async fn configuration(stage: &mut Stage) {
    let vm = || Host::Vm;
    for (what, one, expected) in [
        ("nothing", stage.on(vm()), ""),
        ("no host", stage.on(vm()).unset("PGHOST"), "configuration: connection-settings"),
        ("no role", stage.on(vm()).unset("PGUSER"), "configuration: connection-settings"),
        (
            "a mode without verification",
            stage.on(vm()).set("PGSSLMODE", "require"),
            "configuration: connection-settings",
        ),
        ("a port that is none", stage.on(vm()).port(0), "configuration: connection-settings"),
        (
            "a keyword that is none",
            stage.on(vm()).with(&["host=localhost hots=localhost"]),
            "configuration: connection-settings",
        ),
        (
            "a file of authorities that is not there",
            stage.on(vm()).set("PGSSLROOTCERT", "/nowhere/ca.pem"),
            "configuration: connection-settings",
        ),
        (
            "a password",
            stage.on(vm()).with(&["postgresql://myVm:hunter2@localhost"]),
            "configuration: connection-settings",
        ),
        (
            "a client id that is a name",
            stage.on(vm()).with(&["--client-id", "myVm"]),
            "configuration: identity-settings",
        ),
        (
            "a client id that is a name, in the variable",
            stage.on(vm()).set("AZURE_CLIENT_ID", "myVm"),
            "configuration: identity-settings",
        ),
        (
            "both",
            stage.on(vm()).unset("PGHOST").set("AZURE_CLIENT_ID", "myVm"),
            "configuration: connection-settings, configuration: identity-settings",
        ),
    ] {
        stage.check(what, one, expected).await;
    }
}

async fn source(stage: &mut Stage) {
    let metadata = "AZURE_POD_IDENTITY_AUTHORITY_HOST";
    let soon = ["--token-timeout", "1"];
    let proxy =
        Fake::over_http(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n").await;
    for (what, one, expected) in [
        (
            "no source at all",
            stage.on(Host::Vm).unset(metadata).route_metadata(CLOSED_PORT),
            "source: source-none",
        ),
        (
            "a proxy for http",
            stage.on(Host::Vm).set("http_proxy", "http://127.0.0.1:1"),
            "source: source-proxied",
        ),
        (
            "a proxy that leaves the metadata service out",
            stage
                .on(Host::Vm)
                .set("http_proxy", "http://127.0.0.1:1")
                .set("NO_PROXY", "a.example, 127.0.0.1"),
            "",
        ),
        (
            "a metadata service that is not there",
            stage.on(Host::Vm).set(metadata, "http://127.0.0.1:1").with(&soon),
            "source: source-unreachable",
        ),
        (
            "a proxy that does not let through to Entra",
            stage
                .on(Host::ClientSecret)
                .set("AZURE_AUTHORITY_HOST", "https://entra.example/")
                .set("HTTPS_PROXY", format!("http://127.0.0.1:{}", proxy.port))
                .with(&soon),
            "source: source-proxy-refused",
        ),
        (
            "a pod without its token file",
            stage.on(Host::Aks).set("AZURE_FEDERATED_TOKEN_FILE", "/nowhere/token"),
            "source: source-settings",
        ),
        (
            "a client secret that is wrong",
            stage.on(Host::ClientSecret).set("AZURE_CLIENT_SECRET", "wrong"),
            "token: token-refused-by-entra",
        ),
        (
            "an unknown client id",
            stage.on(Host::Vm).with(&["--client-id", UNKNOWN_ID]),
            "token: token-identity-unknown",
        ),
        (
            "an API that the tenant does not know",
            stage.on(Host::Vm).with(&["--resource", "https://unknown.example"]),
            "token: token-refused-by-entra",
        ),
        (
            "a header that is wrong",
            stage.on(Host::AppService).set("IDENTITY_HEADER", "wrong"),
            "token: token-refused",
        ),
    ] {
        stage.check(what, one, expected).await;
    }
}

/// Every kind of answer from a metadata service.
async fn metadata_service(stage: &mut Stage) {
    for (what, fault, expected) in [
        ("slow", Fault::Slow(Duration::from_millis(100)), ""),
        ("silent", Fault::Hang, "source: source-timeout"),
        ("a captive portal", Fault::captive_portal(), "source: source-intercepted"),
        ("a redirect", Fault::redirect("http://127.0.0.1:1/"), "source: source-intercepted"),
        ("the words of a proxy", Fault::status(407, ""), "source: source-intercepted"),
        ("a container's network", Fault::unreachable(), "source: source-intercepted"),
        ("cut off", Fault::Cut { after: 20 }, "source: source-unreachable"),
        ("throttled", Fault::throttled(Duration::ZERO), "token: token-throttled"),
        ("restarting", Fault::gone(), "token: token-source-restarting"),
        ("failing", Fault::status(500, "{}"), "token: token-source-failing"),
        ("not JSON", Fault::Malformed, "token: token-bad-answer"),
        ("a token that is too long", Fault::HugeToken { bytes: 70_000 }, "token: token-bad-answer"),
        ("a token of the day before yesterday", Fault::ClockBehind(2 * DAY), "claims: token-expired"),
    ] {
        stage.cloud.azure().faults().push_lasting(Endpoint::ImdsToken, fault);
        let one = stage.on(Host::Vm).with(&["--token-timeout", "1"]);
        stage.check(what, one, expected).await;
        stage.cloud.azure().faults().clear();
    }
}

async fn claims(stage: &mut Stage) {
    let in_an_hour = unix(SystemClock.now()) + 3600;
    let opaque = format!(r#"{{"accessToken":"opaque-and-long-enough","expires_on":{in_an_hour}}}"#);
    let management = token_for(stage, "https://management.azure.com").await;
    let slashed = token_for(stage, &format!("{}/", Cloud::Public.postgres_resource())).await;
    for (what, one, expected) in [
        (
            "a slash too many",
            stage.on(Host::Vm).with(&["--resource", "https://ossrdbms-aad.database.windows.net/"]),
            "claims: claims-audience",
        ),
        ("a slash too many from a command", stage.on(Host::Vm).token(&slashed), "claims: claims-audience"),
        ("a token for another API", stage.on(Host::Vm).token(&management), "claims: claims-audience"),
        (
            "a server of another cloud",
            stage.on(Host::Vm).set("PGHOST", "x.postgres.database.chinacloudapi.cn"),
            "claims: claims-audience",
        ),
        (
            "another tenant was named",
            stage.on(Host::Vm).set("AZURE_TENANT_ID", UNKNOWN_ID),
            "claims: claims-tenant",
        ),
        ("a clock that is behind", stage.on(Host::Vm).clock_behind(DAY / 24), "claims: clock-wrong"),
        ("a text that is no token", stage.on(Host::Vm).token(&opaque), "authentication: refused-format"),
    ] {
        stage.check(what, one, expected).await;
    }
}

/// A token of the VM for the given API.
pub(super) async fn token_for(stage: &Stage, resource: &str) -> String {
    let env = Env::from_map([("AZURE_POD_IDENTITY_AUTHORITY_HOST", stage.cloud.azure().metadata_url())]);
    let credential = Credential::builder(System::builder().env(env).build()).build().unwrap();
    credential.token(&resource.parse().unwrap()).await.unwrap().expose_secret().to_owned()
}

/// The same for PostgreSQL.
pub(super) async fn token(stage: &Stage) -> String {
    token_for(stage, Cloud::Public.postgres_resource().as_str()).await
}

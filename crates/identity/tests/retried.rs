//! What is asked again, how often, and what a person is told meanwhile: the answers that Entra, the metadata services, `az`
//! and token commands give today. Over real HTTP on loopback, on paused time.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod stage;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use pgentra_identity::{
    AccessToken, CommandServer, Credential, Selector, SourceName, TokenError, TokenErrorKind,
};
use pgentra_system::{Finished, Invocation, Processes, System};
use tokio::time::Instant;

use crate::stage::{Answer, POSTGRESQL, Service, closed_port, jwt, system};

const CLIENT: &str = "853b9a84-5bfa-4b22-a3f3-0b9a43d9ad8a";

async fn ask(credential: &Credential) -> Result<AccessToken, TokenError> {
    credential.token(&POSTGRESQL.parse().unwrap()).await
}

/// How many seconds something takes on the paused clock.
async fn timed<T>(work: impl Future<Output = T>) -> (T, f64) {
    let began = Instant::now();
    (work.await, began.elapsed().as_secs_f64())
}

fn of_entra(code: &str) -> String {
    format!(r#"{{"error":"invalid_client","error_description":"{code}: in words. Trace ID: x"}}"#)
}

fn pod(authority: &str) -> System {
    system(&[
        ("AZURE_CLIENT_ID", CLIENT),
        ("AZURE_TENANT_ID", "contoso.example"),
        ("AZURE_FEDERATED_TOKEN_FILE", "/token"),
        ("AZURE_AUTHORITY_HOST", authority),
    ])
    .build()
}

#[tokio::test(start_paused = true)]
async fn entras_codes_are_asked_again_or_not() {
    for (status, body, again) in [
        (400, of_entra("AADSTS70021"), true),
        (401, of_entra("AADSTS700211"), true),
        (401, of_entra("AADSTS700212"), true),
        (401, of_entra("AADSTS700213"), true),
        (400, of_entra("AADSTS90061"), true),
        (400, of_entra("AADSTS50166"), true),
        (400, of_entra("AADSTS90012"), true),
        (400, of_entra("AADSTS90024"), true),
        (400, of_entra("AADSTS90033"), true),
        (400, of_entra("AADSTS90055"), true),
        (400, r#"{"error":"temporarily_unavailable","error_description":"busy"}"#.to_owned(), true),
        (429, String::new(), true),
        (503, String::new(), true),
        // The record is known and differs: it differs at the next try too.
        (401, of_entra("AADSTS7002138"), false),
        (401, of_entra("AADSTS7002137"), false),
        // Entra blocks a client for repeating a request.
        (400, of_entra("AADSTS50196"), false),
        (400, of_entra("AADSTS900382"), false),
        (401, of_entra("AADSTS7000215"), false),
        (400, of_entra("AADSTS700016"), false),
        (400, of_entra("AADSTS65001"), false),
    ] {
        let service = Service::start(&[Answer::new(status, body.clone()), Answer::token()]).await;
        let credential = Credential::builder(pod(&service.url())).build().unwrap();
        let result = ask(&credential).await;
        assert_eq!(
            (result.is_ok(), service.requests()),
            (again, if again { 2 } else { 1 }),
            "{status} {body}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_again_has_a_hint_when_it_stays() {
    for code in
        ["AADSTS70021", "AADSTS700211", "AADSTS700212", "AADSTS700213", "AADSTS7002137", "AADSTS7002138"]
    {
        let service = Service::start(&[Answer::new(401, of_entra(code))]).await;
        let error = ask(&Credential::builder(pod(&service.url())).build().unwrap()).await.unwrap_err();
        assert_eq!(error.code(), Some(code));
        assert!(error.hint().unwrap().contains("issuer"), "{code}: {:?}", error.hint());
    }
    for code in ["AADSTS90012", "AADSTS90024", "AADSTS90033", "AADSTS90055", "AADSTS50196", "AADSTS900382"] {
        let service = Service::start(&[Answer::new(400, of_entra(code))]).await;
        let error = ask(&Credential::builder(pod(&service.url())).build().unwrap()).await.unwrap_err();
        assert!(error.hint().is_some(), "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_asked_for_is_kept_in_both_forms() {
    for (headers, least) in [
        (&[("retry-after", "7")][..], 7.0),
        (&[("retry-after", "Fri, 15 Jan 2027 08:00:09 GMT"), ("date", "Fri, 15 Jan 2027 08:00:00 GMT")], 9.0),
        (&[("retry-after", "soon")], 1.0),
    ] {
        let throttled =
            headers.iter().fold(Answer::new(429, ""), |one, (name, value)| one.header(name, value));
        let service = Service::start(&[throttled, Answer::token()]).await;
        let credential = Credential::builder(pod(&service.url())).build().unwrap();
        let (result, took) = timed(ask(&credential)).await;
        // The wait of the policy, a second, is added by chance.
        assert!(result.is_ok() && (least..least + 1.1).contains(&took), "{headers:?}: {took}");
    }
}

fn vm(service: &str) -> System {
    system(&[("AZURE_POD_IDENTITY_AUTHORITY_HOST", service)]).build()
}

const NOT_FOUND: &str = r#"{"error":"invalid_request","error_description":"Identity not found"}"#;

#[tokio::test(start_paused = true)]
async fn an_identity_that_was_just_assigned_is_waited_for() {
    let not_assigned = "no AzureAssignedIdentity found for pod:default/demo in assigned state";
    let in_created =
        "getting assigned identities for pod default/demo in CREATED state failed after 16 attempts";
    for (status, body) in [(400, NOT_FOUND), (403, not_assigned), (403, in_created)] {
        let refusal = Answer::new(status, body);
        let service = Service::start(&[refusal.clone(), refusal, Answer::token()]).await;
        let (result, took) = timed(ask(&Credential::builder(vm(&service.url())).build().unwrap())).await;
        assert_eq!((result.is_ok(), service.requests()), (true, 3), "{body}");
        assert!(took < 3.5, "{took}");
    }
    // What does not pass by itself is asked once.
    for (status, body) in [
        (400, r#"{"error":"invalid_request","error_description":"Multiple user assigned identities exist"}"#),
        (400, r#"{"error":"invalid_resource","error_description":"AADSTS50001: not found in the tenant"}"#),
        (403, "connect: A socket operation was attempted to an unreachable network."),
        (405, ""),
    ] {
        let service = Service::start(&[Answer::new(status, body)]).await;
        ask(&Credential::builder(vm(&service.url())).build().unwrap()).await.unwrap_err();
        assert_eq!(service.requests(), 1, "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_identity_that_stays_unknown_is_an_error_that_says_so() {
    for selector in [Selector::Default, Selector::ClientId(CLIENT.parse().unwrap())] {
        let service = Service::start(&[Answer::new(400, NOT_FOUND)]).await;
        let credential = Credential::builder(vm(&service.url())).selector(selector).build().unwrap();
        let (error, took) = timed(ask(&credential)).await;
        let error = error.unwrap_err();
        assert_eq!((error.status(), error.attempts(), service.requests()), (Some(400), 5, 5));
        assert!((15.0..16.6).contains(&took), "{took}");
        assert!(error.hint().unwrap().contains("may take a minute"), "{:?}", error.hint());
        // A long-running program asks again. A request after the first minute fails at once instead of waiting.
        tokio::time::sleep(Duration::from_secs(60)).await;
        let (error, took) = timed(ask(&credential)).await;
        assert_eq!((error.unwrap_err().attempts(), service.requests()), (1, 6));
        assert!(took < 0.1, "{took}");
    }
    // An identity that has given a token is not a new one: it was taken away.
    let service = Service::start(&[Answer::token(), Answer::new(400, NOT_FOUND)]).await;
    let credential = Credential::builder(vm(&service.url())).build().unwrap();
    let token = ask(&credential).await.unwrap();
    let refreshed = credential.refresh(&POSTGRESQL.parse().unwrap(), &token).await;
    assert_eq!((refreshed.unwrap_err().attempts(), service.requests()), (1, 2));
    // The caller's limit holds.
    let service = Service::start(&[Answer::new(400, NOT_FOUND)]).await;
    let short = Credential::builder(vm(&service.url())).deadline(Duration::from_secs(2));
    let (error, took) = timed(ask(&short.build().unwrap())).await;
    assert!(error.unwrap_err().status() == Some(400) && took < 2.1, "{took}");
}

/// 169.254.169.254 is at this address.
fn machine(service: std::net::SocketAddr, processes: Processes) -> System {
    system(&[]).processes(processes).route("169.254.169.254", 80, service).build()
}

#[tokio::test(start_paused = true)]
async fn a_metadata_service_that_needs_seconds_is_found_where_nothing_else_is() {
    for seconds in [0, 2, 4, 6, 8] {
        let service = Service::start(&[Answer::token().after(seconds)]).await;
        let credential = Credential::builder(machine(service.address, Processes::none())).build().unwrap();
        let token = ask(&credential).await.unwrap_or_else(|error| panic!("{seconds} s: {error:?}"));
        assert_eq!(token.source(), SourceName::Imds);
    }
    // One that is later than that: the error says what waits for it.
    let service = Service::start(&[Answer::token().after(30)]).await;
    let credential = Credential::builder(machine(service.address, Processes::none())).build().unwrap();
    let (error, took) = timed(ask(&credential)).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::NoSource);
    assert!(error.hint().unwrap().contains("--source imds"), "{:?}", error.hint());
    assert!((9.9..10.1).contains(&took), "{took}");
    let named = Credential::builder(machine(service.address, Processes::none())).source(SourceName::Imds);
    assert_eq!(
        ask(&named.deadline(Duration::from_secs(10)).build().unwrap()).await.unwrap_err().kind(),
        TokenErrorKind::Timeout
    );
}

#[tokio::test(start_paused = true)]
async fn a_metadata_service_that_refuses_at_first_is_found_where_nothing_else_is() {
    let (address, socket) = closed_port();
    let starts = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(3)).await;
        Service::on(socket.listen(16).unwrap(), &[Answer::token()])
    });
    let credential = Credential::builder(machine(address, Processes::none())).build().unwrap();
    let (token, took) = timed(ask(&credential)).await;
    assert_eq!(token.unwrap().source(), SourceName::Imds);
    assert!((3.0..4.0).contains(&took), "{took}");
    assert_eq!(starts.await.unwrap().requests(), 2);
}

fn tool(name: &'static str, output: String) -> Processes {
    Processes::scripted(move |call| match call.program == name {
        true => {
            Ok(Finished { code: Some(0), stdout: output.clone().into_bytes().into(), stderr: Vec::new() })
        }
        false => Err(std::io::ErrorKind::NotFound.into()),
    })
}

#[tokio::test(start_paused = true)]
async fn a_laptop_with_a_tool_waits_no_longer_than_before() {
    let output = r#"{"accessToken":"opaque-token","token":null,"expires_on":1800003600}"#;
    let output = output.replace(r#""token":null,"#, "");
    let slow = Service::start(&[Answer::token().after(5)]).await;
    let (closed, _socket) = closed_port();
    for (address, most) in [(slow.address, 2.1), (closed, 0.1)] {
        for (name, source) in [("az", SourceName::AzureCli), ("azd", SourceName::AzureDeveloperCli)] {
            let system = machine(address, tool(name, output.clone()));
            let credential = Credential::builder(system).build().unwrap();
            let (token, took) = timed(ask(&credential)).await;
            assert_eq!(token.unwrap().source(), source);
            assert!(took < most, "{name}: {took}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_port_of_this_machine_that_is_closed_is_told_at_once() {
    let (address, _socket) = closed_port();
    let port = address.port();
    for host in [format!("127.0.0.1:{port}"), format!("localhost:{port}"), format!("127.0.0.1:{port}/")] {
        let credential = Credential::builder(vm(&format!("http://{host}"))).build().unwrap();
        let (error, took) = timed(ask(&credential)).await;
        let error = error.unwrap_err();
        assert_eq!((error.kind(), error.attempts()), (TokenErrorKind::Network, 3), "{host}");
        assert!(took < 0.9, "{host}: {took}");
        let hint = error.hint().unwrap();
        assert!(hint.contains("unset AZURE_POD_IDENTITY_AUTHORITY_HOST"), "{hint}");
    }
    let credential = Credential::builder(pod(&format!("http://{address}"))).build().unwrap();
    let (error, took) = timed(ask(&credential)).await;
    assert!(error.unwrap_err().attempts() == 3 && took < 0.9, "{took}");
    // The token service of App Service is on this machine, and late at a cold start: it is waited for.
    let endpoint = format!("http://{address}/msi/token");
    let app = system(&[("IDENTITY_ENDPOINT", &endpoint), ("IDENTITY_HEADER", "secret-header")]).build();
    let (error, took) = timed(ask(&Credential::builder(app).build().unwrap())).await;
    assert!(error.unwrap_err().attempts() == 5 && took > 7.4, "{took}");
}

#[tokio::test(start_paused = true)]
async fn a_token_service_of_a_platform_that_is_not_ready_is_asked_again() {
    for (status, again) in
        [(404, true), (408, true), (429, true), (500, true), (503, true), (400, false), (403, false)]
    {
        let service = Service::start(&[Answer::new(status, "{}"), Answer::token()]).await;
        let endpoint = format!("{}/msi/token", service.url());
        let app = system(&[("IDENTITY_ENDPOINT", &endpoint), ("IDENTITY_HEADER", "secret-header")]).build();
        assert_eq!(ask(&Credential::builder(app).build().unwrap()).await.is_ok(), again, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_span_of_time_is_rounded() {
    let service = Service::start(&[Answer::token().after(60)]).await;
    let limit = Duration::from_nanos(1_999_989_123);
    let credential = Credential::builder(vm(&service.url())).deadline(limit).build().unwrap();
    let error = ask(&credential).await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.ends_with("within 2 s"), "{cause}");
}

fn exec(output: &str) -> Credential {
    let system = system(&[]).processes(tool("give-token", output.to_owned())).build();
    Credential::builder(system).command(["give-token"]).build().unwrap()
}

#[tokio::test]
async fn colours_around_an_answer_do_no_harm() {
    let token = jwt(r#"{"exp":1800003600}"#);
    let json = format!(r#"{{"accessToken":"{token}","expires_on":1800003600}}"#);
    for output in [
        format!("{json}\n\x1b[0m"),
        format!("\x1b[32m{json}\x1b[0m\n"),
        format!("\x1b]0;az\x07{json}"),
        format!("\u{feff}{json}\r\n"),
        format!("\x1b[?25l{token}\x1b[?25h\n"),
    ] {
        assert_eq!(ask(&exec(&output)).await.unwrap().expose_secret(), token, "{output:?}");
    }
}

#[tokio::test]
async fn tools_are_started_without_colours() {
    for (source, program, variable) in [
        (SourceName::AzureCli, "az", ("AZURE_CORE_NO_COLOR", "true")),
        (SourceName::AzureDeveloperCli, "azd", ("NO_COLOR", "1")),
    ] {
        let seen = Arc::new(Mutex::new(None::<Invocation>));
        let note = seen.clone();
        let processes = Processes::scripted(move |call| {
            *note.lock().unwrap() = Some(call.clone());
            Err(std::io::ErrorKind::NotFound.into())
        });
        let credential =
            Credential::builder(system(&[]).processes(processes).build()).source(source).build().unwrap();
        ask(&credential).await.unwrap_err();
        let call = seen.lock().unwrap().clone().unwrap();
        assert_eq!(call.program, program);
        assert!(
            call.variables.contains(&(variable.0.to_owned(), variable.1.to_owned())),
            "{:?}",
            call.variables
        );
    }
}

#[tokio::test]
async fn a_token_in_quotes_is_told_from_other_rubbish() {
    let token = jwt(r#"{"exp":1800003600}"#);
    for (output, says) in [
        (format!("\"{token}\"\n"), "is in quotes"),
        (format!("'{token}'"), "is in quotes"),
        (format!("{{\"{token}\"}}\n"), "in quotes and brackets"),
        (format!("[\n  \"{token}\"\n]\n"), "in quotes and brackets"),
        (format!("\x1b[0m\"{token}\"\x1b[0m"), "is in quotes"),
        ("null\n".to_owned(), "empty result"),
        ("None".to_owned(), "empty result"),
        ("[]\n".to_owned(), "empty result"),
    ] {
        let error = ask(&exec(&output)).await.unwrap_err();
        assert!(error.to_string().contains(says), "{output:?}: {error}");
        assert!(error.hint().unwrap().contains("-o tsv"), "{:?}", error.hint());
        assert!(!format!("{error:?}").contains("c2ln"), "{error:?}");
    }
    let error = ask(&exec(&format!("Bearer {token}"))).await.unwrap_err();
    assert!(error.to_string().contains("`Bearer` before the token"), "{error}");
}

#[tokio::test]
async fn a_command_that_fails_is_told_without_its_arguments() {
    for (words, stderr, says) in [
        (&["/bin/sh", "-c", "exit 3"][..], "", "/bin/sh ended with exit code 3 and said nothing"),
        (&["/bin/sh", "-c", "echo it's \"$X\""], "no\n", "exit code 3: no"),
        (&["my token", "a*"], " \n", "exit code 3 and said nothing"),
        // Any argument may be a secret, and hints are logged too.
        (&["give-token", "hunter2"], "", "exit code 3"),
        (&["sh", "-c", "get-token hunter2"], "", "exit code 3"),
        (&["curl", "-H", "Authorization: Basic aHVudGVyMg"], "", "exit code 3"),
    ] {
        let processes = Processes::scripted(move |_| {
            Ok(Finished { code: Some(3), stdout: Vec::new().into(), stderr: stderr.as_bytes().to_vec() })
        });
        let credential = Credential::builder(system(&[]).processes(processes).build());
        let error = ask(&credential.command(words.iter().copied()).build().unwrap()).await.unwrap_err();
        assert!(
            error.to_string().ends_with(says) || error.to_string().contains(&format!("{says} ")),
            "{error}"
        );
        assert_eq!(
            error.hint().unwrap(),
            "Run the command of --token-command by hand (token_command in a file)."
        );
        let shown = format!("{error} {error:?}");
        let arguments = words[1..].iter().filter(|word| word.len() > 2);
        assert_eq!(arguments.filter(|word| shown.contains(**word)).count(), 0, "{shown}");
    }
}

/// The variables that a command got.
type Variables = Arc<Mutex<Vec<(String, String)>>>;

/// A credential of a command that prints this, with this lifetime, and the variables that the command got.
fn opaque(output: &'static str, lifetime: Option<u64>) -> (Credential, Variables) {
    let got = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&got);
    let processes = Processes::scripted(move |call| {
        *seen.lock().unwrap() = call.variables.clone();
        Ok(Finished { code: Some(0), stdout: output.as_bytes().to_vec().into(), stderr: Vec::new() })
    });
    let server = CommandServer {
        host: Some("db.example".to_owned()),
        port: Some(5433),
        role: Some("my app".to_owned()),
    };
    let builder = Credential::builder(system(&[]).processes(processes).build());
    let builder = builder.command(["give-token"]).command_server(server);
    let builder = match lifetime {
        Some(seconds) => builder.command_lifetime(Duration::from_secs(seconds)),
        None => builder,
    };
    (builder.build().unwrap(), got)
}

#[tokio::test]
async fn an_opaque_token_ends_when_its_lifetime_does() {
    // As `aws rds generate-db-auth-token` and `gcloud sql generate-login-token` print them.
    let rds = "db.example:5433/?Action=connect&DBUser=my%20app&X-Amz-Expires=900&X-Amz-Signature=0a1b\n";
    for output in [rds, "ya29.c.b0AXv0zTN-_\n"] {
        let (credential, got) = opaque(output, Some(900));
        let token = ask(&credential).await.unwrap();
        assert_eq!(token.expose_secret(), output.trim_end());
        assert_eq!(token.expires_on().duration_since(token.received_on()).unwrap().as_secs(), 900);
        let got: Vec<_> = got.lock().unwrap().clone();
        let value = |name: &str| got.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
        assert_eq!(value(CommandServer::HOST), Some("db.example"));
        assert_eq!(value(CommandServer::PORT), Some("5433"));
        assert_eq!(value(CommandServer::ROLE), Some("my app"));
        assert!(value(CommandServer::RESOURCE).is_some());

        let error = ask(&opaque(output, None).0).await.unwrap_err();
        assert!(error.to_string().contains("does not say when the token ends"), "{error}");
        assert!(error.hint().unwrap().contains("--token-lifetime 15m"), "{:?}", error.hint());
    }
    // What the command says counts where it is earlier.
    let json = r#"{"access_token":"opaque","expires_in":60}"#;
    for (lifetime, expected) in [(Some(900), 60), (Some(30), 30), (None, 60)] {
        let token = ask(&opaque(json, lifetime).0).await.unwrap();
        assert_eq!(token.expires_on().duration_since(token.received_on()).unwrap().as_secs(), expected);
    }
}

#[test]
fn a_tenant_that_cannot_be_one_is_an_error() {
    for tenant in
        ["a b", "", "-x", "../common", "contoso.example/x", ".example", "ä.example", "a\nb", &"a".repeat(254)]
    {
        for source in [SourceName::Imds, SourceName::AzureCli, SourceName::WorkloadIdentity] {
            let built = Credential::builder(system(&[]).build()).source(source).tenant(tenant).build();
            assert!(built.unwrap_err().hint().unwrap().contains("GUID"), "{tenant}");
        }
    }
    for tenant in ["contoso.onmicrosoft.com", "72f988bf-86f1-41af-91ab-2d7cd011db47", "common"] {
        assert!(Credential::builder(system(&[]).build()).tenant(tenant).build().is_ok(), "{tenant}");
    }
}

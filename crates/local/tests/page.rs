//! The page of a local cloud, asked by programs and by pages of other sites.
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::time::Duration;

use eventually::{DEADLINE, eventually};
use pgentra_local::{Host, LocalCloud};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The page of a cloud.
struct Asked {
    /// `127.0.0.1:PORT`.
    address: String,
}

impl Asked {
    fn of(cloud: &LocalCloud) -> Self {
        let url = cloud.page_url();
        let address = url.strip_prefix("http://").and_then(|rest| rest.strip_suffix('/')).unwrap();
        assert!(address.starts_with("127.0.0.1:"), "{address}");
        Self { address: address.to_owned() }
    }

    /// Status and text of the answer, headers included. `headers` has one line for each.
    async fn ask(&self, request: &str, headers: &str) -> (u16, String) {
        let host = match headers.contains("Host:") {
            true => String::new(),
            false => format!("Host: {}\r\n", self.address),
        };
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        let head = format!("{request} HTTP/1.1\r\n{host}{headers}Connection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer)
    }

    async fn page(&self) -> String {
        let (status, page) = self.ask("GET /", "").await;
        assert_eq!(status, 200, "{page}");
        page
    }

    async fn state(&self) -> Value {
        let (status, answer) = self.ask("GET /state.json", "").await;
        assert_eq!(status, 200, "{answer}");
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    /// The header with which the page itself makes changes.
    async fn key(&self) -> String {
        let page = self.page().await;
        let key = page.split("name=\"page-key\" content=\"").nth(1).unwrap().split('"').next().unwrap();
        assert!(key.len() == 32 && key.bytes().all(|byte| byte.is_ascii_hexdigit()), "{key}");
        format!("pgentra-page-key: {key}\r\n")
    }
}

#[tokio::test]
async fn only_the_page_itself_changes_anything() {
    let cloud = LocalCloud::builder().start().await.unwrap();
    let (page, before) = (Asked::of(&cloud), cloud.clock().now());
    let key = page.key().await;
    let (own, advance) = (format!("Origin: http://{}\r\n", page.address), "POST /clock/advance?seconds=3600");
    let port = page.address.rsplit(':').next().unwrap();
    for (request, headers, status) in [
        (advance, String::new(), 403),
        (advance, "pgentra-page-key: 0\r\n".to_owned(), 403),
        (advance, format!("{key}{key}"), 403),
        (advance, format!("{key}Origin: http://evil.example\r\n"), 403),
        (advance, format!("{key}Origin: null\r\n"), 403),
        (advance, format!("{key}Origin: http://127.0.0.1:1\r\n"), 403),
        (advance, format!("{key}{own}Origin: http://evil.example\r\n"), 403),
        (advance, format!("{key}Sec-Fetch-Site: cross-site\r\n"), 403),
        (advance, format!("{key}Sec-Fetch-Site: same-site\r\n"), 403),
        (advance, format!("{key}Host: evil.example\r\n"), 421),
        (advance, format!("{key}Host: evil.example:{port}\r\n"), 421),
        (advance, format!("{key}Host: 127.0.0.1\r\n"), 421),
        (advance, format!("{key}Host: {0}\r\nHost: {0}\r\n", page.address), 421),
        ("GET /clock/advance?seconds=3600", key.clone(), 405),
        ("POST /faults/set?fault=slow&endpoint=imds-token", String::new(), 403),
        ("POST /faults/clear", String::new(), 403),
        ("GET /state.json", "Sec-Fetch-Site: cross-site\r\n".to_owned(), 403),
        ("GET /state.json", "Host: evil.example\r\n".to_owned(), 421),
        ("GET /", format!("Host: evil.example:{port}\r\n"), 421),
        ("GET /", "Sec-Fetch-Site: none\r\n".to_owned(), 200),
        ("POST /", key.clone(), 405),
        ("GET /metrics", String::new(), 404),
        ("POST /quitquitquit", key.clone(), 404),
    ] {
        let (found, answer) = page.ask(request, &headers).await;
        assert_eq!(found, status, "{request} {headers} {answer}");
    }
    assert!(cloud.clock().now() < before + Duration::from_secs(60), "the clock was moved");
    assert!(cloud.azure().faults().active().is_empty());
    for headers in [key.clone(), format!("{key}{own}Sec-Fetch-Site: same-origin\r\n")] {
        assert_eq!(page.ask(advance, &headers).await.0, 200);
    }
    assert!(cloud.clock().now() >= before + Duration::from_secs(7200));
    assert_eq!(page.state().await["ahead_seconds"], 7200);
    cloud.stop().await;
}

#[tokio::test]
async fn a_fault_is_switched_on_and_off() {
    let cloud = LocalCloud::builder().start().await.unwrap();
    let page = Asked::of(&cloud);
    let key = page.key().await;
    for request in [
        "POST /clock/advance",
        "POST /clock/advance?seconds=-1",
        "POST /clock/advance?seconds=99999999999",
        "POST /faults/set",
        "POST /faults/set?fault=unknown&endpoint=imds-token",
        "POST /faults/set?fault=slow",
        "POST /faults/set?fault=slow&endpoint=github",
        "POST /faults/set?fault=slow&endpoint=imds-token&times=0",
        "POST /faults/set?fault=slow&endpoint=imds-token&times=1001",
        "POST /faults/clear?fault=unknown",
        "POST /faults/set?fault=failover&endpoint=imds-token",
        "POST /faults/set?fault=down&endpoint=arc",
    ] {
        let (status, answer) = page.ask(request, &key).await;
        assert_eq!(status, 400, "{request} {answer}");
    }
    assert_eq!(page.state().await["faults"]["active"], Value::Array(vec![]));
    for request in [
        "POST /faults/set?fault=html&endpoint=imds-token&times=7",
        // It replaces the one before.
        "POST /faults/set?fault=html&endpoint=imds-token&times=2",
        "POST /faults/set?fault=throttled&endpoint=app-service",
    ] {
        assert_eq!(page.ask(request, &key).await.0, 200, "{request}");
    }
    let active = page.state().await["faults"]["active"].clone();
    let shown: Vec<_> = active.as_array().unwrap().iter().map(|it| (&it["fault"], &it["left"])).collect();
    assert_eq!(shown, [(&"html".into(), &2.into()), (&"throttled".into(), &Value::Null)]);
    let (credential, resource) = cloud.credential(Host::Vm).unwrap();
    let refused = credential.token(&resource).await.unwrap_err();
    assert!(format!("{refused:?}").contains("Imds"), "{refused:?}");
    let left = page.state().await["faults"]["active"][0]["left"].clone();
    assert_eq!(left, 1);
    let clear = "POST /faults/clear?fault=html&endpoint=imds-token";
    assert_eq!(page.ask(clear, &key).await.0, 200);
    credential.token(&resource).await.unwrap();
    assert_eq!(cloud.azure().faults().active().len(), 1);
    let limit = "fault=connection-limit&endpoint=postgresql";
    assert_eq!(page.ask(&format!("POST /faults/set?{limit}"), &key).await.0, 200);
    let refused = cloud.connector(Host::Admin, &[]).unwrap().connect().await.unwrap_err();
    assert!(format!("{refused:?}").contains("remaining connection slots"), "{refused:?}");
    assert_eq!(page.state().await["faults"]["active"][1]["endpoint"], "postgresql");
    assert_eq!(page.ask("POST /faults/clear", &key).await.0, 200);
    assert_eq!(page.state().await["faults"]["active"], Value::Array(vec![]));
    assert!(cloud.azure().faults().active().is_empty());
    cloud.stop().await;
}

/// Invariant 2: the page has what a token says, and not the token.
#[tokio::test]
async fn logins_and_tokens_are_shown_and_no_token() {
    let mut cloud = LocalCloud::builder().start().await.unwrap();
    cloud.create_roles().await.unwrap();
    let page = Asked::of(&cloud);
    let session = cloud.connector(Host::Vm, &[]).unwrap().connect().await.unwrap();
    session.close().await.unwrap();
    // A role whose name is markup, and a placeholder of the page.
    let hostile = "{{key}}</pre><script>alert(1)</script>\u{202e}";
    let flags = [("user", hostile.to_owned()), ("application_name", "<i>".to_owned())];
    cloud.connector(Host::Vm, &flags).unwrap().connect().await.unwrap_err();
    // The client does not answer what PostgreSQL asks it then, and hangs up.
    eventually(DEADLINE, "the client has left", async || page.state().await["counts"]["left"] == 1).await;
    let nowhere = [("dbname", "nowhere".to_owned())];
    cloud.connector(Host::Vm, &nowhere).unwrap().connect().await.unwrap_err();

    let state = page.state().await;
    let [newest, left, let_in] = [0, 1, 2].map(|at| &state["logins"][at]);
    assert_eq!(
        (&let_in["role"], &let_in["outcome"], &let_in["name"]),
        (&"myVm".into(), &"let in".into(), &"myVm".into())
    );
    let ended = |login: &Value| (login["outcome"].clone(), login["ended_at"].clone());
    assert_eq!((&left["role"], ended(left)), (&hostile.into(), ("left".into(), "role".into())), "{left:#}");
    assert_eq!(ended(newest), ("refused".into(), "server".into()), "{newest:#}");
    assert_eq!(newest["sqlstate"], "3D000");
    let counts = &state["counts"];
    assert_eq!((&counts["let_in"], &counts["refused"]), (&2.into(), &1.into()), "{counts}");
    let server = state["checks"].as_array().unwrap().iter().find(|check| check["name"] == "server").unwrap();
    assert_eq!(server["refused"], 1);
    let token = &state["tokens"][0];
    assert_eq!(token["name"], "myVm");
    assert_eq!(token["claims"]["oid"], cloud.azure().vm().object_id().to_string());
    assert_eq!(token["claims"]["aud"], token["resource"]);

    let text = page.page().await;
    assert!(text.contains("{{key}}&lt;/pre&gt;&lt;script&gt;alert(1)&lt;/script&gt;\\u202E"), "{text}");
    assert!(!text.contains("alert(1)</script>") && !text.contains('\u{202e}'));
    let policy = text.lines().find(|line| line.starts_with("content-security-policy: ")).unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert!(!text.contains("http://") || !text.contains("src=\"http"), "nothing comes from elsewhere");

    let (credential, resource) = cloud.credential(Host::Vm).unwrap();
    let token = credential.token(&resource).await.unwrap();
    let parts: Vec<_> = token.expose_secret().split('.').map(str::to_owned).collect();
    let all = format!("{}{}", page.page().await, page.state().await);
    let secrets = [
        cloud.environment(Host::AppService)["IDENTITY_HEADER"].clone(),
        cloud.environment(Host::ClientSecret)["AZURE_CLIENT_SECRET"].clone(),
    ];
    for secret in parts[1..].iter().chain(&secrets) {
        assert!(!all.contains(secret.as_str()), "{secret}");
    }
    let address = page.address.clone();
    cloud.stop().await;
    assert!(TcpStream::connect(address).await.is_err(), "invariant 9: the port is closed");
}

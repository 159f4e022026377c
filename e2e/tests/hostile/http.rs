//! HTTP: the proxy's status page and probes, the local cloud's metadata service and Entra.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;

use crate::papers::trusting;
use crate::stage::Stage;
use crate::wire::Stream;

const AREA: &str = "HTTP";

/// The status of each answer; `.` alone is none.
fn status(mut stream: Stream, request: &[u8], is_all: bool) -> String {
    let _ = stream.write_all(request).and_then(|()| stream.flush());
    if let (Stream::Tcp(stream), true) = (&stream, is_all) {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut answer = Vec::new();
    let mut buffer = [0; 65_536];
    let end = loop {
        match stream.read(&mut buffer) {
            Ok(0) => break "",
            Ok(length) => answer.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break "hangs",
            Err(_) => break "",
        }
    };
    let text = String::from_utf8_lossy(&answer);
    let lines = text.split("HTTP/1.").skip(1).map(|rest| rest.get(2..5).unwrap_or("?"));
    let codes: Vec<&str> = lines.collect();
    let codes = if codes.is_empty() { ".".to_owned() } else { codes.join(" ") };
    format!("{codes}{end}")
}

/// Requests to one port, with what each is answered.
fn ask(stage: &Stage<'_>, port: u16, prefix: &str, rows: &[(&str, String, &str)]) {
    for (name, request, expected) in rows {
        // an incomplete request is not waited for
        let is_all = name.starts_with("no request");
        let got = status(Stream::tcp(port), request.as_bytes(), is_all);
        stage.answered(AREA, &format!("{prefix}, {name}"), &got, expected);
    }
}

/// A request that would end the proxy, sent to a separate proxy.
fn quit(stage: &Stage<'_>, path: &str, headers: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n{headers}\r\n", stage.admin)
}

/// A page of another site is refused.
fn origins(stage: &Stage<'_>) {
    let admin = stage.admin;
    let own = format!("http://127.0.0.1:{admin}");
    let quit = |path: &str, headers: &str| quit(stage, path, headers);
    ask(
        stage,
        admin,
        "quit",
        &[
            (
                "with two origins, ours first",
                quit("/quitquitquit", &format!("Origin: {own}\r\nOrigin: http://evil.example\r\n")),
                "403 | 400",
            ),
            (
                "with two origins, ours last",
                quit("/quitquitquit", &format!("Origin: http://evil.example\r\nOrigin: {own}\r\n")),
                "403 | 400",
            ),
            (
                "with a list of origins",
                quit("/quitquitquit", &format!("Origin: {own} http://evil.example\r\n")),
                "403",
            ),
            (
                "from a name that begins as ours",
                quit("/quitquitquit", &format!("Origin: {own}.evil.example\r\n")),
                "403",
            ),
            (
                "from our address in user information",
                quit("/quitquitquit", &format!("Origin: {own}@evil.example\r\n")),
                "403",
            ),
            ("from an origin with a path", quit("/quitquitquit", &format!("Origin: {own}/\r\n")), "403"),
            ("from an empty origin", quit("/quitquitquit", "Origin: \r\n"), "403"),
            ("from a file", quit("/quitquitquit", "Origin: file://\r\n"), "403"),
            ("from an extension", quit("/quitquitquit", "Origin: chrome-extension://abc\r\n"), "403"),
            ("from HTTPS", quit("/quitquitquit", &format!("Origin: https://127.0.0.1:{admin}\r\n")), "403"),
        ],
    );
}

/// Other paths and methods are refused.
fn paths(stage: &Stage<'_>) {
    let quit = |path: &str, headers: &str| quit(stage, path, headers);
    ask(
        stage,
        stage.admin,
        "quit",
        &[
            ("with a slash", quit("/quitquitquit/", ""), "404"),
            ("percent-encoded", quit("/%71uitquitquit", ""), "404"),
            ("with a NUL byte's escape", quit("/quitquitquit%00", ""), "404"),
            ("in capitals", quit("/QUITQUITQUIT", ""), "404"),
            ("behind a dot", quit("/./quitquitquit", ""), "404"),
            ("behind a path", quit("/status.json/../quitquitquit", ""), "404"),
            ("behind a backslash", quit("/\\quitquitquit", ""), "404 | 400"),
            ("as a parameter", quit("/?/quitquitquit", ""), "405"),
            (
                "by another method's header",
                "GET /quitquitquit HTTP/1.1\r\nHost: localhost\r\nX-HTTP-Method-Override: POST\r\n\r\n"
                    .to_owned(),
                "403",
            ),
            ("by DELETE", "DELETE /quitquitquit HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), "403"),
            (
                "by a method in lower case",
                "post /quitquitquit HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
                "403 | 400",
            ),
        ],
    );
    let elsewhere = quit("/quitquitquit", "").replace(&stage.admin.to_string(), &stage.health.to_string());
    ask(stage, stage.health, "quit", &[("at the probes", elsewhere, "404")]);
}

/// A host that is not this machine's loopback.
fn hosts(stage: &Stage<'_>) {
    ask(
        stage,
        stage.admin,
        "quit",
        &[
            (
                "for a host in decimal",
                "POST /quitquitquit HTTP/1.1\r\nHost: 2130706433\r\n\r\n".to_owned(),
                "421",
            ),
            (
                "for a host in hexadecimal",
                "POST /quitquitquit HTTP/1.1\r\nHost: 0x7f.0.0.1\r\n\r\n".to_owned(),
                "421",
            ),
            ("for a short address", "POST /quitquitquit HTTP/1.1\r\nHost: 127.1\r\n\r\n".to_owned(), "421"),
            (
                "for a host with a zone",
                "POST /quitquitquit HTTP/1.1\r\nHost: [::1%25lo]\r\n\r\n".to_owned(),
                "421 | 400",
            ),
            (
                "for an address without brackets",
                "POST /quitquitquit HTTP/1.1\r\nHost: ::1\r\n\r\n".to_owned(),
                "421 | 400",
            ),
            (
                "for a subdomain",
                "POST /quitquitquit HTTP/1.1\r\nHost: evil.localhost\r\n\r\n".to_owned(),
                "421",
            ),
            ("for no host in 1.0", "POST /quitquitquit HTTP/1.0\r\n\r\n".to_owned(), "421"),
            (
                "for a forwarded host",
                "POST /quitquitquit HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: localhost\r\n\r\n"
                    .to_owned(),
                "421",
            ),
            (
                "for an absolute URI",
                "POST http://localhost/quitquitquit HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_owned(),
                "421",
            ),
        ],
    );
}

/// A second request behind the first is not read.
fn smuggled(stage: &Stage<'_>) {
    let smuggled = quit(stage, "/quitquitquit", "");
    ask(
        stage,
        stage.admin,
        "smuggled",
        &[
            (
                "in the body",
                format!(
                    "GET /liveness HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{smuggled}",
                    smuggled.len()
                ),
                "200",
            ),
            (
                "behind a body of no bytes",
                format!("GET /liveness HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n{smuggled}"),
                "200",
            ),
            (
                "behind chunks",
                format!(
                    "GET /liveness HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
                ),
                "200",
            ),
            (
                "behind an upgrade",
                format!(
                    "GET /liveness HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n{smuggled}"
                ),
                "200",
            ),
        ],
    );
}

/// Malformed requests get an error, or the connection is closed.
fn malformed(stage: &Stage<'_>) {
    ask(
        stage,
        stage.admin,
        "a request",
        &[
            (
                "two lengths",
                "GET /liveness HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n"
                    .to_owned(),
                "400",
            ),
            (
                "a length of -1",
                "GET /liveness HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n".to_owned(),
                "400",
            ),
            (
                "a length with a plus sign",
                "GET /liveness HTTP/1.1\r\nHost: localhost\r\nContent-Length: +5\r\n\r\n".to_owned(),
                "400",
            ),
            (
                "an encoding that is none",
                "GET /liveness HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\n\r\n".to_owned(),
                "400",
            ),
            (
                "a space before the colon",
                "GET /liveness HTTP/1.1\r\nHost : localhost\r\n\r\n".to_owned(),
                "400",
            ),
            (
                "a line that goes on",
                "GET /liveness HTTP/1.1\r\nHost: localhost\r\n evil.example\r\n\r\n".to_owned(),
                "400",
            ),
            (
                "a NUL byte in a value",
                "GET /liveness HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n".to_owned(),
                "400",
            ),
            (
                "a bare carriage return",
                "GET /liveness HTTP/1.1\r\nHost: localhost\r\nX: a\rHost: evil\r\n\r\n".to_owned(),
                "400",
            ),
            (
                "a header without a name",
                "GET /liveness HTTP/1.1\r\nHost: localhost\r\n: x\r\n\r\n".to_owned(),
                "400",
            ),
            ("two spaces", "GET  /liveness HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), "400 | 404"),
            ("version 1.2", "GET /liveness HTTP/1.2\r\nHost: localhost\r\n\r\n".to_owned(), "400 | 505 | ."),
            ("version 2's preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), "400 | 505 | ."),
            (
                "a path that is none",
                "GET liveness HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
                "400 | 404 | 405",
            ),
            ("TRACE", "TRACE /liveness HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), "405"),
            ("OPTIONS for all", "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), "404 | 405"),
            (
                "a header of 20 KB",
                format!("GET /liveness HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(20_000)),
                "431",
            ),
            (
                "a path of 20 KB",
                format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(20_000)),
                "414 | 431",
            ),
            (
                "65 headers",
                format!("GET /liveness HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: y\r\n".repeat(65)),
                "431",
            ),
            ("no request: TLS", "\u{16}\u{3}\u{1}\0\u{5}\u{1}\0\0\u{1}\u{3}".to_owned(), "400 | ."),
            (
                "no request: PostgreSQL",
                String::from_utf8(crate::wire::start(&[("user", "myVm")])).unwrap(),
                "400 | .",
            ),
            ("no request: line feeds", "\n\n\n\n".to_owned(), "400 | ."),
            ("no request: half a request", "GET /liveness HTTP/1.1\r\nHost: loc".to_owned(), "400 | ."),
        ],
    );
}

fn probes_alone(stage: &Stage<'_>) {
    for (name, request, expected) in [
        ("the status at the probes", "GET /status.json HTTP/1.1\r\nHost: localhost\r\n\r\n", "404"),
        ("the page at the probes", "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "404"),
        (
            "a probe by POST",
            "POST /liveness HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx",
            "405",
        ),
        ("a probe with two slashes", "GET //liveness HTTP/1.1\r\nHost: localhost\r\n\r\n", "404"),
        ("a file", "GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", "404"),
        (
            "metrics for a kilobyte of types",
            &format!(
                "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: {}\r\n\r\n",
                "text/x;q=9,".repeat(100)
            ),
            "200",
        ),
        ("metrics by HEAD", "HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", "200"),
    ] {
        stage.answered(AREA, name, &status(Stream::tcp(stage.health), request.as_bytes(), false), expected);
    }
}

/// The port in a URL.
fn port(url: &str) -> u16 {
    url.trim_end_matches('/').rsplit(':').next().unwrap().split('/').next().unwrap().parse().unwrap()
}

/// A request to the metadata service.
fn vm(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{headers}\r\n")
}

fn metadata(stage: &Stage<'_>) {
    let metadata = port(&stage.cloud.text("/metadata_url"));
    let path = format!("/metadata/identity/oauth2/token?api-version=2018-02-01&resource={}", e2e::RESOURCE);
    let tail = format!("?api-version=2018-02-01&resource={}", e2e::RESOURCE);
    ask(
        stage,
        metadata,
        "the metadata service",
        &[
            ("no header", vm(&path, ""), "400"),
            ("false", vm(&path, "Metadata: false\r\n"), "400"),
            ("an empty header", vm(&path, "Metadata:\r\n"), "400"),
            ("true and false", vm(&path, "Metadata: true, false\r\n"), "400"),
            ("a number", vm(&path, "Metadata: 1\r\n"), "400"),
            ("forwarded", vm(&path, "Metadata: true\r\nX-Forwarded-For: 192.0.2.1\r\n"), "400"),
            ("the header as a parameter", vm(&format!("{path}&Metadata=true"), ""), "400"),
            ("POST", vm(&path, "Metadata: true\r\n").replacen("GET", "POST", 1), "405"),
            ("PUT", vm(&path, "Metadata: true\r\n").replacen("GET", "PUT", 1), "405"),
            (
                "dots",
                vm(&format!("/metadata/x/../identity/oauth2/token{tail}"), "Metadata: true\r\n"),
                "401 | 404 | 400",
            ),
            (
                "a percent-encoded path",
                vm(&format!("/metadata%2fidentity%2foauth2%2ftoken{tail}"), "Metadata: true\r\n"),
                "401 | 404 | 400",
            ),
        ],
    );
}

fn selectors(stage: &Stage<'_>) {
    let metadata = port(&stage.cloud.text("/metadata_url"));
    let path = format!("/metadata/identity/oauth2/token?api-version=2018-02-01&resource={}", e2e::RESOURCE);
    ask(
        stage,
        metadata,
        "the metadata service",
        &[
            (
                "a version that is none",
                vm(&path.replace("2018-02-01", "2018-02-01'--"), "Metadata: true\r\n"),
                "400",
            ),
            ("an old version", vm(&path.replace("2018-02-01", "2017-01-01"), "Metadata: true\r\n"), "400"),
            (
                "a resource with a line feed",
                vm(&format!("{path}%0d%0aX-Evil:1"), "Metadata: true\r\n"),
                "400",
            ),
            (
                "a resource that is none",
                vm(
                    "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=evil",
                    "Metadata: true\r\n",
                ),
                "400",
            ),
            (
                "no resource",
                vm("/metadata/identity/oauth2/token?api-version=2018-02-01", "Metadata: true\r\n"),
                "400",
            ),
            (
                "two identities",
                vm(
                    &format!(
                        "{path}&client_id=00000000-0000-0000-0000-000000000001&object_id=00000000-0000-0000-0000-000000000001"
                    ),
                    "Metadata: true\r\n",
                ),
                "400",
            ),
            (
                "an identity that is not of the machine",
                vm(&format!("{path}&client_id=00000000-0000-0000-0000-000000000001"), "Metadata: true\r\n"),
                "400",
            ),
            (
                "an identity that is no GUID",
                vm(&format!("{path}&client_id=..%2f..%2fetc"), "Metadata: true\r\n"),
                "400",
            ),
            (
                "a resource of 60 KB",
                vm(&format!("{path}{}", "x".repeat(60_000)), "Metadata: true\r\n"),
                "400 | 414 | 431",
            ),
            (
                "a head of 200 KB",
                vm(&path, &format!("Metadata: true\r\nX: {}\r\n", "x".repeat(200_000))),
                "431 | .",
            ),
            (
                "a body that never ends",
                vm(&path, "Metadata: false\r\nTransfer-Encoding: chunked\r\n") + "5\r\nhello\r\n0\r\n\r\n",
                "400",
            ),
        ],
    );
}

fn other_services(stage: &Stage<'_>) {
    let metadata = port(&stage.cloud.text("/metadata_url"));
    ask(
        stage,
        metadata,
        "the metadata service",
        &[
            (
                "App Service without its secret",
                vm(&format!("/MSI/token?api-version=2019-08-01&resource={}", e2e::RESOURCE), ""),
                "401",
            ),
            (
                "App Service with an empty secret",
                vm(
                    &format!("/MSI/token?api-version=2019-08-01&resource={}", e2e::RESOURCE),
                    "X-IDENTITY-HEADER: \r\n",
                ),
                "401",
            ),
            (
                "App Service with a wrong secret",
                vm(
                    &format!("/MSI/token?api-version=2019-08-01&resource={}", e2e::RESOURCE),
                    "X-IDENTITY-HEADER: secret\r\n",
                ),
                "401",
            ),
            (
                "App Service with the old header",
                vm(
                    &format!("/MSI/token?api-version=2019-08-01&resource={}", e2e::RESOURCE),
                    "Secret: secret\r\n",
                ),
                "401",
            ),
            (
                "Cloud Shell without the header",
                vm("/oauth2/token", "Content-Length: 0\r\n").replacen("GET", "POST", 1),
                "400 | 401 | 403",
            ),
            (
                "a path that is none",
                vm("/latest/meta-data/iam/security-credentials/", "Metadata: true\r\n"),
                "401 | 404",
            ),
        ],
    );
}

fn entra(stage: &Stage<'_>) {
    let entra = port(&stage.cloud.text("/authority_host"));
    let tls = trusting(&fs::read_to_string(&stage.cloud.env("client-secret")["SSL_CERT_FILE"]).unwrap());
    let tenant = stage.cloud.text("/tenant_id");
    let post = |tenant: &str, body: &str| {
        format!(
            "POST /{tenant}/oauth2/v2.0/token HTTP/1.1\r\nHost: localhost:{entra}\r\nConnection: close\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let client = stage.cloud.env("client-secret")["AZURE_CLIENT_ID"].clone();
    let scope = "scope=https%3A%2F%2Fossrdbms-aad.database.windows.net%2F.default";
    let grant = "grant_type=client_credentials";
    for (name, request) in [
        ("nothing", post(&tenant, "")),
        (
            "another grant",
            post(&tenant, &format!("grant_type=password&client_id={client}&{scope}&username=x&password=y")),
        ),
        ("no proof", post(&tenant, &format!("{grant}&client_id={client}&{scope}"))),
        ("an empty secret", post(&tenant, &format!("{grant}&client_id={client}&{scope}&client_secret="))),
        ("a wrong secret", post(&tenant, &format!("{grant}&client_id={client}&{scope}&client_secret=x"))),
        (
            "an assertion that is none",
            post(
                &tenant,
                &format!(
                    "{grant}&client_id={client}&{scope}&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion=a.b.c"
                ),
            ),
        ),
        (
            "an assertion of another kind",
            post(
                &tenant,
                &format!(
                    "{grant}&client_id={client}&{scope}&client_assertion_type=evil&client_assertion=a.b.c"
                ),
            ),
        ),
        (
            "another tenant",
            post(
                "00000000-0000-0000-0000-000000000001",
                &format!("{grant}&client_id={client}&{scope}&client_secret=x"),
            ),
        ),
        (
            "a tenant that is a path",
            post("..%2f..", &format!("{grant}&client_id={client}&{scope}&client_secret=x")),
        ),
        (
            "300 KB",
            post(
                &tenant,
                &format!("{grant}&client_id={client}&{scope}&client_secret={}", "x".repeat(300_000)),
            ),
        ),
        ("GET", post(&tenant, "").replacen("POST", "GET", 1)),
    ] {
        let got = status(Stream::tls(entra, &tls, true), request.as_bytes(), false);
        // A server that refuses a body before it has read it may close the connection under the rest of the body, and its
        // answer is lost then.
        let expected = match name {
            "300 KB" => "400 | 413 | .",
            _ => "400 | 401 | 404 | 405",
        };
        stage.answered(AREA, &format!("Entra, {name}"), &got, expected);
    }
}

pub(crate) fn probes(stage: &Stage<'_>) {
    origins(stage);
    paths(stage);
    hosts(stage);
    smuggled(stage);
    malformed(stage);
    probes_alone(stage);
    metadata(stage);
    selectors(stage);
    other_services(stage);
    entra(stage);
}

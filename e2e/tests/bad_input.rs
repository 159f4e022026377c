//! Invalid input: each case gives, in bounded time, one message that names the failed link and the
//! next step, the right exit code, and no token anywhere (the lab searches for tokens).
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

mod peer;

use std::collections::BTreeMap;

use e2e::{Flavour, Lab, have};
use peer::Peer;

/// Exit codes.
const USAGE: i32 = 2;
const NO_TOKEN: i32 = 3;
const NETWORK: i32 = 4;
const REFUSED: i32 = 5;

/// An id that no identity has.
const UNKNOWN_ID: &str = "00000000-1111-2222-3333-444444444444";

/// The environment of a program whose metadata service is at this address.
fn metadata(address: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("AZURE_POD_IDENTITY_AUTHORITY_HOST".to_owned(), address.to_owned())])
}

/// Description, arguments, variables, exit code, words of the message.
type Case = (
    &'static str,
    &'static [&'static str],
    &'static [(&'static str, &'static str)],
    i32,
    &'static [&'static str],
);

/// The server refuses, or is another server than the target.
#[test]
fn of_the_server() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let vm = cloud.env("vm");
    let query = ["query", "-c", "SELECT 1"];
    let cases: [Case; 11] = [
        ("a role that does not exist", &["-U", "nobody_here"], &[], REFUSED, &["nobody_here"]),
        ("a role of another identity", &["-U", "myIdentity"], &[], REFUSED, &["myIdentity"]),
        (
            "a token for another audience",
            &["--resource", "https://management.azure.com"],
            &[],
            REFUSED,
            &["audience"],
        ),
        ("an unknown client id", &["--client-id", UNKNOWN_ID], &[], NO_TOKEN, &[UNKNOWN_ID]),
        ("a client id that is none", &["--client-id", "myVm"], &[], USAGE, &["--client-id", "myVm"]),
        ("a database that does not exist", &["-d", "nowhere"], &[], REFUSED, &["nowhere"]),
        ("an unknown certificate", &[], &[("PGSSLROOTCERT", "")], NETWORK, &["certificate"]),
        (
            "a certificate for another name",
            &[],
            &[("PGHOST", "wrong.example"), ("PGHOSTADDR", "127.0.0.1")],
            NETWORK,
            &["wrong.example", "certificate"],
        ),
        (
            "a root certificate that is not there",
            &[],
            &[("PGSSLROOTCERT", "/nowhere/ca.pem")],
            USAGE,
            &["/nowhere/ca.pem"],
        ),
        (
            "a host that does not exist",
            &["-h", "no-such-host.invalid"],
            &[],
            NETWORK,
            &["no-such-host.invalid"],
        ),
        ("a mode without verification", &[], &[("PGSSLMODE", "disable")], USAGE, &["sslmode"]),
    ];
    let mut faults = Vec::new();
    for (case, arguments, variables, code, words) in cases {
        let mut run = lab.pgentra(&[&query, arguments].concat()).envs(vm.clone()).within(30);
        for (name, value) in variables {
            run = run.env(name, value);
        }
        faults.extend(run.done().fault(code, words).map(|fault| format!("{case}: {fault}")));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let done = lab.pgentra(&["query", "-c", "SELECT 1/0"]).envs(vm).done();
    assert_eq!(done.status.code(), Some(REFUSED));
    assert!(done.stderr.contains("division by zero") && done.stderr.contains("22012"), "{}", done.stderr);
}

/// An expired token is refused with Azure's message, and a new token is accepted.
#[test]
fn of_an_old_token() {
    let lab = Lab::new();
    for flavour in [Flavour::Flexible, Flavour::Single] {
        let cloud = lab.cloud(flavour, &[]);
        let vm = cloud.env("vm");
        let old = lab.pgentra(&["token"]).envs(vm.clone()).token();
        let query = ["query", "-c", "SELECT 1", "--token-command", "printf %s \"$OLD\""];
        lab.pgentra(&query).envs(vm.clone()).env("OLD", &old).done().ok();
        lab.pgentra(&["local", "clock", "--advance", "25h"]).done().ok();
        let kept = lab.pgentra(&query).envs(vm.clone()).env("OLD", &old).within(30).done();
        assert_eq!(kept.fault(REFUSED, &["The access token has expired", "the same one again"]), None);
        if have(&["psql"]) {
            let psql =
                lab.program(&["psql", "-c", "SELECT 1"]).envs(vm.clone()).env("PGPASSWORD", &old).done();
            assert!(
                psql.stderr.contains("The access token has expired. Acquire a new token"),
                "{}",
                psql.stderr
            );
        }
        lab.pgentra(&["query", "-c", "SELECT 1"]).envs(vm).done().ok();
    }
}

/// A process listens on the port, but it is not a PostgreSQL with TLS.
#[test]
fn of_the_port() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let mut faults = Vec::new();
    for (case, peer, word) in [
        ("a server without TLS", Peer::answering(b"N"), "TLS"),
        ("a web server", Peer::answering(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "PostgreSQL"),
        ("something that hangs up", Peer::answering(b""), "hung up"),
        ("something silent", Peer::silent(), "time"),
        ("no listener", Peer::absent(), "refused"),
    ] {
        let done = lab
            .pgentra(&["query", "-c", "SELECT 1"])
            .envs(cloud.env("vm"))
            .env("PGPORT", peer.port().to_string())
            .env("PGCONNECT_TIMEOUT", "3")
            .within(30)
            .done();
        faults.extend(done.fault(NETWORK, &[word]).map(|fault| format!("{case}: {fault}")));
        // the client sent a request for TLS and nothing else
        let received = peer.received();
        assert!(received.is_empty() || received == b"\0\0\0\x08\x04\xd2\x16\x2f", "{case}: {received:?}");
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The metadata service is absent, slow, or sends invalid answers.
#[test]
fn of_the_metadata_service() {
    fn http(status: &str, body: &str) -> Vec<u8> {
        let length = body.len();
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .into()
    }
    let elsewhere = Peer::answering(&http("200 OK", "{}"));
    let redirect = format!(
        "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{}/metadata\r\nContent-Length: 0\r\n\r\n",
        elsewhere.port()
    );
    let endless = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n{\"access_token\":\"";
    let lab = Lab::new();
    let mut faults = Vec::new();
    for (case, peer) in [
        ("no listener", Peer::absent()),
        ("something silent", Peer::silent()),
        ("something that hangs up", Peer::answering(b"")),
        ("no HTTP", Peer::answering(b"SSH-2.0-OpenSSH_9.2\r\n")),
        ("a web page", Peer::answering(&http("200 OK", "<html>Welcome to nginx!</html>"))),
        ("JSON without a token", Peer::answering(&http("200 OK", "{\"hello\":\"system\"}"))),
        (
            "a number for a token",
            Peer::answering(&http("200 OK", "{\"access_token\":5,\"expires_on\":\"9999999999\"}")),
        ),
        (
            "a token that has expired",
            Peer::answering(&http("200 OK", "{\"access_token\":\"a.b.c\",\"expires_on\":\"1500000000\"}")),
        ),
        (
            "an empty token",
            Peer::answering(&http("200 OK", "{\"access_token\":\"\",\"expires_on\":\"9999999999\"}")),
        ),
        ("half an answer", Peer::answering(b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n{\"access_tok")),
        ("an endless answer", Peer::pouring(endless)),
        ("another service", Peer::answering(&http("404 Not Found", "no such page"))),
        (
            "a refusal",
            Peer::answering(&http(
                "400 Bad Request",
                "{\"error\":\"invalid_request\",\"error_description\":\"Identity not found\"}",
            )),
        ),
        ("a failing service", Peer::answering(&http("500 Internal Server Error", "<h1>oops</h1>"))),
        ("a busy service", Peer::answering(&http("429 Too Many Requests", ""))),
        ("a redirect", Peer::answering(redirect.as_bytes())),
    ] {
        let address = format!("http://127.0.0.1:{}", peer.port());
        let done = lab.pgentra(&["token", "--token-timeout", "5"]).envs(metadata(&address)).within(30).done();
        faults.extend(done.fault(NO_TOKEN, &["imds"]).map(|fault| format!("{case}: {fault}")));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(elsewhere.received().is_empty(), "a redirect was followed");
}

/// On a machine outside of Azure: a second for the probe, not a minute for the retries.
#[test]
fn of_the_machine() {
    if !have(&["netns"]) {
        return;
    }
    let lab = Lab::behind(&["unshare", "--net", "--"]);
    let done = lab.pgentra(&["token"]).within(20).done();
    let said = done.fails(NO_TOKEN);
    assert!(said.contains("169.254.169.254") || said.contains("imds"), "{said}");
}

/// Invalid command lines.
#[test]
fn of_the_command_line() {
    let lab = Lab::new();
    let mut faults = Vec::new();
    for (words, word) in [
        (&["token", "--source", "nonsense"][..], "nonsense"),
        (&["token", "--cloud", "mars"], "mars"),
        (&["token", "--client-id", UNKNOWN_ID, "--object-id", UNKNOWN_ID], "--object-id"),
        (&["token", "--resource", "not a uri"], "resource"),
        (&["query", "-c", "SELECT 1"], "no server"),
        (&["query", "-f", "/nowhere.sql"], "/nowhere.sql"),
        (&["query", "-c", "SELECT 1", "postgres://h:notaport/db"], "port"),
        (&["local", "env", "-o", "json"], "pgentra local up"),
        (&["local", "status"], "no local cloud"),
        (&["local", "status", "--name", "../x"], "--name"),
        (&["local", "up", "--flavour", "vanilla"], "vanilla"),
        (&["exec", "-h", "h", "-U", "u"], "CMD"),
        (&["no-such-command"], "no-such-command"),
    ] {
        let done = lab.pgentra(words).within(20).done();
        faults.extend(done.fault(USAGE, &[word]));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A local cloud that cannot start reports that, and leaves no files.
#[test]
fn of_the_local_cloud() {
    let lab = Lab::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().map(|address| (taken, address.port().to_string())).unwrap();
    for (words, word) in [
        (&["--postgres", "/nowhere"][..], "/nowhere"),
        (&["--port", &taken.1], "--port"),
        (&["--metadata-port", &taken.1], "--metadata-port"),
    ] {
        for detach in [&[][..], &["--detach"]] {
            let done = lab.pgentra(&[&["local", "up"], words, detach].concat()).within(60).done();
            assert!(!done.status.success() && done.stdout.is_empty(), "{done:?}");
            assert!(
                done.stderr.contains("error: ") && done.stderr.contains(word),
                "{words:?}: {}",
                done.stderr
            );
            let is_early = !done.stderr.contains("starting PostgreSQL");
            assert!(is_early || words[0] != "--port", "told before PostgreSQL is started: {done:?}");
            // processes that were starting may take a moment to end
            lab.await_processes();
            lab.assert_nothing_left();
        }
    }
}

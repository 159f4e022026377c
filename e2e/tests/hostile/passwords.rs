//! SCRAM-SHA-256 messages that no client library sends. The wrong passwords are spread over four
//! roles, fewer for each than are allowed without a pause.

use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};

use crate::stage::{Door, Stage};
use crate::wire::{SSL, Step, TERMINATE, Talk, message, query, send, start};

const AREA: &str = "passwords";

/// A SASLInitialResponse.
fn initial(mechanism: &str, length: i32, data: &[u8]) -> Vec<u8> {
    message(b'p', &[mechanism.as_bytes(), b"\0", &length.to_be_bytes(), data].concat())
}

fn said(data: &str) -> Vec<u8> {
    initial("SCRAM-SHA-256", i32::try_from(data.len()).unwrap(), data.as_bytes())
}

fn begin(user: &str) -> Vec<u8> {
    start(&[("user", user), ("database", "postgres")])
}

/// First client messages.
fn firsts(stage: &Stage<'_>) {
    let good = "n,,n=,r=abcdefghijklmnopqr";
    let length = i32::try_from(good.len()).unwrap();
    for (name, bytes) in [
        ("no mechanism", initial("", length, good.as_bytes())),
        ("a mechanism in lower case", initial("scram-sha-256", length, good.as_bytes())),
        ("a mechanism with a space", initial("SCRAM-SHA-256 ", length, good.as_bytes())),
        ("SHA-1", initial("SCRAM-SHA-1", length, good.as_bytes())),
        ("SHA-512", initial("SCRAM-SHA-512", length, good.as_bytes())),
        ("EXTERNAL", initial("EXTERNAL", length, good.as_bytes())),
        ("two mechanisms", initial("SCRAM-SHA-256,SCRAM-SHA-256-PLUS", length, good.as_bytes())),
        ("a mechanism without an end", message(b'p', b"SCRAM-SHA-256")),
        ("a mechanism and no more", message(b'p', b"SCRAM-SHA-256\0")),
        ("half a length", message(b'p', b"SCRAM-SHA-256\0\0\0")),
        ("a length that is too short", initial("SCRAM-SHA-256", 3, good.as_bytes())),
        ("a length that is too long", initial("SCRAM-SHA-256", length + 1, good.as_bytes())),
        ("a length of zero", initial("SCRAM-SHA-256", 0, b"")),
        ("a length below -1", initial("SCRAM-SHA-256", -2, b"")),
        ("no nonce", said("n,,n=")),
        ("an empty nonce", said("n,,n=,r=")),
        ("a nonce with a control character", said("n,,n=,r=abc\u{7f}def")),
        ("a nonce beyond ASCII", said("n,,n=,r=ab\u{e9}")),
        ("a nonce before the name", said("n,,r=abc,n=")),
        ("a nonce with a space", said("n,,n=,r=abc def")),
        ("two names", said("n,,n=app,n=b,r=abc")),
        ("no header", said("n=,r=abc")),
        ("half a header", said("n,n=,r=abc")),
        ("another header", said("x,,n=,r=abc")),
        ("a header of commas", said(",,,,,,,,")),
        ("a binding without a type", said("p=,,n=,r=abc")),
        ("a binding of another type", initial("SCRAM-SHA-256-PLUS", 31, b"p=tls-exporter,,n=,r=abcdefghij")),
        ("a binding that was not chosen", said("p=tls-server-end-point,,n=,r=abc")),
        ("a last message at once", said("c=biws,r=abc,p=AAAA")),
        ("a NUL byte", said("n,,n=\0,r=abc")),
        ("a password in the clear", message(b'p', b"secret\0")),
        ("an empty message", message(b'p', b"")),
        ("a message of another type", message(b'B', good.as_bytes())),
        ("a second start-up", begin("app")),
        ("a request for TLS", SSL.to_vec()),
        ("CopyData", message(b'd', good.as_bytes())),
    ] {
        let steps = [send(begin("app")), Step::Until(b'R'), send(bytes), Step::Shut];
        stage.probe(AREA, name, (stage.connect(Door::Scram), &steps), "R10 E08P01 . | R10 E28P01 .");
    }
    for (name, bytes) in [
        ("only a type", b"p".to_vec()),
        ("half a message", said(good)[..20].to_vec()),
        ("Terminate", TERMINATE.to_vec()),
    ] {
        let steps = [send(begin("app")), Step::Until(b'R'), send(bytes), Step::Shut];
        stage.probe(AREA, name, (stage.connect(Door::Scram), &steps), "R10 . | R10 E08P01 .");
    }
    let steps = [
        send([begin("app"), said(good), message(b'p', b"c=biws,r=abc,p=AAAA"), query("SELECT 1")].concat()),
        Step::Shut,
    ];
    stage.probe(
        AREA,
        "everything before it is asked for",
        (stage.connect(Door::Scram), &steps),
        "R10 R11 E08P01 . | R10 R11 E28P01 .",
    );
}

/// The first and last message of a client; `forge` makes the last message from the right one and
/// the server's first.
fn exchange(
    stage: &Stage<'_>,
    user: &str,
    password: &str,
    binding: ChannelBinding,
    forge: impl Fn(&str, &str) -> Vec<Vec<u8>>,
) -> String {
    let mut client = ScramSha256::new(password.as_bytes(), binding);
    let mut talk = Talk::new(stage.connect(Door::Scram));
    talk.send(&begin(user));
    talk.until(b'R');
    let first = String::from_utf8(client.message().to_vec()).unwrap();
    let mechanism = if first.starts_with("p=") { "SCRAM-SHA-256-PLUS" } else { "SCRAM-SHA-256" };
    talk.send(&initial(mechanism, i32::try_from(first.len()).unwrap(), first.as_bytes()));
    let answer = talk.until(b'R');
    let Some(answer) = answer.get(4..).filter(|it| client.update(it).is_ok()) else { return talk.finish() };
    let last = String::from_utf8(client.message().to_vec()).unwrap();
    for bytes in forge(&last, &String::from_utf8_lossy(answer)) {
        talk.send(&bytes);
    }
    talk.finish()
}

/// Last client messages, and passwords.
fn lasts(stage: &Stage<'_>) {
    let none = ChannelBinding::unsupported;
    let right = |last: &str, _: &str| vec![message(b'p', last.as_bytes()), TERMINATE.to_vec()];
    for (name, user, password, expected) in [
        ("the right one", "app", "secret", "R10 R11 R12 R0 ZI ."),
        ("a space behind", "b", "secret ", "R10 R11 E28P01 ."),
        ("in capitals", "b", "SECRET", "R10 R11 E28P01 ."),
        ("empty", "b", "", "R10 R11 E28P01 ."),
        ("beyond ASCII", "b", "s\u{435}cret", "R10 R11 E28P01 ."),
        ("of a role in capitals", "APP", "secret", "R10 R11 E28P01 ."),
        ("of the role behind the map", "myVm", "secret", "R10 R11 E28P01 ."),
        ("of an empty file's name", "\"app\"", "secret", "R10 R11 E28P01 ."),
    ] {
        let got = exchange(stage, user, password, none(), right);
        stage.answered(AREA, &format!("a password, {name}"), &got, expected);
    }
    for (name, binding, expected) in [
        ("none where one was offered", ChannelBinding::unrequested(), "R10 E08P01 ."),
        (
            "of no bytes",
            ChannelBinding::tls_server_end_point(Vec::new()),
            "R10 R11 E08P01 . | R10 R11 E28P01 .",
        ),
        (
            "of another certificate",
            ChannelBinding::tls_server_end_point(vec![7; 32]),
            "R10 R11 E08P01 . | R10 R11 E28P01 .",
        ),
    ] {
        stage.answered(
            AREA,
            &format!("a binding, {name}"),
            &exchange(stage, "c", "secret", binding, right),
            expected,
        );
    }
    let text = |text: String| vec![message(b'p', text.as_bytes()), TERMINATE.to_vec()];
    let proofless = |last: &str| last.split(",p=").next().unwrap().to_owned();
    type Forge<'a> = &'a dyn Fn(&str, &str) -> Vec<Vec<u8>>;
    let forgeries: [(&str, Forge<'_>); 12] = [
        ("no proof", &|last, _| text(proofless(last))),
        ("two proofs", &|last, _| text(format!("{last},p=AAAA"))),
        ("words behind the proof", &|last, _| text(format!("{last},x=1"))),
        ("a line feed behind the proof", &|last, _| text(format!("{last}\n"))),
        ("a proof of 31 bytes", &|last, _| {
            text(format!("{},p={}", proofless(last), "AAAA".repeat(10) + "AA=="))
        }),
        ("a proof of 33 bytes", &|last, _| text(format!("{},p={}", proofless(last), "AAAA".repeat(11)))),
        ("a proof of the URL's base64", &|last, _| {
            text(format!("{},p={}_-=", proofless(last), "AAAA".repeat(10) + "A"))
        }),
        ("the server's message again", &|_, first| text(first.to_owned())),
        ("the nonce alone", &|last, _| text(last.split(',').nth(1).unwrap().to_owned())),
        ("another order", &|last, _| {
            let mut parts: Vec<&str> = last.split(',').collect();
            parts.swap(0, 1);
            text(parts.join(","))
        }),
        ("an empty last message", &|_, _| text(String::new())),
        ("a Query instead", &|_, _| vec![query("SELECT 1")]),
    ];
    for (name, forge) in forgeries {
        let got = exchange(stage, "d", "secret", none(), forge);
        stage.answered(AREA, name, &got, "R10 R11 E08P01 . | R10 R11 E28P01 .");
    }
    let again = exchange(stage, "app", "secret", none(), |last, _| {
        let last = message(b'p', last.as_bytes());
        vec![last.clone(), last, query("SELECT 1")]
    });
    stage.answered(AREA, "the last message twice", &again, "R10 R11 R12 R0 ZI E08P01 .");
}

pub(crate) fn probes(stage: &Stage<'_>) {
    firsts(stage);
    lasts(stage);
}

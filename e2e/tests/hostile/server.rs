//! Answers of a server: only a verified server that asks for a password gets a token, and a session
//! must begin as PostgreSQL begins one.

use rcgen::{DnType, date_time_ymd};

use crate::papers::{Papers, client_params};
use crate::peers::{Act, tls_as};
use crate::stage::{Door, Stage};
use crate::wire::{TERMINATE, Talk, message, send};

const AREA: &str = "a server";

fn request(code: u8, more: &[u8]) -> Vec<u8> {
    message(b'R', &[&[0, 0, 0, code], more].concat())
}

fn error(fields: &[&str]) -> Vec<u8> {
    let fields: Vec<u8> = fields.iter().flat_map(|it| [it.as_bytes(), b"\0"].concat()).collect();
    message(b'E', &[&fields[..], b"\0"].concat())
}

/// A probe: the answer to the proxy's client, and whether the server may have got a token.
fn probe(stage: &Stage<'_>, name: &str, script: &[Act], may_hear: bool, expected: &str) {
    stage.fake.set(script);
    let steps = [send([stage.start(), TERMINATE.to_vec()].concat())];
    let got = Talk::of(stage.connect(Door::Fake), &steps);
    stage.answered(AREA, name, &got, expected);
    if stage.fake.has_heard_a_token() && !may_hear {
        stage.probes.fault(format!("{AREA}: {name}: was sent a token"));
    }
}

fn before_tls(stage: &Stage<'_>) {
    for (name, answer) in [
        ("GSSAPI for TLS", &b"G"[..]),
        ("a small letter", b"s"),
        ("a NUL byte", b"\0"),
        ("two answers", b"SS"),
        ("no, then yes", b"NS"),
        ("HTTP", b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
        ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n"),
        ("a request for a password", &request(3, b"")),
        ("a session", &[request(0, b""), message(b'Z', b"I")].concat()),
        ("nothing", b""),
    ] {
        let script = [Act::Hear, Act::Say(answer.to_vec()), Act::Hear, Act::Say(request(3, b"")), Act::Hear];
        probe(stage, &format!("instead of TLS, {name}"), &script, false, "E08001 . | E08006 .");
    }
    for (name, acts) in [
        ("a record that is none", Act::Say(b"\x16\x03\x03\0\x04\xff\xff\xff\xff".to_vec())),
        ("an alert", Act::Say(b"\x15\x03\x03\0\x02\x02\x28".to_vec())),
        ("PostgreSQL in the clear", Act::Say(request(3, b""))),
        ("bytes without end", Act::Pour(b"x".to_vec())),
    ] {
        let script = [Act::Hear, Act::Say(b"S".to_vec()), acts, Act::Hear];
        probe(stage, &format!("in TLS, {name}"), &script, false, "E08001 . | E08006 .");
    }
    probe(stage, "which hangs up at once", &[], false, "E08001 . | E08006 .");
}

fn certificates(stage: &Stage<'_>) {
    let name = |name: &str| client_params(&[(DnType::CommonName, name)]);
    let mut old = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    old.not_after = date_time_ymd(2001, 1, 1);
    old.not_before = date_time_ymd(2000, 1, 1);
    let mut client = name("localhost");
    client.subject_alt_names = vec![rcgen::SanType::DnsName("localhost".try_into().unwrap())];
    for (about, paper) in [
        ("of another name", stage.papers.server(&["db.example"])),
        ("of a longer name", stage.papers.server(&["localhost.evil.example"])),
        ("of a subdomain", stage.papers.server(&["evil.localhost"])),
        ("of every name", stage.papers.server(&["*"])),
        ("of an address", stage.papers.server(&["127.0.0.1"])),
        ("with the common name alone", stage.papers.issue(&name("localhost"))),
        ("of the past", stage.papers.issue(&old)),
        ("of a client", stage.papers.issue(&client)),
        (
            "signed by itself",
            Papers::alone(&rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap()),
        ),
        ("of the authority", stage.papers.own()),
    ] {
        let script = [
            Act::Hear,
            Act::Say(b"S".to_vec()),
            tls_as(&paper),
            Act::Hear,
            Act::Say(request(3, b"")),
            Act::Hear,
        ];
        probe(stage, &format!("with a certificate {about}"), &script, false, "E08001 .");
    }
}

/// Messages inside TLS before the password request.
fn before_the_password(stage: &Stage<'_>) {
    for (name, said, expected) in [
        ("nothing", Vec::new(), "E08*"),
        ("half a message", b"R\0\0\0\x08\0\0".to_vec(), "E08*"),
        ("a length of three", b"R\0\0\0\x03".to_vec(), "E08*"),
        ("a length of two gigabytes", b"R\x7f\xff\xff\xff".to_vec(), "E08*"),
        ("a request without a code", message(b'R', b""), "E08*"),
        ("a request for a password with words behind it", request(3, b"and more"), "E08*"),
        ("the end of SASL", request(12, b"v=x"), "E08* | E28000 ."),
        ("the middle of SASL", request(11, b"r=x"), "E08* | E28000 ."),
        ("SASL without a mechanism", request(10, b"\0"), "E08* | E28000 ."),
        ("SASL with a token's mechanism in small letters", request(10, b"oauthbearer\0\0"), "E28000 ."),
        ("MD5 with half a salt", request(5, b"ab"), "E08* | E28000 ."),
        ("Kerberos", request(2, b""), "E08* | E28000 ."),
        ("a setting", message(b'S', b"server_version\x0017\0"), "E08*"),
        ("a key", message(b'K', &[0; 8]), "E08*"),
        ("readiness", message(b'Z', b"I"), "E08*"),
        ("a row", message(b'D', &[0, 0]), "E08*"),
        ("a message without a type", b"\0\0\0\0\x04".to_vec(), "E08*"),
        ("HTTP", b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), "E08*"),
        ("an error without fields", message(b'E', b"\0"), "E*"),
        ("an error without an end", message(b'E', b"SFATAL\0C28000"), "E*"),
        ("an error of no bytes", message(b'E', b""), "E*"),
        ("an error of 60 KB", error(&["SFATAL", "C28000", &format!("M{}", "x".repeat(60_000))]), "E28000 ."),
        ("an error that says that it is none", error(&["SNOTICE", "C00000", "Msuccessful completion"]), "E*"),
        (
            "an error in capitals of another language",
            error(&["SFATALE", "C57P03", "Mle serveur d\u{e9}marre"]),
            "E57P03 .",
        ),
    ] {
        let script = [Act::Hear, Act::Say(b"S".to_vec()), Act::Tls, Act::Hear, Act::Say(said)];
        let may_hear = name == "a request for a password with words behind it";
        probe(stage, &format!("before the password, {name}"), &script, may_hear, expected);
    }
    // The SQLSTATE becomes a label of a metric.
    for (index, code) in ["\"} 1\nevil_metric 1", "28000\\", "{}", "x=\"y\"", ""].iter().enumerate() {
        let said = error(&["SFATAL", &format!("C{code}"), "Mno"]);
        let script = [Act::Hear, Act::Say(b"S".to_vec()), Act::Tls, Act::Hear, Act::Say(said)];
        probe(stage, &format!("before the password, SQLSTATE {index}"), &script, false, "E*");
    }
}

/// Messages after an offer of OAUTHBEARER, which gets the token.
fn after_the_offer(stage: &Stage<'_>) {
    let ok = request(0, b"");
    let key = message(b'K', &[0, 0, 0, 9, 1, 2, 3, 4]);
    let ready = message(b'Z', b"I");
    let refusal = br#"{"status":"invalid_token","scope":"openid"}"#;
    for (name, said, expected) in [
        ("a session", [&ok[..], &key, &ready].concat(), "R0 ZI ."),
        ("nothing", Vec::new(), "E08*"),
        ("a refusal", request(11, refusal), "E08*"),
        (
            "a refusal, and its error",
            [request(11, refusal), error(&["SFATAL", "C28000", "Mno"])].concat(),
            "E28000 .",
        ),
        ("a refusal, and then a session", [&request(11, refusal)[..], &ok, &key, &ready].concat(), "E08*"),
        ("two refusals", request(11, refusal).repeat(2), "E08*"),
        ("a refusal that is no JSON", request(11, b"no"), "E08*"),
        ("a refusal that nests without end", request(11, &b"[".repeat(60_000)), "E08*"),
        ("the end of SASL", [&request(12, b"v=x")[..], &ok, &key, &ready].concat(), "E08*"),
        ("a request for a password", request(3, b""), "E08*"),
    ] {
        let offer = request(10, b"SCRAM-SHA-256\0OAUTHBEARER\0\0");
        let script = [
            Act::Hear,
            Act::Say(b"S".to_vec()),
            Act::Tls,
            Act::Hear,
            Act::Say(offer),
            Act::Hear,
            Act::Say(said),
        ];
        probe(stage, &format!("after an offer of OAUTHBEARER, {name}"), &script, true, expected);
    }
}

/// Messages after the server got the token.
fn after_the_password(stage: &Stage<'_>) {
    let ok = request(0, b"");
    let key = message(b'K', &[0, 0, 0, 9, 1, 2, 3, 4]);
    let ready = message(b'Z', b"I");
    let after = |parts: &[&[u8]]| [&ok[..], &parts.concat()].concat();
    for (name, said, expected) in [
        ("a session", after(&[&key, &ready]), "R0 ZI ."),
        (
            "a session with a setting of two lines",
            after(&[&message(b'S', b"a\nb\0c\nd\0"), &key, &ready]),
            "R0 ZI .",
        ),
        ("nothing", Vec::new(), "E08*"),
        ("the end of SASL", request(12, b"v=x"), "E08*"),
        ("half a session", after(&[&key]), "E08*"),
        ("a setting without an end", after(&[&message(b'S', b"a"), &key, &ready]), "E08*"),
        ("a key of no bytes", after(&[&message(b'K', b""), &ready]), "E08*"),
        ("a key of two bytes", after(&[&message(b'K', &[0, 0, 0, 9, 1, 2]), &ready]), "E08*"),
        ("a key of 300 bytes", after(&[&message(b'K', &[0; 300]), &ready]), "E08*"),
        ("readiness without a state", after(&[&key, &message(b'Z', b"")]), "E08*"),
        ("a row", after(&[&key, &message(b'D', &[0, 0]), &ready]), "E08*"),
        ("a COPY", after(&[&key, &message(b'G', &[0, 0, 0]), &ready]), "E08*"),
        ("the end of a statement", after(&[&key, &message(b'C', b"SELECT 1\0"), &ready]), "E08*"),
        ("a second request for a password", after(&[&request(3, b""), &key, &ready]), "E08*"),
        ("a request for another proof", after(&[&request(5, b"salt"), &key, &ready]), "E08*"),
        ("a refusal", error(&["SFATAL", "C28P01", "Mno"]), "E28P01 ."),
        ("a start", error(&["SFATAL", "C57P03", "Mthe database system is starting up"]), "E57P03 ."),
        ("a refusal after it has let in", after(&[&error(&["SFATAL", "C53300", "Mno"])]), "E53300 ."),
        ("a length of two gigabytes", after(&[b"S\x7f\xff\xff\xff"]), "E08*"),
        ("HTTP", after(&[b"HTTP/1.1 200 OK\r\n\r\n"]), "E08*"),
    ] {
        let script = [
            Act::Hear,
            Act::Say(b"S".to_vec()),
            Act::Tls,
            Act::Hear,
            Act::Say(request(3, b"")),
            Act::Hear,
            Act::Say(said),
        ];
        probe(stage, &format!("after the password, {name}"), &script, true, expected);
    }
}

pub(crate) fn probes(stage: &Stage<'_>) {
    before_tls(stage);
    certificates(stage);
    before_the_password(stage);
    after_the_password(stage);
    after_the_offer(stage);
}

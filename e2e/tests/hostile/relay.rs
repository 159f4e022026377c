//! Messages in a session: the relay forwards them unchanged, and keeps sessions apart.

use crate::stage::{Door, Stage};
use crate::wire::{GSS, SSL, SYNC, Step, TERMINATE, message, query, send};

const AREA: &str = "relay";

fn parse(sql: &str) -> Vec<u8> {
    message(b'P', format!("\0{sql}\0\0\0").as_bytes())
}

fn all(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// The messages of a session and the expected answers.
type Session = (&'static str, Vec<u8>, &'static str);

/// Statements, and invalid messages.
fn messages(stage: &Stage<'_>) -> Vec<Session> {
    let x = TERMINATE;
    vec![
        ("Terminate at once", x.to_vec(), "."),
        ("Terminate, then a Query", all(&[x, &query("SELECT 1")]), "."),
        ("Terminate with a body", all(&[&message(b'X', b"more"), &query("SELECT 1")]), ". | E08P01 ."),
        ("a length of zero", all(&[b"Q\0\0\0\0", &query("SELECT 1")]), ". | E08P01 ."),
        ("a length of three", all(&[b"S\0\0\0\x03", &query("SELECT 1")]), ". | E08P01 ."),
        ("a Terminate with a length of zero", b"X\0\0\0\0".to_vec(), ". | E08P01 ."),
        ("a Query without an end", all(&[&message(b'Q', b"SELECT 1"), x]), "E08P01 ZI . | E08P01 ."),
        ("an empty Query", all(&[&query(""), x]), "I ZI ."),
        ("a Query of white space and comments", all(&[&query(" /* */ -- \n"), x]), "I ZI ."),
        ("a Query of semicolons", all(&[&query(";;;;"), x]), "I ZI ."),
        ("a Query with a NUL byte", all(&[&message(b'Q', b"SELECT 1\0; SELECT 2\0"), x]), "E08P01 ZI ."),
        ("a Query that is no text", all(&[&message(b'Q', b"SELECT '\xff'\0"), x]), "E22021 ZI ."),
        (
            "three statements",
            all(&[&query("SELECT 1; SELECT 2; SELECT 3"), x]),
            "T D[1] C T D[2] C T D[3] C ZI .",
        ),
        ("a type of zero", all(&[b"\0\0\0\0\x04", &query("SELECT 1")]), "E08P01 ."),
        ("a type of 255", all(&[b"\xff\0\0\0\x04", &query("SELECT 1")]), "E08P01 ."),
        ("a message of the server", all(&[&message(b'Z', b"I"), &query("SELECT 1")]), "E08P01 ."),
        ("a row of the server", all(&[&message(b'T', &[0, 0]), &query("SELECT 1")]), "E08P01 ."),
        ("a password", all(&[&message(b'p', b"secret\0"), &query("SELECT 1")]), "E08P01 ."),
        ("a request for TLS", all(&[SSL, &query("SELECT 1")]), "E08P01 ."),
        ("a request for GSSAPI", all(&[GSS, &query("SELECT 1")]), "E08P01 ."),
        ("a second start-up", all(&[&stage.start(), &query("SELECT 1")]), "E08P01 ."),
        ("a ClientHello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc".to_vec(), "E08P01 . | ."),
    ]
}

fn batches_and_copies() -> Vec<Session> {
    let x = TERMINATE;
    let bind = message(b'B', &[0; 8]);
    let execute = message(b'E', &[0; 5]);
    let copy_in = query("COPY pg_temp.t FROM STDIN");
    let table = query("CREATE TEMP TABLE t (a text)");
    vec![
        (
            "CopyDone where nothing is copied",
            all(&[&message(b'c', b""), &query("SELECT 1"), x]),
            "T D[1] C ZI .",
        ),
        (
            "CopyFail where nothing is copied",
            all(&[&message(b'f', b"why\0"), &query("SELECT 1"), x]),
            "T D[1] C ZI .",
        ),
        (
            "a megabyte of CopyData where nothing is copied",
            all(&[&message(b'd', &[0; 1 << 20]), &query("SELECT 1"), x]),
            "T D[1] C ZI .",
        ),
        ("a function call", all(&[&message(b'F', &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0]), x]), "E*"),
        ("Flush alone", all(&[&message(b'H', b""), x]), "."),
        ("Sync a hundred times", all(&[&SYNC.repeat(100), x]), "ZI ZI ZI*"),
        (
            "Parse with a count of types that is not there",
            all(&[&message(b'P', b"\0SELECT 1\0\xff\xff"), SYNC, x]),
            "E08P01 ZI .",
        ),
        ("Bind of nothing", all(&[&bind, SYNC, x]), "E26000 ZI ."),
        (
            "Bind with a count of -1",
            all(&[&parse("SELECT 1"), &message(b'B', b"\0\0\xff\xff"), SYNC, x]),
            "1 E08P01 ZI .",
        ),
        (
            "Bind with a value beyond the message",
            all(&[&parse("SELECT $1::text"), &message(b'B', b"\0\0\0\0\0\x01\x7f\xff\xff\xff"), SYNC, x]),
            "1 E08P01 ZI .",
        ),
        ("Execute of nothing", all(&[&execute, SYNC, x]), "E34000 ZI ."),
        ("Describe of a kind that is none", all(&[&message(b'D', b"X\0"), SYNC, x]), "E08P01 ZI ."),
        ("Close of a kind that is none", all(&[&message(b'C', b"X\0"), SYNC, x]), "E08P01 ZI ."),
        (
            "a Query behind an error before Sync",
            all(&[&parse("SELEKT"), &query("SELECT 1"), SYNC, x]),
            "E42601 ZI .",
        ),
        (
            "Parse, Bind, Execute, Terminate",
            all(&[&parse("SELECT 1"), &bind, &execute, x]),
            "1 2 D[1] C . | .",
        ),
        (
            "a batch and a Query",
            all(&[&parse("SELECT 1"), &bind, &execute, &query("SELECT 2"), x]),
            "1 2 D[1] C T D[2] C ZI .",
        ),
        (
            "COPY that fails",
            all(&[&table, &copy_in, &message(b'd', b"1\n"), &message(b'f', b"why\0"), x]),
            "C ZI G E57014 ZI .",
        ),
        (
            "COPY with Flush and Sync inside",
            all(&[&table, &copy_in, SYNC, &message(b'H', b""), &message(b'c', b""), x]),
            "C ZI G C ZI .",
        ),
        ("COPY with a Query inside", all(&[&table, &copy_in, &query("SELECT 1"), x]), "C ZI G E08P01*"),
        ("COPY with Terminate inside", all(&[&table, &copy_in, &message(b'd', b"1\n"), x]), "C ZI G E08P01*"),
        (
            "COPY with its end in the data",
            all(&[&table, &copy_in, &message(b'd', b"\\.\n"), &message(b'c', b""), x]),
            "C ZI G C ZI .",
        ),
        (
            "COPY with a NUL byte",
            all(&[&table, &copy_in, &message(b'd', b"\0\n"), &message(b'c', b""), x]),
            "C ZI G E22021 ZI .",
        ),
        ("COPY out", all(&[&query("COPY (SELECT 1) TO STDOUT"), x]), "H d c C ZI ."),
        ("COPY of a program", all(&[&query("COPY (SELECT 1) TO PROGRAM 'id'"), x]), "E42501 ZI ."),
        ("COPY of a file", all(&[&query("COPY (SELECT 1) TO '/tmp/x'"), x]), "E42501 ZI ."),
    ]
}

pub(crate) fn probes(stage: &Stage<'_>) {
    let sessions = [messages(stage), batches_and_copies()].concat();
    let text = |expected: &str| {
        expected
            .split(" | ")
            .map(|one| format!("R0 ZI {one}").trim_end().to_owned())
            .collect::<Vec<_>>()
            .join(" | ")
    };
    for (index, (name, bytes, expected)) in sessions.iter().enumerate() {
        // each on one of the listeners, which track messages in different ways
        let door = [Door::Plain, Door::Reuse, Door::Tls, Door::Warm][index % 4];
        // the client does not close its sending side: before its session begins, that would end the
        // sign-in
        let steps = [send([&stage.start(), &bytes[..]].concat())];
        stage.probe(AREA, &format!("{name}, {door:?}"), (stage.connect(door), &steps), &text(expected));
        let steps = [send(stage.start()), Step::Until(b'Z'), send(bytes.clone()), Step::Shut];
        let door = if door == Door::Reuse { Door::Plain } else { Door::Reuse };
        stage.probe(
            AREA,
            &format!("{name}, later, {door:?}"),
            (stage.connect(door), &steps),
            &text(expected),
        );
    }
    gone(stage);
}

/// Clients that leave in the middle, and the next client.
fn gone(stage: &Stage<'_>) {
    let copy = [
        query("CREATE TEMP TABLE t (a text)"),
        query("COPY pg_temp.t FROM STDIN"),
        message(b'd', b"half a li"),
    ];
    for (name, bytes) in [
        ("half a length", b"Q\0\0".to_vec()),
        ("a type", b"Q".to_vec()),
        ("half a Query", query("SELECT 1")[..9].to_vec()),
        ("a Query of a gigabyte, begun", b"Q\x3f\xff\xff\xffSELECT".to_vec()),
        ("a Parse without Sync", parse("SELECT 1")),
        ("a transaction", query("BEGIN")),
        ("a COPY", copy.concat()),
    ] {
        for door in [Door::Reuse, Door::Warm] {
            let steps = [send(stage.start()), Step::Until(b'Z'), send(bytes.clone()), Step::Shut];
            stage.probe(AREA, &format!("{name} and gone, {door:?}"), (stage.connect(door), &steps), "R0 ZI*");
            let steps = [send([stage.start(), query("SELECT 5"), TERMINATE.to_vec()].concat())];
            let name = format!("the next after {name}, {door:?}");
            stage.probe(AREA, &name, (stage.connect(door), &steps), "R0 ZI T D[5] C ZI .");
        }
    }
}

//! First packets and the negotiation of encryption.

use crate::stage::{Door, LONG, Stage};
use crate::wire::{GSS, SSL, Step, Stream, TERMINATE, V3, cancel, packet, query, send, start, start_as};

const AREA: &str = "first packets";

/// Bytes that are not a first packet: PostgreSQL closes the connection without an answer if the
/// length is invalid.
fn other_protocols(stage: &Stage<'_>) {
    for (name, bytes) in [
        ("HTTP", &b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..]),
        ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n"),
        ("SMTP", b"EHLO localhost\r\n"),
        ("Redis", b"*1\r\n$4\r\nPING\r\n"),
        ("MySQL", b"\x4a\x00\x00\x00\x0a8.0.36\0"),
        ("PROXY protocol 1", b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 5432\r\n"),
        ("PROXY protocol 2", b"\r\n\r\n\0\r\nQUIT\n\x20\x11\x00\x0c\0\0\0\0\0\0\0\0\0\0\0\0"),
        ("SSL 2", b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10"),
        ("TLS where none is offered", b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03"),
        ("a Query", b"Q\0\0\0\x0dSELECT 1\0"),
        ("a password", b"p\0\0\0\x0bsecret\0"),
        ("line feeds", b"\n\n\n\n\n\n\n\n"),
        ("ones", &[0xff; 64]),
    ] {
        stage.probe(AREA, name, (stage.connect(Door::Plain), &[send(bytes), Step::Shut]), ".");
    }
    for (name, bytes) in [
        ("nothing", &b""[..]),
        ("a byte", b"\0"),
        ("three bytes", b"\0\0\0"),
        ("a length", b"\0\0\0\x08"),
        ("half a request for TLS", &SSL[..7]),
        ("a length, a version and no more", b"\0\0\0\x20\0\x03\0\0"),
        ("zeroes up to half a packet", b"\0\0\x20\0\0\0\0\0\0\0\0\0\0\0"),
        ("half a request to cancel", b"\0\0\0\x10\x04\xd2\x16\x2e\0\0"),
        ("SOCKS 5, which is half a length", b"\x05\x01\0"),
    ] {
        stage.probe(AREA, name, (stage.connect(Door::Plain), &[send(bytes), Step::Shut]), ".");
    }
}

fn versions(stage: &Stage<'_>) {
    for (name, code) in [
        ("version 0.0", 0),
        ("version 1.0", 1 << 16),
        ("version 3 in the wrong half", 3),
        ("version 3.0 of the other byte order", 0x0300),
        ("version 65535.65535", u32::MAX),
        ("request code 1234.5677", 1234 << 16 | 5677),
        ("request code 1234.5681", 1234 << 16 | 5681),
        ("request code 1234.0", 1234 << 16),
    ] {
        let bytes = start_as(code, &[("user", &stage.role)]);
        stage.probe(AREA, name, (stage.connect(Door::Plain), &[send(bytes)]), "E0A000 .");
    }
    for (name, code, expected) in [
        ("version 3.65535", V3 | 0xffff, "v R0 ZI ."),
        ("version 3.2", V3 | 2, "R0 ZI ."),
        ("version 3.3", V3 | 3, "v R0 ZI ."),
    ] {
        let bytes = start_as(code, &[("user", &stage.role), ("database", "postgres")]);
        stage.probe(
            AREA,
            name,
            (stage.connect(Door::Plain), &[send([&bytes, TERMINATE].concat())]),
            expected,
        );
    }
}

fn bodies(stage: &Stage<'_>) {
    for (name, body, expected) in [
        ("no body", &b""[..], "E08P01 ."),
        ("only the end", b"\0", "E28000 ."),
        ("a thousand ends", &[0; 1000], "E08P01 ."),
        ("a name without an end", b"user", "E08P01 ."),
        ("a value that is the end", b"user\0\0", "E08P01 ."),
        ("an empty name with a value", b"\0myVm\0\0", "E08P01 ."),
        ("a role behind the end", b"database\0postgres\0\0user\0myVm\0\0", "E08P01 ."),
        ("a user of spaces", b"user\0   \0\0", "E28* | E3D000 ."),
        ("USER for user", b"USER\0myVm\0database\0postgres\0\0", "E28000 ."),
    ] {
        let bytes = packet(V3, body);
        stage.probe(AREA, name, (stage.connect(Door::Plain), &[send(bytes)]), expected);
    }
    for (name, parameter, expected) in [
        ("an encoding that is none", ("client_encoding", "nonsense"), "E22023 ."),
        ("a date style that is none", ("DateStyle", "evil, worse"), "E22023 ."),
        ("a setting that is read only", ("is_superuser", "on"), "E55P02 ."),
        ("a setting of the server's start", ("shared_buffers", "1GB"), "E55P02 ."),
        ("a setting of its administrator", ("session_preload_libraries", "evil"), "E42501 ."),
        ("another of those", ("log_statement", "none"), "E42501 ."),
        ("a setting that is none", ("evil", "1"), "E42704 ."),
        ("a name with a line feed", ("a\nb", "1"), "E42*"),
        ("a name of quotes", ("\";'--", "1"), "E42*"),
        ("options that are none", ("options", "-c"), "E42601 ."),
        ("options with an argument", ("options", "postgres"), "E42601 ."),
        ("options of the postmaster", ("options", "-p 1"), "E42* | E55P02 ."),
        (
            "options that load a library",
            ("options", "-c local_preload_libraries=../../evil"),
            "E42501 . | E58P01 .",
        ),
        ("options with a name that is none", ("options", "--=1"), "E42*"),
        ("options, a kilobyte of escapes", ("options", "\\ \\ \\ \\"), "E42601 ."),
        ("replication that is no boolean", ("replication", "maybe"), "E22023 ."),
        ("a database with a NUL's escape", ("database", "postgres\\0"), "E3D000 ."),
        ("a database that is a path", ("database", "../../etc/passwd"), "E3D000 ."),
        ("a database that is a conninfo string", ("database", "host=evil dbname=postgres"), "E3D000 ."),
        ("a database of the template", ("database", "template0"), "E55000 . | E42501 ."),
        (
            "a database, longer than names",
            ("database", "postgres-postgres-postgres-postgres-postgres-postgres-postgres-postgres"),
            "E3D000 .",
        ),
    ] {
        let bytes = start(&[("user", &stage.role), ("database", "postgres"), parameter]);
        stage.probe(AREA, name, (stage.connect(Door::Plain), &[send(bytes)]), expected);
    }
    let long = "x".repeat(9_900);
    for (name, parameter) in [
        ("a setting of a class that is none", ("evil.setting", "1")),
        ("a value of ten kilobytes", ("application_name", long.as_str())),
        ("an empty value", ("application_name", "")),
        ("options with an escaped space", ("options", "-c application_name=a\\ b")),
    ] {
        let bytes = start(&[("user", &stage.role), ("database", "postgres"), parameter]);
        let steps = [send([&bytes, TERMINATE].concat())];
        stage.probe(AREA, name, (stage.connect(Door::Plain), &steps), "R0 ZI .");
    }
    let bytes = start(&[("user", &format!("{LONG}{LONG}{LONG}"))]);
    stage.probe(AREA, "a role of 189 bytes", (stage.connect(Door::Plain), &[send(bytes)]), "E28*");
}

fn encryption(stage: &Stage<'_>) {
    let good = [&stage.start(), TERMINATE].concat();
    let plain = |requests: &[&[u8]]| {
        requests.iter().flat_map(|it| [send(*it), Step::Until(b'N')]).collect::<Vec<_>>()
    };
    for (name, requests, expected) in [
        ("TLS, then GSSAPI", &[SSL, GSS][..], "N N R0 ZI ."),
        ("GSSAPI, then TLS", &[GSS, SSL], "N N R0 ZI ."),
        ("TLS, GSSAPI, TLS", &[SSL, GSS, SSL], "N N E*"),
        ("GSSAPI, TLS, GSSAPI", &[GSS, SSL, GSS], "N N E*"),
    ] {
        let mut steps = plain(requests);
        steps.push(send(good.clone()));
        stage.probe(AREA, name, (stage.connect(Door::Plain), &steps), expected);
    }
    let steps = [send(SSL), Step::Until(b'N'), send(good.clone())];
    stage.probe(AREA, "TLS at a Unix socket", (stage.connect(Door::Unix), &steps), "N R0 ZI .");
    let hello = [send(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03"), Step::Shut];
    stage.probe(AREA, "TLS at once at a Unix socket", (stage.connect(Door::Unix), &hello), ".");

    // Bytes that are not a handshake, after a request for TLS.
    let port = stage.port(Door::Tls);
    for (name, bytes) in [
        ("a start-up instead of a handshake", good.clone()),
        ("a second request instead of a handshake", SSL.to_vec()),
        ("a record of no bytes", b"\x16\x03\x01\0\0".to_vec()),
        ("a record of 65,535 bytes", [&b"\x16\x03\x01\xff\xff"[..], &[1; 65_535]].concat()),
        ("application data instead of a handshake", b"\x17\x03\x03\0\x01x".to_vec()),
        ("a heartbeat", b"\x18\x03\x02\0\x03\x01\x40\0".to_vec()),
        ("a record of another version", b"\x16\x02\0\0\x05\x01\0\0\x01\x03".to_vec()),
        ("a hundred changes of cipher", b"\x14\x03\x03\0\x01\x01".repeat(100)),
        ("alerts", b"\x15\x03\x03\0\x02\x01\0".repeat(100)),
        ("a hello of 16 MiB, begun", b"\x16\x03\x01\0\x04\x01\xff\xff\xff".to_vec()),
        ("a ServerHello", b"\x16\x03\x03\0\x04\x02\0\0\0".to_vec()),
    ] {
        let steps = [send(SSL), Step::Until(b'S'), send(bytes), Step::Shut];
        stage.probe(AREA, name, (Stream::tcp(port), &steps), "S . | S alert.");
    }
    stage.probe(AREA, "no TLS where it is asked for", (Stream::tcp(port), &[send(good.clone())]), "E28000 .");
    let steps = [send(GSS), Step::Until(b'N'), send(good.clone())];
    stage.probe(AREA, "GSSAPI where TLS is asked for", (Stream::tcp(port), &steps), "N E28000 .");
    let tls =
        |protocols: &[&[u8]], is_direct| Stream::tls(port, &stage.papers.client(None, protocols), is_direct);
    stage.probe(
        AREA,
        "TLS at once with ALPN",
        (tls(&[b"postgresql"], true), &[send(good.clone())]),
        "R0 ZI .",
    );
    let two = tls(&[b"h2", b"postgresql"], true);
    stage.probe(AREA, "TLS at once with two protocols", (two, &[send(good.clone())]), "R0 ZI .");
    for (name, stream) in [
        ("TLS at once with a prefix of the protocol", tls(&[b"postgres"], true)),
        ("TLS at once with the protocol in capitals", tls(&[b"POSTGRESQL"], true)),
        ("another protocol after a request", tls(&[b"h2"], false)),
    ] {
        stage.probe(AREA, name, (stream, &[send(good.clone())]), ". | alert.");
    }
    for (name, bytes, expected) in [
        ("a request to cancel inside TLS", cancel(&[0, 0, 0, 1], &[0; 4]), "."),
        ("GSSAPI inside TLS", [GSS, &good].concat(), "E* | N R0 ZI ."),
        ("half a start-up inside TLS", good[..20].to_vec(), "."),
        ("HTTP inside TLS", b"GET / HTTP/1.1\r\n\r\n".to_vec(), "."),
    ] {
        stage.probe(AREA, name, (tls(&[], false), &[send(bytes), Step::Shut]), expected);
    }
    let all = [stage.start(), query("SELECT 2"), TERMINATE.to_vec()].concat();
    let steps: Vec<Step> = all.iter().map(|byte| send([*byte])).collect();
    stage.probe(AREA, "a record a byte", (tls(&[], false), &steps), "R0 ZI T D[2] C ZI .");
}

pub(crate) fn probes(stage: &Stage<'_>) {
    other_protocols(stage);
    versions(stage);
    bodies(stage);
    encryption(stage);
}

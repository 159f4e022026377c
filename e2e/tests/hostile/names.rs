//! Names with a special meaning in a log, a metric or a terminal.

use std::fs;
use std::io::{Read, Write};

use crate::commands::{Probe, run};
use crate::peers::Act;
use crate::stage::{Door, Stage, unnamed};
use crate::wire::{Stream, TERMINATE, Talk, V3, message, packet, send, start};

const AREA: &str = "names";

/// Texts that a terminal or a line reader would interpret.
const EVIL: [(&str, &str); 14] = [
    ("a carriage return", "a\rb"),
    ("a bell", "a\u{7}b"),
    ("a backspace", "evil\u{8}\u{8}\u{8}\u{8}"),
    ("a delete", "a\u{7f}b"),
    ("a control sequence of one character", "a\u{9b}2Jb"),
    ("a next line", "a\u{85}b"),
    ("a title", "a\u{1b}]0;evil\u{7}b"),
    ("a link", "a\u{1b}]8;;http://evil.example\u{1b}\\b"),
    ("a line separator", "a\u{2028}b"),
    ("a mark of byte order", "\u{feff}a"),
    ("an isolate", "a\u{2066}b\u{2069}"),
    ("JSON", "\",\"event\":\"start\",\"x\":\""),
    ("a line of the log", "x\n2026-01-01T00:00:00Z  INFO pgentra_proxy: signed in role=evil"),
    ("a label", "a\"} 1\nevil_metric 1\n#{\""),
];

fn at_the_proxy(stage: &Stage<'_>) {
    for (name, evil) in EVIL {
        for (what, door, parameters, expected) in [
            (
                "role",
                Door::Plain,
                [("user", evil), ("database", "postgres"), ("application_name", "x")],
                "E28*",
            ),
            (
                "mapped role",
                Door::Mapped,
                [("user", evil), ("database", "postgres"), ("application_name", "x")],
                "E28000 .",
            ),
            (
                "database",
                Door::Plain,
                [("user", &stage.role), ("database", evil), ("application_name", "x")],
                "E3D000 .",
            ),
            (
                "application",
                Door::Named,
                [("user", &stage.role), ("database", "x"), ("application_name", evil)],
                "E28000 .",
            ),
        ] {
            let steps = [send(start(&parameters))];
            stage.probe(AREA, &format!("{name} in a {what}"), (stage.connect(door), &steps), expected);
        }
    }
    for (name, bytes) in [
        ("bytes that are no text", &b"user\0\x80\xfe\xff\0database\0\xc0\xaf\0\0"[..]),
        ("half a character", b"user\0a\xe2\x82\0database\0postgres\0\0"),
        ("a surrogate", b"user\0a\xed\xa0\x80\0database\0postgres\0\0"),
    ] {
        let steps = [send(packet(V3, bytes))];
        stage.probe(AREA, name, (stage.connect(Door::Plain), &steps), "E*");
    }
}

/// Texts of a server or a user in the output of commands.
fn in_a_terminal(stage: &Stage<'_>) {
    let mut words = vec![b"SFATAL\0C57P03\0M".to_vec()];
    for (_, evil) in EVIL {
        words.push(evil.as_bytes().to_vec());
    }
    words.push(b"\0D\x1b[31mdetail\0H\x1b[2Jhint\0\0".to_vec());
    let script =
        [Act::Hear, Act::Say(b"S".to_vec()), Act::Tls, Act::Hear, Act::Say(message(b'E', &words.concat()))];
    stage.fake.set(&script);
    let fake = format!(
        "host=localhost port={} user=x dbname=x sslrootcert={}/ca.pem",
        stage.fake.port(),
        stage.papers.folder.display()
    );
    let vm = || unnamed(stage.cloud.env("vm"));
    let evil: String = EVIL.iter().map(|(_, evil)| *evil).collect();
    let path = format!("/nowhere/{evil}");
    let here = format!("host=localhost port={}", stage.gateway());
    let lab = stage.lab;
    let keyword = format!("'{evil}'=x");
    let escaped = path.replace('\n', "%0A").replace('#', "%23");
    let roots = format!("postgresql://localhost/x?sslrootcert={escaped}");
    let words = [
        ("a server's words to query", &["query", "-c", "SELECT 1", &fake][..], "5 | 4"),
        ("a server's words to the check of the proxy", &["proxy", "--check", &fake], "5 and a result"),
        ("a role", &["query", "-c", "SELECT 1", "-U", &evil, &here], "5"),
        ("a database", &["query", "-c", "SELECT 1", "-U", "myVm", "-d", &evil, &here], "2 | 5"),
        ("a host", &["query", "-c", "SELECT 1", "-U", "x", "-h", &evil], "2 | 4"),
        ("a conninfo keyword", &["query", "-c", "SELECT 1", &keyword], "2"),
        ("a file of roots", &["query", "-c", "SELECT 1", "-U", "x", &roots], "2 | 4"),
        ("a configuration", &["proxy", "--check-config", "--config", &path], "2"),
        (
            "a file of roles",
            &["proxy", "--check-config", "--listen-auth-file", &path, "host=db.example"],
            "2",
        ),
        (
            "a user of the machine",
            &["proxy", "--check-config", "--listen", "/tmp/x", "--listen-uids", &evil, "host=db.example"],
            "2",
        ),
        ("a listener", &["proxy", "--check-config", "--listen", &evil, "host=db.example"], "2"),
        ("a source", &["token", "--source", &evil], "2"),
        ("a tenant", &["token", "--source", "client-secret", "--tenant", &evil], "2 | 3"),
        ("a resource", &["token", "--resource", &evil], "2 | 3"),
        ("a client id", &["token", "--client-id", &evil], "2 | 3"),
        ("the name of a local cloud", &["local", "status", "--name", &evil], "2"),
        ("a command", &[&evil], "2"),
        ("a program to start", &["exec", "-h", "localhost", "-U", "x", "--", &path], "1 | 2 | 126 | 127"),
    ];
    let commands: Vec<Probe<'_>> = words
        .into_iter()
        .map(|(name, words, expected)| {
            (format!("{name} in a terminal"), lab.pgentra(words).envs(vm()), expected)
        })
        .collect();
    run(stage, AREA, commands);
}

/// The proxy's output for all the probes.
fn what_is_written(stage: &Stage<'_>) {
    let said = stage.proxy.said();
    let obeyed =
        |it: char| (it.is_control() && it != '\n') || matches!(it, '\u{2028}' | '\u{2066}' | '\u{2069}');
    stage.probes.note(
        AREA,
        "the log has no control character",
        "None",
        &format!("{:?}", said.chars().find(|it| obeyed(*it))),
    );
    let forged = said.lines().filter(|line| line.starts_with("2026-01-01")).count();
    stage.probes.note(AREA, "no line of the log is a client's", "0", &forged.to_string());
    let audit = fs::read_to_string(&stage.audit).unwrap();
    let bad = audit.lines().find(|line| {
        serde_json::from_str::<serde_json::Value>(line).map_or(true, |it| {
            it["event"].as_str().is_none_or(|event| !["start", "end", "refused"].contains(&event))
        })
    });
    stage.probes.note(AREA, "each line of the audit log is JSON", "None", &format!("{bad:?}"));
    let asked = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut stream = Stream::tcp(stage.health);
    stream.write_all(asked).unwrap();
    let mut metrics = String::new();
    stream.read_to_string(&mut metrics).unwrap();
    let (_, lines) = metrics.split_once("\r\n\r\n").unwrap();
    let is_ours = |line: &&str| line.is_empty() || line.starts_with('#') || line.starts_with("pgentra_");
    let other = lines.lines().find(|line| !is_ours(line));
    stage.probes.note(AREA, "each line of the metrics is ours", "None", &format!("{other:?}"));
    let codes = lines.lines().filter(|line| line.starts_with("pgentra_proxy_refusals_total")).count();
    stage.probes.note(AREA, "labels are bounded", "true", &(codes <= 11 * 65).to_string());
    let got = Talk::of(stage.connect(Door::Named), &[send([stage.start(), TERMINATE.to_vec()].concat())]);
    stage.answered(AREA, "a good client after all of it", &got, "R0 ZI .");
}

pub(crate) fn probes(stage: &Stage<'_>) {
    at_the_proxy(stage);
    in_a_terminal(stage);
    what_is_written(stage);
}

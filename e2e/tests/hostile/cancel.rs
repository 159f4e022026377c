//! Cancel requests: a key cancels the statement of its own session only, and there is never an
//! answer.

use eventually::{DEADLINE, eventually_blocking};

use crate::stage::{Door, Stage};
use crate::wire::{GSS, SSL, Step, Stream, TERMINATE, Talk, V3, cancel, packet, query, send, start_as};

const AREA: &str = "cancel";

/// A session under a statement that takes a moment, with its process and its key.
struct Victim {
    talk: Talk,
    process: Vec<u8>,
    key: Vec<u8>,
}

impl Victim {
    fn new(stage: &Stage<'_>, door: Door, version: u32, sql: &str) -> Victim {
        let mut talk = Talk::new(stage.connect(door));
        talk.send(&start_as(version, &[("user", &stage.role), ("database", "postgres")]));
        let data = talk.until(b'K');
        let (process, key) = data.split_at(4);
        let (process, key) = (process.to_vec(), key.to_vec());
        talk.until(b'Z');
        talk.send(&query(sql));
        Victim { talk, process, key }
    }

    fn ends(mut self) -> String {
        self.talk.until(b'Z');
        self.talk.send(TERMINATE);
        self.talk.finish()
    }
}

/// The bytes that a connection with this request gets.
fn told(stream: Stream, bytes: Vec<u8>) -> String {
    Talk::of(stream, &[send(bytes), Step::Shut])
}

pub(crate) fn probes(stage: &Stage<'_>) {
    let moment = "SELECT pg_sleep(0.05)";
    let slept = ". R0 ZI T D[] C ZI .";
    type Forge<'a> = &'a dyn Fn(&Victim) -> Vec<u8>;
    let changed = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1;
        bytes
    };
    let forged: [(&str, u32, Forge<'_>); 13] = [
        ("a key with a bit changed", V3, &|it| cancel(&it.process, &changed(&it.key, 0))),
        ("a long key with its last bit changed", V3 | 2, &|it| {
            cancel(&it.process, &changed(&it.key, it.key.len() - 1))
        }),
        ("another process with the key", V3, &|it| cancel(&changed(&it.process, 3), &it.key)),
        ("no key", V3, &|it| cancel(&it.process, b"")),
        ("three bytes of the key", V3, &|it| cancel(&it.process, &it.key[..3])),
        ("the key twice", V3, &|it| cancel(&it.process, &[&it.key[..], &it.key].concat())),
        ("half of a long key", V3 | 2, &|it| cancel(&it.process, &it.key[..it.key.len() / 2])),
        ("a long key and a byte", V3 | 2, &|it| cancel(&it.process, &[&it.key[..], b"\0"].concat())),
        ("a key of 256 bytes", V3, &|it| cancel(&it.process, &[0; 256])),
        ("a key of 257 bytes", V3, &|it| cancel(&it.process, &[0; 257])),
        ("a key of ten kilobytes", V3, &|it| cancel(&it.process, &[0; 9_000])),
        ("process and key in the other order", V3, &|it| cancel(&it.key, &it.process)),
        ("a start-up's code", V3, &|it| packet(V3, &[&it.process[..], &it.key].concat())),
    ];
    for (name, version, forge) in forged {
        let victim = Victim::new(stage, Door::Plain, version, moment);
        let bytes = forge(&victim);
        let told = told(stage.connect(Door::Plain), bytes);
        let is_cancel = name != "a start-up's code";
        let told = if is_cancel { told } else { told.replace("E08P01 ", "") };
        // nothing of it was cancelled: the statement has its row
        let got = format!("{told} {}", victim.ends());
        stage.answered(
            AREA,
            name,
            &got,
            &if told.starts_with('E') { format!("E08P01 {slept}") } else { slept.to_owned() },
        );
    }

    // The right key, on every listener through which the session can be reached.
    let cancelled = ". R0 ZI T E57014 ZI .";
    let long = "SELECT pg_sleep(3600)";
    for (name, door, by) in [
        ("the key", Door::Plain, Door::Plain),
        ("the key of a kept session", Door::Reuse, Door::Reuse),
        ("the key of a warm session", Door::Warm, Door::Warm),
        ("the key inside TLS", Door::Tls, Door::Tls),
    ] {
        let victim = Victim::new(stage, door, V3, long);
        asleep(stage, &victim.process);
        let bytes = cancel(&victim.process, &victim.key);
        let told = told(stage.connect(by), bytes);
        stage.answered(AREA, name, &format!("{told} {}", victim.ends()), cancelled);
    }
    for (name, door, before, words) in [
        ("the key in the clear where TLS is asked for", Door::Tls, &b""[..], "."),
        ("the key behind a declined request for TLS", Door::Plain, SSL, "N ."),
        ("the key behind a declined request for GSSAPI", Door::Plain, GSS, "N ."),
    ] {
        let victim = Victim::new(stage, door, V3, long);
        asleep(stage, &victim.process);
        let bytes = [before, &cancel(&victim.process, &victim.key)].concat();
        let told = told(Stream::tcp(stage.port(door)), bytes);
        stage.answered(AREA, name, &format!("{told} {}", victim.ends()), &cancelled.replacen('.', words, 1));
    }
    let victim = Victim::new(stage, Door::Plain, V3 | 2, long);
    asleep(stage, &victim.process);
    let bytes = [cancel(&victim.process, &victim.key), stage.start(), query("SELECT 1")].concat();
    let told_then = told(stage.connect(Door::Plain), bytes);
    let got = format!("{told_then} {}", victim.ends());
    stage.answered(AREA, "a start-up behind the key", &got, cancelled);

    // Keys that cancel nothing here.
    for (name, door, by) in [
        ("the key at another target", Door::Plain, Door::Fake),
        ("the key of a kept session at another target", Door::Reuse, Door::Named),
    ] {
        let victim = Victim::new(stage, door, V3, moment);
        let told = told(stage.connect(by), cancel(&victim.process, &victim.key));
        stage.answered(AREA, name, &format!("{told} {}", victim.ends()), slept);
    }
    let victim = Victim::new(stage, Door::Plain, V3, moment);
    let told_there = told(Stream::tcp(stage.gateway()), cancel(&victim.process, &victim.key));
    stage.answered(AREA, "the proxy's key at the server", &format!("{told_there} {}", victim.ends()), slept);
    let over = Victim::new(stage, Door::Plain, V3, "SELECT 1");
    let (process, key) = (over.process.clone(), over.key.clone());
    over.ends();
    let victim = Victim::new(stage, Door::Plain, V3, moment);
    for _ in 0..20 {
        assert_eq!(told(stage.connect(Door::Plain), cancel(&process, &key)), ".");
    }
    stage.answered(AREA, "the key of a session that is over", &format!(". {}", victim.ends()), slept);
    let victim = Victim::new(stage, Door::Plain, V3, moment);
    for guess in 0..100_u32 {
        assert_eq!(told(stage.connect(Door::Plain), cancel(&victim.process, &guess.to_be_bytes())), ".");
    }
    stage.answered(AREA, "a hundred guesses", &format!(". {}", victim.ends()), slept);
}

/// Waits until the server says of this process that it sleeps.
fn asleep(stage: &Stage<'_>, process: &[u8]) {
    let process = u32::from_be_bytes(process.try_into().unwrap());
    let sql = format!("SELECT wait_event FROM pg_stat_activity WHERE pid = {process}");
    eventually_blocking(DEADLINE, "the statement runs", || {
        let steps = [send([stage.start(), query(&sql), TERMINATE.to_vec()].concat())];
        Talk::of(stage.connect(Door::Plain), &steps).contains("D[PgSleep]")
    });
}

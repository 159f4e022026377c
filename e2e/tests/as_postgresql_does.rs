//! The answers to a client's first packets are the same from PostgreSQL, the proxy and the gateway.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failing helper fails its test")]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::{Flavour, Lab, client, have};

/// The answer to packets. The client sends each after it got a byte for the previous one, and then
/// closes its sending side.
fn answer(mut stream: impl Read + Write, packets: &[&[u8]], close: impl FnOnce()) -> String {
    let mut answer = Vec::new();
    for (at, packet) in packets.iter().enumerate() {
        stream.write_all(packet).unwrap();
        if at + 1 < packets.len() {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            answer.extend(byte);
        }
    }
    close();
    // A server that closes with unread bytes may reset the connection, which counts as no answer.
    let _ = stream.read_to_end(&mut answer);
    told(&answer)
}

/// The bytes that answer requests for encryption, and the SQLSTATE of an error.
fn told(answer: &[u8]) -> String {
    let encryption = answer.iter().take_while(|byte| b"NS".contains(byte)).count();
    let (encryption, rest) = answer.split_at(encryption);
    let sqlstate = rest.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(b"C"));
    let parts = [encryption, sqlstate.unwrap_or(rest)].map(String::from_utf8_lossy);
    parts.concat()
}

const LIMIT: Option<Duration> = Some(Duration::from_secs(60));

fn over_tcp(port: u16, packets: &[&[u8]]) -> String {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(LIMIT).unwrap();
    answer(&stream, packets, || drop(stream.shutdown(Shutdown::Write)))
}

fn over_unix(path: &Path, packets: &[&[u8]]) -> String {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(LIMIT).unwrap();
    answer(&stream, packets, || drop(stream.shutdown(Shutdown::Write)))
}

/// The socket of the PostgreSQL behind the gateway.
fn socket(folder: &Path) -> PathBuf {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
            if entry.file_name() == ".s.PGSQL.5432" {
                return entry.path();
            }
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            }
        }
    }
    panic!("PostgreSQL has no socket")
}

#[test]
fn a_first_packet_is_answered_as_by_postgresql_or_not_at_all() {
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let folder = lab.path().join("socket").display().to_string();
    let listeners = ["--listen", "127.0.0.1:0", "--listen", &format!("{folder}:5432")];
    let proxy = lab.proxy(cloud.env("vm"), &listeners, 2);
    let ours = lab.path().join("socket/.s.PGSQL.5432");
    let postgresql = socket(&cloud.folder());
    let gateway: u16 = cloud.env("vm")["PGPORT"].parse().unwrap();
    let tcp: u16 = proxy.port().parse().unwrap();

    const SSL: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";
    const GSS: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x30";
    for (about, bytes, expected) in [
        ("Terminate", b"X\0\0\0\x04".to_vec(), ""),
        ("a query", b"Q\0\0\0\x0dSELECT 1\0".to_vec(), ""),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: db\r\n\r\n".to_vec(), ""),
        ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), ""),
        ("nothing", vec![], ""),
        ("half a length", b"\0\0".to_vec(), ""),
        ("half a packet", b"\0\0\0\x20\0\x03\0\0user\0".to_vec(), ""),
        ("a length of nothing", b"\0\0\0\0".to_vec(), ""),
        ("a length without a code", b"\0\0\0\x07\0\x03\0".to_vec(), ""),
        ("a byte too long", [b"\0\0\x27\x15\0\x03\0\0".to_vec(), vec![0; 10_000]].concat(), ""),
        ("a negative length", b"\x80\0\0\x08\0\x03\0\0".to_vec(), ""),
        ("cancel without a process", b"\0\0\0\x08\x04\xd2\x16\x2e".to_vec(), ""),
        ("cancel with half a key", b"\0\0\0\x0e\x04\xd2\x16\x2e\0\0\0\x01ab".to_vec(), ""),
        ("cancel with an unknown key", b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01abcd".to_vec(), ""),
        ("no terminator", b"\0\0\0\x0d\0\x03\0\0user\0".to_vec(), "08P01"),
        ("no value", b"\0\0\0\x0e\0\x03\0\0user\0\0".to_vec(), "08P01"),
        ("no user", b"\0\0\0\x09\0\x03\0\0\0".to_vec(), "28000"),
        ("protocol 4", b"\0\0\0\x08\0\x04\0\0".to_vec(), "0A000"),
    ] {
        assert_eq!(over_unix(&postgresql, &[&bytes]), expected, "{about}: PostgreSQL");
        assert_eq!(over_unix(&ours, &[&bytes]), expected, "{about}: the proxy's Unix socket");
        assert_eq!(over_tcp(tcp, &[&bytes]), expected, "{about}: the proxy");
        assert_eq!(over_tcp(gateway, &[&bytes]), expected, "{about}: the gateway");
    }
    // Requests for encryption where there is none.
    for (about, packets, expected) in [
        ("one for TLS", &[SSL][..], "N"),
        ("one for GSSAPI", &[GSS], "N"),
        ("TLS, with a byte more", &[b"\0\0\0\x09\x04\xd2\x16\x2fx"], "N"),
        ("GSSAPI, with three bytes more", &[b"\0\0\0\x0b\x04\xd2\x16\x30xyz"], "N"),
        ("two for TLS", &[SSL, SSL], "N0A000"),
        ("two for GSSAPI", &[GSS, GSS], "N0A000"),
        ("first one, then the other", &[GSS, SSL], "NN"),
        ("the other way round", &[SSL, GSS], "NN"),
        ("TLS, then Terminate", &[SSL, b"X\0\0\0\x04"], "N"),
        ("GSSAPI, then a start-up that is none", &[GSS, b"\0\0\0\x0d\0\x03\0\0user\0"], "N08P01"),
    ] {
        assert_eq!(over_unix(&postgresql, packets), expected, "{about}: PostgreSQL");
        assert_eq!(over_unix(&ours, packets), expected, "{about}: the proxy's Unix socket");
        assert_eq!(over_tcp(tcp, packets), expected, "{about}: the proxy");
    }
}

/// A program without an error handler ends without a crash, as with PostgreSQL.
#[test]
fn a_node_program_that_gives_up_before_it_is_connected_ends_well() {
    if !have(&["node"]) {
        return;
    }
    let lab = Lab::new();
    let cloud = lab.cloud(Flavour::Flexible, &[]);
    let proxy = lab.proxy(cloud.env("vm"), &["--listen", "127.0.0.1:0"], 1);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/quick_disconnect.cjs");
    let (node, folder) = (client("venv/bin/node"), client(""));
    let words = |path: &Path| path.display().to_string();
    let ports = [proxy.port(), cloud.env("vm")["PGPORT"].clone()];
    for port in ports {
        let run = [&words(&node), script, &words(&folder), "127.0.0.1", &port];
        assert_eq!(lab.program(&run.map(|word: &str| word)).done().ok(), "exit code 0\n");
    }
}

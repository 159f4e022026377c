//! Hand-written messages of PostgreSQL's protocol that no client library sends, and the answers as
//! a line of text.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

/// The longest wait for an answer; a slower peer hangs.
const PATIENCE: Duration = Duration::from_secs(15);

pub(crate) const SSL: &[u8] = &[0, 0, 0, 8, 4, 210, 22, 47];
pub(crate) const GSS: &[u8] = &[0, 0, 0, 8, 4, 210, 22, 48];
pub(crate) const TERMINATE: &[u8] = b"X\0\0\0\x04";
pub(crate) const SYNC: &[u8] = b"S\0\0\0\x04";

/// Protocol 3.0.
pub(crate) const V3: u32 = 3 << 16;

/// A first packet with this code in front of this body.
pub(crate) fn packet(code: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 8).unwrap();
    [&length.to_be_bytes(), &code.to_be_bytes(), body].concat()
}

/// A start-up with these parameters.
pub(crate) fn start_as(version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, value) in parameters {
        body.extend([name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
    }
    body.push(0);
    packet(version, &body)
}

/// A start-up of protocol 3.0.
pub(crate) fn start(parameters: &[(&str, &str)]) -> Vec<u8> {
    start_as(V3, parameters)
}

/// A message.
pub(crate) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag], &length.to_be_bytes()[..], body].concat()
}

/// A Query.
pub(crate) fn query(sql: &str) -> Vec<u8> {
    message(b'Q', format!("{sql}\0").as_bytes())
}

/// A request to cancel.
pub(crate) fn cancel(process: &[u8], key: &[u8]) -> Vec<u8> {
    packet(1234 << 16 | 5678, &[process, key].concat())
}

/// A connection.
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    /// A TCP connection to a port of this machine.
    pub(crate) fn tcp(port: u16) -> Stream {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Stream::Tcp(stream)
    }

    /// A Unix socket.
    pub(crate) fn unix(path: &str) -> Stream {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Stream::Unix(stream)
    }

    /// TLS, after an SSLRequest unless it is direct. What the handshake fails with is seen at the first read.
    pub(crate) fn tls(port: u16, config: &Arc<ClientConfig>, is_direct: bool) -> Stream {
        let Stream::Tcp(mut stream) = Stream::tcp(port) else { unreachable!() };
        if !is_direct {
            stream.write_all(SSL).unwrap();
            let mut answer = [0];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(answer, *b"S");
        }
        let name = ServerName::try_from("localhost").unwrap();
        let mut connection = ClientConnection::new(config.clone(), name).unwrap();
        let _ = connection.complete_io(&mut stream);
        Stream::Tls(Box::new(StreamOwned::new(connection, stream)))
    }

    fn shut(&mut self) {
        let _ = match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
            Stream::Tls(stream) => {
                stream.conn.send_close_notify();
                stream.flush().and_then(|()| stream.sock.shutdown(Shutdown::Write))
            }
        };
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Unix(stream) => stream.read(buffer),
            Stream::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(buffer),
            Stream::Unix(stream) => stream.write(buffer),
            Stream::Tls(stream) => stream.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.flush(),
            Stream::Unix(stream) => stream.flush(),
            Stream::Tls(stream) => stream.flush(),
        }
    }
}

/// A step of a conversation.
pub(crate) enum Step {
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Reads up to the next message of this type, or to the end.
    Until(u8),
    /// Sends no more.
    Shut,
}

pub(crate) fn send(bytes: impl Into<Vec<u8>>) -> Step {
    Step::Send(bytes.into())
}

/// A conversation: everything that was received, and how it ended.
pub(crate) struct Talk {
    stream: Stream,
    pub(crate) received: Vec<u8>,
    looked_at: usize,
    end: Option<&'static str>,
}

impl Talk {
    pub(crate) fn new(stream: Stream) -> Talk {
        Talk { stream, received: Vec::new(), looked_at: 0, end: None }
    }

    /// Runs the steps, reads to the end, and returns the answers; see [`summary`].
    pub(crate) fn of(stream: Stream, steps: &[Step]) -> String {
        let mut talk = Talk::new(stream);
        for step in steps {
            match step {
                Step::Send(bytes) => talk.send(bytes),
                Step::Until(tag) => {
                    talk.until(*tag);
                }
                Step::Shut => talk.stream.shut(),
            }
        }
        talk.finish()
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        // if the peer has hung up, reading shows it
        let _ = self.stream.write_all(bytes).and_then(|()| self.stream.flush());
    }

    /// The body of the next message of this type; empty where there is none.
    pub(crate) fn until(&mut self, tag: u8) -> Vec<u8> {
        loop {
            let mut at = self.looked_at;
            while let Some((found, body, next)) = next_message(&self.received, at) {
                at = next;
                self.looked_at = next;
                if found == tag {
                    return body.to_vec();
                }
            }
            if self.end.is_some() || !self.more() {
                return Vec::new();
            }
        }
    }

    /// Reads to the end.
    pub(crate) fn finish(mut self) -> String {
        while self.end.is_none() && self.more() {}
        format!("{}{}", summary(&self.received), self.end.unwrap_or_default())
    }

    fn more(&mut self) -> bool {
        let mut buffer = [0; 65_536];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.end = Some("."),
            Ok(length) => self.received.extend_from_slice(&buffer[..length]),
            Err(error) => {
                self.end = Some(match error.kind() {
                    ErrorKind::Interrupted => return true,
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => "hangs",
                    // an alert
                    ErrorKind::InvalidData => "alert.",
                    // reset, or TLS without close_notify
                    _ => ".",
                });
            }
        }
        self.end.is_none()
    }
}

/// The message at `at`: its type, its body, where the next one begins. Answers of one byte have no body.
fn next_message(bytes: &[u8], at: usize) -> Option<(u8, &[u8], usize)> {
    let rest = bytes.get(at..)?;
    let (tag, after) = rest.split_first()?;
    if matches!(tag, b'N' | b'S') && after.first() != Some(&0) {
        return Some((*tag, &[], at + 1));
    }
    let length = u32::from_be_bytes(after.get(..4)?.try_into().unwrap()) as usize;
    let body = after.get(4..length)?;
    Some((*tag, body, at + 1 + length))
}

/// The received messages, a word each: `R0` and the like for an authentication request, `E28000`
/// for an error, `ZI` for ReadyForQuery, `D[…]` for a row, the type byte of any other. Settings,
/// keys and notices are left out. `.` is the end of the connection.
fn summary(bytes: &[u8]) -> String {
    let mut words = String::new();
    let mut at = 0;
    while let Some((tag, body, next)) = next_message(bytes, at) {
        let word = match tag {
            b'N' | b'S' if next == at + 1 => char::from(tag).to_string(),
            b'S' | b'K' | b'N' => String::new(),
            b'R' => format!("R{}", body.get(3).copied().unwrap_or(255)),
            b'E' => format!("E{}", String::from_utf8_lossy(field(body, b'C'))),
            b'Z' => format!("Z{}", String::from_utf8_lossy(body)),
            b'D' => format!("D[{}]", columns(body)),
            tag => char::from(tag).to_string(),
        };
        if !word.is_empty() {
            words.push_str(&word);
            words.push(' ');
        }
        at = next;
    }
    match &bytes[at..] {
        [] => {}
        [0x15, 3, ..] => words.push_str("alert"),
        rest => words.push_str(&format!("+{}", rest.len())),
    }
    words
}

/// A field of an error.
pub(crate) fn field(body: &[u8], code: u8) -> &[u8] {
    body.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(&[code])).unwrap_or_default()
}

fn columns(mut body: &[u8]) -> String {
    let mut values = Vec::new();
    body = body.get(2..).unwrap_or_default();
    while let Some((length, rest)) = body.split_first_chunk::<4>() {
        let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or_default();
        let (value, rest) = rest.split_at(length.min(rest.len()));
        values.push(String::from_utf8_lossy(value).into_owned());
        body = rest;
    }
    values.join(",")
}

//! Peers of the programs under test: a PostgreSQL server that follows a script, an HTTP service with one answer.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::papers::{Paper, Papers};

/// A step of the server's script.
#[derive(Clone)]
pub(crate) enum Act {
    /// Reads the bytes that have arrived.
    Hear,
    /// Sends these bytes, inside TLS once that has begun.
    Say(Vec<u8>),
    /// Begins TLS with its certificate.
    Tls,
    /// Begins TLS with another one.
    TlsAs(Arc<ServerConfig>),
    /// Sends these bytes repeatedly until the client closes.
    Pour(Vec<u8>),
}

/// A server on a loopback port that does the same for each connection.
pub(crate) struct FakeServer {
    port: u16,
    play: Arc<Mutex<Play>>,
}

/// A script, and what was heard by the connections that follow it.
#[derive(Clone, Default)]
struct Play {
    script: Vec<Act>,
    heard: Arc<Mutex<Vec<u8>>>,
}

trait Duplex: Read + Write {}
impl<T: Read + Write> Duplex for T {}

impl FakeServer {
    pub(crate) fn new(papers: &Papers) -> FakeServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tls = Papers::serving(&papers.server(&["localhost"]));
        let server = FakeServer { port: listener.local_addr().unwrap().port(), play: Arc::default() };
        let play = server.play.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().filter_map(Result::ok) {
                let (play, tls) = (play.lock().unwrap().clone(), tls.clone());
                // the result is checked at the client
                std::thread::spawn(move || follow(&play, stream, &tls));
            }
        });
        server
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Follows this script from now on.
    pub(crate) fn set(&self, script: &[Act]) {
        *self.play.lock().unwrap() = Play { script: script.to_vec(), heard: Arc::default() };
    }

    /// Whether a token was sent to this script.
    pub(crate) fn has_heard_a_token(&self) -> bool {
        self.play.lock().unwrap().heard.lock().unwrap().windows(3).any(|part| part == b"eyJ")
    }
}

fn follow(play: &Play, stream: TcpStream, tls: &Arc<ServerConfig>) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.set_write_timeout(Some(Duration::from_secs(20)))?;
    let socket = stream.try_clone()?;
    let mut stream: Box<dyn Duplex> = Box::new(stream);
    for act in &play.script {
        match act {
            Act::Hear => {
                let mut buffer = [0; 65_536];
                let length = stream.read(&mut buffer)?;
                play.heard.lock().unwrap().extend_from_slice(&buffer[..length]);
            }
            Act::Say(bytes) => {
                stream.write_all(bytes)?;
                stream.flush()?;
            }
            Act::Tls => stream = handshake(&socket, tls)?,
            Act::TlsAs(config) => stream = handshake(&socket, config)?,
            Act::Pour(bytes) => {
                let bytes = bytes.repeat(65_536 / bytes.len());
                while stream.write_all(&bytes).is_ok() {}
            }
        }
    }
    // closing while the client still writes would reset the connection and lose unread bytes
    socket.shutdown(std::net::Shutdown::Write)?;
    let mut rest = Vec::new();
    let read = stream.read_to_end(&mut rest);
    play.heard.lock().unwrap().extend(rest);
    read.map(drop)
}

fn handshake(socket: &TcpStream, config: &Arc<ServerConfig>) -> io::Result<Box<dyn Duplex>> {
    let connection = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, socket.try_clone()?);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(Box::new(stream))
}

/// A configuration of TLS with this certificate.
pub(crate) fn tls_as(paper: &Paper) -> Act {
    Act::TlsAs(Papers::serving(paper))
}

/// An HTTP service on a loopback port that answers every request with these bytes. Returns the port.
pub(crate) fn answering(reply: Vec<u8>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().filter_map(Result::ok) {
            let reply = reply.clone();
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 8192]);
                let _ = stream.write_all(&reply);
                let _ = stream.shutdown(std::net::Shutdown::Write);
                let _ = io::copy(&mut stream, &mut io::sink());
            });
        }
    });
    port
}

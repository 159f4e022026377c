//! Peers on a port that are not what the program expects.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A peer on its own loopback port. It lives as long as the test's process.
pub(crate) struct Peer {
    port: u16,
    received: Arc<Mutex<Vec<u8>>>,
}

impl Peer {
    /// Waits for the first bytes, answers with these, hangs up.
    pub(crate) fn answering(reply: &[u8]) -> Peer {
        let reply = reply.to_owned();
        Peer::serving(move |stream| {
            let _ = stream.write_all(&reply);
        })
    }

    /// Answers with these bytes, and then with more while the client reads.
    pub(crate) fn pouring(reply: &[u8]) -> Peer {
        let reply = reply.to_owned();
        Peer::serving(move |stream| {
            let mut written = stream.write_all(&reply);
            while written.is_ok() {
                written = stream.write_all(&[b'x'; 65_536]);
            }
        })
    }

    /// Accepts connections and sends nothing.
    pub(crate) fn silent() -> Peer {
        Peer::serving(|stream| {
            let _ = stream.read_to_end(&mut Vec::new());
        })
    }

    /// A port without a listener.
    pub(crate) fn absent() -> Peer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Peer { port: listener.local_addr().unwrap().port(), received: Arc::default() }
    }

    /// The number of its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The first bytes of every connection so far.
    pub(crate) fn received(&self) -> Vec<u8> {
        self.received.lock().unwrap().clone()
    }

    fn serving(answer: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> Peer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = Peer { port: listener.local_addr().unwrap().port(), received: Arc::default() };
        let received = peer.received.clone();
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().filter_map(Result::ok) {
                let (received, answer) = (received.clone(), answer.clone());
                std::thread::spawn(move || {
                    let mut first = [0; 4096];
                    let length = stream.read(&mut first).unwrap_or_default();
                    received.lock().unwrap().extend_from_slice(&first[..length]);
                    answer(&mut stream);
                });
            }
        });
        peer
    }
}

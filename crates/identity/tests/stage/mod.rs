//! A scripted token service for tests: it gives one answer after the other, and the last one for ever.

#![allow(dead_code, reason = "each test file that includes it uses a part of it")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pgentra_system::{Env, Files, Processes, RuntimeClock, System, SystemBuilder};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

pub(crate) const POSTGRESQL: &str = "https://ossrdbms-aad.database.windows.net";

/// What time it is at the start of every test, in seconds since 1970.
const NOW: u64 = 1_800_000_000;

/// One answer of the service.
#[derive(Clone)]
pub(crate) struct Answer {
    status: u16,
    headers: String,
    body: String,
    after: Duration,
}

impl Answer {
    pub(crate) fn new(status: u16, body: impl Into<String>) -> Self {
        Self { status, headers: String::new(), body: body.into(), after: Duration::ZERO }
    }

    /// A token that cannot be read, and nothing said of what it is for.
    pub(crate) fn token() -> Self {
        Self::new(200, format!(r#"{{"access_token":"opaque-token","expires_on":"{}"}}"#, NOW + 3600))
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    /// Each answer comes so much later.
    pub(crate) fn after(mut self, seconds: u64) -> Self {
        self.after = Duration::from_secs(seconds);
        self
    }

    pub(crate) async fn send(&self, stream: &mut TcpStream) {
        tokio::time::sleep(self.after).await;
        let text = format!(
            "HTTP/1.1 {} Scripted\r\ncontent-length: {}\r\nconnection: close\r\n{}\r\n{}",
            self.status,
            self.body.len(),
            self.headers,
            self.body
        );
        let _ = stream.write_all(text.as_bytes()).await;
    }
}

/// The service, and what it was asked: the first line of each request.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
}

impl Service {
    pub(crate) async fn start(answers: &[Answer]) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), answers)
    }

    pub(crate) fn on(listener: TcpListener, answers: &[Answer]) -> Self {
        let address = listener.local_addr().unwrap();
        let (asked, answers) = (Arc::new(Mutex::new(Vec::new())), answers.to_vec());
        let log = asked.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, log.clone(), answers.clone()));
            }
        });
        Self { address, asked }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn requests(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

async fn serve(mut stream: TcpStream, asked: Arc<Mutex<Vec<String>>>, answers: Vec<Answer>) {
    let Some(request) = read_request(&mut stream).await else { return };
    let number = {
        let mut asked = asked.lock().unwrap();
        asked.push(request);
        asked.len() - 1
    };
    answers.get(number).or(answers.last()).unwrap().send(&mut stream).await;
}

/// The first line of a request that was read whole.
pub(crate) async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |text| text.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    Some(head.lines().next().unwrap_or_default().to_owned())
}

/// A port of 127.0.0.1 where nothing listens, for as long as the socket lives.
pub(crate) fn closed_port() -> (SocketAddr, TcpSocket) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    (socket.local_addr().unwrap(), socket)
}

pub(crate) fn system(variables: &[(&str, &str)]) -> SystemBuilder {
    let files = Files::in_memory();
    files.put("/token", "service-account-token");
    System::builder()
        .env(Env::from_map(variables.iter().copied()))
        .files(files)
        .processes(Processes::none())
        .clock(RuntimeClock::starting_at(now()))
}

pub(crate) fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

/// An unsigned token with these claims.
pub(crate) fn jwt(claims: &str) -> String {
    let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
    format!("{}.{}.c2ln", part(r#"{"alg":"RS256"}"#), part(claims))
}

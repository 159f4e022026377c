//! A server that expects certain requests in order, answers each as it was told, and reports everything else.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::sleep;

use crate::file::{Answer, Exchange, Metadata, Scenario, expand};

pub(crate) struct Server {
    address: SocketAddr,
    metadata: SocketAddr,
    state: Arc<State>,
    /// Bound and not listening: a connection is refused, and another process cannot take the port.
    _closed: TcpSocket,
    /// The same port of 127.0.0.1, where the server listens elsewhere.
    _twin: Option<TcpSocket>,
}

struct State {
    expected: Mutex<VecDeque<Exchange>>,
    problems: Mutex<Vec<String>>,
    address: SocketAddr,
}

impl Server {
    pub(crate) async fn start(scenario: &Scenario) -> Self {
        let (listener, twin) = listen(&scenario.listen).await;
        let address = listener.local_addr().unwrap();
        let expected =
            scenario.exchange.iter().flat_map(|one| std::iter::repeat_n(one.clone(), one.times as usize));
        let state =
            Arc::new(State { expected: Mutex::new(expected.collect()), problems: Mutex::default(), address });
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, shared.clone()));
            }
        });
        let closed = TcpSocket::new_v4().unwrap();
        closed.set_reuseaddr(true).unwrap();
        closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let metadata = match scenario.metadata {
            Metadata::Server => address,
            Metadata::Closed => closed.local_addr().unwrap(),
        };
        Self { address, metadata, state, _closed: closed, _twin: twin }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn metadata_address(&self) -> SocketAddr {
        self.metadata
    }

    pub(crate) fn fill(&self, text: &str) -> String {
        fill(text, self.address)
    }

    pub(crate) fn problems(&self) -> Vec<String> {
        let missing = self
            .state
            .expected
            .lock()
            .unwrap()
            .iter()
            .map(|one| format!("never asked: {}", one.expect))
            .collect::<Vec<_>>();
        self.state.problems.lock().unwrap().drain(..).chain(missing).collect()
    }
}

/// Listens on a free port. For another address than 127.0.0.1 the same port is taken there too, without listening, so that
/// no other process answers for `localhost`.
async fn listen(address: &str) -> (TcpListener, Option<TcpSocket>) {
    let mut tries = 0;
    loop {
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        if address == "127.0.0.1" {
            return (listener, None);
        }
        let twin = TcpSocket::new_v4().unwrap();
        // A connection of an earlier test that still lingers on the port does not count.
        twin.set_reuseaddr(true).unwrap();
        if twin.bind(SocketAddr::from(([127, 0, 0, 1], listener.local_addr().unwrap().port()))).is_ok() {
            return (listener, Some(twin));
        }
        tries += 1;
        assert!(tries < 100, "no port is free on both loopback addresses");
    }
}

async fn answer(mut stream: TcpStream, state: Arc<State>) {
    let Some((line, headers, body)) = read(&mut stream).await else { return };
    let expected = state.expected.lock().unwrap().pop_front();
    let Some(exchange) = expected else {
        state.problems.lock().unwrap().push(format!("asked unexpectedly: {line}"));
        return;
    };
    let problems = compare(&exchange, &line, &headers, &body, state.address);
    state.problems.lock().unwrap().extend(problems);
    send(&mut stream, &exchange.answer, state.address).await;
}

async fn read(stream: &mut TcpStream) -> Option<(String, BTreeMap<String, String>, Vec<u8>)> {
    let mut received = Vec::new();
    let head = loop {
        if let Some(end) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut received).await.ok()? == 0 {
            return None;
        }
    };
    let text = String::from_utf8(received[..head].to_vec()).unwrap();
    let (line, rest) = text.split_once("\r\n").unwrap_or((&text, ""));
    let headers: BTreeMap<_, _> = rest
        .split("\r\n")
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length: usize = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = received.split_off(head + 4);
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some((line.trim_end_matches(" HTTP/1.1").to_owned(), headers, body))
}

fn compare(
    exchange: &Exchange,
    line: &str,
    headers: &BTreeMap<String, String>,
    body: &[u8],
    address: SocketAddr,
) -> Vec<String> {
    let mut problems = Vec::new();
    if fill(&exchange.expect, address) != line {
        problems.push(format!("asked {line}\n    instead of {}", exchange.expect));
    }
    for (name, value) in &exchange.headers {
        if headers.get(name) != Some(&fill(value, address)) {
            problems.push(format!("{line}: the header {name} is {:?}", headers.get(name)));
        }
    }
    for name in exchange.without.iter().filter(|name| headers.contains_key(*name)) {
        problems.push(format!("{line}: the header {name} was sent"));
    }
    if let Some(form) = &exchange.form {
        let sent: BTreeMap<String, String> = form_urlencoded::parse(body).into_owned().collect();
        let fits = |(name, value): (&String, &String)| value == "*" || sent.get(name) == Some(value);
        if sent.len() != form.len()
            || !form.keys().all(|name| sent.contains_key(name))
            || !form.iter().all(fits)
        {
            problems.push(format!("{line}: the form is {sent:?}"));
        }
    }
    problems
}

async fn send(stream: &mut TcpStream, answer: &Answer, address: SocketAddr) {
    sleep(Duration::from_secs(answer.after_s)).await;
    if answer.hang {
        return std::future::pending().await;
    }
    let mut bytes = match &answer.raw {
        Some(raw) => raw.clone().into_bytes(),
        None => {
            let body = format!("{}{}", expand(&answer.body), "x".repeat(answer.padding));
            let mut head = format!(
                "HTTP/1.1 {} Scripted\r\ncontent-length: {}\r\n",
                answer.status.unwrap_or(200),
                body.len()
            );
            for (name, value) in &answer.headers {
                head.push_str(&format!("{name}: {}\r\n", fill(value, address)));
            }
            format!("{head}connection: close\r\n\r\n{body}").into_bytes()
        }
    };
    bytes.truncate(answer.cut.unwrap_or(usize::MAX));
    if answer.drip_s == 0 {
        let _ = stream.write_all(&bytes).await;
        return;
    }
    for byte in bytes {
        sleep(Duration::from_secs(answer.drip_s)).await;
        if stream.write_all(&[byte]).await.is_err() {
            return;
        }
    }
}

fn fill(text: &str, address: SocketAddr) -> String {
    text.replace("{server}", &format!("http://{address}")).replace("{port}", &address.port().to_string())
}

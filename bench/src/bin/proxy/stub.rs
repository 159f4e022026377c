//! A server that accepts every sign-in and answers every query with an empty result: thousands of sessions with
//! PostgreSQL itself would be thousands of processes.

use std::io;
use std::sync::Arc;

use anyhow::Result;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

use crate::database::Identity;

/// First byte of a TLS handshake (RFC 8446, section 5.1): a client that begins with it sends no SSLRequest.
const HANDSHAKE: u8 = 22;
/// SSLRequest's code (PostgreSQL documentation, "Message Formats").
const SSL_REQUEST: u32 = 80_877_103;
/// Longest message that is accepted, in bytes: a token fits.
const LONGEST: u32 = 65_536;

/// Ports of the stub: with TLS on request on the first, always without TLS on the second.
#[derive(Clone, Copy)]
pub struct Stub {
    pub tls: u16,
    pub plain: u16,
}

impl Stub {
    /// Serves as long as the runtime lives.
    pub fn start(runtime: &Runtime, identity: &Identity) -> Result<Self> {
        let acceptor = TlsAcceptor::from(identity.certificate.server_config(&[b"postgresql"])?);
        let tls = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
        let plain = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
        let stub = Self { tls: tls.local_addr()?.port(), plain: plain.local_addr()?.port() };
        runtime.spawn(accept(tls, Some(Arc::new(acceptor))));
        runtime.spawn(accept(plain, None));
        Ok(stub)
    }
}

async fn accept(listener: TcpListener, tls: Option<Arc<TlsAcceptor>>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream, tls.clone()));
    }
}

async fn serve(mut stream: TcpStream, tls: Option<Arc<TlsAcceptor>>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let Some(tls) = tls else {
        return answer(stream, false).await;
    };
    let mut first = [0];
    stream.peek(&mut first).await?;
    if first == [HANDSHAKE] {
        return answer(tls.accept(stream).await?, true).await;
    }
    let request = startup(&mut stream).await?;
    if request.first_chunk().map(|code| u32::from_be_bytes(*code)) != Some(SSL_REQUEST) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    stream.write_all(b"S").await?;
    answer(tls.accept(stream).await?, true).await
}

/// `asks` for a password, as it does those that sign in by themselves; behind a plain relay, clients have none to give.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, asks: bool) -> io::Result<()> {
    startup(&mut stream).await?;
    if asks {
        // AuthenticationCleartextPassword
        stream.write_all(b"R\0\0\0\x08\0\0\0\x03").await?;
        stream.flush().await?;
        message(&mut stream).await?;
    }
    // AuthenticationOk, what clients and PgBouncer want to know, a cancel key, ReadyForQuery
    let mut out = b"R\0\0\0\x08\0\0\0\0".to_vec();
    for (name, value) in [
        ("server_version", "15.0"),
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("DateStyle", "ISO, MDY"),
        ("TimeZone", "UTC"),
        ("standard_conforming_strings", "on"),
        ("integer_datetimes", "on"),
    ] {
        let body = format!("{name}\0{value}\0");
        out.push(b'S');
        out.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        out.extend_from_slice(body.as_bytes());
    }
    out.extend_from_slice(b"K\0\0\0\x0c\0\0\0\x01\0\0\0\x02Z\0\0\0\x05I");
    stream.write_all(&out).await?;
    stream.flush().await?;
    loop {
        match message(&mut stream).await?.0 {
            b'Q' => {
                // EmptyQueryResponse, ReadyForQuery
                stream.write_all(b"I\0\0\0\x04Z\0\0\0\x05I").await?;
                stream.flush().await?;
            }
            b'X' => return Ok(()),
            _ => {}
        }
    }
}

/// A start-up packet, without its length.
async fn startup(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = stream.read_u32().await?;
    body(stream, length).await
}

/// Reads a message: its type and what follows its length.
pub async fn message(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(u8, Vec<u8>)> {
    let kind = stream.read_u8().await?;
    let length = stream.read_u32().await?;
    Ok((kind, body(stream, length).await?))
}

async fn body(stream: &mut (impl AsyncRead + Unpin), length: u32) -> io::Result<Vec<u8>> {
    if !(4..=LONGEST).contains(&length) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; length as usize - 4];
    stream.read_exact(&mut body).await?;
    Ok(body)
}

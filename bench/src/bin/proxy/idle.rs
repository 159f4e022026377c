//! Memory of the proxy for each idle session, after one query.

use std::io;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use crate::stub::message;
use crate::ways::Way;

/// Clients that sign in at the same time.
const AT_ONCE: usize = 32;
/// Programs that give memory back do so with a delay.
const SETTLE: Duration = Duration::from_secs(3);

/// Bytes of memory for each of so many sessions.
pub fn run(runtime: &Runtime, way: &Way, sessions: usize) -> Result<f64> {
    // What the first session costs is not what each costs.
    let first = runtime.block_on(connect(way.port))?;
    sleep(SETTLE);
    let before = way.memory();
    let all = runtime.block_on(crowd(way.port, sessions))?;
    sleep(SETTLE);
    let after = way.memory();
    drop((first, all));
    Ok((after - before) / sessions as f64)
}

async fn crowd(port: u16, sessions: usize) -> Result<Vec<TcpStream>> {
    let at_once = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = Vec::new();
    for _ in 0..sessions {
        let permit = Arc::clone(&at_once).acquire_owned().await?;
        tasks.push(tokio::spawn(async move {
            let connected = connect(port).await;
            drop(permit);
            connected
        }));
    }
    let mut all = Vec::with_capacity(sessions);
    for task in tasks {
        all.push(task.await??);
    }
    Ok(all)
}

/// Signs in, and asks once.
async fn connect(port: u16) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let parameters = b"user\0bench\0database\0bench\0\0";
    let mut startup = (parameters.len() as u32 + 8).to_be_bytes().to_vec();
    startup.extend_from_slice(&[0, 3, 0, 0]);
    startup.extend_from_slice(parameters);
    stream.write_all(&startup).await?;
    loop {
        match message(&mut stream).await? {
            (b'Z', _) => break,
            (b'E', _) => return Err(io::Error::other("refused")),
            // AuthenticationCleartextPassword, through those that only relay.
            (b'R', body) if body == [0, 0, 0, 3] => stream.write_all(b"p\0\0\0\x06x\0").await?,
            _ => {}
        }
    }
    stream.write_all(b"Q\0\0\0\x0dSELECT 1\0").await?;
    while message(&mut stream).await?.0 != b'Z' {}
    Ok(stream)
}

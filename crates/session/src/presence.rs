//! Notices that a client hangs up while nothing is read from it.

use std::future::poll_fn;
use std::io;
use std::task::ready;

use tokio::io::ReadBuf;
use zeroize::Zeroize;

use super::client::{Client, Socket};
use super::login_error::LoginError;

/// Bytes that one read takes.
const CHUNK: usize = 512;

impl<S: Socket> Client<S> {
    /// Runs a future that does not need the client, for as long as the client is connected. What
    /// the client sends meanwhile is kept for the next reader.
    ///
    /// A client that has hung up counts as gone, unless it sent a request before: a client that
    /// closed only its sending side waits for the answer, and PostgreSQL would execute the request
    /// as well.
    pub async fn while_present<T>(
        &mut self,
        work: impl Future<Output = Result<T, LoginError>>,
    ) -> Result<T, LoginError> {
        tokio::select! {
            biased;
            done = work => done,
            error = self.gone() => Err(LoginError::Disconnected(error)),
        }
    }

    /// Waits until the client has hung up. Cancel-safe.
    async fn gone(&mut self) -> io::Error {
        while self.early.room() > 0 {
            match self.read_early().await {
                Ok(0) if self.early.is_nothing() => return io::ErrorKind::UnexpectedEof.into(),
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => return error,
            }
        }
        std::future::pending().await
    }

    async fn read_early(&mut self) -> io::Result<usize> {
        poll_fn(|cx| {
            let mut chunk = [0; CHUNK];
            let room = self.early.room().min(CHUNK);
            let mut buf = ReadBuf::new(&mut chunk[..room]);
            let read = ready!(self.poll_transport(cx, &mut buf));
            let length = buf.filled().len();
            self.early.keep(buf.filled());
            chunk.zeroize();
            std::task::Poll::Ready(read.map(|()| length))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use eventually::{DEADLINE, within};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::sync::oneshot;

    use super::*;
    use crate::early::{LIMIT, TERMINATE};

    fn client() -> (Client<DuplexStream>, DuplexStream) {
        let (near, far) = duplex(64 * 1024);
        (Client::new(near, SocketAddr::from(([192, 0, 2, 1], 4711))), far)
    }

    #[tokio::test]
    async fn one_that_hangs_up_ends_the_work() {
        for last in [&b""[..], TERMINATE] {
            let (mut client, mut far) = client();
            far.write_all(last).await.unwrap();
            drop(far);
            let (_held, work) = oneshot::channel::<()>();
            let ended = client
                .while_present(async { work.await.map_err(|_| io::Error::other("dropped").into()) })
                .await;
            assert!(
                matches!(ended, Err(LoginError::Disconnected(error)) if error.kind() == io::ErrorKind::UnexpectedEof)
            );
        }
    }

    #[tokio::test]
    async fn what_it_sends_early_comes_first_and_in_order() {
        for length in [1, CHUNK, 3 * CHUNK + 1, LIMIT, 2 * LIMIT + 7] {
            let sent: Vec<u8> = (0..length).map(|number| u8::try_from(number % 251).unwrap()).collect();
            let (mut client, mut far) = client();
            far.write_all(&sent).await.unwrap();
            let early = length.min(LIMIT);
            let (done, work) = oneshot::channel::<()>();
            let mut done = Some(done);
            let work = async {
                work.await.map_err(|_| io::Error::other("dropped"))?;
                Ok(7)
            };
            {
                let mut working = std::pin::pin!(client.while_present(work));
                // Polled once, everything that fits is taken in.
                let result = async {
                    loop {
                        tokio::select! {
                            biased;
                            result = &mut working => break result,
                            () = tokio::task::yield_now() => {
                                if let Some(done) = done.take() {
                                    done.send(()).unwrap();
                                }
                            }
                        }
                    }
                };
                assert!(matches!(within(DEADLINE, "the end of the work", result).await, Ok(7)));
            }
            assert_eq!(client.early.0.len(), early);
            far.write_all(b"more").await.unwrap();
            far.shutdown().await.unwrap();
            let mut received = Vec::new();
            client.read_to_end(&mut received).await.unwrap();
            assert!(received == [&sent[..], b"more"].concat(), "{length}");
            assert_eq!(client.early.0.capacity(), 0);
        }
    }

    #[tokio::test]
    async fn one_that_has_sent_work_and_only_closed_its_side_stays() {
        let (mut client, mut far) = client();
        far.write_all(b"Q\0\0\0\x06;\0").await.unwrap();
        far.shutdown().await.unwrap();
        let done = client
            .while_present(async {
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
                Ok(())
            })
            .await;
        assert!(done.is_ok());
        client.write_all(b"answer").await.unwrap();
        let mut answer = [0; 6];
        far.read_exact(&mut answer).await.unwrap();
    }
}

//! Serves connections: a bind, an answer, the end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use pgentra_gateway::Gateway;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zeroize::Zeroize as _;

use crate::message::{self, LdapRequest, Password, ResultCode};
use crate::shape::{BadMessage, MESSAGE_LIMIT};

/// Most requests of one connection. PostgreSQL sends a bind and an unbind.
const REQUESTS: usize = 8;

/// Pause of accepting when the system has no file handles left.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// How a responder reads names, and its limits.
#[derive(Debug, Clone)]
pub struct Options {
    /// What stands before the role in the name of a bind: `ldapprefix` in `pg_hba.conf`. Default: nothing.
    pub prefix: String,
    /// What stands behind it: `ldapsuffix`. Default: nothing.
    pub suffix: String,
    /// Connections at the same time; more wait in the system's queue. Default 256: each takes a token's size of memory.
    pub connections: usize,
    /// Time for one request to come, and for its answer to leave. Default 10 seconds.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            prefix: String::new(),
            suffix: String::new(),
            connections: 256,
            patience: Duration::from_secs(10),
        }
    }
}

/// Why a responder does not serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Tokens would cross a network without TLS.
    #[error("{0} is not a loopback address: a bind carries the token without TLS")]
    NotLoopback(SocketAddr),
    /// The address of the listener is not known.
    #[error("the listener has no address")]
    Listener(#[source] io::Error),
}

/// Verifies the tokens of binds.
#[derive(Debug)]
pub struct LdapResponder {
    gateway: Arc<Gateway>,
    options: Options,
}

impl LdapResponder {
    /// A responder that judges tokens as this gateway does. It opens no socket before [`LdapResponder::serve`].
    pub fn new(gateway: Arc<Gateway>, options: Options) -> Self {
        Self { gateway, options }
    }

    /// Serves until `shutdown` is cancelled; binds that came before are answered. Dropping the future ends all connections.
    ///
    /// # Errors
    /// [`ServeError`], before anything was accepted.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        shutdown: CancellationToken,
    ) -> Result<(), ServeError> {
        let address = listener.local_addr().map_err(ServeError::Listener)?;
        if !address.ip().is_loopback() {
            return Err(ServeError::NotLoopback(address));
        }
        let places = Arc::new(Semaphore::new(self.options.connections.clamp(1, Semaphore::MAX_PERMITS)));
        let tasks = TaskTracker::new();
        let accept = async {
            // The semaphore is never closed.
            while let Ok(place) = places.clone().acquire_owned().await {
                match listener.accept().await {
                    Ok((stream, peer)) => {
                        let (responder, shutdown) = (self.clone(), shutdown.clone());
                        tasks.spawn(async move {
                            if let Err(error) = responder.converse(stream, &shutdown).await {
                                tracing::debug!(%peer, %error, "an LDAP connection ended early");
                            }
                            drop(place);
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "an LDAP connection cannot be accepted");
                        tokio::time::sleep(EXHAUSTED).await;
                    }
                }
            }
        };
        shutdown.run_until_cancelled(accept).await;
        drop(listener);
        tasks.close();
        tasks.wait().await;
        Ok(())
    }

    async fn converse(&self, mut stream: TcpStream, shutdown: &CancellationToken) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut received = Received(BytesMut::with_capacity(1024));
        for _ in 0..REQUESTS {
            let next = timeout(self.options.patience, received.next(&mut stream));
            let request = match shutdown.run_until_cancelled(next).await {
                None => return Ok(()),
                Some(Err(_)) => return Err(io::ErrorKind::TimedOut.into()),
                Some(Ok(request)) => request?,
            };
            let answer = match request {
                None | Some(LdapRequest::Unbind) => return Ok(()),
                Some(LdapRequest::Abandon) => continue,
                Some(LdapRequest::Bind { id, name, password }) => {
                    let (code, text) = self.judge(&name, &password).await;
                    message::bind_response(id, code, &text)
                }
                Some(LdapRequest::Other { id, kind }) => {
                    tracing::warn!(?kind, "an LDAP request that is no simple bind");
                    message::refusal(id, kind)
                }
            };
            let answer = answer.map_err(io::Error::other)?;
            timeout(self.options.patience, stream.write_all(&answer)).await??;
        }
        Err(io::Error::other("more requests than a sign-in takes"))
    }

    /// The code and the text of a bind's answer.
    async fn judge(&self, name: &str, password: &Password) -> (ResultCode, String) {
        let (prefix, suffix) = (&*self.options.prefix, &*self.options.suffix);
        let role = name.strip_prefix(prefix).and_then(|name| name.strip_suffix(suffix));
        let Some(role) = role.filter(|role| !role.is_empty()) else {
            let text = format!("the name is not a role between \"{prefix}\" and \"{suffix}\"");
            return (ResultCode::InvalidDnSyntax, text);
        };
        // RFC 4513 section 5.1.2: an empty password is no authentication, and must not look like one.
        if password.expose().is_empty() {
            return (ResultCode::UnwillingToPerform, "the password is empty".to_owned());
        }
        // What is not UTF-8 is no token; the replaced characters get it the words for that.
        let token = String::from_utf8_lossy(password.expose());
        let (code, text) = match self.gateway.judge(role, &token).await {
            Ok(Some(principal)) => {
                tracing::info!(role, oid = %principal.object_id(), "an LDAP bind was accepted");
                return (ResultCode::Success, String::new());
            }
            Ok(None) => (ResultCode::InvalidCredentials, "the role is not mapped to a principal".to_owned()),
            // 28: the token or the mapping says no. Anything else may pass.
            Err(refusal) if refusal.sqlstate.starts_with("28") => {
                (ResultCode::InvalidCredentials, refusal.message)
            }
            Err(refusal) => (ResultCode::Unavailable, refusal.message),
        };
        tracing::warn!(role, reason = text, "an LDAP bind was refused");
        (code, text)
    }
}

/// Bytes of a client. A token may be among them, so they are overwritten on drop.
struct Received(BytesMut);

impl Received {
    /// The next request; `None` at the end.
    async fn next(&mut self, stream: &mut TcpStream) -> io::Result<Option<LdapRequest>> {
        loop {
            match LdapRequest::decode(&mut self.0) {
                Ok(Some(request)) => return Ok(Some(request)),
                Ok(None) => {}
                Err(error @ BadMessage) => return Err(io::Error::other(error)),
            }
            if self.0.capacity() == self.0.len() {
                self.grow();
            }
            match stream.read_buf(&mut self.0).await? {
                0 if self.0.is_empty() => return Ok(None),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => {}
            }
        }
    }

    /// A larger buffer; the old one is overwritten. One message is the most that it holds.
    fn grow(&mut self) {
        let mut larger = BytesMut::with_capacity((self.0.capacity() * 4).clamp(1024, MESSAGE_LIMIT));
        larger.extend_from_slice(&self.0);
        self.0.zeroize();
        self.0 = larger;
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

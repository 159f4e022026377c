//! A session with the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use pgentra_connect::{Canceller, ConnectError, SignedIn, TlsInfo, TlsStream, TokenIdentity};
use pgentra_wire::WireError;
use pgentra_wire::backend::{
    Authentication, BackendKeyData, BackendMessage, ParameterStatus, TransactionStatus,
};
use socket2::SockRef;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::limits::SessionPermit;
use pgentra_session::kept::{
    self, Fingerprint, Idle, Latest, Unanswered, Unhealthy, identify, is_silent, is_unchanged,
};
use pgentra_session::tracker::keep;

/// A session that was signed in.
pub(crate) struct Opened {
    pub(crate) signed_in: SignedIn,
    /// Cancelled when its server has become a wrong one. `None`: every server suits.
    pub(crate) demoted: Option<CancellationToken>,
}

/// A session with the server that is ready for a client.
pub(crate) struct Upstream {
    pub(crate) stream: TlsStream<TcpStream>,
    pub(crate) cancel: Option<Cancel>,
    opened: Instant,
    /// How long after its opening the session may be pooled.
    lifetime: Duration,
    /// The fingerprint of its role and database when it began. A session without one is not pooled.
    fingerprint: Option<Fingerprint>,
    pub(crate) token_expires_on: SystemTime,
    /// The greeting for the client: AuthenticationOk up to ReadyForQuery, and the bytes after it.
    pub(crate) greeting: Bytes,
    pub(crate) tls: TlsInfo,
    /// The identity of the token with which it was opened.
    pub(crate) identity: Option<TokenIdentity>,
    pub(crate) process_id: Option<u32>,
    /// Cancelled when its server has become a wrong one. `None`: every server suits.
    pub(crate) demoted: Option<CancellationToken>,
    pub(crate) permit: SessionPermit,
}

impl Upstream {
    /// A session that has just been opened. It may be pooled for `lifetime` once
    /// [`Upstream::identify`] succeeded.
    pub(crate) fn new(
        Opened { signed_in, demoted }: Opened,
        permit: SessionPermit,
        lifetime: Duration,
    ) -> Self {
        Self {
            cancel: signed_in.canceller().map(Cancel::new),
            opened: Instant::now(),
            lifetime,
            fingerprint: None,
            token_expires_on: signed_in.token_expires_on(),
            greeting: signed_in.said(),
            tls: signed_in.tls().clone(),
            identity: signed_in.identity().cloned(),
            process_id: signed_in.key().map(|key| key.process_id),
            stream: signed_in.into_stream(),
            demoted,
            permit,
        }
    }

    /// Queries the fingerprint. Other messages of the server go to the client.
    ///
    /// # Errors
    /// The session cannot be used.
    pub(crate) async fn identify(&mut self) -> Result<(), Unanswered> {
        let mut received = BytesMut::from(&self.greeting[..]);
        while !matches!(BackendMessage::decode(&mut received)?, Some(BackendMessage::ReadyForQuery(_)) | None)
        {
        }
        let mut greeting = BytesMut::from(&self.greeting[..self.greeting.len() - received.len()]);
        self.fingerprint =
            identify(&mut self.stream, &mut received, |message| greeting.extend_from_slice(message)).await?;
        self.greeting = greeting.freeze();
        Ok(())
    }

    /// Whether it can be pooled for another client.
    pub(crate) fn may_be_kept(&self) -> bool {
        self.fingerprint.is_some() && self.opened.elapsed() < self.lifetime && !self.is_demoted()
    }

    /// Whether its server has become a wrong one.
    fn is_demoted(&self) -> bool {
        self.demoted.as_ref().is_some_and(CancellationToken::is_cancelled)
    }

    /// The settings in the greeting.
    pub(crate) fn settings(&self) -> Result<Vec<ParameterStatus>, WireError> {
        let mut settings = Vec::new();
        self.each(|message| {
            if let BackendMessage::ParameterStatus(setting) = message {
                keep(&mut settings, setting);
            }
        })?;
        Ok(settings)
    }

    /// Replaces the greeting for the next client: these settings, and no messages of the previous
    /// client.
    pub(crate) fn greet_with(&mut self, settings: Vec<ParameterStatus>) -> Result<(), WireError> {
        let mut key = None;
        self.each(|message| {
            if let BackendMessage::BackendKeyData(data) = message {
                key = Some(data);
            }
        })?;
        let mut greeting = BytesMut::with_capacity(self.greeting.len());
        let ok = BackendMessage::Authentication(Authentication::Ok);
        let settings = settings.into_iter().map(BackendMessage::ParameterStatus);
        let key = key.map(|BackendKeyData { process_id, key }| {
            let key = BackendKeyData { process_id, key };
            BackendMessage::BackendKeyData(key)
        });
        let ready = BackendMessage::ReadyForQuery(TransactionStatus::Idle);
        for message in std::iter::once(ok).chain(settings).chain(key).chain([ready]) {
            message.encode(&mut greeting)?;
        }
        self.greeting = greeting.freeze();
        Ok(())
    }

    /// Sends Terminate, so that the server logs no broken connection. A failure is logged.
    pub(crate) async fn terminate(&mut self) {
        let left = async {
            kept::terminate(&mut self.stream).await?;
            self.stream.shutdown().await
        };
        if let Err(error) = left.await {
            tracing::debug!(%error, "Terminate could not be sent to the server");
        }
    }

    /// Decodes every message up to ReadyForQuery.
    fn each(&self, mut see: impl FnMut(BackendMessage)) -> Result<(), WireError> {
        let mut greeting = BytesMut::from(&self.greeting[..]);
        loop {
            match BackendMessage::decode(&mut greeting)? {
                Some(BackendMessage::ReadyForQuery(_)) | None => return Ok(()),
                Some(message) => see(message),
            }
        }
    }
}

impl Idle for Upstream {
    fn check(&mut self) -> Result<(), Unhealthy> {
        if !self.may_be_kept() {
            return Err(Unhealthy::Outlived);
        }
        if is_silent(&SockRef::from(self.stream.get_ref())) && self.stream.is_drained() {
            return Ok(());
        }
        Err(kept::unasked(&mut self.stream).unwrap_or(Unhealthy::Disturbed))
    }

    async fn is_as_new(&mut self, latest: &Latest, since: Instant) -> Result<bool, Unanswered> {
        is_unchanged(&mut self.stream, self.fingerprint.as_ref(), latest, since).await
    }

    async fn end(mut self) {
        kept::end(&mut self.stream).await;
    }
}

/// Cancels the statement of a session, and remembers whether it was ever used. Clones share one.
#[derive(Clone)]
pub(crate) struct Cancel(Arc<Asked>);

struct Asked {
    canceller: Canceller,
    ever: AtomicBool,
}

impl Cancel {
    fn new(canceller: Canceller) -> Self {
        Self(Arc::new(Asked { canceller, ever: AtomicBool::new(false) }))
    }

    /// Asks the server to cancel the statement.
    pub(crate) async fn forward_cancel(&self) -> Result<(), ConnectError> {
        self.0.ever.store(true, Ordering::Release);
        self.0.canceller.cancel().await
    }

    /// Returns itself, if it was never used and has no other holder: a cancel request on its way
    /// would hit the next client.
    pub(crate) fn unused(self) -> Option<Self> {
        let asked = Arc::into_inner(self.0)?;
        (!asked.ever.load(Ordering::Acquire)).then(|| Self(Arc::new(asked)))
    }
}

//! What a client gets between AuthenticationOk and its first query.

use std::io;

use bytes::BytesMut;
use pgentra_wire::backend::{BackendKeyData, BackendMessage};
use pgentra_wire::startup::{CancelRequest, ProtocolVersion, StartupMessage};
use tokio::io::AsyncWriteExt as _;

use super::cancel::{CancelTable, Registration};
use super::client::{Client, Socket};
use super::login_error::LoginError;

/// More bytes than the settings of PostgreSQL take, so that the buffer need not grow.
const CAPACITY: usize = 1024;

/// The server's messages up to ReadyForQuery, with a cancel key of this process instead of the
/// server's.
pub struct Greeting<T = CancelRequest> {
    out: BytesMut,
    has_long_keys: bool,
    registration: Option<Registration<T>>,
}

impl<T: Clone> Greeting<T> {
    /// An empty greeting for the client that sent this start-up.
    pub fn new(start: &StartupMessage) -> Self {
        let has_long_keys = start.version() >= ProtocolVersion::V3_2;
        Self { out: BytesMut::with_capacity(CAPACITY), has_long_keys, registration: None }
    }

    /// Adds a message that the client gets as it is.
    pub fn add(&mut self, message: &BackendMessage) -> Result<(), LoginError> {
        Ok(message.encode(&mut self.out)?)
    }

    /// Adds a new cancel key, with the server's process id. It cancels `session`.
    pub fn add_key(&mut self, process_id: u32, session: T, keys: &CancelTable<T>) -> Result<(), LoginError> {
        let (key, registration) = keys.insert(process_id, self.has_long_keys, session)?;
        self.registration = Some(registration);
        self.add(&BackendMessage::BackendKeyData(key))
    }

    /// Takes out what keeps the client's cancel key valid. `None`: there is no key.
    pub fn take_registration(&mut self) -> Option<Registration<T>> {
        self.registration.take()
    }

    /// Sends the messages.
    pub async fn send<S: Socket>(self, client: &mut Client<S>) -> io::Result<()> {
        client.write_all(&self.out).await?;
        client.flush().await
    }
}

impl Greeting {
    /// Adds a new cancel key in the place of the server's.
    pub fn replace_key(&mut self, server: BackendKeyData, keys: &CancelTable) -> Result<(), LoginError> {
        let BackendKeyData { process_id, key } = server;
        self.add_key(process_id, CancelRequest { process_id, key }, keys)
    }
}

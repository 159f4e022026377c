//! Who may cancel which statement.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use pgentra_wire::backend::BackendKeyData;
use pgentra_wire::startup::{CancelKey, CancelRequest};
use rand::TryRngCore;
use rand::rngs::OsRng;

/// Bytes of a key for clients of protocol 3.0, which know no other length.
const SHORT_KEY: usize = 4;
/// Bytes of a key for clients of protocol 3.2, as PostgreSQL 18 makes them.
const LONG_KEY: usize = 32;

/// The keys that clients hold, each with what cancels the session behind it: the key of the server, or more. Clones share
/// one table.
///
/// A client never sees the server's own key: whoever could reach the server by another way could use it there.
/// The process id is the server's, as clients show it to people.
pub(crate) struct CancelTable<T = CancelRequest>(Arc<Mutex<HashMap<CancelRequest, T>>>);

impl CancelTable {
    /// Makes a key for a client. It is forgotten when the registration is dropped.
    pub(crate) fn register(
        &self,
        server: BackendKeyData,
        long: bool,
    ) -> io::Result<(BackendKeyData, Registration)> {
        let process_id = server.process_id;
        self.insert(process_id, long, CancelRequest { process_id, key: server.key })
    }
}

impl<T: Clone> CancelTable<T> {
    /// Makes a key for a client that leads to `session`. It is forgotten when the registration is dropped.
    pub(crate) fn insert(
        &self,
        process_id: u32,
        long: bool,
        session: T,
    ) -> io::Result<(BackendKeyData, Registration<T>)> {
        // Two sessions can share a process id for a moment, when one ended and its process id came again at once; that
        // they draw the same key as well is checked all the same.
        loop {
            let client = CancelRequest { process_id, key: random_key(long)? };
            let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if table.contains_key(&client) {
                continue;
            }
            table.insert(client.clone(), session);
            let handed_out = BackendKeyData { process_id, key: client.key.clone() };
            return Ok((handed_out, Registration { table: self.clone(), client }));
        }
    }

    /// What cancels the session that a client means; `None` where no session has this key.
    ///
    /// The comparison is that of a hash table with a random seed, so its time tells nothing about a key.
    pub(crate) fn find(&self, request: &CancelRequest) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(request).cloned()
    }
}

impl<T> Clone for CancelTable<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for CancelTable<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

/// A key that a client holds.
pub(crate) struct Registration<T = CancelRequest> {
    table: CancelTable<T>,
    client: CancelRequest,
}

impl Registration {
    /// The server process behind the session.
    pub(crate) fn process_id(&self) -> u32 {
        self.client.process_id
    }
}

impl<T> Drop for Registration<T> {
    fn drop(&mut self) {
        self.table.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.client);
    }
}

fn random_key(long: bool) -> io::Result<CancelKey> {
    let mut key = [0; LONG_KEY];
    let key = &mut key[..if long { LONG_KEY } else { SHORT_KEY }];
    OsRng.try_fill_bytes(key).map_err(io::Error::other)?;
    CancelKey::new(Bytes::copy_from_slice(key)).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_data(process_id: u32) -> BackendKeyData {
        BackendKeyData { process_id, key: CancelKey::new(Bytes::from_static(b"real")).unwrap() }
    }

    #[test]
    fn a_key_lives_as_long_as_its_registration() {
        let table = CancelTable::default();
        let (client, registration) = table.register(key_data(7), false).unwrap();
        assert_eq!(client.process_id, 7);
        assert_eq!(client.key.expose().len(), 4);
        let request = CancelRequest { process_id: 7, key: client.key };
        assert_eq!(table.find(&request).unwrap().key.expose(), b"real");
        drop(registration);
        assert_eq!(table.find(&request), None);
        assert!(table.0.lock().unwrap().is_empty());
    }

    #[test]
    fn the_servers_own_key_is_of_no_use() {
        let table = CancelTable::default();
        let (_, _registration) = table.register(key_data(7), true).unwrap();
        let request = CancelRequest { process_id: 7, key: key_data(7).key };
        assert_eq!(table.find(&request), None);
    }

    #[test]
    fn keys_differ_even_for_one_process_id() {
        let table = CancelTable::default();
        let (one, _one) = table.register(key_data(7), true).unwrap();
        let (two, two_registered) = table.register(key_data(7), true).unwrap();
        assert_eq!(one.key.expose().len(), 32);
        assert_ne!(one.key, two.key);
        drop(two_registered);
        assert!(table.find(&CancelRequest { process_id: 7, key: one.key }).is_some());
    }
}

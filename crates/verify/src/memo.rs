//! A cache of verified tokens: a pool that opens a hundred connections with one token causes one signature check.

use std::collections::HashMap;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::principal::Principal;

/// Entries per generation; two generations are kept. At about 600 bytes an entry this is little over a megabyte.
const CAPACITY: usize = 1024;

/// Remembers principals by the SHA-256 of the whole token, never the token. The caller must check the times again, and
/// name the generation of keys in use: when the keys change, entries of an older generation no longer match.
#[derive(Default)]
pub(crate) struct Memo(Mutex<Halves>);

/// When the young half is full it becomes the old one, and the old one is forgotten; a hit in the old half moves to the
/// young one. Entries in use survive, without an ordered list as in an LRU cache.
#[derive(Default)]
struct Halves {
    young: HashMap<[u8; 32], CachedPrincipal>,
    old: HashMap<[u8; 32], CachedPrincipal>,
}

#[derive(Clone)]
struct CachedPrincipal {
    keys: u64,
    principal: Principal,
}

impl Memo {
    pub(crate) fn find(&self, token: &[u8; 32], keys: u64) -> Option<Principal> {
        let mut halves = self.halves();
        // A young entry of other keys is not looked for in the old half: that one is older still.
        if let Some(entry) = halves.young.get(token) {
            return (entry.keys == keys).then(|| entry.principal.clone());
        }
        let entry = halves.old.remove(token).filter(|entry| entry.keys == keys)?;
        let principal = entry.principal.clone();
        halves.insert(*token, entry);
        Some(principal)
    }

    pub(crate) fn insert(&self, token: [u8; 32], keys: u64, principal: Principal) {
        self.halves().insert(token, CachedPrincipal { keys, principal });
    }

    fn halves(&self) -> MutexGuard<'_, Halves> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Halves {
    fn insert(&mut self, token: [u8; 32], entry: CachedPrincipal) {
        if self.young.len() >= CAPACITY && !self.young.contains_key(&token) {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(token, entry);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use uuid::Uuid;

    use super::*;
    use crate::principal::{Groups, SubjectKind, VerifiedClaims};

    fn principal(id: u128) -> Principal {
        Principal(Arc::new(VerifiedClaims {
            tenant: Some(Uuid::from_u128(1)),
            object_id: Uuid::from_u128(id),
            subject: String::new(),
            app_id: None,
            client: None,
            kind: SubjectKind::App,
            groups: Groups::Absent,
            group_names: Vec::new(),
            app_roles: Vec::new(),
            user_principal_name: None,
            multi_factor: false,
            not_before: SystemTime::UNIX_EPOCH,
            expires_on: SystemTime::UNIX_EPOCH,
            audience: String::new(),
            issuer: String::new(),
        }))
    }

    fn key(number: usize) -> [u8; 32] {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_be_bytes());
        key
    }

    #[test]
    fn it_is_bounded_and_keeps_what_is_used() {
        let memo = Memo::default();
        memo.insert(key(0), 1, principal(0));
        for number in 1..10 * CAPACITY {
            memo.insert(key(number), 1, principal(number as u128));
            assert!(memo.find(&key(0), 1).is_some(), "forgotten after {number}");
        }
        let halves = memo.halves();
        assert!(halves.young.len() <= CAPACITY && halves.old.len() <= CAPACITY);
        drop(halves);
        assert!(memo.find(&key(1), 1).is_none());
    }

    #[test]
    fn other_keys_find_nothing() {
        let memo = Memo::default();
        memo.insert(key(0), 1, principal(0));
        assert!(memo.find(&key(0), 2).is_none());
        assert_eq!(memo.find(&key(0), 1).unwrap().object_id(), Uuid::from_u128(0));
    }
}

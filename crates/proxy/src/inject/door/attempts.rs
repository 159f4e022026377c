//! Passwords are not to be guessed.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::session::client::Origin;

/// So many wrong passwords in a row are a person's mistakes, or those of a pool that was started with an old one.
const FREE: u32 = 10;
/// What each further one costs: a million guesses take eleven days, from each address and for each role.
const PAUSE: Duration = Duration::from_secs(1);
/// Nobody waits longer, however many connections guessed at once.
const LONGEST: Duration = Duration::from_secs(60);
/// Who is remembered. Each takes some hundred bytes, and to push somebody out takes as many wrong passwords.
const PLACES: usize = 10_000;

/// Longer names cannot differ: PostgreSQL cuts them off (`NAMEDATALEN`).
const NAME: usize = 63;

/// Who tries: the address, and the role. Of one address others may come too, through the same NAT or on the same
/// machine, and a program with an old password must not shut them out.
type Who = (Origin, Vec<u8>);

/// Wrong passwords of late.
#[derive(Debug, Default)]
pub(crate) struct Attempts(Mutex<HashMap<Who, Instant>>);

impl Attempts {
    /// Whether a password is looked at; how long to wait where it is not.
    pub(crate) fn check(&self, (origin, role): &(Origin, &[u8])) -> Result<(), Duration> {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let paid_off = table.get(&who(*origin, role));
        let over = paid_off.and_then(|at| (*at - PAUSE * FREE).checked_duration_since(Instant::now()));
        match over {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => Ok(()),
        }
    }

    /// Counts a wrong password.
    pub(crate) fn failed(&self, (origin, role): &(Origin, &[u8])) {
        let now = Instant::now();
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let who = who(*origin, role);
        if table.len() >= PLACES && !table.contains_key(&who) {
            table.retain(|_, paid_off| *paid_off > now);
            if table.len() >= PLACES {
                // All of them are guessing: whoever did least is forgotten.
                let least = table.iter().min_by_key(|(_, paid_off)| **paid_off).map(|(who, _)| who.clone());
                least.and_then(|least| table.remove(&least));
            }
        }
        let paid_off = table.entry(who).or_insert(now);
        *paid_off = ((*paid_off).max(now) + PAUSE).min(now + PAUSE * FREE + LONGEST);
    }
}

fn who(origin: Origin, role: &[u8]) -> Who {
    (origin, role[..role.len().min(NAME)].to_vec())
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn origin(address: &str) -> Origin {
        Origin::network(address.parse::<IpAddr>().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn guessing_costs_a_second_after_ten_mistakes() {
        let attempts = Attempts::default();
        let (guesser, other) = ((origin("192.0.2.1"), &b"app"[..]), (origin("192.0.2.1"), &b"other"[..]));
        for _ in 0..FREE {
            attempts.failed(&guesser);
            assert_eq!(attempts.check(&guesser), Ok(()));
        }
        attempts.failed(&guesser);
        assert_eq!(attempts.check(&guesser), Err(PAUSE));
        assert_eq!(attempts.check(&other), Ok(()));
        assert_eq!(attempts.check(&(origin("192.0.2.2"), b"app")), Ok(()));
        tokio::time::advance(PAUSE).await;
        assert_eq!(attempts.check(&guesser), Ok(()));
        attempts.failed(&guesser);
        assert_eq!(attempts.check(&guesser), Err(PAUSE));
        for _ in 0..1000 {
            attempts.failed(&guesser);
        }
        assert_eq!(attempts.check(&guesser), Err(LONGEST));
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_of_version_6_is_its_network() {
        let attempts = Attempts::default();
        for number in 0..=FREE {
            attempts.failed(&(origin(&format!("2001:db8:1:2::{number}")), b"app"));
        }
        assert!(attempts.check(&(origin("2001:db8:1:2:ffff::1"), b"app")).is_err());
        assert!(attempts.check(&(origin("2001:db8:1:3::1"), b"app")).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_is_bounded_and_keeps_the_worst() {
        let attempts = Attempts::default();
        let worst = (origin("192.0.2.1"), &b"app"[..]);
        for _ in 0..=FREE {
            attempts.failed(&worst);
        }
        for number in 0..PLACES + 10 {
            attempts.failed(&(origin("192.0.2.1"), format!("role {number}").as_bytes()));
        }
        assert_eq!(attempts.0.lock().unwrap().len(), PLACES);
        assert!(attempts.check(&worst).is_err());
        tokio::time::advance(PAUSE * (FREE + 1)).await;
        attempts.failed(&(origin("192.0.2.9"), b"app"));
        assert_eq!(attempts.0.lock().unwrap().len(), 1, "what is paid off is forgotten");
    }
}

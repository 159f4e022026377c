//! Limits the rate of wrong passwords and tokens, so that passwords cannot be guessed and a client with
//! a bad one costs little.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::client::ClientOrigin;

/// Wrong passwords in a row without a pause: typing errors, or a connection pool with an old
/// password.
const FREE: u32 = 10;
/// The pause for each further wrong password: a million guesses take eleven days for each address
/// and role.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest that a password waits before it is checked. A password that would wait longer is not
/// checked, and the client gets an error at once; so the right one is accepted at the latest this
/// and [`PAUSE`] after the last wrong one.
const PATIENCE: Duration = Duration::from_secs(5);
/// Entries in the table. Each takes some hundred bytes, and to displace one takes as many wrong
/// passwords.
const PLACES: usize = 10_000;

/// Longest role name in bytes: PostgreSQL cuts off longer ones (`NAMEDATALEN`).
const NAME: usize = 63;

/// The key of the table: address and role. Other clients may share the address, through the same
/// NAT or on the same machine, and a program with an old password must not block them.
type Who = (ClientOrigin, Vec<u8>);

/// Recent wrong passwords: for each key, the time at which its pauses have passed.
#[derive(Debug, Default)]
pub struct Attempts(Mutex<HashMap<Who, Instant>>);

/// A password that may be checked now. It counts as wrong until it is known to be right, so that
/// passwords sent at the same moment cost as much as those sent one after the other.
#[derive(Debug)]
pub struct Attempt<'a> {
    attempts: &'a Attempts,
    who: Who,
    was_wrong: bool,
}

impl Attempts {
    /// Whether a password would be checked now.
    ///
    /// # Errors
    /// The time to wait.
    pub fn check(&self, (origin, role): &(ClientOrigin, &[u8])) -> Result<(), Duration> {
        let paid_off = self.table().get(&who(*origin, role)).copied();
        paid_off.map_or(Ok(()), |paid_off| wait(paid_off, Instant::now()).map(|_| ()))
    }

    /// Waits until a password may be checked. A client that hangs up while it waits is not counted.
    /// Cancel-safe.
    ///
    /// # Errors
    /// The time to wait, if that is too long.
    pub async fn turn(&self, (origin, role): &(ClientOrigin, &[u8])) -> Result<Attempt<'_>, Duration> {
        let (attempt, wait) = self.reserve(who(*origin, role))?;
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        Ok(attempt)
    }

    /// Waits as long as [`Attempts::turn`], and counts nothing: for a token, which is signed and so
    /// cannot be guessed. The clients of a pool that starts do not slow each other down.
    /// Cancel-safe.
    ///
    /// # Errors
    /// The time to wait, if that is too long.
    pub async fn pause(&self, (origin, role): &(ClientOrigin, &[u8])) -> Result<(), Duration> {
        let paid_off = self.table().get(&who(*origin, role)).copied();
        let Some(paid_off) = paid_off else { return Ok(()) };
        let wait = wait(paid_off, Instant::now())?;
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    /// Counts a wrong token.
    pub fn count_wrong(&self, (origin, role): &(ClientOrigin, &[u8])) {
        // Where the next one would not be checked, the pauses are as long as they become.
        if let Ok((attempt, _)) = self.reserve(who(*origin, role)) {
            attempt.was_wrong();
        }
    }

    fn reserve(&self, who: Who) -> Result<(Attempt<'_>, Duration), Duration> {
        let now = Instant::now();
        let mut table = self.table();
        if table.len() >= PLACES && !table.contains_key(&who) {
            table.retain(|_, paid_off| *paid_off > now);
            if table.len() >= PLACES {
                // The table is full: the entry with the fewest wrong passwords is removed.
                let least = table.iter().min_by_key(|(_, paid_off)| **paid_off).map(|(who, _)| who.clone());
                least.and_then(|least| table.remove(&least));
            }
        }
        let paid_off = table.get(&who).copied().filter(|paid_off| *paid_off > now).unwrap_or(now);
        let wait = wait(paid_off, now)?;
        table.insert(who.clone(), paid_off + PAUSE);
        drop(table);
        Ok((Attempt { attempts: self, who, was_wrong: false }, wait))
    }

    fn table(&self) -> MutexGuard<'_, HashMap<Who, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time that the next password waits; the same as an error, if it is too long.
fn wait(paid_off: Instant, now: Instant) -> Result<Duration, Duration> {
    let wait = (paid_off - PAUSE * FREE).saturating_duration_since(now);
    if wait > PATIENCE { Err(wait) } else { Ok(wait) }
}

impl Attempt<'_> {
    /// The password was wrong, so the attempt stays counted.
    pub fn was_wrong(mut self) {
        self.was_wrong = true;
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if self.was_wrong {
            return;
        }
        let mut table = self.attempts.table();
        if let Some(paid_off) = table.get_mut(&self.who) {
            *paid_off -= PAUSE;
            if *paid_off <= Instant::now() {
                table.remove(&self.who);
            }
        }
    }
}

fn who(origin: ClientOrigin, role: &[u8]) -> Who {
    (origin, role[..role.len().min(NAME)].to_vec())
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn origin(address: &str) -> ClientOrigin {
        ClientOrigin::network(address.parse::<IpAddr>().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_at_the_same_moment_do_not_count_until_they_are_refused() {
        let attempts = Attempts::default();
        let who = (origin("192.0.2.1"), &b"app"[..]);
        for _ in 0..100 {
            attempts.pause(&who).await.unwrap();
        }
        let begin = Instant::now();
        for _ in 0..10 {
            attempts.pause(&who).await.unwrap();
            attempts.count_wrong(&who);
        }
        assert_eq!(begin.elapsed(), Duration::ZERO, "the first ten cost nothing");
        attempts.count_wrong(&who);
        attempts.pause(&who).await.unwrap();
        assert_eq!(begin.elapsed(), PAUSE);
        for _ in 0..100 {
            attempts.count_wrong(&who);
        }
        let wait = attempts.pause(&who).await.unwrap_err();
        assert!(wait > PATIENCE && wait <= PATIENCE + PAUSE, "{wait:?}");
    }

    async fn fail(attempts: &Attempts, who: &(ClientOrigin, &[u8])) {
        attempts.turn(who).await.unwrap().was_wrong();
    }

    #[tokio::test(start_paused = true)]
    async fn guessing_costs_a_second_after_ten_mistakes() {
        let attempts = Attempts::default();
        let (guesser, other) = ((origin("192.0.2.1"), &b"app"[..]), (origin("192.0.2.1"), &b"other"[..]));
        let began = Instant::now();
        for _ in 0..=FREE {
            fail(&attempts, &guesser).await;
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
        for number in 1..=20 {
            fail(&attempts, &guesser).await;
            assert_eq!(began.elapsed(), PAUSE * number);
        }
        fail(&attempts, &other).await;
        fail(&attempts, &(origin("192.0.2.2"), b"app")).await;
        assert_eq!(began.elapsed(), PAUSE * 20);
    }

    /// Passwords sent at once are checked no faster than those sent one after the other; and the
    /// right one is checked seconds after the last wrong one.
    #[tokio::test(start_paused = true)]
    async fn guessing_at_once_is_no_faster() {
        let attempts = std::sync::Arc::new(Attempts::default());
        let guesser = (origin("192.0.2.1"), &b"app"[..]);
        let began = Instant::now();
        let mut looked_at = 0;
        for _ in 0..4 {
            let mut guesses = tokio::task::JoinSet::new();
            for _ in 0..240 {
                let attempts = std::sync::Arc::clone(&attempts);
                guesses.spawn(async move {
                    let attempt =
                        attempts.turn(&guesser).await.map_err(|wait| assert!(wait <= PATIENCE + PAUSE));
                    attempt.map(Attempt::was_wrong).is_ok()
                });
            }
            looked_at += guesses.join_all().await.into_iter().filter(|looked_at| *looked_at).count();
        }
        let seconds = usize::try_from(began.elapsed().as_secs()).unwrap();
        assert!(looked_at <= 11 + seconds, "{looked_at} passwords checked in {seconds} s");
        assert_eq!(seconds, 20, "each round waits for its last one");
        let stormed = Instant::now();
        tokio::time::sleep(PAUSE).await;
        drop(attempts.turn(&guesser).await.unwrap());
        assert!(stormed.elapsed() <= PATIENCE + PAUSE, "{:?}", stormed.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn the_right_password_costs_nothing_however_often_it_comes() {
        let attempts = Attempts::default();
        let pool = (origin("192.0.2.1"), &b"app"[..]);
        for _ in 0..1000 {
            drop(attempts.turn(&pool).await.unwrap());
        }
        assert!(attempts.table().is_empty());
        // A client that hangs up before its password was checked is not counted.
        for _ in 0..=FREE {
            fail(&attempts, &pool).await;
        }
        for _ in 0..100 {
            let left = tokio::time::timeout(Duration::from_millis(1), attempts.turn(&pool)).await;
            assert!(left.is_err());
        }
        assert_eq!(attempts.check(&pool), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_of_version_6_is_its_network() {
        let attempts = Attempts::default();
        for number in 0..=FREE {
            fail(&attempts, &(origin(&format!("2001:db8:1:2::{number}")), b"app")).await;
        }
        let began = Instant::now();
        fail(&attempts, &(origin("2001:db8:1:3::1"), b"app")).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        fail(&attempts, &(origin("2001:db8:1:2:ffff::1"), b"app")).await;
        assert_eq!(began.elapsed(), PAUSE);
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_is_bounded_and_keeps_the_worst() {
        let attempts = Attempts::default();
        let worst = (origin("192.0.2.1"), &b"app"[..]);
        for _ in 0..=FREE {
            fail(&attempts, &worst).await;
        }
        for number in 0..PLACES + 10 {
            fail(&attempts, &(origin("192.0.2.1"), format!("role {number}").as_bytes())).await;
        }
        assert_eq!(attempts.table().len(), PLACES);
        assert!(attempts.table().contains_key(&who(worst.0, worst.1)));
        tokio::time::advance(PAUSE * (FREE + 1)).await;
        fail(&attempts, &(origin("192.0.2.9"), b"app")).await;
        assert_eq!(attempts.table().len(), 1, "an entry whose pause has passed stays in the table");
    }
}

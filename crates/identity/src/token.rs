use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use secrecy::{ExposeSecret, SecretString};

use crate::{Resource, SourceName};

/// Above this life a token is refreshed at half of it, as the Azure SDKs do.
const LONG_LIFE: Duration = Duration::from_secs(2 * 60 * 60);

/// How long before its expiry a token with a shorter life is refreshed, as the Azure SDKs do.
const REFRESH_AHEAD: Duration = Duration::from_secs(5 * 60);

/// An access token, with what is known about it.
///
/// Cheap to clone. It has no `Display`, its `Debug` is redacted, and its bytes are overwritten when the last clone is
/// dropped. The only way to the text is [`AccessToken::expose_secret`].
#[derive(Clone)]
pub struct AccessToken(Arc<Inner>);

struct Inner {
    secret: SecretString,
    expires_on: SystemTime,
    refresh_on: SystemTime,
    received_on: SystemTime,
    source_time: Option<SystemTime>,
    source: SourceName,
    resource: Resource,
}

impl AccessToken {
    /// The token itself. Send it only inside verified TLS, never write it down.
    pub fn expose_secret(&self) -> &str {
        self.0.secret.expose_secret()
    }

    /// When the token stops being accepted. The earlier of what the source said and of the token's own `exp` claim
    /// where it could be read; neither is verified.
    pub fn expires_on(&self) -> SystemTime {
        self.0.expires_on
    }

    /// When to ask for the next one: where the source said so, then; else at half of a life above two hours; else five
    /// minutes before the end, or at half of what is left if that is less than ten minutes.
    pub fn refresh_on(&self) -> SystemTime {
        self.0.refresh_on
    }

    /// When it arrived, by this machine's clock.
    pub fn received_on(&self) -> SystemTime {
        self.0.received_on
    }

    /// The source's own time when it gave the token (the `Date` of its answer), where it said so. Apart from the time on
    /// the way it is [`AccessToken::received_on`], unless one of the two clocks is wrong.
    pub fn source_time(&self) -> Option<SystemTime> {
        self.0.source_time
    }

    /// Which source it came from.
    pub fn source(&self) -> SourceName {
        self.0.source
    }

    /// What it was asked for.
    pub fn resource(&self) -> &Resource {
        &self.0.resource
    }

    /// Are both the same token? Compares the text.
    pub fn same_secret(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.expose_secret() == other.expose_secret()
    }

    pub(crate) fn new(secret: SecretString, life: Life, source: SourceName, resource: &Resource) -> Self {
        let Life { now, expires_on, refresh_in } = life;
        let left = expires_on.duration_since(now).unwrap_or_default();
        let wait = match refresh_in {
            Some(wait) if wait < left => wait,
            _ if left > LONG_LIFE => left / 2,
            _ => left - REFRESH_AHEAD.min(left / 2),
        };
        Self(Arc::new(Inner {
            secret,
            expires_on,
            refresh_on: now + wait,
            received_on: now,
            source_time: None,
            source,
            resource: resource.clone(),
        }))
    }

    /// A token that has no clone yet, with its source's own time.
    pub(crate) fn with_source_time(mut self, time: Option<SystemTime>) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.source_time = time;
        }
        self
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken")
            .field("secret", &"[redacted]")
            .field("expires_on", &self.0.expires_on)
            .field("source", &self.0.source)
            .field("resource", &self.0.resource)
            .finish_non_exhaustive()
    }
}

/// What a source knows about the life of a token at the moment the answer arrived.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Life {
    pub(crate) now: SystemTime,
    pub(crate) expires_on: SystemTime,
    pub(crate) refresh_in: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(life: u64, refresh_in: Option<u64>) -> AccessToken {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let life = Life {
            now,
            expires_on: now + Duration::from_secs(life),
            refresh_in: refresh_in.map(Duration::from_secs),
        };
        let resource = "https://example".parse().unwrap();
        AccessToken::new(SecretString::from("eyJ.secret.x"), life, SourceName::Imds, &resource)
    }

    #[test]
    fn refresh_is_asked_for_in_time() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        for (life, refresh_in, expected) in [
            (86_400, None, 43_200),         // half-life
            (7_201, None, 3_600),           // just above two hours
            (7_200, None, 6_900),           // five minutes ahead
            (3_600, None, 3_300),           //
            (600, None, 300),               //
            (200, None, 100),               // never at once: half of what is left
            (0, None, 0),                   //
            (86_400, Some(1_000), 1_000),   // the source knows better
            (86_400, Some(90_000), 43_200), // unless it is rubbish
        ] {
            let waited = token(life, refresh_in).refresh_on().duration_since(start).unwrap();
            assert_eq!(waited.as_secs(), expected, "life {life}, refresh_in {refresh_in:?}");
        }
    }

    #[test]
    fn debug_does_not_show_the_token() {
        let shown = format!("{:?} {:#?}", token(10, None), token(10, None));
        assert!(shown.contains("[redacted]") && !shown.contains("eyJ"), "{shown}");
    }
}

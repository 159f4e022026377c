//! Where an Azure access token comes from: sources, selection, chain, retry, cache, refresh.
//!
//! [`Credential`] is what programs use: it finds the source that applies on this host, asks it, and keeps the token fresh.
//! Everything it can see of the machine is in a [`World`], so that a test or a local cloud can put it together.
//!
//! ```no_run
//! use pgentra_identity::{Cloud, Credential, World};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let credential = Credential::builder(World::real()).build()?;
//! let token = credential.token(&Cloud::Public.postgres_resource()).await?;
//! println!("a token from {} until {:?}", token.source(), token.expires_on());
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "azure-core")]
pub mod azure_core;
pub mod http;

mod answer;
mod cache;
mod chain;
mod claims;
mod clock;
mod cloud;
mod credential;
mod decision;
mod detect;
mod env;
mod error;
mod excerpt;
mod expiry;
mod files;
mod hint;
mod processes;
mod resource;
mod retry;
mod selector;
mod source;
mod sources;
mod token;
mod world;

pub use self::cache::{Health, Refreshed};
pub use self::claims::{TokenKind, UnverifiedClaims};
pub use self::clock::{Clock, ManualClock, RuntimeClock, SystemClock};
pub use self::cloud::{Cloud, UnknownCloud};
pub use self::credential::{Credential, CredentialBuilder};
pub use self::decision::{Considered, Decision, Verdict};
pub use self::env::Env;
pub use self::error::{ConfigError, TokenError, TokenErrorKind};
pub use self::files::Files;
pub use self::processes::{Call, Finished, Processes};
pub use self::resource::{InvalidResource, Resource};
pub use self::selector::Selector;
pub use self::source::{NoToken, Reason, SourceName, TokenRequest, TokenSource, UnknownSource};
pub use self::sources::AssertionSignature;
pub use self::token::AccessToken;
pub use self::world::{World, WorldBuilder};

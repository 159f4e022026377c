//! Pools over three token lifetimes, with the tokens of a local Azure whose time is moved, the real gateway before a
//! real PostgreSQL, and the real pools.

#![cfg(any(feature = "deadpool", feature = "bb8", feature = "diesel-async", feature = "sqlx"))]
#![expect(clippy::unwrap_used, reason = "a test, whose helpers stand outside of test functions")]

#[cfg(feature = "bb8")]
mod bb8;
mod cloud;
#[cfg(feature = "deadpool")]
mod deadpool;
#[cfg(feature = "diesel-async")]
mod diesel_async;
mod life;
#[cfg(feature = "sea-orm")]
mod sea_orm;
#[cfg(feature = "sqlx")]
mod sqlx;
#[cfg(feature = "sqlx")]
mod through_proxy;

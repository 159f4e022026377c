//! Entra roles: a local Azure's tokens, the real gateway in both flavours, a real PostgreSQL.

#![expect(clippy::unwrap_used, reason = "a test, whose helpers stand outside of test functions")]

mod apply;
mod create;
mod drop;
mod fixture;
mod groups;
mod import;
mod labels;
mod own;
mod plan;
mod prune;
mod random;
mod schema;
mod single;

//! Entra roles: a local Azure's tokens, the real gateway in both flavours, a real PostgreSQL.

#![expect(clippy::unwrap_used, reason = "a test, whose helpers stand outside of test functions")]
#![expect(clippy::disallowed_methods, reason = "a variable names the PostgreSQL of the tests")]

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

//! Administers Entra identities on PostgreSQL: the roles of a server ([`roles`]), and who is in the tenant ([`directory`]).
//!
//! Nothing here prints, and nothing reads the environment or a file: the caller hands in what it has.

pub mod directory;
pub mod roles;

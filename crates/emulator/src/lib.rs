//! The identity side of a local Azure: metadata endpoints, Entra issuer and keys, its own clock, a fault queue

//! Entra roles on a real PostgreSQL behind the gateway, in both flavours: see `tests/`.

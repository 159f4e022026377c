//! PostgreSQL start-up, TLS negotiation, authentication, error and cancel messages, both roles: bytes in, values out

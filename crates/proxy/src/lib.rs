//! PostgreSQL sessions: accept, relay, cancel; the gateway lets any PostgreSQL accept Entra tokens

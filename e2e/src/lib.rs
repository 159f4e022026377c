//! End-to-end tests: all processes, a real PostgreSQL, real clients.

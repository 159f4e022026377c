//! One authenticated, verified TLS connection to PostgreSQL with a fresh token as the password

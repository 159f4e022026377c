//! A PostgreSQL for this machine: the embedded one or an installed one; started, awaited, stopped, nothing left behind

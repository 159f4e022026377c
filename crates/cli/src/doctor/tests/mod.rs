//! Faults, each seeded on purpose, and what doctor finds: the right link, and no other.

mod before_the_server;
mod examples;
mod fake;
mod of_the_server;
mod stage;

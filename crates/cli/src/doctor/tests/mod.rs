//! Seeded faults: doctor must report the right link, and no other.

mod before_the_server;
mod examples;
mod fake;
mod of_the_server;
mod stage;

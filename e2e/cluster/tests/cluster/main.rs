//! The chart, workload identity and faults in a real Kubernetes. `cargo xtask cluster test` starts the cluster and runs
//! these tests on its first node.

#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests, whose helpers stand outside of test functions, and which tell what they measured"
)]

mod chart;
mod cost;
mod faults;
mod gateway;
mod identity;
mod injection;
mod kubernetes;
mod local;
mod psql;
mod roles;
mod stage;
mod writers;

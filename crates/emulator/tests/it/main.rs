//! The local cloud over real HTTP and TLS.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod app_service;
mod assertions;
mod client;
mod cloud_shell;
mod entra;
mod faults;
mod federated;
mod graph;
mod hosts;
mod imds;
mod jwt;
mod life;
mod management;
mod refused;
mod requests;
mod saved;

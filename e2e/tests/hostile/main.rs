//! Hostile clients, servers, services and users against `pgentra proxy`, the local cloud and the
//! commands: a table of probes with the expected answers. After each probe the programs must run,
//! and a well-behaved client must be served.
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

mod cancel;
mod commands;
mod files;
mod first;
mod http;
mod identity;
mod metadata;
mod names;
mod papers;
mod passwords;
mod peers;
mod relay;
mod server;
mod stage;
mod tokens;
mod wire;

use e2e::Lab;

use crate::stage::Stage;

/// Connections that the proxy keeps to the metadata service.
const SPARE_FILES: usize = 2;
/// The allowed growth of the proxy's memory in kB: allocator buffers and pooled sessions.
const GROWTH: u64 = 16 * 1024;

#[test]
fn nothing_hostile_is_obeyed_or_left_behind() {
    let lab = Lab::new();
    let stage = Stage::new(&lab);
    stage.answered("begin", "a good client", ".", ".");
    let (files, memory) = (stage.files(), stage.memory());
    first::probes(&stage);
    identity::probes(&stage);
    passwords::probes(&stage);
    relay::probes(&stage);
    cancel::probes(&stage);
    http::probes(&stage);
    tokens::probes(&stage);
    server::probes(&stage);
    metadata::probes(&stage);
    files::probes(&stage);
    names::probes(&stage);
    let count = stage.probes.count();
    stage.closes(files + SPARE_FILES);
    let now = stage.memory();
    let faults = stage.probes.faults();
    assert!(faults.is_empty(), "{} of {count} probes:\n{}", faults.len(), faults.join("\n"));
    assert!(now < memory + GROWTH, "{now} kB are held, {memory} were");
    assert!(count >= 200, "{count} probes");
}

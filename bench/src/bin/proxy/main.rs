//! The proxy beside its peers: `cargo xtask bench proxy`.
//!
//! A PostgreSQL with TLS is started, and in front of it `pgentra proxy`, PgBouncer, HAProxy and nginx. Clients of each speak
//! without TLS; the proxy speaks TLS with the server where it can. Rounds are interleaved: every way in turn, the order
//! reversed in each second round. Figures are medians; shares are of direct TLS in the same round.

mod copy;
mod database;
mod idle;
mod options;
mod pgbench;
mod process;
mod report;
mod sections;
mod stub;
mod table;
mod ways;

use anyhow::Result;

fn main() -> Result<()> {
    let options = options::Options::parse(std::env::args().skip(1))?;
    // Thousands of sessions, each with a client's socket and a server's; the programs that are started inherit it.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    rustix::process::setrlimit(
        rustix::process::Resource::Nofile,
        rustix::process::Rlimit { current: limit.maximum, ..limit },
    )?;
    let measured = sections::run(&options)?;
    report::print(&measured);
    if let Some(folder) = &options.write {
        report::write(&measured, folder)?;
    }
    Ok(())
}

//! A program that finds itself on Azure: it runs in network and mount namespaces of its own, in
//! which Azure's names lead to the local cloud.
//!
//! ```text
//! the program's namespaces                       this machine
//! program ── 127.0.0.10:443 ─────────┐
//!         ── 169.254.169.254:80 ─────┤ open sockets, ── relay ── 127.0.0.1:… (the local cloud)
//!         ── 127.0.0.13:5432 ────────┘ handed over
//! ```
//!
//! [`NamespacePlan`] says what the namespaces contain. [`enter`] makes them and opens the listeners in them.
//! A socket stays in the namespace that it was opened in, so a process outside can serve it: the
//! [`Relay`]. [`send`] and [`receive`] hand it over.

mod container_files;
mod containers;
mod handover;
mod mounts;
mod network;
mod plan;
mod refused;
mod relay;
mod trust;

use std::fs;
use std::net::{SocketAddr, TcpListener};

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use rustix::process::{getegid, geteuid};

pub(crate) use container_files::ContainerFiles;
pub use handover::{receive, send};
pub use plan::{NamespacePlan, Reach};
pub use relay::{Relay, connect_inside};

use self::refused::failed;
use crate::error::Failure;

/// Puts this process into namespaces as planned. Returns the listeners, each with its number in the
/// plan. The process must have one thread.
///
/// # Errors
/// If this machine does not allow it, or a file cannot be laid over another one.
pub fn enter(plan: &NamespacePlan) -> Result<Vec<(u8, TcpListener)>, Failure> {
    unshare_all()?;
    mounts::make_private().map_err(|error| failed("cannot make the mounts private", error.into()))?;
    network::bring_up(&plan.addresses)
        .map_err(|error| failed("cannot set up the network of the namespace", error))?;
    let listeners = listen(&plan.listen)?;
    mounts::lay(plan)?;
    Ok(listeners)
}

/// New network and mount namespaces, and a user namespace where this process may not make the others
/// without.
fn unshare_all() -> Result<(), Failure> {
    let spaces = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    if geteuid().is_root() {
        match unshare(spaces) {
            Ok(()) => return Ok(()),
            // Root of a container without the privilege.
            Err(Errno::EPERM) => {}
            Err(error) => return Err(failed("cannot make namespaces", error.into())),
        }
    }
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    unshare(spaces | CloneFlags::CLONE_NEWUSER)
        .map_err(|error| failed("cannot make namespaces", error.into()))?;
    // The same user and group inside: files keep their owners.
    for (file, line) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("{user} {user} 1")),
        ("gid_map", format!("{group} {group} 1")),
    ] {
        fs::write(format!("/proc/self/{file}"), line)
            .map_err(|error| failed("cannot map the user into the namespace", error))?;
    }
    Ok(())
}

fn listen(addresses: &[SocketAddr]) -> Result<Vec<(u8, TcpListener)>, Failure> {
    let mut listeners = Vec::new();
    for (number, address) in (0u8..).zip(addresses) {
        match TcpListener::bind(address) {
            Ok(listener) => listeners.push((number, listener)),
            // A machine without IPv6.
            Err(error) if address.is_ipv6() => {
                tracing::debug!(%address, %error, "not listened on in the namespace");
            }
            Err(error) => return Err(failed(&format!("cannot listen on {address} in the namespace"), error)),
        }
    }
    Ok(listeners)
}

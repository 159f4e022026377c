/// The number of files and sockets that this process may have open; `None` if there is no limit, as on Windows.
pub fn open_files() -> Option<u64> {
    limit()
}

#[cfg(unix)]
fn limit() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

#[cfg(not(unix))]
fn limit() -> Option<u64> {
    None
}

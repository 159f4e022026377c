//! What the systems do differently for a program: limits, signals, the terminal, the service manager.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(crate) use unix::{
    ManagerSocket, Signals, SilentTerminal, allow_files, create_private, leave_no_core_file, monotonic,
    stop_signal, sync_folder,
};
#[cfg(windows)]
pub(crate) use windows::{
    ManagerSocket, Signals, SilentTerminal, allow_files, create_private, exit, leave_no_core_file, monotonic,
    stop_signal, sync_folder,
};

/// What a signal asks a proxy for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignalEvent {
    /// SIGHUP: reload the configuration.
    #[cfg_attr(windows, expect(dead_code, reason = "Windows has no such signal"))]
    Reload,
    /// SIGTERM or SIGINT (Ctrl-C): shut down. On Windows also Ctrl-Break, and the end of the console or of the system.
    Stop,
}

/// File names and messages that a person reads.
pub(crate) mod names {
    /// The user's own service file of libpq.
    pub(crate) const SERVICE_FILE: &str =
        if cfg!(windows) { r"%APPDATA%\postgresql\.pg_service.conf" } else { "~/.pg_service.conf" };

    /// A file that is always empty.
    pub(crate) const NO_FILE: &str = if cfg!(windows) { "NUL" } else { "/dev/null" };
}

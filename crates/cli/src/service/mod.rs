//! What the server programs share, `pgentra proxy` and `pgentra gateway`: flags of settings, messages,
//! signals and the service manager.

mod beat;
mod console;
mod flags;
mod notify;
mod signals;

pub(crate) use beat::Beat;
pub(crate) use console::Console;
pub(crate) use flags::Flags;
pub(crate) use notify::Notify;
pub(crate) use signals::{SignalEvent, Signals};

//! What a setting is.

use pgentra_settings::RawValue;

use crate::settings::{ProcessSettings, TargetSettings};

/// A setting. Flag `--max-connections` = variable `PGENTRA_MAX_CONNECTIONS` = `max_connections` in
/// the file and in a target's URI. A key without help is a field of the same name of
/// [`IdentityOptions`](pgentra_identity::IdentityOptions), or selects an identity.
pub type Key = pgentra_settings::SettingKey<Set>;

/// What a setting applies to.
#[derive(Clone, Copy)]
pub enum Set {
    /// The whole process.
    Process(fn(&mut ProcessSettings, &RawValue<'_>) -> Result<(), String>),
    /// A target; in a process-wide layer, all targets that do not set it.
    Target(fn(&mut TargetSettings, &RawValue<'_>) -> Result<(), String>),
}

impl std::fmt::Debug for Set {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Process(_) => "Process",
            Self::Target(_) => "Target",
        })
    }
}

//! The first entry of a state: everything but the files of PostgreSQL.

use std::fmt;

use pgentra_emulator::SavedAzure;
use pgentra_gateway::Flavour;
use pgentra_localdb::SavedData;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::error::StateError;

/// What [`StateManifest::format`] is.
const FORMAT: &str = "pgentra local cloud";
/// The version of the format. A change of what is written raises it.
const VERSION: u32 = 1;

/// What a state says of itself, and the state of all parts but PostgreSQL. Its serialized form has secrets and private
/// keys in clear.
#[derive(Serialize, Deserialize)]
pub struct StateManifest {
    #[serde(flatten)]
    head: Head,
    flavour: String,
    postgresql: PostgresManifest,
    /// The state of the Azure.
    pub azure: SavedAzure,
    /// The faults that were on.
    pub faults: Vec<SavedFault>,
    /// Certificate and key of the application `myApp`, in PEM; empty without one.
    #[serde(with = "pgentra_directory::exposed")]
    pub client_certificate: SecretString,
}

/// What each version of the format has.
#[derive(Serialize, Deserialize)]
struct Head {
    format: String,
    version: u32,
    /// The version of pgentra that wrote it.
    written_by: String,
}

#[derive(Serialize, Deserialize)]
struct PostgresManifest {
    version: String,
    platform: String,
    /// The superuser's.
    #[serde(with = "pgentra_directory::exposed")]
    password: SecretString,
}

/// A fault that was on, by the names of `pgentra local fault`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedFault {
    /// The name of the fault.
    pub fault: String,
    /// The name of the endpoint that has it.
    pub endpoint: String,
    /// How many more requests suffer it. `None`: all.
    pub left: Option<usize>,
}

impl StateManifest {
    /// A manifest of this version.
    pub fn new(
        flavour: Flavour,
        data: &SavedData,
        azure: SavedAzure,
        faults: Vec<SavedFault>,
        client_certificate: SecretString,
    ) -> Self {
        Self {
            head: Head {
                format: FORMAT.to_owned(),
                version: VERSION,
                written_by: env!("CARGO_PKG_VERSION").to_owned(),
            },
            flavour: flavour.to_string(),
            postgresql: PostgresManifest {
                version: data.version.clone(),
                platform: data.platform.clone(),
                password: data.password.clone(),
            },
            azure,
            faults,
            client_certificate,
        }
    }

    /// Reads a manifest of this version.
    ///
    /// # Errors
    /// [`StateError::OtherVersion`], and [`StateError::Damaged`] for everything else.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, StateError> {
        let head: Head =
            serde_json::from_slice(json).map_err(|_| StateError::Damaged("its manifest cannot be read"))?;
        if head.format != FORMAT {
            return Err(StateError::Damaged("its manifest is that of another program"));
        }
        if head.version != VERSION {
            let written_by = head.written_by.chars().filter(|char| !char.is_control()).take(32).collect();
            return Err(StateError::OtherVersion { found: head.version, known: VERSION, written_by });
        }
        let manifest: Self = serde_json::from_slice(json)
            .map_err(|_| StateError::Damaged("its manifest has no valid state of Azure"))?;
        manifest.flavour()?;
        Ok(manifest)
    }

    /// The Azure product that the cloud imitates.
    ///
    /// # Errors
    /// If its name is unknown. A manifest that was read has a known one.
    pub fn flavour(&self) -> Result<Flavour, StateError> {
        self.flavour.parse().map_err(|_| StateError::Damaged("its manifest names an unknown flavour"))
    }

    /// What must be known of PostgreSQL's files.
    pub fn data(&self) -> SavedData {
        let PostgresManifest { version, platform, password } = &self.postgresql;
        let (version, platform) = (version.clone(), platform.clone());
        SavedData { version, platform, password: password.clone() }
    }
}

impl fmt::Debug for StateManifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateManifest").field("azure", &self.azure).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_format_is_told_from_damage() {
        let said = |json: &str| StateManifest::parse(json.as_bytes()).unwrap_err().to_string();
        let of = |format: &str, version: u32| {
            format!(r#"{{"format":"{format}","version":{version},"written_by":"9.1\n0"}}"#)
        };
        assert_eq!(
            said(&of(FORMAT, 2)),
            "its format has version 2, and this pgentra reads version 1: it was written by pgentra 9.10"
        );
        assert!(said(&of("other", 1)).contains("another program"));
        assert!(said(&of(FORMAT, 1)).contains("no valid state of Azure"));
        for bad in ["", "{}", "[]", "nonsense"] {
            assert!(said(bad).contains("cannot be read"), "{bad}");
        }
    }
}

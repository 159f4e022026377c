//! How the command line names a database server in Azure.

use std::fmt;
use std::str::FromStr;

use pgentra_azure::AzureError;
use pgentra_azure::arm::{AzureServer, AzureServerType, ResourceManager};

/// A database server: `horizondb/NAME`, or the name of a flexible server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerRef {
    kind: AzureServerType,
    name: String,
}

/// The word before the slash.
const HORIZON_DB: &str = "horizondb";

impl ServerRef {
    /// Looks the server up.
    pub(crate) async fn find(
        &self,
        manager: &ResourceManager,
        group: Option<&str>,
    ) -> Result<AzureServer, AzureError> {
        manager.server(self.kind, group, &self.name).await
    }
}

impl FromStr for ServerRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, name) = match text.split_once('/') {
            None => (AzureServerType::FlexibleServer, text),
            Some((word, name)) if word.eq_ignore_ascii_case(HORIZON_DB) => (AzureServerType::HorizonDb, name),
            Some(_) => (AzureServerType::FlexibleServer, ""),
        };
        if name.is_empty() || name.contains('/') {
            return Err("a server is the name of a flexible server, or horizondb/NAME".to_owned());
        }
        Ok(Self { kind, name: name.to_owned() })
    }
}

/// As the command line names it.
impl fmt::Display for ServerRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            AzureServerType::HorizonDb => write!(f, "{HORIZON_DB}/{}", self.name),
            _ => f.write_str(&self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_read_and_written() {
        for (text, shown) in
            [("my-server", "my-server"), ("horizondb/my", "horizondb/my"), ("HorizonDB/my", "horizondb/my")]
        {
            assert_eq!(text.parse::<ServerRef>().unwrap().to_string(), shown, "{text}");
        }
        for text in ["", "/", "horizondb/", "horizondb/a/b", "cosmos/my"] {
            assert!(text.parse::<ServerRef>().unwrap_err().contains("horizondb/NAME"), "{text}");
        }
    }
}

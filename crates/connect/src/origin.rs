//! Where a connection setting was found.

use std::fmt;
use std::path::PathBuf;

/// Where a setting was found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// The connection string or URI on the command line.
    Positional,
    /// A flag of the command line, such as `--host`.
    Flag,
    /// A variable of libpq, such as `PGHOST`.
    Variable(String),
    /// A section of libpq's connection service file (`pg_service.conf`).
    ServiceFile {
        /// The file that has the section.
        path: PathBuf,
        /// The name of the service in it.
        service: String,
    },
    /// A variable of Azure's Service Connector.
    ServiceConnector(&'static str),
    /// The built-in default; no layer names the keyword.
    Default,
}

impl Origin {
    /// How the value of `keyword` that was found here is taken away: a command, or where to edit what.
    pub(crate) fn remedy(&self, keyword: &str) -> String {
        match self {
            Origin::Variable(variable) => format!("unset {variable}"),
            Origin::ServiceConnector(variable) => format!("unset {variable}"),
            Origin::ServiceFile { path, service } => {
                format!("remove {keyword} from [{service}] in {}", path.display())
            }
            Origin::Positional | Origin::Flag => format!("leave {keyword} out of the connection string"),
            Origin::Default => format!("set {keyword}"),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Positional => f.write_str("the connection string"),
            Origin::Flag => f.write_str("a flag"),
            Origin::Variable(variable) => f.write_str(variable),
            Origin::ServiceConnector(variable) => f.write_str(variable),
            Origin::ServiceFile { path, service } => write!(f, "[{service}] in {}", path.display()),
            Origin::Default => f.write_str("the default"),
        }
    }
}

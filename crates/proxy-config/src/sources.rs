//! Where a configuration comes from.

use std::path::PathBuf;

use crate::key::Key;

/// What a program was given to configure the proxy with, besides the environment and the files of a
/// [`System`](pgentra_system::System). The default is nothing: then variables configure it alone.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The TOML file. Default: the one that `PGENTRA_CONFIG` names, if any.
    pub file: Option<PathBuf>,
    /// Targets in addition to those of the file, each a host name, a connection URI or a conninfo string.
    pub targets: Vec<String>,
    /// Settings that are stronger than variables and the file, each with its values as text.
    pub flags: Vec<(&'static Key, Vec<String>)>,
    /// Connection keywords for what targets leave out, such as `("host", …)`. Without a target they name the only one.
    pub connection: Vec<(&'static str, String)>,
    /// The program's commands that may stand in place of a target. Default: none.
    pub commands: Option<Commands>,
}

/// Commands of a program, which a message suggests for a target that is misspelled.
#[derive(Clone, Copy, Debug)]
pub struct Commands {
    /// The words before the command, such as `pgentra proxy`.
    pub program: &'static str,
    /// The names of the commands.
    pub names: &'static [&'static str],
}

impl Sources {
    /// The settings and targets of a TOML file, and the variables.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { file: Some(path.into()), ..Self::default() }
    }
}

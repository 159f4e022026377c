//! The arguments of `pgentra proxy` as the sources of a configuration.

use pgentra_proxy_config::{Commands, Sources};

use super::arguments::Proxy;

/// The commands that may stand in place of a target.
const COMMANDS: Commands = Commands { program: "pgentra proxy", names: &["wait", "hash-password"] };

impl Proxy {
    /// What the arguments configure the proxy with.
    pub(crate) fn sources(&self) -> Sources {
        Sources {
            file: self.config.clone(),
            targets: self.targets.clone(),
            flags: self.flags.0.clone(),
            connection: self.server.keywords(),
            commands: Some(COMMANDS),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use crate::arguments::{Arguments, Command};

    #[test]
    fn every_command_of_the_proxy_is_named() {
        let root = Arguments::command();
        let proxy = root.find_subcommand("proxy").unwrap();
        let names: Vec<_> = proxy.get_subcommands().map(clap::Command::get_name).collect();
        assert_eq!(super::COMMANDS.names, names);
    }

    #[test]
    fn arguments_reach_their_source() {
        let words =
            ["pgentra", "proxy", "host=a", "--config", "/f", "-h", "db.example", "-d", "app", "--pin"];
        let Command::Proxy(proxy) = Arguments::try_parse_from(words).unwrap().command else { panic!() };
        let sources = proxy.sources();
        assert_eq!(sources.file.as_deref(), Some(std::path::Path::new("/f")));
        assert_eq!(sources.targets, ["host=a"]);
        assert_eq!(sources.flags.len(), 1);
        assert_eq!(sources.connection, [("host", "db.example".to_owned()), ("dbname", "app".to_owned())]);
    }
}

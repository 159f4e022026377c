//! The command line of the listener's process.

use std::ffi::OsString;

use super::arguments::{Access, Way};
use crate::options::{Connection, Identity, Server};

/// The words that give a command the same server, identity and way. Each field is named here, so
/// that a new option cannot be forgotten.
pub(super) fn of(access: &Access) -> Vec<OsString> {
    let Access { connection, identity, way } = access;
    let Connection { conninfo, server } = connection;
    let Server { host, port, username, dbname } = server;
    let Identity {
        client_id,
        object_id,
        resource_id,
        source,
        token_command,
        token_lifetime,
        tenant,
        cloud,
        resource,
        token_timeout,
    } = identity;
    let Way { tcp, direct } = *way;
    let mut words: Vec<OsString> = Vec::new();
    for (flag, is_set) in [("--tcp", tcp), ("--direct", direct)] {
        words.extend(is_set.then(|| flag.into()));
    }
    for (flag, value) in [
        ("--host", host.clone()),
        ("--port", port.clone()),
        ("--username", username.clone()),
        ("--dbname", dbname.clone()),
        ("--client-id", client_id.clone()),
        ("--object-id", object_id.clone()),
        ("--resource-id", resource_id.clone()),
        ("--source", source.map(|source| source.to_string())),
        ("--token-command", token_command.clone()),
        ("--token-lifetime", token_lifetime.map(|time| time.as_secs().to_string())),
        ("--tenant", tenant.clone()),
        ("--cloud", Some(cloud.to_string())),
        ("--resource", resource.clone()),
        ("--token-timeout", Some(token_timeout.as_secs().to_string())),
    ] {
        // In one word, so that a value may begin with a hyphen.
        words.extend(value.map(|value| format!("{flag}={value}").into()));
    }
    if let Some(conninfo) = conninfo {
        words.extend(["--".into(), conninfo.into()]);
    }
    words
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    #[command(disable_help_flag = true)]
    struct Words {
        #[command(flatten)]
        access: Access,
    }

    #[test]
    fn the_words_say_the_same() {
        for given in [
            &["postgres://app@db.example/app"][..],
            &["--tcp", "host=db user='my app'", "--token-command", "echo -x", "--token-lifetime", "15m"],
            &["--token-timeout", "5m"],
            &["--direct", "-h", "db", "-p", "1", "-U", "app", "-d", "x y", "--cloud", "china"],
            &["--client-id", "a", "--source", "imds", "--tenant", "contoso.example", "--resource", "u:r"],
            &["--object-id", "b"],
            &["--resource-id", "/subscriptions/x"],
        ] {
            let parse = |words: Vec<OsString>| {
                let program = std::iter::once(OsString::from("pgentra"));
                Words::try_parse_from(program.chain(words)).unwrap().access
            };
            let before = parse(given.iter().map(OsString::from).collect());
            let after = parse(of(&before));
            assert_eq!(format!("{before:?}"), format!("{after:?}"));
        }
    }
}

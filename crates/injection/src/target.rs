//! The connection string of the annotation.

use pgentra_connect::{ConnectError, Layers, Target, split_connection_string};
use pgentra_system::{Env, Files};

/// The server that the sidecar signs in at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SidecarTarget {
    /// The connection string as it was written.
    pub(crate) text: String,
    pub(crate) user: Option<String>,
    pub(crate) database: Option<String>,
}

/// Reads a connection string as the sidecar will.
///
/// # Errors
/// A sentence that does not repeat the string, which may hold a password.
pub(crate) fn read(text: &str) -> Result<SidecarTarget, String> {
    let text = text.trim();
    if !text.starts_with("postgresql://") && !text.starts_with("postgres://") && !text.contains('=') {
        return Err(
            "is no connection string such as postgresql://my-app@my-server.postgres.database.azure.com/app"
                .to_owned(),
        );
    }
    let target = resolve(text).map_err(|error| format!("cannot be used: {}", chain(&error)))?;
    let (user, database) = (target.named_user(), target.named_database());
    Ok(SidecarTarget {
        text: text.to_owned(),
        user: user.map(str::to_owned),
        database: database.map(str::to_owned),
    })
}

/// The files that the string names are those of the sidecar, and the environment is the sidecar's: none of them is here.
fn resolve(text: &str) -> Result<Target, ConnectError> {
    let (mut text, roots) = split_connection_string(text, |keyword| keyword == "sslrootcert")?;
    if !roots.is_empty() {
        // It needs authorities of its own, and they are named.
        let is_for_roots = |keyword: &str| keyword == "sslmode";
        let (rest, modes) = split_connection_string(&text, is_for_roots)?;
        if modes.iter().all(|(_, mode)| mode == "verify-ca") {
            text = rest;
        }
    }
    let none = Env::from_map::<String, String>([]);
    Target::resolve_server(&Layers::gather(Some(&text), &[], &none, &Files::in_memory())?)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_database_are_those_that_are_named() {
        let named = |text| read(text).map(|server| (server.user, server.database)).unwrap();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(named("postgresql://my-app@one,two:5433/app"), (some("my-app"), some("app")));
        assert_eq!(named("host=one user='my app'"), (some("my app"), None));
        assert_eq!(named("postgres://one/"), (None, None));
        assert_eq!(named("postgresql://one/?sslrootcert=/etc/pki/ca.pem&sslmode=verify-ca"), (None, None));
        assert_eq!(named("postgresql://dba%40example.com@one/"), (some("dba@example.com"), None));
    }

    #[test]
    fn what_the_sidecar_would_refuse_is_refused() {
        for (text, why) in [
            ("my-server", "is no connection string"),
            ("", "is no connection string"),
            ("postgresql://", "no server is named"),
            ("postgresql://my-app:secret@one/", "password"),
            ("host=one password=secret", "password"),
            ("postgresql://one/?sslmode=disable", "sslmode"),
            ("postgresql://one/?sslmode=prefer&sslrootcert=/a.pem", "sslmode"),
            ("postgresql://one/?colour=blue", "colour"),
            ("postgresql://one:port/", "port"),
            ("host=/var/run/postgresql", "socket"),
        ] {
            let said = read(text).unwrap_err();
            assert!(said.contains(why) && !said.contains("secret"), "{text}: {said}");
        }
    }
}

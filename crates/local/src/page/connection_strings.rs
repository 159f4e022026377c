//! How programs connect to the PostgreSQL of a local cloud.

use std::path::Path;

use pgentra_connect::quote;
use serde::Serialize;

/// What a program on one host writes.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct HostStrings {
    /// A name of a [`Host`](crate::Host).
    pub(crate) host: &'static str,
    /// The role that is mapped to its identity.
    pub(crate) role: String,
    /// The strings, without a password: that is a token.
    pub(crate) strings: Vec<ConnectionString>,
}

/// One form of a connection string.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ConnectionString {
    /// The program that takes it.
    pub(crate) program: &'static str,
    pub(crate) text: String,
}

/// The server, as its clients know it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerPlace<'a> {
    /// The name of the local cloud.
    pub(crate) cloud: &'a str,
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    pub(crate) database: &'a str,
    /// The file with the certificate of the local authority.
    pub(crate) certificate: &'a Path,
}

impl HostStrings {
    pub(crate) fn new(server: ServerPlace<'_>, host: &'static str, role: &str) -> Self {
        let ServerPlace { cloud, port, database, .. } = server;
        let name = match cloud {
            "default" => String::new(),
            name => format!(" --name {}", quote::shell_word(name)),
        };
        let shell = format!("eval \"$(pgentra local env{name} --host {host})\"");
        let certificate = server.certificate.display().to_string();
        let (user, name, file) = (quote::url_value(role), server.host, quote::url_value(&certificate));
        let ssl = format!("sslmode=verify-full&sslrootcert={file}");
        let strings = [
            ("pgentra", format!("{shell} && pgentra psql")),
            ("psql", format!("{shell} && PGPASSWORD=$(pgentra token) psql")),
            ("libpq", format!("postgresql://{user}@{name}:{port}/{database}?{ssl}")),
            ("JDBC", format!("jdbc:postgresql://{name}:{port}/{database}?user={user}&{ssl}")),
            (
                "Npgsql",
                format!(
                    "Host={name};Port={port};Database={database};Username={};SSL Mode=VerifyFull;Root Certificate={}",
                    quote::ado_value(role),
                    quote::ado_value(&certificate)
                ),
            ),
        ];
        let strings = strings.map(|(program, text)| ConnectionString { program, text }).into();
        Self { host, role: role.to_owned(), strings }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_a_value_in_each_form() {
        let certificate = Path::new("/run/my cloud/ca.pem");
        let server =
            ServerPlace { cloud: "two", host: "localhost", port: 6432, database: "postgres", certificate };
        let access = HostStrings::new(server, "admin", "ada@a.example");
        let texts: Vec<_> = access.strings.iter().map(|it| it.text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "eval \"$(pgentra local env --name two --host admin)\" && pgentra psql",
                "eval \"$(pgentra local env --name two --host admin)\" && PGPASSWORD=$(pgentra token) psql",
                "postgresql://ada%40a.example@localhost:6432/postgres?sslmode=verify-full&sslrootcert=%2Frun%2Fmy%20cloud%2Fca.pem",
                "jdbc:postgresql://localhost:6432/postgres?user=ada%40a.example&sslmode=verify-full&sslrootcert=%2Frun%2Fmy%20cloud%2Fca.pem",
                "Host=localhost;Port=6432;Database=postgres;Username=ada@a.example;SSL Mode=VerifyFull;Root Certificate=\"/run/my cloud/ca.pem\"",
            ]
        );
        let server = ServerPlace { cloud: "default", ..server };
        assert_eq!(
            HostStrings::new(server, "vm", "myVm").strings[0].text,
            "eval \"$(pgentra local env --host vm)\" && pgentra psql"
        );
    }
}

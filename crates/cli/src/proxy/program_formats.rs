//! The formats in which programs read how to connect.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use clap::ValueEnum;
use pgentra_connect::quote;
use serde::Serialize;

use super::access::{Access, ListenerHost};
use crate::blame::Blame;
use crate::output;
use crate::platform::names::{NO_FILE, SERVICE_FILE};
use crate::problem::{Outcome, Problem};

/// A program, or a format that several programs read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Program {
    /// A servers.json for the import of pgAdmin.
    Pgadmin,
    /// A data-sources.json for a project of DBeaver.
    Dbeaver,
    /// A provisioning file for Grafana.
    Grafana,
    /// A service file of libpq, for psql and other programs that use libpq.
    PsqlService,
    /// A connection URL of pgjdbc for each target.
    Jdbc,
    /// A connection string of Npgsql for each target.
    Npgsql,
    /// Environment variables, for a file .env.
    Dotenv,
}

/// A target as a program connects to it.
#[derive(Clone, Debug)]
pub(crate) struct ProgramTarget {
    /// For people.
    pub(crate) name: String,
    pub(crate) access: Access,
    pub(crate) user: String,
}

/// The configuration of a program for these targets.
///
/// # Errors
///
/// A name that the format cannot express.
pub(crate) fn text(program: Program, entries: &[ProgramTarget]) -> Outcome<String> {
    match program {
        Program::Pgadmin => pgadmin(entries),
        Program::Dbeaver => dbeaver(entries),
        Program::Grafana => grafana(entries),
        Program::PsqlService => psql_service(entries),
        Program::Jdbc => Ok(entries.iter().map(|entry| jdbc(entry) + "\n").collect()),
        Program::Npgsql => entries.iter().map(npgsql).collect(),
        Program::Dotenv => Ok(dotenv(entries)),
    }
}

/// Where the printed text goes, and how it is used.
pub(crate) fn next_step(program: Program, entries: &[ProgramTarget]) -> String {
    match program {
        Program::Pgadmin => "save it as servers.json; in pgAdmin: Tools, Import/Export Servers".to_owned(),
        Program::Dbeaver => {
            "save it as .dbeaver/data-sources.json in the folder of a new DBeaver project".to_owned()
        }
        Program::Grafana => {
            "save it as /etc/grafana/provisioning/datasources/pgentra.yaml and restart Grafana".to_owned()
        }
        Program::PsqlService => {
            let keys = keys(entries);
            let service = keys.first().map(|key| quote::shell_word(&format!("service={key}")));
            format!("add it to {SERVICE_FILE}; then: psql {}", service.unwrap_or_default())
        }
        Program::Jdbc => "give it to the program as its JDBC URL; it needs no password".to_owned(),
        Program::Npgsql => "give it to the program as its connection string".to_owned(),
        Program::Dotenv => "save it as .env".to_owned(),
    }
}

impl Program {
    /// Whether the program connects to Unix sockets too.
    pub(crate) fn takes_sockets(self) -> bool {
        !matches!(self, Self::Jdbc | Self::Dbeaver | Self::Grafana)
    }
}

/// pgAdmin's "Import/Export Servers".
fn pgadmin(entries: &[ProgramTarget]) -> Outcome<String> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct File<'a> {
        servers: BTreeMap<usize, Server<'a>>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Server<'a> {
        name: &'a str,
        group: &'static str,
        host: &'a str,
        port: u16,
        #[serde(rename = "MaintenanceDB")]
        maintenance_db: &'a str,
        username: &'a str,
        connection_parameters: FormatParameters,
    }
    #[derive(Serialize)]
    struct FormatParameters {
        sslmode: &'static str,
        /// pgAdmin asks for no password where a file may have one.
        #[serde(skip_serializing_if = "Option::is_none")]
        passfile: Option<&'static str>,
    }
    let mut servers = BTreeMap::new();
    for (at, ProgramTarget { name, access, user }) in entries.iter().enumerate() {
        let passfile = (!access.has_password).then_some(NO_FILE);
        let server = Server {
            name,
            group: "pgentra",
            host: access.host.as_str(),
            port: access.port,
            maintenance_db: &access.database,
            username: user,
            connection_parameters: FormatParameters { sslmode: access.sslmode(), passfile },
        };
        servers.insert(at + 1, server);
    }
    Ok(output::json_text(&File { servers })? + "\n")
}

/// The connections of a DBeaver project, with the user in the configuration itself.
fn dbeaver(entries: &[ProgramTarget]) -> Outcome<String> {
    #[derive(Serialize)]
    struct File<'a> {
        folders: BTreeMap<&'a str, ()>,
        connections: BTreeMap<String, Connection<'a>>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "kebab-case")]
    struct Connection<'a> {
        provider: &'static str,
        driver: &'static str,
        name: &'a str,
        /// With an empty saved password DBeaver asks for none.
        save_password: bool,
        configuration: Settings<'a>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "kebab-case")]
    struct Settings<'a> {
        host: &'a str,
        port: String,
        database: &'a str,
        url: String,
        #[serde(rename = "configurationType")]
        configuration_type: &'static str,
        r#type: &'static str,
        user: &'a str,
        auth_model: &'static str,
        properties: BTreeMap<&'static str, &'static str>,
    }
    let mut connections = BTreeMap::new();
    for (at, entry) in entries.iter().enumerate() {
        let ProgramTarget { name, access, user } = entry;
        // DBeaver replaces variables in these fields and has no escape for them.
        if let Some(value) = [user, &access.database].into_iter().find(|value| value.contains("${")) {
            return Err(not_written("DBeaver", value));
        }
        let configuration = Settings {
            host: access.host.as_str(),
            port: access.port.to_string(),
            database: &access.database,
            url: address(entry),
            configuration_type: "MANUAL",
            r#type: "dev",
            user,
            auth_model: "native",
            properties: BTreeMap::from([("sslmode", access.sslmode())]),
        };
        let connection = Connection {
            provider: "postgresql",
            driver: "postgres-jdbc",
            name,
            save_password: !access.has_password,
            configuration,
        };
        connections.insert(format!("postgres-jdbc-pgentra-{}", at + 1), connection);
    }
    Ok(output::json_text(&File { folders: BTreeMap::new(), connections })? + "\n")
}

/// Data sources of Grafana. A string of JSON is one of YAML.
fn grafana(entries: &[ProgramTarget]) -> Outcome<String> {
    // Grafana replaces `$NAME` and `${NAME}` in all values; `$$` is a dollar sign.
    let scalar = |value: &str| output::json_text(&value.replace('$', "$$"));
    let mut text = "apiVersion: 1\ndatasources:\n".to_owned();
    for ProgramTarget { name, access, user } in entries {
        let url = format!("{}:{}", access.host.in_uri().unwrap_or_default(), access.port);
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "  - name: {}\n    type: grafana-postgresql-datasource\n    url: {}\n    user: {}\n    \
             jsonData:\n      database: {}\n      sslmode: {}\n",
            scalar(name)?,
            scalar(&url)?,
            scalar(user)?,
            scalar(&access.database)?,
            access.sslmode(),
        );
    }
    Ok(text)
}

/// A service file of libpq, which has neither quotes nor escapes: a value is what follows `=`, and
/// libpq removes blanks at the end of the line.
fn psql_service(entries: &[ProgramTarget]) -> Outcome<String> {
    let mut text = String::new();
    for (key, ProgramTarget { access, user, .. }) in keys(entries).iter().zip(entries) {
        let port = access.port.to_string();
        let pairs = [
            ("host", access.host.as_str()),
            ("port", &port),
            ("user", user),
            ("dbname", &access.database),
            ("sslmode", access.sslmode()),
        ];
        let separator = if text.is_empty() { "" } else { "\n" };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{separator}[{key}]");
        for (word, value) in pairs {
            let is_lost = value.ends_with(char::is_whitespace) || value.is_empty();
            if is_lost || value.chars().any(quote::is_hidden) {
                return Err(not_written("a service file", value));
            }
            let _ = writeln!(text, "{word}={value}");
        }
    }
    Ok(text)
}

fn jdbc(entry: &ProgramTarget) -> String {
    format!("{}?user={}&sslmode={}", address(entry), quote::url_value(&entry.user), entry.access.sslmode())
}

/// A JDBC URL without parameters.
fn address(ProgramTarget { access, .. }: &ProgramTarget) -> String {
    let host = access.host.in_uri().unwrap_or_default();
    format!("jdbc:postgresql://{host}:{}/{}", access.port, quote::url_value(&access.database))
}

fn npgsql(entry: &ProgramTarget) -> Outcome<String> {
    let ProgramTarget { access, user, .. } = entry;
    let sslmode = if access.is_tls { "Require" } else { "Disable" };
    let port = access.port.to_string();
    let mut pairs = Vec::new();
    for (word, value) in [
        ("Host", access.host.as_str()),
        ("Port", &port),
        ("Database", &access.database),
        ("Username", user),
        ("SSL Mode", sslmode),
    ] {
        if value.chars().any(quote::is_hidden) {
            return Err(not_written("a line of text", value));
        }
        pairs.push(format!("{word}={}", quote::ado_value(value)));
    }
    Ok(pairs.join(";") + "\n")
}

/// Variables in a form that all readers of such files agree on: shells, Docker, Compose, systemd and
/// the dotenv libraries. A URI needs no quotes.
fn dotenv(entries: &[ProgramTarget]) -> String {
    let mut text = String::new();
    for (key, entry) in keys(entries).iter().zip(entries) {
        let ProgramTarget { access, user, name } = entry;
        let prefix = match entries.len() {
            1 => String::new(),
            _ => key.to_ascii_uppercase().replace(|char: char| !char.is_ascii_alphanumeric(), "_") + "_",
        };
        let prefix = if prefix.starts_with(|char: char| char.is_ascii_digit()) {
            format!("_{prefix}")
        } else {
            prefix
        };
        let (user_part, database) = (quote::url_value(user), quote::url_value(&access.database));
        let sslmode = access.sslmode();
        let uri = match &access.host {
            ListenerHost::Unix(folder) => {
                let folder = quote::url_value(folder);
                format!("postgresql://{user_part}@{folder}:{}/{database}", access.port)
            }
            host => {
                let host = host.in_uri().unwrap_or_default();
                format!("postgresql://{user_part}@{host}:{}/{database}?sslmode={sslmode}", access.port)
            }
        };
        let port = access.port.to_string();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# {}", quote::line(name));
        let _ = writeln!(text, "{prefix}DATABASE_URL={uri}");
        for (word, value) in [
            ("PGHOST", access.host.as_str()),
            ("PGPORT", &port),
            ("PGUSER", user),
            ("PGDATABASE", &access.database),
            ("PGSSLMODE", sslmode),
        ] {
            let _ = match quote::dotenv_value(value) {
                Some(value) => writeln!(text, "{prefix}{word}={value}"),
                None => {
                    writeln!(text, "# {prefix}{word}: no form is read alike everywhere; DATABASE_URL has it")
                }
            };
        }
    }
    text
}

/// A word for each target, by which a program names it: letters, digits, `-`, `_` and `.`.
fn keys(entries: &[ProgramTarget]) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    for ProgramTarget { name, .. } in entries {
        let is_kept = |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_' | '.');
        let key: String = name.chars().map(|char| if is_kept(char) { char } else { '-' }).collect();
        let is_taken = keys.contains(&key);
        keys.push(if is_taken { format!("{key}-{}", keys.len() + 1) } else { key });
    }
    keys
}

fn not_written(format: &str, value: &str) -> Problem {
    let text = format!("{} cannot be written in {format}", quote::name(value));
    Problem::new(Blame::Usage, text).hint("the JDBC form can hold every name: --print-config jdbc")
}

#[cfg(test)]
#[path = "tests/program_formats.rs"]
mod tests;

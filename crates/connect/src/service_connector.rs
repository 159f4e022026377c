//! The variables that Azure's Service Connector sets in an application (Microsoft: "Integrate Azure Database for
//! PostgreSQL with Service Connector").

use pgentra_system::Env;

use crate::conninfo::{self, Pairs};
use crate::error::ConnectError;
use crate::keyword::{DBNAME, HOST, PORT, USER};

const CONNECTION_STRING: &str = "AZURE_POSTGRESQL_CONNECTIONSTRING";

/// One variable for each part, as in the connections for Node.js, Django and "none"; the first name that is set counts.
const PARTS: [(&str, &[&str]); 4] = [
    (HOST, &["AZURE_POSTGRESQL_HOST"]),
    (PORT, &["AZURE_POSTGRESQL_PORT"]),
    (USER, &["AZURE_POSTGRESQL_USER", "AZURE_POSTGRESQL_USERNAME"]),
    (DBNAME, &["AZURE_POSTGRESQL_DATABASE", "AZURE_POSTGRESQL_NAME"]),
];

/// The client id of the user-assigned identity or service principal that a service connection was made for.
pub fn client_id(env: &Env) -> Option<String> {
    env.get("AZURE_POSTGRESQL_CLIENTID")
}

/// Variable, keyword and value of everything that says where to connect.
///
/// Service Connector writes `sslmode=require` into every string, which asks for less than what is done: the server is
/// verified all the same. Passwords (of connections that were made with one) are not read.
pub(crate) fn read(env: &Env) -> Result<Vec<(&'static str, &'static str, String)>, ConnectError> {
    let mut settings = Vec::new();
    for (keyword, variables) in PARTS {
        let set = variables.iter().find_map(|variable| Some((*variable, env.get(variable)?)));
        settings.extend(set.map(|(variable, value)| (variable, keyword, value)));
    }
    if let Some(text) = env.get(CONNECTION_STRING) {
        let pairs = parse(&text).map_err(|error| {
            ConnectError::config(format!("the variable {CONNECTION_STRING} cannot be understood"))
                .because(error)
                .hinting(format!("unset {CONNECTION_STRING}, or write it as libpq, JDBC or Npgsql does"))
        })?;
        let keywords = PARTS.iter().map(|(keyword, _)| *keyword);
        for keyword in keywords {
            if let Some((_, value)) = pairs.iter().rfind(|(name, _)| name == keyword) {
                settings.push((CONNECTION_STRING, keyword, value.clone()));
            }
        }
    }
    Ok(settings)
}

/// One of three dialects: JDBC, ADO.NET, libpq.
fn parse(text: &str) -> Result<Pairs, ConnectError> {
    if let Some(uri) = text.strip_prefix("jdbc:") {
        return conninfo::parse(uri);
    }
    if is_ado(text) { Ok(parse_ado(text)) } else { conninfo::parse(text) }
}

/// `Server=…;Database=…;`: libpq's form has no `;` between its settings.
fn is_ado(text: &str) -> bool {
    let first = text.split('=').next().unwrap_or_default().trim();
    ado_keyword(first).is_some() && text.contains(';')
}

fn parse_ado(text: &str) -> Pairs {
    let settings = text.split(';').filter_map(|setting| setting.split_once('='));
    let known = settings
        .filter_map(|(name, value)| Some((ado_keyword(name.trim())?.to_owned(), unquote(value.trim()))));
    known.collect()
}

/// Npgsql's names, "Connection String Parameters".
fn ado_keyword(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase().replace(' ', "");
    match name.as_str() {
        "server" | "host" => Some(HOST),
        "port" => Some(PORT),
        "userid" | "username" | "user" | "uid" => Some(USER),
        "database" | "db" => Some(DBNAME),
        _ => None,
    }
}

fn unquote(value: &str) -> String {
    for quote in ['"', '\''] {
        if let Some(inner) = value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            return inner.to_owned();
        }
    }
    value.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(variables: &[(&str, &str)]) -> String {
        let settings = read(&Env::from_map(variables.iter().copied())).unwrap();
        let texts: Vec<String> =
            settings.iter().map(|(_, keyword, value)| format!("{keyword}={value}")).collect();
        texts.join(" ")
    }

    #[test]
    fn every_client_type_is_understood() {
        let expected = "host=s.postgres.database.azure.com port=5432 user=myuser dbname=mydb";
        for text in [
            "Server=s.postgres.database.azure.com;Database=mydb;Port=5432;Ssl Mode=Require;User Id=myuser;",
            "Host=s.postgres.database.azure.com; Database=mydb; Port=5432; SSL Mode=Require; Username='myuser'",
            "jdbc:postgresql://s.postgres.database.azure.com:5432/mydb?sslmode=require&user=myuser",
            "host=s.postgres.database.azure.com port=5432 dbname=mydb sslmode=require user=myuser",
            "dbname=mydb host=s.postgres.database.azure.com port=5432 sslmode=require user=myuser password=secret",
            "postgresql://myuser@s.postgres.database.azure.com:5432/mydb",
        ] {
            assert_eq!(check(&[(CONNECTION_STRING, text)]), expected, "{text}");
        }
        let parts = [
            ("AZURE_POSTGRESQL_HOST", "s.postgres.database.azure.com"),
            ("AZURE_POSTGRESQL_PORT", "5432"),
            ("AZURE_POSTGRESQL_SSL", "true"),
        ];
        let node = [("AZURE_POSTGRESQL_USER", "myuser"), ("AZURE_POSTGRESQL_DATABASE", "mydb")];
        let other = [("AZURE_POSTGRESQL_USERNAME", "myuser"), ("AZURE_POSTGRESQL_DATABASE", "mydb")];
        let django = [("AZURE_POSTGRESQL_USER", "myuser"), ("AZURE_POSTGRESQL_NAME", "mydb")];
        for names in [node, other, django] {
            assert_eq!(check(&[&parts[..], &names[..]].concat()), expected);
        }
        assert_eq!(check(&[]), "");
    }

    #[test]
    fn rubbish_is_named_and_not_repeated() {
        let error = read(&Env::from_map([(CONNECTION_STRING, "hunter2")])).unwrap_err();
        assert!(error.to_string().contains(CONNECTION_STRING) && !error.to_string().contains("hunter2"));
    }

    #[test]
    fn the_identity_is_named_too() {
        let id = "cccccccc-0000-4000-8000-000000000003";
        assert_eq!(client_id(&Env::from_map([("AZURE_POSTGRESQL_CLIENTID", id)])).as_deref(), Some(id));
    }
}

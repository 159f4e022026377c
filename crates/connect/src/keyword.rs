//! The words a connection is described with: libpq's (PostgreSQL, "Parameter Key Words" and "Environment Variables").

use crate::error::ConnectError;
use crate::origin::Origin;
use crate::quote;

/// What a keyword's value decides here.
pub(crate) const HOST: &str = "host";
pub(crate) const HOSTADDR: &str = "hostaddr";
pub(crate) const PORT: &str = "port";
pub(crate) const USER: &str = "user";
pub(crate) const DBNAME: &str = "dbname";
pub(crate) const SSLMODE: &str = "sslmode";
pub(crate) const SSLROOTCERT: &str = "sslrootcert";
pub(crate) const SSLNEGOTIATION: &str = "sslnegotiation";
pub(crate) const CONNECT_TIMEOUT: &str = "connect_timeout";
pub(crate) const APPLICATION_NAME: &str = "application_name";
pub(crate) const FALLBACK_APPLICATION_NAME: &str = "fallback_application_name";
pub(crate) const OPTIONS: &str = "options";
pub(crate) const KEEPALIVES: &str = "keepalives";
pub(crate) const KEEPALIVES_IDLE: &str = "keepalives_idle";
pub(crate) const KEEPALIVES_INTERVAL: &str = "keepalives_interval";
pub(crate) const KEEPALIVES_COUNT: &str = "keepalives_count";
pub(crate) const TCP_USER_TIMEOUT: &str = "tcp_user_timeout";
pub(crate) const SERVICE: &str = "service";
pub(crate) const SERVICEFILE: &str = "servicefile";
pub(crate) const TARGET_SESSION_ATTRS: &str = "target_session_attrs";
pub(crate) const LOAD_BALANCE_HOSTS: &str = "load_balance_hosts";

/// Keywords that decide something here, with the variable that libpq reads for each.
const USED: [(&str, Option<&str>); 21] = [
    (HOST, Some("PGHOST")),
    (HOSTADDR, Some("PGHOSTADDR")),
    (PORT, Some("PGPORT")),
    (USER, Some("PGUSER")),
    (DBNAME, Some("PGDATABASE")),
    (SSLMODE, Some("PGSSLMODE")),
    (SSLROOTCERT, Some("PGSSLROOTCERT")),
    (SSLNEGOTIATION, Some("PGSSLNEGOTIATION")),
    (CONNECT_TIMEOUT, Some("PGCONNECT_TIMEOUT")),
    (APPLICATION_NAME, Some("PGAPPNAME")),
    (FALLBACK_APPLICATION_NAME, None),
    (OPTIONS, Some("PGOPTIONS")),
    (KEEPALIVES, None),
    (KEEPALIVES_IDLE, None),
    (KEEPALIVES_INTERVAL, None),
    (KEEPALIVES_COUNT, None),
    (TCP_USER_TIMEOUT, None),
    (SERVICE, Some("PGSERVICE")),
    (SERVICEFILE, Some("PGSERVICEFILE")),
    (TARGET_SESSION_ATTRS, Some("PGTARGETSESSIONATTRS")),
    (LOAD_BALANCE_HOSTS, Some("PGLOADBALANCEHOSTS")),
];

/// Keywords of which only these values agree with what happens anyway, and why another one is refused. A variable is
/// read only where ignoring it would break a promise that libpq keeps.
const FIXED: [Fixed; 10] = [
    Fixed(
        "channel_binding",
        &["disable", "prefer"],
        "a token is sent as a password, which has no channel binding",
        true,
    ),
    Fixed("client_encoding", &["utf8", "utf-8", "unicode", "auto"], "the connection speaks UTF-8", false),
    Fixed("gssencmode", &["disable", "prefer"], "the connection is encrypted with TLS", true),
    Fixed("max_protocol_version", &["3.0", "3.2", "latest"], "the connection speaks protocol 3.0", false),
    Fixed("min_protocol_version", &["3.0"], "the connection speaks protocol 3.0", true),
    Fixed("require_auth", &["password"], "a token is sent as a password", true),
    Fixed("sslcertmode", &["disable", "allow"], "no client certificate is sent", true),
    Fixed("sslcompression", &["0"], "TLS is not compressed", false),
    Fixed("sslsni", &["1"], "the server is always told the name", true),
    Fixed("ssl_min_protocol_version", &["tlsv1", "tlsv1.1", "tlsv1.2"], "the least TLS version is 1.2", true),
];

struct Fixed(&'static str, &'static [&'static str], &'static str, bool);

/// Keywords of libpq that have no meaning here.
const UNSUPPORTED: [&str; 24] = [
    "gssdelegation",
    "gsslib",
    "krbsrvname",
    "oauth_client_id",
    "oauth_client_secret",
    "oauth_issuer",
    "oauth_scope",
    "passfile",
    "replication",
    "requirepeer",
    "requiressl",
    "scram_client_key",
    "scram_server_key",
    "ssl",
    "ssl_max_protocol_version",
    "sslcert",
    "sslcrl",
    "sslcrldir",
    "sslkey",
    "sslkeylogfile",
    "sslpassword",
    "tty",
    "authtype",
    "debug",
];

/// The keyword as a constant, if its value decides something; `None` if the value agrees with what happens anyway.
///
/// # Errors
/// A keyword that libpq does not know, a keyword without a meaning here, a password, or a value that is not supported.
/// The error names the keyword and never a password.
pub(crate) fn check(
    keyword: &str,
    value: &str,
    origin: &Origin,
) -> Result<Option<&'static str>, ConnectError> {
    if let Some((used, _)) = USED.iter().find(|(used, _)| *used == keyword) {
        return Ok(Some(used));
    }
    if keyword == "password" {
        return Err(ConnectError::config(
            "a password is given, and the sign-in uses an access token instead",
        )
        .hinting(format!("{}; for a role with a password use psql itself", origin.remedy(keyword))));
    }
    if let Some(Fixed(_, agreeing, reason, _)) = FIXED.iter().find(|fixed| fixed.0 == keyword) {
        if value.is_empty() || agreeing.contains(&value.to_ascii_lowercase().as_str()) {
            return Ok(None);
        }
        return Err(ConnectError::config(format!("{keyword}={} is not possible: {reason}", excerpt(value)))
            .hinting(origin.remedy(keyword)));
    }
    if UNSUPPORTED.contains(&keyword) {
        return Err(ConnectError::config(format!(
            "the connection keyword {keyword} is not supported",
            keyword = quote::name(keyword)
        ))
        .hinting(origin.remedy(keyword)));
    }
    Err(ConnectError::config(format!("there is no connection keyword {}", quote::name(&excerpt(keyword))))
        .hinting("the keywords are libpq's: host, port, user, dbname, sslmode, sslrootcert, …"))
}

/// The keywords that a connection string may name, for suggestions after a misspelled keyword.
pub fn connection_keywords() -> impl Iterator<Item = &'static str> {
    USED.iter().map(|(keyword, _)| *keyword).chain(FIXED.iter().map(|fixed| fixed.0))
}

/// Whether libpq knows the keyword, be it of use here or not.
pub fn is_connection_keyword(keyword: &str) -> bool {
    keyword == "password"
        || connection_keywords().any(|known| known == keyword)
        || UNSUPPORTED.contains(&keyword)
}

/// The variables that libpq reads, with their keywords.
pub(crate) fn variables() -> impl Iterator<Item = (String, &'static str)> {
    let used = USED.iter().filter_map(|(keyword, variable)| Some(((*variable)?.to_owned(), *keyword)));
    let fixed = FIXED.iter().filter(|fixed| fixed.3);
    used.chain(fixed.map(|fixed| (format!("PG{}", fixed.0.to_ascii_uppercase().replace('_', "")), fixed.0)))
}

/// The beginning of the user's input, for an error message.
pub(crate) fn excerpt(text: &str) -> String {
    const CHARACTERS: usize = 60;
    let mut excerpt: String = text.chars().filter(|c| !c.is_control()).take(CHARACTERS).collect();
    if text.chars().count() > CHARACTERS {
        excerpt.push('…');
    }
    excerpt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_keyword_is_used_fixed_or_refused() {
        assert_eq!(check("host", "x", &Origin::Positional).unwrap(), Some(HOST));
        assert_eq!(check("channel_binding", "prefer", &Origin::Positional).unwrap(), None);
        assert_eq!(check("client_encoding", "UTF8", &Origin::Positional).unwrap(), None);
        for (keyword, value, says) in [
            ("hots", "x", "there is no connection keyword \"hots\""),
            ("Host", "x", "there is no connection keyword \"Host\""),
            ("sslcert", "x", "the connection keyword \"sslcert\" is not supported"),
            ("channel_binding", "require", "channel_binding=require is not possible"),
            ("require_auth", "scram-sha-256", "require_auth=scram-sha-256 is not possible"),
            ("password", "hunter2", "a password is given"),
        ] {
            let error = check(keyword, value, &Origin::Positional).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
            assert!(error.hint().is_some() && !format!("{error:?}").contains("hunter2"));
            assert_eq!(
                is_connection_keyword(keyword),
                !error.to_string().starts_with("there is no"),
                "{keyword}"
            );
        }
    }

    #[test]
    fn variables_are_spelled_as_libpq_spells_them() {
        let variables: Vec<_> = variables().collect();
        for (variable, keyword) in [
            ("PGHOST", "host"),
            ("PGDATABASE", "dbname"),
            ("PGAPPNAME", "application_name"),
            ("PGCHANNELBINDING", "channel_binding"),
            ("PGTARGETSESSIONATTRS", "target_session_attrs"),
            ("PGLOADBALANCEHOSTS", "load_balance_hosts"),
            ("PGSSLMINPROTOCOLVERSION", "ssl_min_protocol_version"),
            ("PGREQUIREAUTH", "require_auth"),
        ] {
            assert!(variables.contains(&(variable.to_owned(), keyword)), "{variable}");
        }
        assert!(!variables.iter().any(|(variable, _)| variable == "PGPASSWORD" || variable == "PGPASSFILE"));
    }
}

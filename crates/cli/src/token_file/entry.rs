//! What is in the file: the token, or lines of libpq's password file.

use pgentra_connect::{Target, quote};
use pgentra_identity::AccessToken;
use zeroize::Zeroizing;

use crate::blame::Blame;
use crate::problem::{Outcome, Problem};

/// The form of the file.
#[derive(Debug)]
pub(super) enum Entry {
    /// The token and nothing else: some programs take a line feed at its end for a part of the
    /// password.
    Token,
    /// A line for each host: `host:port:database:user:` before the token.
    Pgpass(Vec<String>),
}

impl Entry {
    /// Lines of a password file (PostgreSQL documentation, "The Password File") for a target.
    ///
    /// # Errors
    /// A name with a line feed, which libpq cannot find in a file of lines.
    pub(super) fn pgpass(target: &Target) -> Outcome<Self> {
        let names = [target.database(), target.user()];
        if let Some(name) = names.into_iter().find(|name| name.contains(['\n', '\r'])) {
            let message = format!("{} has a line break, and a password file has lines", quote::name(name));
            return Err(
                Problem::new(Blame::Usage, message).hint("leave --pgpass out: the file is then the token")
            );
        }
        let line = |host: &str, port: u16| {
            let fields = [host, &port.to_string(), target.database(), target.user()].map(escaped);
            format!("{}:", fields.join(":"))
        };
        Ok(Self::Pgpass(target.endpoints().iter().map(|one| line(&one.host, one.port)).collect()))
    }

    /// The content of the file.
    pub(super) fn text(&self, token: &AccessToken) -> Zeroizing<String> {
        match self {
            Self::Token => Zeroizing::new(token.expose_secret().to_owned()),
            Self::Pgpass(lines) => {
                let password = Zeroizing::new(with_backslashes(token.expose_secret()));
                let length = lines.iter().map(|line| line.len() + password.len() + 1).sum();
                let mut text = Zeroizing::new(String::with_capacity(length));
                for line in lines {
                    text.push_str(line);
                    text.push_str(&password);
                    text.push('\n');
                }
                text
            }
        }
    }
}

/// A field that libpq compares: `*` alone means any value, and a line that begins with `#` is a
/// comment.
fn escaped(field: &str) -> String {
    match field {
        "*" => "\\*".to_owned(),
        _ if field.starts_with('#') => format!("\\{}", with_backslashes(field)),
        _ => with_backslashes(field),
    }
}

fn with_backslashes(text: &str) -> String {
    // Its final length, so that no copy of a token stays in freed memory.
    let count = text.bytes().filter(|byte| matches!(byte, b':' | b'\\')).count();
    let mut escaped = String::with_capacity(text.len() + count);
    for char in text.chars() {
        if matches!(char, ':' | '\\') {
            escaped.push('\\');
        }
        escaped.push(char);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use pgentra_connect::Layers;
    use pgentra_system::{Env, Files};

    use super::*;

    fn lines(conninfo: &str) -> Outcome<Vec<String>> {
        let env = Env::from_map(Vec::<(String, String)>::new());
        let layers = Layers::gather(Some(conninfo), &[], &env, &Files::in_memory()).unwrap();
        let Entry::Pgpass(lines) = Entry::pgpass(&Target::resolve(&layers).unwrap())? else { panic!() };
        Ok(lines)
    }

    #[test]
    fn a_line_has_the_fields_that_libpq_compares() {
        for (conninfo, expected) in [
            ("host=db.example user=app dbname=shop", &["db.example:5432:shop:app:"][..]),
            ("host=a,b port=1,2 user=app", &["a:1:app:app:", "b:2:app:app:"]),
            ("host=db user='a:b\\\\c' dbname=*", &["db:5432:\\*:a\\:b\\\\c:"]),
            ("host=db user='#app' dbname='#'", &["db:5432:\\#:\\#app:"]),
            ("host=db user=*app dbname=app*", &["db:5432:app*:*app:"]),
        ] {
            assert_eq!(lines(conninfo).unwrap(), expected, "{conninfo}");
        }
        assert!(lines("host=db user='a\nb'").unwrap_err().error_text().contains("line break"));
    }

    #[test]
    fn a_token_with_colons_is_one_field() {
        assert_eq!(with_backslashes("db:5432/?X=a\\b"), "db\\:5432/?X=a\\\\b");
    }
}

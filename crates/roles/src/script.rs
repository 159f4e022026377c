//! Statements as a script for psql.

use pgentra_connect::quote;

use super::error::RolesError;

/// A script for psql: the only place that writes a command of psql's own.
///
/// psql reads a script by lines and by characters: a name with a line feed ends a command of psql's, a backslash outside of
/// quotes begins one, and what looks like a connection string after `\connect` is one. So a database is named as pg_dump
/// names it, and a statement with a character that does not show is refused.
#[derive(Debug)]
pub(crate) struct Script(String);

/// Quotes and backslashes mean the same in every part of the script, whatever the client encoding of the psql that runs it.
const ENCODING: &str = "\\encoding UTF8\n";

impl Script {
    /// A script that ends at the first error.
    pub(crate) fn new() -> Self {
        Self(format!("\\set ON_ERROR_STOP on\n{ENCODING}"))
    }

    /// Goes on in another database of the same server, as the same role.
    pub(crate) fn connect(&mut self, database: &str) -> Result<(), RolesError> {
        self.check(database)?;
        let conninfo = format!("dbname={}", quote::conninfo_value(database));
        self.0.push_str(&format!("\\connect -reuse-previous=on {}\n", quote::identifier(&conninfo)));
        self.0.push_str(ENCODING);
        Ok(())
    }

    /// Adds a statement. Fails on text that psql would interpret as a command or variable.
    pub(crate) fn statement(&mut self, sql: &str) -> Result<(), RolesError> {
        self.check(sql)?;
        if leaves_quotes(sql) {
            return Err(RolesError::NotForScript { text: quote::line(sql) });
        }
        self.0.push_str(sql);
        self.0.push_str(";\n");
        Ok(())
    }

    pub(crate) fn into_text(self) -> String {
        self.0
    }

    fn check(&self, text: &str) -> Result<(), RolesError> {
        match text.chars().any(quote::is_hidden) {
            true => Err(RolesError::NotForScript { text: quote::line(text) }),
            false => Ok(()),
        }
    }
}

/// Whether a statement has a character outside of quotes that begins something else: a command of psql's, a variable of
/// psql's, another statement, or a quoted text that does not end. The arguments of a function are the server's own text.
fn leaves_quotes(sql: &str) -> bool {
    let mut chars = sql.chars().peekable();
    let mut before = ' ';
    while let Some(char) = chars.next() {
        match char {
            '"' | '\'' => {
                let has_escapes = char == '\'' && matches!(before, 'E' | 'e');
                if !skip(&mut chars, char, has_escapes) {
                    return true;
                }
            }
            '\\' | ';' | ':' | '$' | '`' => return true,
            '-' if chars.peek() == Some(&'-') => return true,
            '/' if chars.peek() == Some(&'*') => return true,
            _ => {}
        }
        before = char;
    }
    false
}

/// Goes behind the end of a quoted text; `false` where it does not end. A doubled quote is the end of one text and the
/// beginning of the next, which comes to the same.
fn skip(chars: &mut impl Iterator<Item = char>, end: char, has_escapes: bool) -> bool {
    while let Some(char) = chars.next() {
        if char == '\\' && has_escapes {
            chars.next();
        } else if char == end {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(databases: &[&str], statements: &[&str]) -> Result<String, RolesError> {
        let mut script = Script::new();
        for database in databases {
            script.connect(database)?;
        }
        for statement in statements {
            script.statement(statement)?;
        }
        Ok(script.into_text())
    }

    #[test]
    fn a_database_is_named_as_pg_dump_names_it() {
        let text = script(&["host=127.0.0.1 port=1", "a\"b'c\\d"], &["SELECT 1"]).unwrap();
        assert_eq!(
            text,
            "\\set ON_ERROR_STOP on\n\\encoding UTF8\n\
             \\connect -reuse-previous=on \"dbname='host=127.0.0.1 port=1'\"\n\\encoding UTF8\n\
             \\connect -reuse-previous=on \"dbname='a\"\"b\\'c\\\\d'\"\n\\encoding UTF8\n\
             SELECT 1;\n"
        );
    }

    #[test]
    fn what_does_not_show_is_refused() {
        for hidden in ["\n", "\r", "\u{1b}", "\u{7f}", "\u{85}", "\u{202e}", "\0", "\t"] {
            let name = format!("a{hidden}\\! touch PWNED #");
            let error = script(&[&name], &[]).unwrap_err();
            assert!(error.hint().unwrap().contains("--print-sql"), "{error}");
            assert!(!error.to_string().chars().any(quote::is_hidden), "{error:?}");
            script(&[], &[&format!("DROP ROLE {}", quote::identifier(&name))]).unwrap_err();
        }
    }

    #[test]
    fn only_what_is_in_quotes_may_mean_something_else() {
        for fine in [
            "DROP ROLE \"a\\! touch PWNED ; :x $$ -- /* `\"",
            "DROP ROLE \"a\"\"b\\!\"",
            "SELECT f('it''s \\! ; :x')",
            "SELECT f(E'it\\'s \\\\! ; ''')",
            "GRANT EXECUTE ON FUNCTION \"f\"(\"a\\b\" integer, c numeric[]) TO \"r\"",
        ] {
            script(&[], &[fine]).unwrap();
        }
        for wrong in [
            "GRANT EXECUTE ON FUNCTION \"f\"(integer) \\! touch PWNED",
            "GRANT EXECUTE ON FUNCTION \"f\"(a :x)",
            "SELECT 1; SELECT 2",
            "SELECT $$ $$",
            "SELECT 1 -- x",
            "SELECT 'open",
            "SELECT E'open\\'",
            "DROP ROLE \"open",
        ] {
            script(&[], &[wrong]).unwrap_err();
        }
    }
}

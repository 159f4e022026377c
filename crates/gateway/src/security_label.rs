//! Carries out `SECURITY LABEL FOR pgaadauth ON ROLE …`.
//!
//! On Flexible Server an extension provides these labels. Another PostgreSQL refuses the name of the
//! provider. So the gateway sends a CALL of the procedure that maps the role instead
//! (Microsoft, "Manage Microsoft Entra users in Azure Database for PostgreSQL").

use std::ops::Range;

use super::lexer::{Lexeme, Lexer};

/// What Flexible Server maps roles by, and what it makes of them.
const PROVIDERS: [&[u8]; 2] = [b"pgaadauth", b"pgaadauth-int"];

/// The statements with a CALL for each label of a role; `None` if there is none.
pub(crate) fn call(sql: &[u8]) -> Option<Vec<u8>> {
    // Most statements do not name the provider, and this check is cheap.
    let name = PROVIDERS[0];
    if !sql.windows(name.len()).any(|window| window.eq_ignore_ascii_case(name)) {
        return None;
    }
    let tokens: Vec<Lexeme> = Lexer::new(sql).collect();
    let (mut out, mut copied) = (Vec::new(), 0);
    for statement in tokens.split(|token| *token == Lexeme::Semicolon) {
        let Some((call, place)) = replaced(sql, statement) else { continue };
        out.extend_from_slice(&sql[copied..place.start]);
        out.extend_from_slice(&call);
        copied = place.end;
    }
    if copied == 0 {
        return None;
    }
    out.extend_from_slice(&sql[copied..]);
    Some(out)
}

/// The CALL for a statement, and the place of the statement.
fn replaced(sql: &[u8], statement: &[Lexeme]) -> Option<(Vec<u8>, Range<usize>)> {
    let [security, label, for_, provider, on, role, name, is, text] = statement else { return None };
    let is_word = |token: &Lexeme, word: &str| matches!(token, Lexeme::Word(at) if sql[at.clone()].eq_ignore_ascii_case(word.as_bytes()));
    let words =
        [(security, "SECURITY"), (label, "LABEL"), (for_, "FOR"), (on, "ON"), (role, "ROLE"), (is, "IS")];
    if !words.into_iter().all(|(token, word)| is_word(token, word)) {
        return None;
    }
    let provider = match provider {
        Lexeme::Other(b'\'', at) => unquoted(&sql[at.clone()], b'\'')?,
        provider => identifier(sql, provider)?,
    };
    if !PROVIDERS.contains(&&*provider) {
        return None;
    }
    let role = identifier(sql, name)?;
    let text = match text {
        Lexeme::Word(at) if is_word(text, "NULL") => at,
        Lexeme::Other(b'\'' | b'e' | b'E', at) => at,
        // Not a parameter, `$1`.
        Lexeme::Other(b'$', at) if sql[at.clone()].ends_with(b"$") && at.len() >= 4 => at,
        _ => return None,
    };
    let Lexeme::Word(first) = security else { return None };
    let mut call = b"CALL pg_catalog.pgentra_security_label(".to_vec();
    for name in [provider, role] {
        put_literal(&name, &mut call);
        call.extend_from_slice(b", ");
    }
    call.extend_from_slice(&sql[text.clone()]);
    call.push(b')');
    Some((call, first.start..text.end))
}

/// The name that an identifier means.
fn identifier(sql: &[u8], token: &Lexeme) -> Option<Vec<u8>> {
    match token {
        Lexeme::Word(at) => Some(sql[at.clone()].to_ascii_lowercase()),
        Lexeme::Other(b'"', at) => unquoted(&sql[at.clone()], b'"'),
        _ => None,
    }
}

/// The text between two quotes, where a doubled one stands for itself.
fn unquoted(text: &[u8], quote: u8) -> Option<Vec<u8>> {
    let inner = text.strip_prefix(&[quote])?.strip_suffix(&[quote])?;
    let mut out = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(byte) = bytes.next() {
        out.push(*byte);
        if *byte == quote && bytes.next() != Some(&quote) {
            return None;
        }
    }
    (!out.is_empty()).then_some(out)
}

/// A string constant, whatever `standard_conforming_strings` says.
fn put_literal(text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(if text.contains(&b'\\') { b"E'" } else { b"'" });
    for byte in text {
        if matches!(byte, b'\'' | b'\\') {
            out.push(*byte);
        }
        out.push(*byte);
    }
    out.push(b'\'');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(sql: &str) -> Option<String> {
        call(sql.as_bytes()).map(|sql| String::from_utf8(sql).unwrap())
    }

    #[test]
    fn labels_of_roles_become_calls() {
        let procedure = "CALL pg_catalog.pgentra_security_label";
        for (sql, expected) in [
            (
                "SECURITY LABEL for \"pgaadauth\" on role \"my role\" is 'aadauth,oid=1'",
                format!("{procedure}('pgaadauth', 'my role', 'aadauth,oid=1')"),
            ),
            (
                "security label for PgAadAuth on role MyRole is NULL;",
                format!("{procedure}('pgaadauth', 'myrole', NULL);"),
            ),
            (
                "SECURITY LABEL FOR 'pgaadauth-int' ON ROLE a IS $x$y$x$",
                format!("{procedure}('pgaadauth-int', 'a', $x$y$x$)"),
            ),
            (
                r#"CREATE ROLE x; /* ; */ SECURITY LABEL FOR pgaadauth ON ROLE "a""b'c\d" IS E'\'' ; SELECT 1"#,
                format!(r#"CREATE ROLE x; /* ; */ {procedure}('pgaadauth', E'a"b''c\\d', E'\'') ; SELECT 1"#),
            ),
            (
                "SECURITY LABEL FOR pgaadauth ON ROLE a IS 'x'; SECURITY LABEL FOR pgaadauth ON ROLE b IS 'y'",
                format!("{procedure}('pgaadauth', 'a', 'x'); {procedure}('pgaadauth', 'b', 'y')"),
            ),
        ] {
            assert_eq!(called(sql), Some(expected), "{sql}");
        }
    }

    #[test]
    fn other_statements_stay() {
        for sql in [
            "SECURITY LABEL FOR pgaadauth ON TABLE a IS 'x'",
            "SECURITY LABEL FOR selinux ON ROLE pgaadauth IS 'x'",
            "SECURITY LABEL ON ROLE pgaadauth IS 'x'",
            "SECURITY LABEL FOR pgaadauth ON ROLE a IS $1",
            "SECURITY LABEL FOR pgaadauth ON ROLE a IS U&'x'",
            "SECURITY LABEL FOR pgaadauth ON ROLE a IS 'x' 'y'",
            "SECURITY LABEL FOR pgaadauth ON ROLE \"a IS 'x'",
            "SECURITY LABEL FOR pgaadauth ON ROLE \"\" IS 'x'",
            "SELECT 'SECURITY LABEL FOR pgaadauth ON ROLE a IS NULL'",
            "SELECT $$; SECURITY LABEL FOR pgaadauth ON ROLE a IS NULL;$$",
            "DO $$ BEGIN SECURITY LABEL FOR pgaadauth ON ROLE a IS NULL; END $$",
            "SELECT 1",
        ] {
            assert_eq!(called(sql), None, "{sql}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_name_stays_the_name(name in "[^\u{0}]{1,30}") {
            let sql = format!("SECURITY LABEL FOR pgaadauth ON ROLE \"{}\" IS NULL", name.replace('"', "\"\""));
            let quoted = name.replace('\\', "\\\\").replace('\'', "''");
            let prefix = if name.contains('\\') { "E" } else { "" };
            let expected = format!("CALL pg_catalog.pgentra_security_label('pgaadauth', {prefix}'{quoted}', NULL)");
            proptest::prop_assert_eq!(called(&sql), Some(expected));
        }

        #[test]
        fn any_text_is_taken(sql: Vec<u8>) {
            let _ = call(&sql);
            let _ = call(&[b"SECURITY LABEL FOR pgaadauth ON ROLE ".as_slice(), &sql, b" IS NULL"].concat());
        }
    }
}

//! Connection strings: `host=… user=…` and `postgresql://…` (PostgreSQL, "Connection Strings").

use std::borrow::Cow;

use crate::error::ConnectError;
use crate::keyword::{self, DBNAME, HOST, PORT, USER};
use crate::quote;

/// Longer strings are a mistake; libpq itself has no limit.
const LENGTH_LIMIT: usize = 16 * 1024;

/// Keywords and values in the order written, unchecked.
pub(crate) type Pairs = Vec<Pair>;
type Pair = (String, String);

/// Whether libpq would take a database name for a connection string instead (`recognized_connection_string`).
pub(crate) fn is_connection_string(text: &str) -> bool {
    is_uri(text) || text.contains('=')
}

/// Reads either form. Neither an error nor its hint repeats the string, which may hold a password.
pub(crate) fn parse(text: &str) -> Result<Pairs, ConnectError> {
    if text.len() > LENGTH_LIMIT {
        return Err(ConnectError::config(format!(
            "the connection string is longer than {LENGTH_LIMIT} bytes"
        ))
        .hinting("put what it holds into a service file, and name that with service=NAME"));
    }
    if text.contains('\0') {
        return Err(malformed("it contains a NUL character"));
    }
    if is_uri(text) {
        return parse_uri(text);
    }
    Ok(parse_conninfo(text)?.into_iter().map(|(_, pair)| pair).collect())
}

/// Takes settings of the caller's own out of a connection string: what is left is for [`Layers`](crate::Layers). They stand among
/// a URI's parameters or a string's keywords, and are returned decoded, in the order written. A database name, which is no
/// connection string, holds none.
///
/// # Errors
/// A string that cannot be read; the error does not repeat it.
pub fn split_connection_string(
    text: &str,
    is_own: impl Fn(&str) -> bool,
) -> Result<(String, Vec<(String, String)>), ConnectError> {
    if !is_connection_string(text) {
        return Ok((text.to_owned(), Pairs::new()));
    }
    let own: Pairs = parse(text)?.into_iter().filter(|(keyword, _)| is_own(keyword)).collect();
    if own.is_empty() {
        return Ok((text.to_owned(), own));
    }
    let rest = if is_uri(text) {
        let (start, query) = text.split_once('?').unwrap_or((text, ""));
        // A parameter that cannot be decoded was an error above.
        let is_others = |pair: &&str| {
            pair.split_once('=').is_none_or(|(name, _)| !decode(name).is_ok_and(|name| is_own(&name)))
        };
        let others: Vec<_> = query.split('&').filter(is_others).collect();
        if others.is_empty() { start.to_owned() } else { format!("{start}?{}", others.join("&")) }
    } else {
        let others = parse_conninfo(text)?.into_iter().filter(|(_, (keyword, _))| !is_own(keyword));
        let rest = others.map(|(written, _)| written).collect::<Vec<_>>().join(" ");
        // A keyword that is now the first may look like a URI; after a blank it is not parsed as a URI.
        if is_uri(&rest) { format!(" {rest}") } else { rest }
    };
    Ok((rest, own))
}

fn is_uri(text: &str) -> bool {
    text.starts_with("postgresql://") || text.starts_with("postgres://")
}

/// `keyword = value`, blanks around `=` allowed, values with blanks in single quotes, `\` escapes one character: each as it is
/// written, and what it says.
fn parse_conninfo(text: &str) -> Result<Vec<(&str, Pair)>, ConnectError> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = rest.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let Some(after) = after.trim_start().strip_prefix('=') else {
            let name = keyword::excerpt(name);
            return Err(malformed(format!(
                "the keyword {name} has no = behind it",
                name = quote::name(&name)
            )));
        };
        if name.is_empty() {
            return Err(malformed("a = has no keyword in front of it"));
        }
        let (value, after) = conninfo_value(after.trim_start(), name)?;
        let written = &rest[..rest.len() - after.len()];
        pairs.push((written, (name.to_owned(), value)));
        rest = after.trim_start();
    }
    Ok(pairs)
}

fn conninfo_value<'a>(text: &'a str, keyword: &str) -> Result<(String, &'a str), ConnectError> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut characters = text.char_indices().skip(usize::from(quoted));
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some((_, escaped)) => value.push(escaped),
                None if quoted => break,
                // libpq ignores a single backslash at the end.
                None => return Ok((value, "")),
            },
            '\'' if quoted => return Ok((value, &text[at + 1..])),
            blank if !quoted && blank.is_whitespace() => return Ok((value, &text[at..])),
            other => value.push(other),
        }
    }
    if quoted {
        let keyword = self::keyword::excerpt(keyword);
        return Err(malformed(format!(
            "the quoted value of {keyword} does not end",
            keyword = quote::name(&keyword)
        )));
    }
    Ok((value, ""))
}

/// `scheme://[user[:password]@][host[:port],…][/dbname][?keyword=value&…]`, each part percent-encoded.
fn parse_uri(text: &str) -> Result<Pairs, ConnectError> {
    let (_, rest) = text.split_once("://").unwrap_or(("", text));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let mut pairs = Pairs::new();
    let hosts = match authority.split_once('@') {
        None => authority,
        Some((user, hosts)) => {
            let (user, password) = user.split_once(':').unwrap_or((user, ""));
            push(&mut pairs, USER, user)?;
            push(&mut pairs, "password", password)?;
            hosts
        }
    };
    if hosts.contains('@') {
        return Err(malformed("it has more than one @").hinting("an @ inside the user name is written %40"));
    }
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for host in hosts.split(',') {
        let (name, port) = host_and_port(host)?;
        names.push(decode(name)?);
        ports.push(decode(port)?);
    }
    for (keyword, values) in [(HOST, names), (PORT, ports)] {
        if values.iter().any(|value| !value.is_empty()) {
            pairs.push((keyword.to_owned(), values.join(",")));
        }
    }
    push(&mut pairs, DBNAME, database)?;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let Some((name, value)) = pair.split_once('=') else {
            let name = keyword::excerpt(pair);
            return Err(malformed(format!(
                "the parameter {name} has no = behind it",
                name = quote::name(&name)
            )));
        };
        pairs.push((decode(name)?.into_owned(), decode(value)?.into_owned()));
    }
    Ok(pairs)
}

fn push(pairs: &mut Pairs, keyword: &str, encoded: &str) -> Result<(), ConnectError> {
    if !encoded.is_empty() {
        pairs.push((keyword.to_owned(), decode(encoded)?.into_owned()));
    }
    Ok(())
}

/// `name`, `name:port`, `[v6]`, `[v6]:port`.
fn host_and_port(text: &str) -> Result<(&str, &str), ConnectError> {
    let Some(bracketed) = text.strip_prefix('[') else {
        return Ok(text.split_once(':').unwrap_or((text, "")));
    };
    match bracketed.split_once(']') {
        Some((address, "")) => Ok((address, "")),
        Some((address, after)) if after.starts_with(':') => Ok((address, &after[1..])),
        _ => Err(malformed("an address that begins with [ does not end with ]")),
    }
}

fn decode(text: &str) -> Result<Cow<'_, str>, ConnectError> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text));
    }
    let wrong = || malformed("a % is not followed by two hexadecimal digits");
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => {
                let digit = |digit: Option<u8>| char::from(digit?).to_digit(16);
                let (high, low) = (digit(bytes.next()), digit(bytes.next()));
                let (Some(high), Some(low)) = (high, low) else { return Err(wrong()) };
                u8::try_from(high * 16 + low).map_err(|_| wrong())?
            }
            plain => plain,
        };
        if byte == 0 {
            return Err(malformed("it contains %00"));
        }
        decoded.push(byte);
    }
    String::from_utf8(decoded)
        .map(Cow::Owned)
        .map_err(|_| malformed("its percent-encoded bytes are not UTF-8"))
}

fn malformed(what: impl AsRef<str>) -> ConnectError {
    ConnectError::config(format!("the connection string cannot be read: {}", what.as_ref()))
        .hinting("write: postgresql://USER@HOST:5432/DATABASE or: host=HOST user=USER dbname=DATABASE")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, String> {
        let pairs = parse(text).map_err(|error| error.to_string())?;
        Ok(pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("|"))
    }

    #[test]
    fn keyword_value_strings() {
        for (text, expected) in [
            ("", ""),
            ("  ", ""),
            ("host=a", "host=a"),
            ("host = a  user =b", "host=a|user=b"),
            ("host=a\n\tport=1", "host=a|port=1"),
            ("user='My Group'", "user=My Group"),
            (r"user='it\'s' dbname=a\ b", "user=it's|dbname=a b"),
            (r"user=a\\b", r"user=a\b"),
            ("user='' host=a", "user=|host=a"),
            ("user= host=a", "user=host=a"),
            ("user=myuser@mydemoserver", "user=myuser@mydemoserver"),
            ("a=1 a=2", "a=1|a=2"),
            ("user='ä'", "user=ä"),
            ("user=x'y", "user=x'y"),
            ("user=x\\", "user=x"),
            ("user='a'host=b", "user=a|host=b"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn uris() {
        for (text, expected) in [
            ("postgresql://", ""),
            ("postgres://h", "host=h"),
            ("postgresql://u@h:5433/d", "user=u|host=h|port=5433|dbname=d"),
            ("postgresql://u:p@h/d", "user=u|password=p|host=h|dbname=d"),
            ("postgresql://u%40server@h/d%2Fe", "user=u@server|host=h|dbname=d/e"),
            ("postgresql://h/?sslmode=verify-full&user=a%20b", "host=h|sslmode=verify-full|user=a b"),
            ("postgresql://h?user=u", "host=h|user=u"),
            ("postgresql://[::1]:5433/d", "host=::1|port=5433|dbname=d"),
            ("postgresql://[::1]", "host=::1"),
            ("postgresql://a:1,b:2,[::1]/d", "host=a,b,::1|port=1,2,|dbname=d"),
            ("postgresql://a,b/d", "host=a,b|dbname=d"),
            ("postgresql:///d?host=h", "dbname=d|host=h"),
            ("postgresql://user@/d", "user=user|dbname=d"),
            ("postgresql://u@h/d?", "user=u|host=h|dbname=d"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn settings_of_the_callers_own_are_taken_out() {
        let split = |text| {
            let (rest, own) = split_connection_string(text, |keyword| keyword.starts_with("my_")).unwrap();
            let own: Vec<_> = own.iter().map(|(keyword, value)| format!("{keyword}={value}")).collect();
            (rest, own.join("|"))
        };
        for (text, rest, own) in [
            ("mydb", "mydb", ""),
            ("postgresql://u@h/d?a=%20", "postgresql://u@h/d?a=%20", ""),
            ("postgresql://u@h/d?my_a=%20b", "postgresql://u@h/d", "my_a= b"),
            (
                "postgresql://h?my%5Fa=1&sslmode=verify-full&my_b=2&my_b=3",
                "postgresql://h?sslmode=verify-full",
                "my_a=1|my_b=2|my_b=3",
            ),
            ("host=h my_a = '1 2' user=u", "host=h user=u", "my_a=1 2"),
            ("host='a'my_a=1 user = u\\", "host='a' user = u\\", "my_a=1"),
            // A string of keywords stays one.
            ("my_a=1 postgresql://=h", " postgresql://=h", "my_a=1"),
            (r"my_a=1 user='it\'s \\'", r"user='it\'s \\'", "my_a=1"),
            ("my_a=1", "", "my_a=1"),
            // Text within a value is not a parameter.
            ("host=h options='x?my_a=1'", "host=h options='x?my_a=1'", ""),
        ] {
            assert_eq!(split(text), (rest.to_owned(), own.to_owned()), "{text}");
        }
        // The rest is never longer than the limit of the input.
        let longest = format!("my_a=1 user=a{}", "'".repeat(LENGTH_LIMIT - 13));
        assert_eq!(longest.len(), LENGTH_LIMIT);
        assert!(parse(&split(&longest).0).is_ok());
        assert!(split_connection_string("postgresql://h?my_a=%zz", |_| true).is_err());
    }

    proptest::proptest! {
        #[test]
        fn what_is_left_means_the_same(values in proptest::collection::vec(".{0,9}", 1..4)) {
            let values: Vec<_> = values.iter().map(|value| value.replace('\0', "")).collect();
            let quoted = |value: &String| value.replace('\\', r"\\").replace('\'', r"\'");
            let text: Vec<_> = values.iter().map(|value| format!("a='{}' my_b=1", quoted(value))).collect();
            let (rest, own) = split_connection_string(&text.join(" "), |keyword| keyword == "my_b").unwrap();
            let left: Vec<_> = parse(&rest).unwrap().into_iter().map(|(_, value)| value).collect();
            proptest::prop_assert_eq!(left, values.clone());
            proptest::prop_assert_eq!(own.len(), values.len());
        }
    }

    #[test]
    fn rubbish_is_named_and_not_repeated() {
        for (text, says) in [
            ("host", "the keyword \"host\" has no ="),
            ("host=a user", "the keyword \"user\" has no ="),
            ("= a", "a = has no keyword"),
            ("user='hunter2", "the quoted value of \"user\" does not end"),
            (r"user='hunter2\", "the quoted value of \"user\" does not end"),
            ("postgresql://u@s@h/d", "more than one @"),
            ("postgresql://[::1/d", "does not end with ]"),
            ("postgresql://[::1]x/d", "does not end with ]"),
            ("postgresql://hunter2%4@h", "two hexadecimal digits"),
            ("postgresql://%zz@h", "two hexadecimal digits"),
            ("postgresql://%+1@h", "two hexadecimal digits"),
            ("postgresql://%00@h", "%00"),
            ("postgresql://%ff@h", "not UTF-8"),
            ("postgresql://h?user", "the parameter \"user\" has no ="),
            ("user=a\0b", "NUL"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.to_string().contains(says), "{text}: {error}");
            assert!(error.hint().is_some() && !format!("{error:?}").contains("hunter2"), "{error:?}");
        }
        assert!(parse(&format!("user={}", "x".repeat(LENGTH_LIMIT))).is_err());
    }

    #[test]
    fn a_database_name_is_no_connection_string() {
        for (text, is) in [
            ("mydb", false),
            ("postgres://h", true),
            ("postgresql://", true),
            ("host=h", true),
            ("http://x", false),
        ] {
            assert_eq!(is_connection_string(text), is, "{text}");
        }
    }
}

//! Masks names and ids in a report for other readers; each value always gets the same mask.

use std::collections::HashMap;

use pgentra_connect::quote;

use super::report::Report;

/// Shorter names (in bytes) are not masked, because they occur in many words.
const SHORTEST: usize = 2;

/// The values to mask, with their masks.
#[derive(Debug, Default)]
pub(crate) struct Redactor {
    masks: Vec<(String, String)>,
    counts: HashMap<&'static str, usize>,
}

impl Redactor {
    /// Masks a name of this kind (`host`, `role`, …) from now on.
    pub(crate) fn add(&mut self, kind: &'static str, name: &str) {
        let known = self.masks.iter().any(|(known, _)| known == name);
        if name.len() < SHORTEST || known {
            return;
        }
        let mask = self.next(kind);
        for form in forms(name) {
            self.masks.push((form, mask.clone()));
        }
        // Longer names come first, because they may contain shorter ones.
        self.masks.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    }

    /// Masks the names, and everything that looks like a GUID or an IP address.
    pub(crate) fn apply(&mut self, report: &mut Report) {
        for text in report.texts() {
            *text = self.masked(text);
        }
    }

    fn masked(&mut self, text: &str) -> String {
        for id in guids(text) {
            self.add("id", &id);
        }
        for address in addresses(text) {
            self.add("address", &address);
        }
        let mut masked = String::with_capacity(text.len());
        let mut rest = text;
        let mut before = None;
        while let Some(first) = rest.chars().next() {
            let mask = self.masks.iter().find(|(name, _)| {
                rest.starts_with(name.as_str())
                    && !(before.is_some_and(is_word) && name.starts_with(is_word))
                    && !(rest[name.len()..].starts_with(is_word) && name.ends_with(is_word))
            });
            let length = match mask {
                Some((name, mask)) => {
                    masked.push_str(mask);
                    name.len()
                }
                None => {
                    masked.push(first);
                    first.len_utf8()
                }
            };
            before = rest[..length].chars().next_back();
            rest = &rest[length..];
        }
        masked
    }

    fn next(&mut self, kind: &'static str) -> String {
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        format!("[{kind}-{count}]")
    }
}

/// A name unquoted, and in each form of quotes.
fn forms(name: &str) -> Vec<String> {
    let mut forms = vec![name.to_owned(), name.replace('"', "\"\""), name.replace('\'', "''")];
    // A hint truncates a name that is too long for PostgreSQL.
    forms.extend(name.char_indices().nth(quote::NAME_LIMIT).map(|(end, _)| name[..end].to_owned()));
    let shown: Vec<String> = forms.iter().map(|form| quote::line(form)).collect();
    forms.extend(shown);
    let word = quote::shell_word(name);
    let literal = quote::literal(name);
    forms.extend([(word, '$'), (literal, 'E')].map(|(quoted, prefix)| {
        quoted.strip_prefix(prefix).unwrap_or(&quoted).trim_matches('\'').to_owned()
    }));
    forms.retain(|form| form.len() >= SHORTEST);
    forms.sort();
    forms.dedup();
    forms
}

/// Removes a secret from every text, whole or in parts: a server could send it back.
pub(crate) fn strike_out(report: &mut Report, token: &str) {
    // Shorter pieces of a token are words that occur in any text.
    const SECRET_PIECE: usize = 12;
    let pieces: Vec<&str> =
        std::iter::once(token).chain(token.split('.')).filter(|piece| piece.len() >= SECRET_PIECE).collect();
    for text in report.texts() {
        for piece in pieces.iter().filter(|piece| text.contains(**piece)).collect::<Vec<_>>() {
            *text = text.replace(*piece, "[redacted]");
        }
    }
}

/// Hyphens and underscores are part of host and role names.
fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '-' || c == '_'
}

/// Everything of the form 8-4-4-4-12 hexadecimal digits.
fn guids(text: &str) -> Vec<String> {
    let is_part = |c: char| c.is_ascii_hexdigit() || c == '-';
    text.split(|c| !is_part(c))
        .filter(|word| uuid::Uuid::try_parse(word).is_ok())
        .map(str::to_owned)
        .collect()
}

/// Every IP address, except those that are the same in all of Azure.
fn addresses(text: &str) -> Vec<String> {
    let is_part = |c: char| c.is_ascii_hexdigit() || c == ':' || c == '.';
    text.split(|c| !is_part(c))
        // An address may have a port or a full stop after it.
        .flat_map(|word| {
            [word, word.trim_end_matches(['.', ':']), word.rsplit_once(':').map_or(word, |(host, _)| host)]
        })
        .filter(|word| word.parse::<std::net::IpAddr>().is_ok() && !OF_ALL.contains(word))
        .map(str::to_owned)
        .collect()
}

/// The metadata service and Azure's resolver.
const OF_ALL: [&str; 2] = ["169.254.169.254", "168.63.129.16"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Check;

    fn masked(text: &str, names: &[(&'static str, &str)]) -> String {
        let mut report = Report::new(Check::SIGN_IN);
        report.pass(Check::Connection, text);
        let mut redactor = Redactor::default();
        for (kind, name) in names {
            redactor.add(kind, name);
        }
        redactor.apply(&mut report);
        report.lines[0].summary.clone()
    }

    #[test]
    fn the_same_name_has_the_same_mask() {
        let names =
            [("host", "db.example"), ("host", "other.db.example"), ("role", "app"), ("role", "my-app")];
        for (text, expected) in [
            ("\"app\" on db.example:5432", "\"[role-1]\" on [host-1]:5432"),
            ("other.db.example, db.example, db.example", "[host-2], [host-1], [host-1]"),
            ("application my-app app-2 app", "application [role-2] app-2 [role-1]"),
            ("Zoë's app: é", "Zoë's [role-1]: é"),
            (
                "oid aaaaaaaa-0000-4000-8000-000000000001, then bbbbbbbb-0000-4000-8000-000000000001, aaaaaaaa-0000-4000-8000-000000000001",
                "oid [id-1], then [id-2], [id-1]",
            ),
            (
                "10.0.0.4:5432, [fd00::4]:5432; 10.0.0.4. At 15:04:59: 17.5 (SQLSTATE 28000) at 169.254.169.254",
                "[address-1]:5432, [[address-2]]:5432; [address-1]. At 15:04:59: 17.5 (SQLSTATE 28000) at 169.254.169.254",
            ),
            ("", ""),
        ] {
            assert_eq!(masked(text, &names), expected);
        }
    }

    #[test]
    fn a_name_is_masked_in_quotes_of_every_kind() {
        let name = "a\"b'c\\d\n";
        for text in [
            name.to_owned(),
            quote::name(name),
            quote::identifier(name),
            quote::literal(name),
            quote::shell_word(name),
        ] {
            let masked = masked(&text, &[("role", name)]);
            assert!(
                masked.contains("[role-1]") && !masked.contains('b') && !masked.contains('c'),
                "{masked}"
            );
        }
        let long = "x".repeat(100);
        assert_eq!(masked(&long[..63], &[("role", &long)]), "[role-1]");
    }

    #[test]
    fn nothing_of_a_token_is_left() {
        let token = "eyJhbGciOiJSUzI1NiJ9.eyJvaWQiOiJhYmMifQ.c2lnbmF0dXJlc2lnbmF0dXJl";
        let mut report = Report::new(Check::SIGN_IN);
        report.pass(Check::Query, format!("version: {token} eyJvaWQiOiJhYmMifQ"));
        strike_out(&mut report, token);
        let line = report.lines.iter().find(|line| line.check == Check::Query).unwrap();
        assert_eq!(line.summary, "version: [redacted] [redacted]");
    }
}

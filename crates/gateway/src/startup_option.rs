//! What a client says to the gateway in the start-up parameter `options`.

use pgentra_wire::WireError;
use pgentra_wire::startup::StartupMessage;

/// A start-up without the gateway's own setting, and the setting's value.
///
/// `options` is a list of command-line arguments of the server (PostgreSQL: `pg_split_opts` in `postinit.c`): separated by
/// white space, where a backslash takes the next character as it is. A setting is `-c name=value`, `-cname=value` or
/// `--name=value`, and the last one counts. Its name is compared as PostgreSQL does: without case, and with `-` for `_`.
pub(crate) fn take(
    start: StartupMessage,
    name: &str,
) -> Result<(StartupMessage, Option<Vec<u8>>), WireError> {
    let Some(options) = start.get("options") else { return Ok((start, None)) };
    let mut left = Vec::with_capacity(options.len());
    let (mut value, mut at) = (None, 0);
    while let Some(argument) = Argument::next(options, at) {
        let (setting, end) = match argument.text.strip_prefix(b"--") {
            Some(setting) => (setting.to_vec(), argument.end),
            None => match argument.text.strip_prefix(b"-c") {
                Some([]) => match Argument::next(options, argument.end) {
                    Some(next) => (next.text, next.end),
                    None => (Vec::new(), argument.end),
                },
                Some(setting) => (setting.to_vec(), argument.end),
                None => (Vec::new(), argument.end),
            },
        };
        at = end;
        match value_of(&setting, name) {
            Some(found) => value = Some(found.to_vec()),
            None => {
                // As it was written: with its backslashes, and apart from its neighbour.
                if !left.is_empty() {
                    left.push(b' ');
                }
                left.extend_from_slice(&options[argument.start..end]);
            }
        }
    }
    if value.is_none() {
        return Ok((start, None));
    }
    let start = match left.is_empty() {
        true => start.without(|name| name == b"options"),
        false => start.with("options", &left)?,
    };
    Ok((start, value))
}

/// One word of `options`.
struct Argument {
    /// Without its backslashes.
    text: Vec<u8>,
    start: usize,
    end: usize,
}

impl Argument {
    /// The first word at or behind `from`.
    fn next(options: &[u8], from: usize) -> Option<Argument> {
        // `isspace` of C, which PostgreSQL uses.
        let is_space = |byte: u8| matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r');
        let start = from + options.get(from..)?.iter().position(|byte| !is_space(*byte))?;
        let (mut text, mut end) = (Vec::new(), start);
        while let Some(byte) = options.get(end).copied().filter(|byte| !is_space(*byte)) {
            end += 1;
            match options.get(end) {
                Some(escaped) if byte == b'\\' => {
                    text.push(*escaped);
                    end += 1;
                }
                // A backslash at the end stands for nothing.
                None if byte == b'\\' => {}
                _ => text.push(byte),
            }
        }
        Some(Argument { text, start, end })
    }
}

/// The value in `name=value`.
fn value_of<'a>(setting: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let at = setting.iter().position(|byte| *byte == b'=')?;
    let same = |(written, wanted): (&u8, &u8)| {
        let written = if *written == b'-' { b'_' } else { *written };
        written.eq_ignore_ascii_case(wanted)
    };
    let is_it = at == name.len() && setting[..at].iter().zip(name.as_bytes()).all(same);
    is_it.then(|| &setting[at + 1..])
}

#[cfg(test)]
mod tests {
    use pgentra_wire::startup::ProtocolVersion;

    use super::*;

    const NAME: &str = "pgentra.auth";

    fn taken(options: &str) -> (Option<String>, Option<String>) {
        let start = StartupMessage::new(ProtocolVersion::V3_0, "me").unwrap();
        let start = start.with("options", options).unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let (start, value) = take(start, NAME).unwrap();
        assert_eq!(start.user(), b"me");
        (start.get("options").map(text), value.as_deref().map(text))
    }

    #[test]
    fn the_setting_is_taken_and_the_rest_stays() {
        for (options, left, value) in [
            ("-c pgentra.auth=oauth", None, Some("oauth")),
            ("-cpgentra.auth=oauth", None, Some("oauth")),
            ("--pgentra.auth=oauth", None, Some("oauth")),
            ("--PGENTRA.Auth=oauth", None, Some("oauth")),
            ("  -c\tpgentra.auth=oauth  ", None, Some("oauth")),
            ("-c pgentra.auth=password -c pgentra.auth=oauth", None, Some("oauth")),
            ("-c pgentra.auth=", None, Some("")),
            ("-c pgentra.auth=o\\ auth", None, Some("o auth")),
            (
                "-c work_mem=1MB -c pgentra.auth=oauth -c a.b=1\\ 2",
                Some("-c work_mem=1MB -c a.b=1\\ 2"),
                Some("oauth"),
            ),
            ("-c work_mem=1MB", Some("-c work_mem=1MB"), None),
            ("-c pgentra.auths=oauth", Some("-c pgentra.auths=oauth"), None),
            ("-c pgentra.aut=oauth", Some("-c pgentra.aut=oauth"), None),
            ("-c pgentra.auth", Some("-c pgentra.auth"), None),
            ("-c", Some("-c"), None),
            ("pgentra.auth=oauth", Some("pgentra.auth=oauth"), None),
            ("\\-c pgentra.auth=oauth", None, Some("oauth")),
            ("-c -cpgentra.auth=oauth", Some("-c -cpgentra.auth=oauth"), None),
            ("-c x=\\", Some("-c x=\\"), None),
            ("-c a.b='-c pgentra.auth=oauth'", Some("-c a.b='-c pgentra.auth=oauth'"), None),
        ] {
            let (rest, found) = taken(options);
            assert_eq!((rest.as_deref(), found.as_deref()), (left, value), "{options:?}");
        }
    }

    #[test]
    fn a_start_up_without_options_stays() {
        let start = StartupMessage::new(ProtocolVersion::V3_0, "me").unwrap();
        assert_eq!(take(start.clone(), NAME).unwrap(), (start, None));
    }
}

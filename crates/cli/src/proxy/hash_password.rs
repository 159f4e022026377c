//! `pgentra proxy hash-password`.

use std::io::{BufRead, IsTerminal, Read as _};

use pgentra_proxy::Users;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::blame::Blame;
use crate::output;
use crate::platform::SilentTerminal;
use crate::problem::{Outcome, Problem};

/// Longest password in bytes.
const LENGTH: usize = 1024;

/// Prints a role's line for the file of `listen_auth_file`.
pub(crate) fn run(role: &str) -> Outcome {
    let password = if std::io::stdin().is_terminal() {
        let mut terminal = SilentTerminal::begin();
        let mut typed = || terminal.line(LENGTH + 1).map_err(not_read).and_then(password);
        output::say(&format!("Password for {role}: "));
        let password = typed()?;
        output::say("Again: ");
        if typed()?.expose_secret() != password.expose_secret() {
            return Err(
                Problem::new(Blame::Usage, "the two passwords differ").hint("type the same one twice")
            );
        }
        password
    } else {
        line(&mut std::io::stdin().lock())?
    };
    let line = Users::line(role, &password).map_err(|error| {
        let hint = error.hint();
        Problem::new(Blame::Usage, error).hint(hint)
    })?;
    output::exact(&format!("{line}\n"))
}

fn line(input: &mut impl BufRead) -> Outcome<SecretString> {
    let mut text = Zeroizing::new(Vec::with_capacity(LENGTH + 1));
    input.take(LENGTH as u64 + 1).read_until(b'\n', &mut text).map_err(not_read)?;
    password(text)
}

fn not_read(error: std::io::Error) -> Problem {
    Problem::ours("cannot read the password", error)
}

/// The password of a line. A line without its end that is longer than [`LENGTH`] was cut off.
fn password(mut text: Zeroizing<Vec<u8>>) -> Outcome<SecretString> {
    if text.ends_with(b"\n") {
        text.pop();
    } else if text.len() > LENGTH {
        return Err(Problem::new(Blame::Usage, format!("the password is longer than {LENGTH} bytes"))
            .hint("give a shorter one"));
    }
    if text.ends_with(b"\r") {
        text.pop();
    }
    let text = std::str::from_utf8(&text).map_err(|error| {
        Problem::new(Blame::Usage, error)
            .hint("give the password in UTF-8, as a program that connects with it does")
    })?;
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_password() {
        let mut input = &b"correct horse\r\nbattery"[..];
        assert_eq!(line(&mut input).unwrap().expose_secret(), "correct horse");
        assert_eq!(line(&mut input).unwrap().expose_secret(), "battery");
        assert!(line(&mut &b"\xff\n"[..]).is_err());
        let long = [b'x'; LENGTH + 1];
        assert!(line(&mut &long[..]).is_err());
        assert_eq!(line(&mut &long[1..]).unwrap().expose_secret().len(), LENGTH);
    }
}

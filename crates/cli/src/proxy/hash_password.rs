//! `pgentra proxy hash-password`.

use std::io::{BufRead, IsTerminal, Read as _};

use pgentra_proxy::Users;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::blame::Blame;
use crate::output;
use crate::problem::{Outcome, Problem};

/// Longest password in bytes.
const LENGTH: usize = 1024;

/// Prints a role's line for the file of `listen_auth_file`.
pub(crate) fn run(role: &str) -> Outcome {
    let mut stdin = std::io::stdin().lock();
    let password = if stdin.is_terminal() {
        let _silence = Silence::begin();
        output::say(&format!("Password for {role}: "));
        let password = line(&mut stdin)?;
        output::say("Again: ");
        if line(&mut stdin)?.expose_secret() != password.expose_secret() {
            return Err(
                Problem::new(Blame::Usage, "the two passwords differ").hint("type the same one twice")
            );
        }
        password
    } else {
        line(&mut stdin)?
    };
    let line = Users::line(role, &password).map_err(|error| {
        let hint = error.hint();
        Problem::new(Blame::Usage, error).hint(hint)
    })?;
    output::exact(&format!("{line}\n"))
}

fn line(input: &mut impl BufRead) -> Outcome<SecretString> {
    let mut text = Zeroizing::new(Vec::with_capacity(LENGTH + 1));
    input
        .take(LENGTH as u64 + 1)
        .read_until(b'\n', &mut text)
        .map_err(|error| Problem::ours("cannot read the password", error))?;
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

/// Turns the terminal's echo off until it is dropped.
struct Silence(Option<Termios>);

impl Silence {
    fn begin() -> Self {
        let before = tcgetattr(std::io::stdin()).ok();
        if let Some(before) = &before {
            let mut silent = before.clone();
            silent.local_modes.remove(LocalModes::ECHO);
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &silent);
        }
        Self(before)
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, before);
        }
    }
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

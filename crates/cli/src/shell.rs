//! Words of commands that are printed for a person to type.

/// A word for a POSIX shell: as it is where no character of it means anything to the shell, else in single quotes.
pub(crate) fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+,".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_takes_a_word_as_it_is() {
        for text in [
            "plain", "a@b.c", "", "a b", "it's", "$HOME", "`id`", "a;b", "~", "*", "#x", "a\nb", "-x", "a=b",
            "\\",
        ] {
            let shell = std::process::Command::new("sh")
                .args(["-c", &format!("printf %s. {}", word(text))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(shell.stdout).unwrap(), format!("{text}."));
        }
        assert_eq!(word("my-server.postgres.database.azure.com"), "my-server.postgres.database.azure.com");
    }
}

/// A word as a POSIX shell reads it back: in single quotes where it needs them.
pub(crate) fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,@%+".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_back_what_was_meant() {
        for text in [
            "",
            "exit 3",
            "it's",
            "$HOME `id` \"x\" \\",
            "a\nb",
            "--flag=x",
            "plain",
            "*",
            "~",
            "é",
            "'",
            "!",
        ] {
            let script = format!("printf %s {}", word(text));
            let said = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(said.stdout).unwrap(), text, "{script}");
        }
        assert_eq!(word("/bin/sh"), "/bin/sh");
        assert_eq!(word("exit 3"), "'exit 3'");
    }
}

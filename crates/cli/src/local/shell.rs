//! The output formats of `pgentra local env`: shells and files of variables.

use std::collections::BTreeMap;

use clap::ValueEnum;
use pgentra_system::Env;

use crate::blame::Blame;
use crate::problem::{Outcome, Problem};

/// A shell, or a format of a file of variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    /// A POSIX shell: sh, dash, bash, zsh, ksh.
    #[value(alias = "bash", alias = "zsh", alias = "dash", alias = "ksh")]
    Sh,
    /// The fish shell.
    Fish,
    /// PowerShell.
    #[value(alias = "pwsh")]
    Powershell,
    /// A file `.env`, as docker compose and the dotenv libraries read it.
    Dotenv,
    /// A file for `docker run --env-file`.
    Docker,
}

impl Shell {
    /// The shell in `SHELL`; `sh` for any other value.
    pub(crate) fn of(env: &Env) -> Self {
        let shell = env.get("SHELL").unwrap_or_default();
        match shell.rsplit('/').next() {
            Some("fish") => Self::Fish,
            Some("pwsh") => Self::Powershell,
            _ => Self::Sh,
        }
    }

    /// Sets one variable, in a line.
    ///
    /// # Errors
    ///
    /// A value of several lines, for a file for docker.
    pub(crate) fn set(self, name: &str, value: &str) -> Outcome<String> {
        Ok(match self {
            Self::Sh => format!("export {name}={}\n", posix(value)),
            // `eval (pgentra …)` joins all lines into one.
            Self::Fish => format!("set -gx {name} {};\n", fish(value)),
            Self::Powershell => format!("$Env:{name} = '{}'\n", value.replace('\'', "''")),
            Self::Dotenv => format!("{name}={}\n", dotenv(value)),
            Self::Docker if value.contains(['\n', '\r']) => {
                return Err(Problem::new(
                    Blame::Usage,
                    format!("{name} has several lines, which a file for docker cannot have"),
                )
                .hint("choose another --host, or --shell dotenv, which docker compose reads"));
            }
            Self::Docker => format!("{name}={value}\n"),
        })
    }

    /// Unsets one variable, in a line. Empty for a file of variables.
    pub(crate) fn unset(self, name: &str) -> String {
        match self {
            Self::Sh => format!("unset {name}\n"),
            Self::Fish => format!("set -e {name};\n"),
            Self::Powershell => format!("Remove-Item Env:{name} -ErrorAction SilentlyContinue\n"),
            Self::Dotenv | Self::Docker => String::new(),
        }
    }

    /// Sets these variables.
    ///
    /// # Errors
    /// As [`Shell::set`].
    pub(crate) fn set_all(self, variables: &BTreeMap<String, String>) -> Outcome<String> {
        variables.iter().map(|(name, value)| self.set(name, value)).collect()
    }

    /// A command that fails: `eval` of it fails too, while `eval` of an empty output succeeds.
    pub(crate) fn failure(self) -> &'static str {
        match self {
            Self::Sh | Self::Fish => "false\n",
            Self::Powershell => "throw 'pgentra local env failed'\n",
            Self::Dotenv | Self::Docker => "",
        }
    }
}

fn posix(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

fn fish(value: &str) -> String {
    format!("'{}'", value.replace('\\', r"\\").replace('\'', r"\'"))
}

/// In single quotes everything is literal; a value with a single quote or several lines needs
/// double quotes.
fn dotenv(value: &str) -> String {
    if !value.contains(['\'', '\n', '\r']) {
        return format!("'{value}'");
    }
    let escaped = value.replace('\\', r"\\").replace('"', "\\\"").replace('$', r"\$");
    ["\"", &escaped.replace('\n', r"\n").replace('\r', r"\r"), "\""].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUE: &str = "a'b $HOME `id` \"c\" \\ \\' \n d";

    /// The output of a program in the environment that this shell sets, if the shell is installed.
    fn seen(shell: Shell, program: &[&str]) -> Option<String> {
        let script = format!("{}printenv VALUE", shell.set("VALUE", VALUE).unwrap());
        let (program, arguments) = program.split_first()?;
        let done = std::process::Command::new(program).args(arguments).arg(script).output().ok()?;
        Some(String::from_utf8(done.stdout).unwrap())
    }

    #[test]
    fn a_shell_takes_a_value_as_it_is() {
        assert_eq!(seen(Shell::Sh, &["sh", "-c"]), Some(format!("{VALUE}\n")));
        for (shell, program) in [
            (Shell::Sh, ["bash", "-c"]),
            (Shell::Sh, ["zsh", "-c"]),
            (Shell::Fish, ["fish", "-c"]),
            (Shell::Powershell, ["pwsh", "-c"]),
        ] {
            if let Some(seen) = seen(shell, &program) {
                assert_eq!(seen, format!("{VALUE}\n"), "{program:?}");
            }
        }
    }

    #[test]
    fn files_of_variables() {
        assert_eq!(Shell::Dotenv.set("A", "b c").unwrap(), "A='b c'\n");
        assert_eq!(Shell::Dotenv.set("A", "it's \"$5\"\nb\\").unwrap(), "A=\"it's \\\"\\$5\\\"\\nb\\\\\"\n");
        assert_eq!(Shell::Docker.set("A", "b 'c'").unwrap(), "A=b 'c'\n");
        assert!(Shell::Docker.set("A", "b\nc").is_err());
        assert_eq!(Shell::Dotenv.unset("A"), "");
    }

    #[test]
    fn the_login_shell_decides() {
        for (path, shell) in [
            ("/usr/bin/fish", Shell::Fish),
            ("/bin/bash", Shell::Sh),
            ("/opt/pwsh", Shell::Powershell),
            ("", Shell::Sh),
        ] {
            assert_eq!(Shell::of(&Env::from_map([("SHELL", path)])), shell, "{path}");
        }
        assert_eq!(Shell::of(&Env::from_map::<String, String>([])), Shell::Sh);
    }
}

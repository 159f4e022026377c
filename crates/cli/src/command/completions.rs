//! `pgentra completions`, and the answers that its scripts ask for at each TAB.

use clap::{Arg, Command, ValueHint};
use clap_complete::CompleteEnv;
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use clap_complete::env::Shells;
use pgentra_identity::{Cloud, SourceName};

use crate::arguments;
use crate::blame::Blame;
use crate::catalogue::Finding;
use crate::identity::host_ref::FORMS;
#[cfg(unix)]
use crate::local::running_names;
use crate::output;
use crate::problem::{Outcome, Problem};

/// With the name of a shell as its value, it makes this program complete a command line.
const VARIABLE: &str = "PGENTRA_COMPLETE";

/// zsh runs a file of `fpath` at the first TAB, which has to have an answer already.
const IN_FPATH: &str = "\n[[ $funcstack[1] != _pgentra ]] || _clap_dynamic_completer_pgentra \"$@\"\n";

/// Answers a shell that completes a command line, and ends the program; does nothing otherwise.
/// Nothing may be printed before.
pub(crate) fn answer() {
    CompleteEnv::with_factory(definition).var(VARIABLE).completer("pgentra").complete();
}

/// Prints the script for a shell. It asks this program for the candidates.
pub(crate) fn run(shell: clap_complete::Shell) -> Outcome {
    let is_zsh = shell == clap_complete::Shell::Zsh;
    let shells = Shells::builtins();
    let shell = shells.completer(&shell.to_string()).ok_or_else(|| {
        Problem::new(Blame::Usage, format!("there are no completions for {shell}"))
            .hint("list the shells: pgentra completions --help")
    })?;
    let mut script = Vec::new();
    shell
        .write_registration(VARIABLE, "pgentra", "pgentra", "pgentra", &mut script)
        .map_err(|error| Problem::ours("cannot write the completion script", error))?;
    let mut script = String::from_utf8_lossy(&script).into_owned();
    if is_zsh {
        script.push_str(IN_FPATH);
    }
    output::exact(&script)
}

/// The definition of all commands, with the values of arguments that a text does not limit.
fn definition() -> Command {
    with_values(arguments::definition(), false)
}

fn with_values(command: Command, is_local: bool) -> Command {
    let command = command.mut_args(|argument| with_value(argument, is_local));
    let names: Vec<_> = command.get_subcommands().map(|one| one.get_name().to_owned()).collect();
    names.into_iter().fold(command, |command, name| {
        let is_local = is_local || name == "local";
        command.mut_subcommand(name, |command| with_values(command, is_local))
    })
}

#[cfg_attr(not(unix), expect(unused_variables, reason = "there is no local cloud"))]
fn with_value(argument: Arg, is_local: bool) -> Arg {
    let values = match argument.get_id().as_str() {
        "source" => ArgValueCandidates::new(sources),
        "cloud" => ArgValueCandidates::new(|| candidates(Cloud::ALL.iter().map(ToString::to_string))),
        "explain" => ArgValueCandidates::new(findings),
        "kind" => ArgValueCandidates::new(|| candidates(["service", "user", "group"])),
        "place" => ArgValueCandidates::new(hosts),
        "command" => ArgValueCandidates::new(commands),
        "drain" => ArgValueCandidates::new(|| candidates(["session", "transaction"])),
        "log_format" => ArgValueCandidates::new(|| candidates(["text", "json"])),
        "listen_tls_client_name" => ArgValueCandidates::new(|| candidates(["any", "cn", "dn"])),
        #[cfg(unix)]
        "name" if is_local => ArgValueCandidates::new(|| candidates(running_names())),
        "dir" | "postgres" => return argument.value_hint(ValueHint::DirPath),
        _ => return argument,
    };
    argument.add(values)
}

/// The kinds of hosts, up to the name that follows.
fn hosts() -> Vec<CompletionCandidate> {
    candidates(FORMS.iter().filter_map(|form| form.split_once('/')).map(|(kind, _)| format!("{kind}/")))
}

fn candidates<T: Into<String>>(values: impl IntoIterator<Item = T>) -> Vec<CompletionCandidate> {
    values.into_iter().map(|value| CompletionCandidate::new(value.into())).collect()
}

fn sources() -> Vec<CompletionCandidate> {
    let named = SourceName::ALL.iter().filter(|source| **source != SourceName::Exec);
    candidates(named.map(|source| source.as_str()))
}

/// Each finding with its meaning.
fn findings() -> Vec<CompletionCandidate> {
    let meant =
        |finding: &Finding| CompletionCandidate::new(finding.id()).help(Some(finding.summary().into()));
    Finding::ALL.iter().map(meant).collect()
}

/// The commands that have a page in the manual.
fn commands() -> Vec<CompletionCandidate> {
    fn every(command: &Command, names: &mut Vec<String>) {
        names.extend(command.get_subcommands().map(|one| one.get_name().to_owned()));
        command.get_subcommands().for_each(|command| every(command, names));
    }
    let mut names = Vec::new();
    every(&arguments::definition(), &mut names);
    names.sort();
    names.dedup();
    candidates(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    fn completed(line: &[&str]) -> Vec<String> {
        let words: Vec<OsString> = std::iter::once(&"pgentra").chain(line).map(OsString::from).collect();
        let at = words.len() - 1;
        let mut definition = definition();
        let found = clap_complete::engine::complete(&mut definition, words, at, None).unwrap();
        found.iter().map(|one| one.get_value().to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn arguments_are_completed_with_their_values() {
        definition().debug_assert();
        for (line, expected) in [
            (&["lo"][..], &["local"][..]),
            (&["token", "--source", "im"], &["imds"]),
            (&["query", "--cloud", "us"], &["usgov"]),
            (&["proxy", "--source", "azure-c"], &["azure-cli"]),
            (&["proxy", "--drain", "t"], &["transaction"]),
            (&["doctor", "--explain", "role-not-m"], &["role-not-mapped"]),
            (&["role", "create", "x", "--kind", "g"], &["group"]),
            (&["identity", "find", "x", "--kind", "g"], &["group"]),
            (&["local", "up", "--flavour", "s"], &["single"]),
            (&["local", "env", "--host", "azure-a"], &["azure-arc"]),
            (&["man", "local", "stat"], &["status"]),
            (&["completions", "fi"], &["fish"]),
        ] {
            assert_eq!(completed(line), expected, "{line:?}");
        }
        let explained = completed(&["doctor", "--explain", ""]);
        let findings = explained.iter().filter(|one| !one.starts_with('-'));
        assert_eq!(findings.count(), Finding::ALL.len());
        assert!(!completed(&["token", "--source", ""]).contains(&"exec".to_owned()));
    }
}

//! Commands with hostile input, several at a time, because each is a separate process.

use std::sync::Mutex;

use e2e::{Done, Run};

use crate::stage::{Probes, Stage};

/// Longest error output of a command, in bytes.
const LONG: usize = 8 * 1024;
/// Commands that run at the same time: most of them wait.
const WORKERS: usize = 12;

/// A probe: its name, the command, and the expected result; see [`outcome`].
pub(crate) type Probe<'lab> = (String, Run<'lab>, &'static str);

/// Runs all of them.
pub(crate) fn run(stage: &Stage<'_>, area: &str, commands: Vec<Probe<'_>>) {
    let probes: &Probes = &stage.probes;
    let rest = Mutex::new(commands);
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let next = || rest.lock().unwrap().pop();
                while let Some((name, command, expected)) = next() {
                    let done = command.within(40).done();
                    let got = outcome(&done);
                    if !probes.note(area, &name, expected, &got) {
                        probes.fault(format!("{area}: {name}: {done:?}"));
                    }
                }
            });
        }
    });
    stage.answered(area, "a good client after all of them", ".", ".");
}

/// The exit code or signal, and a description of any forbidden behaviour.
fn outcome(done: &Done<'_>) -> String {
    let mut outcome = match done.status.code() {
        Some(code) => code.to_string(),
        None => format!("signal {:?}", done.signal()),
    };
    let is_control = |text: &str| text.chars().any(|it| it.is_control() && !matches!(it, '\n' | '\t'));
    for (is_so, what) in [
        (!done.status.success() && !done.stdout.is_empty(), "and a result"),
        (is_control(&done.stdout) || is_control(&done.stderr), "with control characters"),
        (done.stderr.len() > LONG, "with too many words"),
        (done.stderr.contains("panicked"), "by a panic"),
        (!done.status.success() && !done.stderr.contains("error: "), "without a word"),
    ] {
        if is_so {
            outcome.push(' ');
            outcome.push_str(what);
        }
    }
    outcome
}

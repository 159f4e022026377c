//! Commands that are given what is hostile: several at a time, as each is a process of its own.

use std::sync::Mutex;

use e2e::{Done, Run};

use crate::stage::{Probes, Stage};

/// What a command may say about a failure at most.
const LONG: usize = 8 * 1024;
/// As many as run at a time: most of them wait.
const WORKERS: usize = 12;

/// A probe: its name, the command, what must come of it; see [`outcome`].
pub(crate) type Probe<'lab> = (String, Run<'lab>, &'static str);

/// Runs them all.
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

/// The exit code, or a signal; and in words what no command may do.
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

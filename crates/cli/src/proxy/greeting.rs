//! The messages after the first tokens: the identities, and how to connect.

use std::time::{Duration, SystemTime};

use pgentra_connect::{TokenState, quote};
use pgentra_proxy_config::RunningProxy;

use super::access::Access;
use crate::blame::Blame;
use crate::problem::Problem;
use crate::service::Console;

/// Says who is signed in, or why not, and how to connect to each listener. Returns the number of
/// targets without a token.
pub(crate) fn greet(running: &RunningProxy, console: &Console) -> usize {
    say_signed_in(running, console);
    let lacking = without_token(running);
    let mut causes: Vec<String> = Vec::new();
    for problem in &lacking {
        // Targets of one identity lack the same token.
        if !causes.contains(&problem.chain()) {
            causes.push(problem.chain());
            console.warn(problem);
        }
    }
    if !lacking.is_empty() {
        console.say("not signed in yet; the proxy listens, and asks for a token again");
    }
    let command = |listener: pgentra_proxy_config::RunningListener<'_>| {
        let target = listener.target;
        let address = listener.address.parse().ok();
        psql(&Access::of(listener.place, address, (&target.connector, &target.settings))?)
    };
    running.listeners().filter_map(command).for_each(|line| console.say(&line));
    lacking.len()
}

/// Says who is signed in, a line for each identity that has a token.
pub(crate) fn say_signed_in(running: &RunningProxy, console: &Console) {
    let mut lines: Vec<String> = Vec::new();
    for target in running.targets() {
        let line = signed_in(&target.connector.token_state(), target.connector.now());
        lines.extend(line.filter(|line| !lines.contains(line)));
    }
    lines.iter().for_each(|line| console.say(line));
}

/// Why targets have no token, a problem for each target without one.
pub(crate) fn without_token(running: &RunningProxy) -> Vec<Problem> {
    let lacking = running.targets().filter_map(|target| {
        let state = target.connector.token_state();
        let late = || {
            let text = format!("the token source of {} has not answered yet", target.label);
            Problem::new(Blame::Token, text).hint("pgentra token -v shows which source is asked")
        };
        state.expires_on.is_none().then(|| state.last_error.map_or_else(late, Problem::from))
    });
    lacking.collect()
}

/// The identity, source and remaining lifetime of a token. `None` without a token.
fn signed_in(state: &TokenState, now: SystemTime) -> Option<String> {
    let left = state.expires_on?.duration_since(now).unwrap_or_default();
    let name = match (state.role_names.first(), &state.identity) {
        (Some(name), _) => format!("as {name} "),
        (None, Some(identity)) => format!("as {identity} "),
        (None, None) => String::new(),
    };
    let source = state.source.as_deref().unwrap_or("an unknown source");
    Some(quote::line(&format!("signed in {name}({source}, token valid for {})", hours(left))))
}

/// A command that connects to a listener. `None`: a value cannot be typed.
fn psql(access: &Access) -> Option<String> {
    let port = access.port.to_string();
    let mut pairs = vec![("host", access.host.as_str()), ("port", &port)];
    pairs.extend(access.user.as_deref().map(|user| ("user", user)));
    pairs.push(("dbname", &access.database));
    if access.is_tls {
        pairs.push(("sslmode", access.sslmode()));
    }
    if pairs.iter().any(|(_, value)| value.chars().any(quote::is_hidden)) {
        return None;
    }
    let pairs: Vec<_> = pairs.into_iter().map(|(word, value)| format!("{word}={}", quoted(value))).collect();
    Some(format!("connect: psql '{}'", pairs.join(" ").replace('\'', r"'\''")))
}

/// A value of a conninfo string (libpq, "Keyword/Value Connection Strings").
fn quoted(value: &str) -> String {
    let is_plain = |char: char| !char.is_whitespace() && !matches!(char, '\'' | '\\' | '=');
    if !value.is_empty() && value.chars().all(is_plain) {
        return value.to_owned();
    }
    quote::conninfo_value(value)
}

fn hours(left: Duration) -> String {
    let minutes = left.as_secs() / 60;
    match minutes / 60 {
        0 => format!("{minutes} min"),
        hours => format!("{hours} h {} min", minutes % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::access::ListenerHost;

    #[test]
    fn values_are_quoted_for_libpq() {
        assert_eq!(quoted("my-app"), "my-app");
        assert_eq!(quoted("My Group"), "'My Group'");
        assert_eq!(quoted(r"a'b\c"), r"'a\'b\\c'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn a_time_is_in_hours_and_minutes() {
        assert_eq!(hours(Duration::from_secs(86_399)), "23 h 59 min");
        assert_eq!(hours(Duration::from_secs(3_540)), "59 min");
    }

    #[test]
    fn a_command_is_one_word_for_the_shell_or_is_not_printed() {
        let access = |user: Option<&str>| Access {
            host: ListenerHost::Tcp("127.0.0.1".to_owned()),
            port: 6432,
            user: user.map(str::to_owned),
            database: "app".to_owned(),
            is_tls: false,
            has_password: false,
        };
        for (user, command) in [
            (None, Some("connect: psql 'host=127.0.0.1 port=6432 dbname=app'")),
            (Some("my-app"), Some("connect: psql 'host=127.0.0.1 port=6432 user=my-app dbname=app'")),
            (
                Some("My Group"),
                Some(r"connect: psql 'host=127.0.0.1 port=6432 user='\''My Group'\'' dbname=app'"),
            ),
            (Some("a\u{202e}b"), None),
            (Some("a\nb"), None),
        ] {
            assert_eq!(psql(&access(user)).as_deref(), command, "{user:?}");
        }
    }
}

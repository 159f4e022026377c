//! The state as a text, for a browser without script.

use std::fmt::Write as _;

use pgentra_connect::quote;

use super::state::PageState;

/// The state in lines. Texts that clients chose cannot change the order of the lines.
pub(crate) fn plain_text(state: &PageState) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = lines(&mut text, state);
    text
}

fn lines(out: &mut String, state: &PageState) -> std::fmt::Result {
    let shown = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), quote::line);
    writeln!(out, "clock: {}, {} s ahead of this machine", state.now, state.ahead_seconds)?;
    let counts = &state.counts;
    writeln!(
        out,
        "{} tokens given out, {} logins let in, {} refused",
        counts.tokens, counts.let_in, counts.refused
    )?;
    writeln!(out, "\nidentities")?;
    for it in &state.identities {
        let (name, hosts) = (quote::line(&it.name), it.hosts.join(" "));
        let role = shown(&it.role);
        writeln!(out, "  {name} ({}), role {role}, object id {}, hosts: {hosts}", it.kind, it.object_id)?;
    }
    writeln!(out, "\nlogins, newest first")?;
    for it in &state.logins {
        let (role, database) = (shown(&it.role), shown(&it.database));
        write!(out, "  {} {}", it.time, it.outcome)?;
        if let Some(check) = &it.ended_at {
            write!(out, " at the check {check}")?;
        }
        write!(out, ": role {role}, database {database}")?;
        if it.message.is_some() {
            write!(out, ": {} {}", shown(&it.sqlstate), shown(&it.message))?;
        }
        writeln!(out)?;
    }
    writeln!(out, "\ntokens, newest first")?;
    for it in &state.tokens {
        let (name, resource) = (shown(&it.name), quote::line(&it.resource));
        writeln!(
            out,
            "  {} {name} for {resource}, from {}, {} s left",
            it.time, it.endpoint_title, it.left_seconds
        )?;
    }
    writeln!(out, "\nfaults")?;
    for it in &state.faults.active {
        let left =
            it.left.map_or_else(|| "until it is switched off".to_owned(), |left| format!("{left} more"));
        writeln!(out, "  {} at {}: {left}", it.title, it.endpoint_title)?;
    }
    writeln!(out, "\nconnect")?;
    for string in state.connect.iter().flat_map(|access| access.strings.iter().take(1)) {
        writeln!(out, "  {}", string.text)?;
    }
    Ok(())
}

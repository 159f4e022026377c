//! Printing: results to stdout, all else to stderr. Colour only on a terminal, and never with `NO_COLOR`.

use std::io::{ErrorKind, Write};

use serde::Serialize;

use crate::problem::{Outcome, Problem};

/// Prints a result. A reader that went away is no failure.
pub(crate) fn result(text: &str) -> Outcome {
    let mut out = anstream::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Problem::ours("cannot write to stdout", error))
        }
        _ => Ok(()),
    }
}

/// Prints a result as one JSON document.
pub(crate) fn json(value: &impl Serialize) -> Outcome {
    let text =
        serde_json::to_string_pretty(value).map_err(|error| Problem::ours("cannot render JSON", error))?;
    result(&format!("{text}\n"))
}

/// Says something to the person on stderr. A stderr that went away is no failure.
pub(crate) fn say(text: &str) {
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}

/// Tells of a failure on stderr that is not the end. A stderr that went away is no failure.
pub(crate) fn problem(problem: &Problem) {
    let _ = problem.print(&mut anstream::stderr().lock());
}

/// Asks the person on stderr, and leaves the line open for the answer.
pub(crate) fn ask(text: &str) {
    let mut out = anstream::stderr().lock();
    let _ = write!(out, "{text}").and_then(|()| out.flush());
}

/// Bold, where the terminal shows it.
pub(crate) fn bold(text: &str) -> String {
    format!("\x1b[1m{text}\x1b[0m")
}

/// Faint, where the terminal shows it.
pub(crate) fn faint(text: &str) -> String {
    format!("\x1b[2m{text}\x1b[0m")
}

/// A table as psql draws it: header, rule, rows, and the number of rows.
pub(crate) fn table(columns: &[String], rows: &[Vec<Option<String>>]) -> String {
    let cell = |row: &[Option<String>], at: usize| row.get(at).cloned().flatten().unwrap_or_default();
    let widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(at, name)| {
            rows.iter()
                .map(|row| cell(row, at).chars().count())
                .chain([name.chars().count()])
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    let header: Vec<String> =
        columns.iter().zip(&widths).map(|(name, width)| format!(" {name:^width$} ")).collect();
    text.push_str(header.join("|").trim_end());
    text.push('\n');
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
    text.push_str(&rule.join("+"));
    text.push('\n');
    for row in rows {
        let cells: Vec<String> =
            widths.iter().enumerate().map(|(at, width)| format!(" {:<width$} ", cell(row, at))).collect();
        text.push_str(cells.join("|").trim_end());
        text.push('\n');
    }
    let count = rows.len();
    text.push_str(&format!("({count} row{})\n\n", if count == 1 { "" } else { "s" }));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_looks_as_in_psql() {
        let columns = ["id".to_owned(), "name".to_owned()];
        let rows = [vec![Some("1".to_owned()), Some("Zoë".to_owned())], vec![Some("20".to_owned()), None]];
        assert_eq!(table(&columns, &rows), " id | name\n----+------\n 1  | Zoë\n 20 |\n(2 rows)\n\n");
        assert_eq!(
            table(&["?column?".to_owned()], &[vec![Some("1".to_owned())]]),
            " ?column?\n----------\n 1\n(1 row)\n\n"
        );
    }
}

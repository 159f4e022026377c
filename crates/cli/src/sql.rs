//! SQL texts: run in a session, and their results.

use pgentra_connect::{Session, quote};
use serde::Serialize;
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::error::ErrorPosition;

use crate::blame::Blame;
use crate::catalogue::Finding;
use crate::command::script::Sql;
use crate::output;
use crate::problem::{Outcome, Problem};
use crate::table::table;
use crate::text::Text;

/// The results of one SQL text, a statement each.
pub(crate) async fn results(session: &Session, sql: &str) -> Outcome<Vec<Statement>> {
    let sql = Sql { text: sql.to_owned(), file: None };
    messages(session, &sql.text).await.map_err(|error| refused(&error, &sql))
}

/// The same, with the error as the driver has it.
pub(crate) async fn messages(session: &Session, sql: &str) -> Result<Vec<Statement>, tokio_postgres::Error> {
    let messages = session.client().simple_query(sql).await?;
    let mut statements = Vec::new();
    let mut current: Option<Statement> = None;
    for message in messages {
        match message {
            SimpleQueryMessage::RowDescription(columns) => {
                let columns = columns.iter().map(|column| column.name().to_owned()).collect();
                current = Some(Statement { columns, rows: Vec::new(), affected: 0 });
            }
            SimpleQueryMessage::Row(row) => {
                if let Some(statement) = &mut current {
                    let values = (0..row.len()).map(|at| row.try_get(at).ok().flatten().map(str::to_owned));
                    statement.rows.push(values.collect());
                }
            }
            SimpleQueryMessage::CommandComplete(affected) => {
                let mut statement = current.take().unwrap_or_default();
                statement.affected = affected;
                statements.push(statement);
            }
            _ => {}
        }
    }
    Ok(statements)
}

/// The result of one statement.
#[derive(Default, Serialize)]
pub(crate) struct Statement {
    /// Column names; empty where the statement returns no rows.
    columns: Vec<String>,
    /// Values in PostgreSQL's text form; null is null.
    rows: Vec<Vec<Option<String>>>,
    /// Rows returned, inserted, updated or deleted.
    affected: u64,
}

impl Statement {
    /// The first value of the first row.
    pub(crate) fn value(&self) -> Option<&str> {
        self.rows.first()?.first()?.as_deref()
    }

    /// For a person, on a terminal of `width` columns.
    pub(crate) fn text(&self, width: Option<usize>) -> Text {
        match (self.columns.is_empty(), self.affected) {
            (false, _) => table(&self.columns, &self.rows, width),
            (true, 0) => "OK\n".into(),
            (true, 1) => "OK, 1 row\n".into(),
            (true, affected) => format!("OK, {affected} rows\n").into(),
        }
    }
}

/// What the driver says where a server answers a simple query with the beginning of a COPY.
const COPY: &str = "unexpected message from server";

/// A statement that the server refused: its own words, SQLSTATE, detail, hint, and the place in the SQL.
pub(crate) fn refused(error: &tokio_postgres::Error, sql: &Sql) -> Problem {
    let Some(refusal) = error.as_db_error() else {
        if error.to_string() == COPY {
            let again = match &sql.file {
                Some(_) => "pgentra psql -f FILE",
                None => "pgentra psql -c 'COPY …'",
            };
            return Problem::new(
                Blame::Usage,
                "COPY … TO STDOUT and COPY … FROM STDIN are not for `pgentra query`",
            )
            .hint(format!("use psql, signed in: {again}"));
        }
        // What is not the end of the connection is an answer that this command has no use for.
        return match error.is_closed() {
            true => Problem::found(Blame::Network, Finding::ConnectionLost, error.to_string())
                .hint("the connection broke; try again, or look at the server's log"),
            false => Problem::new(Blame::Network, error.to_string())
                .hint("run it with psql, which takes every answer: pgentra psql"),
        };
    };
    let mut text = format!(
        "{}: {} (SQLSTATE {})",
        refusal.severity(),
        quote::lines(refusal.message()),
        refusal.code().code()
    );
    if let Some(detail) = refusal.detail() {
        text.push_str(&format!("; {}", quote::lines(detail)));
    }
    let most = shown(output::message_width());
    let place = match refusal.position() {
        Some(ErrorPosition::Original(position)) => pointed_at(&sql.text, *position as usize, most),
        // A statement within a function.
        Some(ErrorPosition::Internal { position, query }) => pointed_at(query, *position as usize, most),
        None => None,
    };
    if let Some(place) = &place {
        text.push_str(&format!("\n{place}"));
    }
    if let Some(file) = &sql.file {
        text = format!("{file}: {text}");
    }
    let hint = match refusal.hint() {
        Some(hint) => Some(quote::lines(hint)),
        None if is_for_psql(&sql.text) => {
            Some("commands that begin with a backslash are psql's: pgentra psql -f FILE".to_owned())
        }
        None => None,
    };
    let problem = Problem::found(Blame::Server, Finding::StatementRefused, text);
    match hint {
        Some(hint) => problem.hint(hint),
        None => problem,
    }
}

/// Whether some line begins with a command of psql's, such as `\connect`.
fn is_for_psql(sql: &str) -> bool {
    sql.lines().any(|line| line.trim_start().starts_with('\\'))
}

/// How much of a line of SQL is shown around a place in it.
const SHOWN: usize = 60;
/// What stands beside it: the indentation of the message, `LINE 1000: `, and dots at both ends.
const BESIDE: usize = 20;

/// How much of a line of SQL fits beside the rest on a terminal of `width` columns.
fn shown(width: Option<usize>) -> usize {
    width.map_or(SHOWN, |width| width.saturating_sub(BESIDE).clamp(BESIDE, SHOWN))
}

/// The line of the `position`th character, counted from 1, and a caret below that, as psql shows it.
/// Of a long line, `most` characters are shown.
fn pointed_at(sql: &str, position: usize, most: usize) -> Option<String> {
    let before: String = sql.chars().take(position.checked_sub(1)?).collect();
    let number = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|char| *char != '\n').count();
    let line: Vec<char> = sql.split('\n').nth(number - 1)?.trim_end_matches('\r').chars().collect();
    // A long line is cut so that the place is in the middle of what is left.
    let from = if line.len() > most { column.saturating_sub(most / 2).min(line.len() - most) } else { 0 };
    let to = (from + most).min(line.len());
    let part = |from: usize, to: usize| -> String {
        let plain = |char: &char| if quote::is_hidden(*char) { ' ' } else { *char };
        line.get(from..to).unwrap_or_default().iter().map(plain).collect()
    };
    let (start, end) = (if from > 0 { "..." } else { "" }, if to < line.len() { "..." } else { "" });
    let head = format!("LINE {number}: {start}");
    let caret = " ".repeat(head.chars().count() + part(from, column.min(to)).chars().count());
    Some(format!("{head}{}{end}\n{caret}^", part(from, to)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_pointed_at() {
        let pointed_at = |sql, position| super::pointed_at(sql, position, SHOWN);
        assert_eq!(pointed_at("select 1 frm x", 10).unwrap(), "LINE 1: select 1 frm x\n                 ^");
        assert_eq!(pointed_at("select 1;\nselekt 2;\n", 11).unwrap(), "LINE 2: selekt 2;\n        ^");
        assert_eq!(
            pointed_at("sélect ü, 1 frm", 13).unwrap(),
            "LINE 1: sélect ü, 1 frm\n                    ^"
        );
        // At the end of the input.
        assert_eq!(pointed_at("select", 7).unwrap(), "LINE 1: select\n              ^");
        let long = format!("select '{}', frm, '{}'", "a".repeat(100), "b".repeat(100));
        let place = pointed_at(&long, 112).unwrap();
        let (line, caret) = place.split_once('\n').unwrap();
        assert!(line.starts_with("LINE 1: ...aaa") && line.ends_with("bbb..."), "{place}");
        assert_eq!(&line[caret.len() - 1..caret.len() + 2], "frm", "{place}");
        let narrow = super::pointed_at(&long, 112, shown(Some(40))).unwrap();
        assert!(narrow.lines().all(|line| line.len() <= 38), "{narrow}");
        assert_eq!([None, Some(20), Some(60), Some(200)].map(shown), [60, 20, 40, 60]);
        assert_eq!(pointed_at("select", 0), None);
        assert_eq!(pointed_at("select \u{1b}[31m frm", 14).unwrap().matches('\u{1b}').count(), 0);
    }
}

//! `pgentra query`.

use pgentra_connect::Session;
use pgentra_identity::World;
use serde::Serialize;
use tokio_postgres::SimpleQueryMessage;

use crate::arguments::{Format, Query};
use crate::catalogue::Finding;
use crate::problem::{Blame, Outcome, Problem};
use crate::{output, sign_in};

/// Runs each SQL text in its own implicit transaction, as `psql -c` does, and prints the results.
pub(crate) async fn run(world: &World, arguments: Query) -> Outcome {
    let connector = sign_in::connector(world, &arguments.connection, &arguments.identity)?;
    let session = connector.connect().await?;
    let mut statements = Vec::new();
    for sql in &arguments.command {
        let results = results(&session, sql).await?;
        if arguments.output.output == Format::Text {
            output::result(&results.iter().map(Statement::text).collect::<String>())?;
        }
        statements.extend(results);
    }
    match arguments.output.output {
        Format::Text => Ok(()),
        Format::Json => output::json(&statements),
    }
}

/// The results of one SQL text, a statement each.
pub(crate) async fn results(session: &Session, sql: &str) -> Outcome<Vec<Statement>> {
    let messages = session.client().simple_query(sql).await.map_err(refused)?;
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

    fn text(&self) -> String {
        match (self.columns.is_empty(), self.affected) {
            (false, _) => output::table(&self.columns, &self.rows),
            (true, 0) => "OK\n".to_owned(),
            (true, 1) => "OK, 1 row\n".to_owned(),
            (true, affected) => format!("OK, {affected} rows\n"),
        }
    }
}

/// A statement that the server refused: its own words, SQLSTATE, detail and hint.
fn refused(error: tokio_postgres::Error) -> Problem {
    let Some(refusal) = error.as_db_error() else {
        // What is not the end of the connection is an answer that this command has no use for.
        return match error.is_closed() {
            true => Problem::found(Blame::Network, Finding::ConnectionLost, error)
                .hint("the connection broke; try again, or look at the server's log"),
            false => Problem::new(Blame::Network, error)
                .hint("run it with psql, which takes every answer: pgentra psql"),
        };
    };
    let mut text =
        format!("{}: {} (SQLSTATE {})", refusal.severity(), refusal.message(), refusal.code().code());
    if let Some(detail) = refusal.detail() {
        text.push_str(&format!("; {detail}"));
    }
    let hint = refusal.hint().map(str::to_owned);
    let problem = Problem::new(Blame::Server, text);
    match hint {
        Some(hint) => problem.hint(hint),
        None => problem,
    }
}

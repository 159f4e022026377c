//! `pgentra query`.

use pgentra_connect::quote;
use pgentra_system::System;
use tokio_postgres::error::DbError;

use crate::arguments::Query;
use crate::options::Format;
use crate::problem::Outcome;
use crate::progress::{suspend, waiting};
use crate::sql::{messages, refused};
use crate::text::Text;
use crate::{output, sign_in};

/// Runs each SQL text in its own implicit transaction, as `psql -c` does, and prints the results.
/// The server's notices go to stderr. A table is as wide as the terminal, unless `is_verbose`.
pub(crate) async fn run(system: &System, arguments: Query, is_verbose: bool) -> Outcome {
    let scripts = arguments.scripts.read(system).await?;
    let connector = sign_in::connector(system, &arguments.connection, &arguments.identity)?;
    let session = sign_in::connect(&connector).await?;
    session.on_notice(|notice| {
        let told = notice_text(notice);
        suspend(|| output::say(&told));
    });
    let width = output::result_width().filter(|_| !is_verbose);
    let mut statements = Vec::new();
    for sql in &scripts {
        let results = waiting("waiting for the server", messages(&session, &sql.text));
        let results = results.await.map_err(|error| refused(&error, sql))?;
        if arguments.output.output == Format::Text {
            output::result(results.iter().map(|one| one.text(width)).collect::<Text>())?;
        }
        statements.extend(results);
    }
    match arguments.output.output {
        Format::Text => Ok(()),
        Format::Json => output::json(&statements),
    }
}

/// What the server says besides results, as psql prints it.
fn notice_text(notice: &DbError) -> String {
    let mut text = format!("{}:  {}", quote::lines(notice.severity()), quote::lines(notice.message()));
    for (name, more) in [("DETAIL", notice.detail()), ("HINT", notice.hint())] {
        if let Some(more) = more {
            text.push_str(&format!("\n{name}:  {}", quote::lines(more)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_told_nothing_by_the_server() {
        assert_eq!(quote::lines("a\u{1b}]0;x\u{7}b\nc"), "a\\x1B]0;x\\x07b\nc");
    }
}

//! Tables as psql draws them.

use pgentra_connect::quote;
use unicode_width::UnicodeWidthChar as _;

use crate::text::Text;

/// psql's tab stops, counted from the beginning of the cell.
const TAB: usize = 8;

/// The lines of a cell.
type Cell = Vec<String>;

/// A table in psql's format: header, rule, rows, and the number of rows. A line feed in a value is
/// shown as `+` and a further line; other control characters are escaped. Widths are those of a
/// terminal.
pub(crate) fn table(columns: &[String], rows: &[Vec<Option<String>>]) -> Text {
    let header: Vec<Cell> = columns.iter().map(|name| cell(name)).collect();
    let value =
        |row: &[Option<String>], at: usize| cell(row.get(at).and_then(Option::as_deref).unwrap_or(""));
    let body: Vec<Vec<Cell>> =
        rows.iter().map(|row| (0..columns.len()).map(|at| value(row, at)).collect()).collect();
    let widest = |at: usize| {
        let lines = std::iter::once(&header).chain(&body).filter_map(|row| row.get(at)).flatten();
        lines.map(|line| width(line)).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns.len()).map(widest).collect();
    let mut text = draw(&header, &widths, true);
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
    text.push_str(&rule.join("+"));
    text.push('\n');
    text.extend(body.iter().map(|row| draw(row, &widths, false)));
    let count = rows.len();
    text.push_str(&format!("({count} row{})\n\n", if count == 1 { "" } else { "s" }));
    text.into()
}

/// One row: as many lines as its longest cell has.
fn draw(row: &[Cell], widths: &[usize], is_header: bool) -> String {
    let mut text = String::new();
    let height = row.iter().map(Vec::len).max().unwrap_or_default();
    for at in 0..height {
        for (column, (cell, full)) in row.iter().zip(widths).enumerate() {
            let line = cell.get(at).map(String::as_str).unwrap_or_default();
            let goes_on = at + 1 < cell.len();
            let is_last = column + 1 == row.len();
            let rest = full - width(line);
            let before = if is_header { rest / 2 } else { 0 };
            if column > 0 {
                text.push('|');
            }
            if is_last && !goes_on && line.is_empty() {
                continue;
            }
            text.push(' ');
            text.push_str(&" ".repeat(before));
            text.push_str(line);
            if !is_last || goes_on {
                text.push_str(&" ".repeat(rest - before));
                text.push(if goes_on { '+' } else { ' ' });
            }
        }
        text.push('\n');
    }
    text
}

/// A value with its control characters escaped and its tabs as spaces.
fn cell(value: &str) -> Cell {
    let mut lines = vec![String::new()];
    let mut at = 0;
    for char in value.chars() {
        let shown = match char {
            '\n' => {
                lines.push(String::new());
                at = 0;
                continue;
            }
            '\t' => " ".repeat(TAB - at % TAB),
            char => quote::line(char.encode_utf8(&mut [0; 4])),
        };
        at += width(&shown);
        if let Some(line) = lines.last_mut() {
            line.push_str(&shown);
        }
    }
    lines
}

/// The width of a line in terminal columns, computed as psql does.
fn width(line: &str) -> usize {
    line.chars().map(|char| char.width().unwrap_or_default()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(columns: &[&str], rows: &[&[&str]]) -> String {
        let columns: Vec<String> = columns.iter().map(|&name| name.to_owned()).collect();
        let rows: Vec<Vec<Option<String>>> =
            rows.iter().map(|row| row.iter().map(|&value| Some(value.to_owned())).collect()).collect();
        table(&columns, &rows).render(true)
    }

    #[test]
    fn a_table_looks_as_in_psql() {
        let columns = ["id".to_owned(), "name".to_owned()];
        let rows = [vec![Some("1".to_owned()), Some("Zoë".to_owned())], vec![Some("20".to_owned()), None]];
        assert_eq!(
            table(&columns, &rows).render(true),
            " id | name\n----+------\n 1  | Zoë\n 20 |\n(2 rows)\n\n"
        );
        assert_eq!(drawn(&["?column?"], &[&["1"]]), " ?column?\n----------\n 1\n(1 row)\n\n");
    }

    #[test]
    fn a_value_cannot_draw_a_row_of_its_own() {
        assert_eq!(
            drawn(&["a", "b"], &[&["x\nyy", "1"], &["z", "one\n2"]]),
            " a  |  b\n----+-----\n x +| 1\n yy |\n z  | one+\n    | 2\n(2 rows)\n\n"
        );
        assert_eq!(
            drawn(&["a"], &[&["\x1b[31mred\x1b[0m"], &["a\rb\x7f\u{9b}\u{202e}"], &["a\tb"]]),
            "          a\n----------------------\n \\x1B[31mred\\x1B[0m\n a\\rb\\x7F\\u009B\\u202E\n a       b\n(3 rows)\n\n"
        );
    }

    #[test]
    fn columns_are_aligned_by_what_a_terminal_shows() {
        assert_eq!(
            drawn(&["a", "b"], &[&["日本語", "1"], &["e\u{301}", "2"], &["ab", "3"]]),
            "   a    | b\n--------+---\n 日本語 | 1\n e\u{301}      | 2\n ab     | 3\n(3 rows)\n\n"
        );
    }

    /// Trailing blanks are part of a value.
    #[test]
    fn a_value_is_not_cut() {
        assert_eq!(drawn(&["a"], &[&["x  "]]), "  a\n-----\n x  \n(1 row)\n\n");
    }
}

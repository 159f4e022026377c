//! Tables as psql draws them.

use pgentra_connect::quote;
use unicode_width::UnicodeWidthChar as _;

use crate::text::{Text, faint, text, verbatim};
use crate::wrap::columns as wide;

/// psql's tab stops, counted from the beginning of the cell.
const TAB: usize = 8;

/// The fewest columns of a terminal that a value is broken into.
const NARROWEST: usize = 8;

/// A line of a cell.
#[derive(Clone, Debug, Default)]
struct Line {
    text: String,
    /// The mark after the line, as in psql: `+` before a line feed, `.` where the line is broken.
    mark: Option<char>,
}

/// The lines of a cell.
type Cell = Vec<Line>;

/// A row of values; `None` is NULL.
pub(crate) type Row = Vec<Option<String>>;

/// A table in psql's format: header, rule, rows, and the number of rows. A line feed in a value is
/// shown as `+` and a further line; other control characters are escaped. Widths are those of a
/// terminal.
///
/// With a `width`, a table that is wider than the terminal has broken values, as with psql's
/// `\pset format wrapped`. If the terminal is too narrow for that, each value has a line of its
/// own, as with `\x`.
pub(crate) fn table(columns: &[String], rows: &[Row], width: Option<usize>) -> Text {
    let drawing = Drawing::of(columns, rows);
    verbatim(&match width {
        Some(width) if drawing.width() > width => {
            drawing.narrowed(width).unwrap_or_else(|| expanded(columns, rows, width))
        }
        _ => drawing.draw(),
    })
}

/// Whether a list of pgentra's own can do without a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Always shown.
    Always,
    /// Left out if the table is too wide; the last one first.
    IfItFits,
    /// Left out if all rows have the same value.
    IfRowsDiffer,
}

/// A table of pgentra's own, on a terminal of `width` columns: without what it can do without, and
/// a line that says so. Without a `width`, it is [`table`].
pub(crate) fn list(columns: &[(&str, Need)], rows: &[Row], width: Option<usize>) -> Text {
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    let name = |at: &usize| columns.get(*at).map_or("", |(name, _)| name).to_owned();
    let picked = |shown: &[usize]| {
        let names: Vec<String> = shown.iter().map(name).collect();
        let row = |row: &Row| shown.iter().map(|at| row.get(*at).cloned().flatten()).collect();
        (names, rows.iter().map(row).collect::<Vec<Row>>())
    };
    let Some(width) = width else {
        let (names, rows) = picked(&shown);
        return table(&names, &rows, None);
    };
    let need = |at: usize| columns.get(at).map(|(_, need)| *need);
    shown.retain(|at| {
        let mut values = rows.iter().map(|row| row.get(*at));
        let first = values.next();
        need(*at) != Some(Need::IfRowsDiffer) || values.any(|value| Some(value) != first)
    });
    let left_out = |shown: &[usize]| -> Vec<String> {
        (0..columns.len()).filter(|at| !shown.contains(at)).map(|at| name(&at)).collect()
    };
    loop {
        let (names, rows) = picked(&shown);
        let drawing = Drawing::of(&names, &rows);
        let dispensable = shown.iter().rposition(|at| need(*at) != Some(Need::Always));
        let drawn = match (drawing.width() <= width, dispensable) {
            (false, Some(at)) => {
                shown.remove(at);
                continue;
            }
            (true, _) => drawing.draw(),
            (false, None) => expanded(&names, &rows, width),
        };
        let left_out = left_out(&shown);
        let note = match left_out.is_empty() {
            true => Text::default(),
            false => text![faint(&format!("-v also shows: {}", left_out.join(", "))), "\n"],
        };
        return text![verbatim(&drawn), note];
    }
}

/// A table, ready to be drawn.
struct Drawing {
    header: Vec<Cell>,
    body: Vec<Vec<Cell>>,
    widths: Vec<usize>,
}

impl Drawing {
    fn of(columns: &[String], rows: &[Row]) -> Self {
        let header: Vec<Cell> = columns.iter().map(|name| cell(name)).collect();
        let value = |row: &Row, at: usize| cell(row.get(at).and_then(Option::as_deref).unwrap_or(""));
        let body: Vec<Vec<Cell>> =
            rows.iter().map(|row| (0..columns.len()).map(|at| value(row, at)).collect()).collect();
        let widest = |at: usize| {
            let lines = std::iter::once(&header).chain(&body).filter_map(|row| row.get(at)).flatten();
            lines.map(|line| wide(&line.text)).max().unwrap_or_default()
        };
        let widths = (0..columns.len()).map(widest).collect();
        Self { header, body, widths }
    }

    /// The width of the whole table.
    fn width(&self) -> usize {
        (self.widths.iter().map(|width| width + 3).sum::<usize>()).saturating_sub(1)
    }

    /// The table with broken values; `None` if there is no room for the names of its columns.
    fn narrowed(mut self, width: usize) -> Option<String> {
        let named = self.header.iter().map(|name| name.iter().map(|line| wide(&line.text)).max());
        let least: Vec<usize> = named
            .zip(&self.widths)
            .map(|(name, full)| name.unwrap_or_default().max(NARROWEST).min(*full))
            .collect();
        for full in &mut self.widths {
            *full = (*full).min(width);
        }
        while self.width() > width {
            // The widest column that can still be narrower gives way.
            let at = (0..self.widths.len())
                .filter(|at| self.widths.get(*at) > least.get(*at))
                .max_by_key(|at| self.widths.get(*at).copied())?;
            *self.widths.get_mut(at)? -= 1;
        }
        for row in &mut self.body {
            for (cell, full) in row.iter_mut().zip(&self.widths) {
                *cell = cell.drain(..).flat_map(|line| broken(line, *full)).collect();
            }
        }
        Some(self.draw())
    }

    fn draw(&self) -> String {
        let mut text = draw(&self.header, &self.widths, true);
        let rule: Vec<String> = self.widths.iter().map(|width| "-".repeat(width + 2)).collect();
        text.push_str(&rule.join("+"));
        text.push('\n');
        text.extend(self.body.iter().map(|row| draw(row, &self.widths, false)));
        text.push_str(&count(self.body.len()));
        text
    }
}

fn count(rows: usize) -> String {
    format!("({rows} row{})\n\n", if rows == 1 { "" } else { "s" })
}

/// A line for each value, as with psql's `\x`.
fn expanded(columns: &[String], rows: &[Row], width: usize) -> String {
    let names: Vec<Cell> = columns.iter().map(|name| cell(name)).collect();
    let widest = names.iter().flatten().map(|line| wide(&line.text)).max().unwrap_or_default();
    let values: Vec<Vec<Cell>> = rows
        .iter()
        .map(|row| {
            let value = |at: usize| cell(row.get(at).and_then(Option::as_deref).unwrap_or(""));
            (0..names.len()).map(value).collect()
        })
        .collect();
    let longest = values.iter().flatten().flatten().map(|line| wide(&line.text)).max().unwrap_or_default();
    let room = longest.min(width.saturating_sub(widest + 4)).max(NARROWEST);
    let mut text = String::new();
    for (number, row) in values.into_iter().enumerate() {
        let head = format!("-[ RECORD {} ]", number + 1);
        let rest = (widest + 4 + room).saturating_sub(wide(&head));
        text.push_str(&format!("{head}{}\n", "-".repeat(rest)));
        for (name, value) in names.iter().zip(row) {
            let value = value.into_iter().flat_map(|line| broken(line, room)).collect();
            // The names begin at the edge.
            let lines = draw(&[name.clone(), value], &[widest, room], false);
            text.extend(lines.split_inclusive('\n').map(|line| line.strip_prefix(' ').unwrap_or(line)));
        }
    }
    text.push_str(&count(rows.len()));
    text
}

/// One row: as many lines as its longest cell has.
fn draw(row: &[Cell], widths: &[usize], is_header: bool) -> String {
    let mut text = String::new();
    let height = row.iter().map(Vec::len).max().unwrap_or_default();
    for at in 0..height {
        for (column, (cell, full)) in row.iter().zip(widths).enumerate() {
            let line = cell.get(at).cloned().unwrap_or_default();
            let is_broken = at > 0 && cell.get(at - 1).is_some_and(|line| line.mark == Some('.'));
            let is_last = column + 1 == row.len();
            let rest = full.saturating_sub(wide(&line.text));
            let before = if is_header { rest / 2 } else { 0 };
            if column > 0 {
                text.push('|');
            }
            if is_last && line.mark.is_none() && line.text.is_empty() {
                continue;
            }
            text.push(if is_broken { '.' } else { ' ' });
            text.push_str(&" ".repeat(before));
            text.push_str(&line.text);
            if !is_last || line.mark.is_some() {
                text.push_str(&" ".repeat(rest - before));
                text.push(line.mark.unwrap_or(' '));
            }
        }
        text.push('\n');
    }
    text
}

/// A value with its control characters escaped and its tabs as spaces.
fn cell(value: &str) -> Cell {
    let mut lines = vec![Line::default()];
    let mut at = 0;
    for char in value.chars() {
        let shown = match char {
            '\n' => {
                if let Some(line) = lines.last_mut() {
                    line.mark = Some('+');
                }
                lines.push(Line::default());
                at = 0;
                continue;
            }
            '\t' => " ".repeat(TAB - at % TAB),
            char => quote::line(char.encode_utf8(&mut [0; 4])),
        };
        at += wide(&shown);
        if let Some(line) = lines.last_mut() {
            line.text.push_str(&shown);
        }
    }
    lines
}

/// A line in pieces of at most `full` columns.
fn broken(line: Line, full: usize) -> Vec<Line> {
    let mut pieces = vec![Line::default()];
    let mut at = 0;
    for char in line.text.chars() {
        let columns = char.width().unwrap_or_default();
        if at + columns > full && at > 0 {
            if let Some(piece) = pieces.last_mut() {
                piece.mark = Some('.');
            }
            pieces.push(Line::default());
            at = 0;
        }
        at += columns;
        if let Some(piece) = pieces.last_mut() {
            piece.text.push(char);
        }
    }
    if let Some(piece) = pieces.last_mut() {
        piece.mark = line.mark;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(columns: &[&str], rows: &[&[&str]]) -> String {
        let columns: Vec<String> = columns.iter().map(|&name| name.to_owned()).collect();
        let rows: Vec<Vec<Option<String>>> =
            rows.iter().map(|row| row.iter().map(|&value| Some(value.to_owned())).collect()).collect();
        table(&columns, &rows, None).render(true)
    }

    #[test]
    fn a_table_looks_as_in_psql() {
        let columns = ["id".to_owned(), "name".to_owned()];
        let rows = [vec![Some("1".to_owned()), Some("Zoë".to_owned())], vec![Some("20".to_owned()), None]];
        assert_eq!(
            table(&columns, &rows, None).render(true),
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

    fn rows(values: &[&[&str]]) -> Vec<Row> {
        values.iter().map(|row| row.iter().map(|&value| Some(value.to_owned())).collect()).collect()
    }

    /// psql 15, `\pset format wrapped` and `\pset columns 24`.
    #[test]
    fn a_wide_table_is_broken_as_in_psql() {
        let columns = ["id".to_owned(), "text".to_owned()];
        let rows = rows(&[&["1", "abcdefghijklmnopqrstuvwxyz"], &["2", "one\ntwo"]]);
        assert_eq!(
            table(&columns, &rows, Some(24)).render(true),
            " id |       text\n----+-------------------\n 1  | abcdefghijklmnopq.\n    |.rstuvwxyz\n 2  | one              +\n    | two\n(2 rows)\n\n"
        );
        let whole = table(&columns, &rows, None);
        assert_eq!(table(&columns, &rows, Some(120)), whole);
        for width in [40, 60, 120] {
            let text = table(&columns, &rows, Some(width)).render(true);
            assert!(text.lines().all(|line| wide(line) <= width), "{text}");
        }
    }

    #[test]
    fn a_table_of_many_columns_has_a_line_for_each_value() {
        let columns: Vec<String> = (0..9).map(|at| format!("column {at}")).collect();
        let row: Vec<String> = (0..9).map(|at| format!("value {at} ").repeat(9)).collect();
        let row: Vec<&str> = row.iter().map(String::as_str).collect();
        let text = table(&columns, &rows(&[&row]), Some(40)).render(true);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], format!("-[ RECORD 1 ]{}", "-".repeat(27)));
        assert_eq!(lines[1], "column 0 | value 0 value 0 value 0 valu.");
        assert_eq!(lines[2], "         |.e 0 value 0 value 0 value 0 .");
        assert!(lines.iter().all(|line| wide(line) <= 40), "{text}");
        assert!(text.ends_with("(1 row)\n\n"), "{text}");
    }

    #[test]
    fn a_list_does_without_what_does_not_fit() {
        let columns = [
            ("name", Need::Always),
            ("kind", Need::Always),
            ("id", Need::IfItFits),
            ("source", Need::IfRowsDiffer),
        ];
        let id = "00000000-1111-2222-3333-444444444444";
        let mut rows =
            rows(&[&["my-app", "service", id, "label"], &["my-other-app", "service", id, "label"]]);
        let shown = |rows: &[Row], width: Option<usize>| list(&columns, rows, width).render(false);
        let all = shown(&rows, None);
        assert!(all.contains("source") && all.contains("label") && !all.contains("-v"), "{all}");
        let wide = shown(&rows, Some(120));
        assert!(wide.contains(id) && wide.ends_with("-v also shows: source\n"), "{wide}");
        let narrow = shown(&rows, Some(60));
        assert!(!narrow.contains(id) && narrow.ends_with("-v also shows: id, source\n"), "{narrow}");
        assert!(narrow.contains("my-other-app | service"), "{narrow}");
        assert!(shown(&rows, Some(20)).starts_with("-[ RECORD 1 ]"));
        rows[1][3] = Some("function".to_owned());
        assert!(shown(&rows, Some(120)).contains("function"));
        for width in [40, 60, 120] {
            let text = shown(&rows, Some(width));
            assert!(text.lines().all(|line| crate::wrap::columns(line) <= width), "{text}");
        }
    }
}

//! The results as bars, in SVG.

use std::fmt::Write as _;

use crate::sections::Measured;
use crate::table::{Figure, Table, number};
use crate::ways::Kind;

const WIDTH: f64 = 960.0;
/// Where names end and bars begin.
const NAMES: f64 = 310.0;
/// Room behind the longest bar, for its number.
const NUMBERS: f64 = 70.0;
const BAR: f64 = 16.0;
const STEP: f64 = 20.0;
const MARGIN: f64 = 24.0;

/// One picture of all tables: a panel for each column.
pub fn draw(measured: &Measured) -> String {
    let mut body = String::new();
    let mut y = MARGIN;
    for table in measured.tables.iter().filter(|table| !table.is_empty()) {
        y += 14.0;
        text(&mut body, MARGIN, y, "title", &plain(&table.title));
        y += 16.0;
        for column in 0..table.columns.len() {
            y = panel(&mut body, table, column, y);
        }
        y += 10.0;
    }
    let environment = measured.environment.first().cloned().unwrap_or_default();
    y += 8.0;
    text(&mut body, MARGIN, y, "note", &format!("{environment}. Medians; direct TLS is 1. Blue: pgentra."));
    let height = y + MARGIN;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" width=\"{WIDTH}\" height=\"{height:.0}\" \
         font-family=\"system-ui, sans-serif\">\n<style>text{{font-size:12px;fill:#222}}.title{{font-weight:600;font-size:14px}}\
         .column{{fill:#666}}.note{{font-size:11px;fill:#666}}.name{{text-anchor:end}}.bar{{fill:#a8b4c4}}.ours{{fill:#0b5cad}}\
         .direct{{fill:#d9d9d9}}.one{{stroke:#c0392b;stroke-dasharray:3 3}}</style>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{body}</svg>\n"
    )
}

fn panel(body: &mut String, table: &Table, column: usize, top: f64) -> f64 {
    let rows: Vec<(Kind, f64)> = table
        .kinds()
        .into_iter()
        .filter_map(|kind| Some((kind, table.middle(kind, column)?.value)))
        .collect();
    let most = rows.iter().map(|(_, value)| *value).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let scale = (WIDTH - NAMES - NUMBERS - MARGIN) / most;
    let mut y = top + 14.0;
    text(body, NAMES, y, "column", &better(table, column));
    y += 6.0;
    let begin = y;
    for (kind, value) in rows {
        let class = match kind {
            kind if kind.is_ours() => "ours",
            Kind::Plain | Kind::Tls => "direct",
            _ => "bar",
        };
        let width = (value.max(0.0) * scale).max(1.0);
        let name = format!("{} ({})", kind.name(), kind.shape());
        text(
            body,
            NAMES - 8.0,
            y + 12.5,
            "name",
            if matches!(kind, Kind::Plain | Kind::Tls) { kind.name() } else { &name },
        );
        let _ = writeln!(
            body,
            "<rect class=\"{class}\" x=\"{NAMES}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{BAR}\"/>"
        );
        text(body, NAMES + width + 6.0, y + 12.5, "value", &number(value));
        y += STEP;
    }
    if table.figure == Figure::Share && most >= 1.0 {
        let x = NAMES + scale;
        let end = y - 4.0;
        let _ = writeln!(
            body,
            "<line class=\"one\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{begin:.1}\" y2=\"{end:.1}\"/>"
        );
    }
    y + 4.0
}

fn better(table: &Table, column: usize) -> String {
    let name = table.columns.get(column).cloned().unwrap_or_default();
    match table.figure {
        Figure::Share => format!("{name}: more is better"),
        Figure::Less(unit) => format!("{name}: {unit}, less is better"),
    }
}

fn text(body: &mut String, x: f64, y: f64, class: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(body, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>");
}

/// The first part of a title, without marks of Markdown.
fn plain(title: &str) -> String {
    title.replace('`', "").split(", transactions").next().unwrap_or_default().to_owned()
}

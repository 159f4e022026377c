//! The pictures of `docs/bench-proxy.md` and `docs/bench-gateway.md`: one for each table of ways, drawn from the table itself.
//!
//! All panels of a picture have one scale. Shares of direct TLS are bars from zero, and 1.00 is at one place in all pictures. Ratios
//! that differ by more than ten are bars from 1.00 on a logarithmic scale. A whisker goes from the lowest round to the highest.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// A page with tables.
struct Page {
    /// Its name, which begins the names of its pictures.
    name: &'static str,
    /// What 1 is in the tables of shares and ratios.
    reference: &'static str,
    /// What the rows are of other programs that use TLS.
    others: &'static str,
    /// The beginning and a part of a table's title, the file of its picture, and the question that it answers.
    pictures: &'static [(&'static str, &'static str, &'static str, &'static str)],
}

const PAGES: [Page; 2] = [
    Page {
        name: "bench-proxy",
        reference: "direct TLS without a proxy",
        others: "other proxy, TLS with the server",
        pictures: &PROXY,
    },
    Page { name: "bench-gateway", reference: "PostgreSQL itself", others: "other proxy", pictures: &GATEWAY },
];

const GATEWAY: [(&str, &str, &str, &str); 3] = [
    ("Logins over TLS", "", "logins", "How fast is a login?"),
    ("4 clients that send", "share", "relay", "How much of the throughput is left in a session over TLS?"),
    ("500 idle sessions", "memory", "idle", "How much memory does an idle session cost?"),
];

const PROXY: [(&str, &str, &str, &str); 8] = [
    ("`pgbench -S`,", "simple", "simple", "How much of the throughput is left? pgbench -S, simple protocol"),
    ("`pgbench -S`,", "prepared", "prepared", "How much of the throughput is left? pgbench -S, prepared"),
    (
        "`pgbench -S -C`",
        "",
        "connections",
        "How many connections a second? pgbench -S -C, one for each transaction",
    ),
    (
        "One client that connects",
        "",
        "connect",
        "How fast does a client connect that comes 20 times a second?",
    ),
    ("One client,", "round trip", "latency", "How much longer is a round trip?"),
    ("COPY of", "share", "copy", "How fast is COPY?"),
    ("COPY of", "CPU", "copy-cpu", "How much processor time does COPY cost?"),
    ("Idle sessions", "memory", "idle", "How much memory does an idle session cost?"),
];

const WIDTH: f64 = 900.0;
const MARGIN: f64 = 20.0;
/// Where names end and bars begin.
const NAMES: f64 = 285.0;
/// Where bars end and numbers begin.
const NUMBERS: f64 = 660.0;
const STEP: f64 = 22.0;
const BAR: f64 = 12.0;
/// The largest share that fits on the scale of all pictures of shares.
const MOST_SHARE: f64 = 1.4;

/// A table of the page.
struct Table {
    title: String,
    columns: Vec<String>,
    rows: Vec<Row>,
}

struct Row {
    kind: Kind,
    name: String,
    cells: Vec<Option<Cell>>,
}

/// Whose result a row is. Also the class of its bar.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Ours,
    Tls,
    Plain,
    Direct,
}

/// One result: the median of the rounds, the lowest and the highest if they differ, and what stands beside.
#[derive(Debug, PartialEq)]
struct Cell {
    middle: f64,
    range: Option<(f64, f64)>,
    shown: String,
    beside: String,
}

/// How a number becomes a place.
enum Scale {
    Linear { least: f64, most: f64 },
    Ratio { least: f64, most: f64 },
}

/// Draws the picture of every table of the pages.
///
/// # Errors
///
/// A table without a picture, or a file that cannot be read or written.
pub(crate) fn write(root: &Path) -> Result<()> {
    for (name, picture) in drawn(root)? {
        fs::write(root.join("docs").join(name), picture)?;
    }
    Ok(())
}

/// The pictures, each with the name of its file.
fn drawn(root: &Path) -> Result<Vec<(String, String)>> {
    let mut drawn = Vec::new();
    for page in PAGES {
        let name = page.name;
        let file = root.join("docs").join(name).with_extension("md");
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        for table in tables(&text).with_context(|| name)? {
            let is_it = |begin: &str, part| table.title.starts_with(begin) && table.title.contains(part);
            let known = page.pictures.iter().find(|(begin, part, ..)| is_it(begin, part));
            let (_, _, picture, question) =
                known.with_context(|| format!("{name}: no picture is for the table {:?}", table.title))?;
            drawn.push((format!("{name}-{picture}.svg"), draw(&table, question, &page)));
        }
    }
    Ok(drawn)
}

/// The tables with results: those that begin with a way and its TLS.
fn tables(page: &str) -> Result<Vec<Table>> {
    let mut tables: Vec<Table> = Vec::new();
    let mut title = "";
    for line in page.lines() {
        if let Some(text) = line.strip_prefix("### ") {
            title = text;
        }
        let Some(cells) = line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |")) else { continue };
        let cells: Vec<&str> = cells.split(" | ").collect();
        let [way, tls, results @ ..] = &cells[..] else { continue };
        if *way == "way" && matches!(*tls, "with the server" | "with the client") {
            let columns = results.iter().map(|column| (*column).to_owned()).collect();
            tables.push(Table { title: title.to_owned(), columns, rows: Vec::new() });
            continue;
        }
        let Some(table) = tables.last_mut().filter(|table| table.title == title) else { continue };
        let name = way.replace("**", "");
        let is_direct = name.starts_with("direct") || name.starts_with("PostgreSQL itself");
        let kind = match (*way != name, is_direct, tls.ends_with("TLS")) {
            (true, ..) => Kind::Ours,
            (_, true, _) => Kind::Direct,
            (.., true) => Kind::Tls,
            _ => Kind::Plain,
        };
        let cells = results.iter().map(|text| cell(text)).collect::<Result<_>>()?;
        table.rows.push(Row { kind, name, cells });
    }
    Ok(tables)
}

/// A cell such as `**0.84** (0.77–0.88), 11,443 TPS, 29.7 µs`; an empty one has no result.
fn cell(text: &str) -> Result<Option<Cell>> {
    let text = text.replace("**", "");
    if text.trim().is_empty() {
        return Ok(None);
    }
    let number = |text: &str| -> Result<f64> {
        text.replace(',', "").parse().with_context(|| format!("{text:?} is no number"))
    };
    let (figure, beside) = text.split_once(", ").unwrap_or((&text, ""));
    let (middle, range) = figure.split_once(" (").unwrap_or((figure, ""));
    let range = match range.strip_suffix(')').and_then(|range| range.split_once('–')) {
        Some((least, most)) => Some((number(least)?, number(most)?)),
        None => None,
    };
    Ok(Some(Cell { middle: number(middle)?, range, shown: middle.to_owned(), beside: beside.to_owned() }))
}

impl Cell {
    fn ends(&self) -> [f64; 2] {
        let (least, most) = self.range.unwrap_or((self.middle, self.middle));
        [least, most]
    }
}

impl Table {
    fn is_share(&self) -> bool {
        self.title.contains("share of ")
    }

    fn is_ratio(&self) -> bool {
        self.title.contains("times direct TLS") || self.title.contains("times as fast")
    }

    /// Whether zero is direct TLS.
    fn is_difference(&self) -> bool {
        self.title.contains("longer than with direct TLS")
    }

    fn more_is_better(&self) -> bool {
        self.is_share() || self.is_ratio()
    }

    /// The rows of a column, the best first.
    fn ranked(&self, column: usize) -> Vec<(&Row, &Cell)> {
        let cell = |row: &'_ Row| -> Option<f64> { Some(row.cells.get(column)?.as_ref()?.middle) };
        let mut rows: Vec<&Row> = self.rows.iter().filter(|row| cell(row).is_some()).collect();
        rows.sort_by(|a, b| {
            let order = cell(a).unwrap_or_default().total_cmp(&cell(b).unwrap_or_default());
            if self.more_is_better() { order.reverse() } else { order }
        });
        rows.into_iter().filter_map(|row| Some((row, row.cells.get(column)?.as_ref()?))).collect()
    }

    fn scale(&self) -> Scale {
        let cells = self.rows.iter().flat_map(|row| row.cells.iter().flatten()).flat_map(Cell::ends);
        let (least, most) =
            cells.fold((0.0, 0.0), |(least, most): (f64, f64), end| (least.min(end), most.max(end)));
        if self.is_ratio() {
            let lowest = self
                .rows
                .iter()
                .flat_map(|row| row.cells.iter().flatten())
                .flat_map(Cell::ends)
                .fold(1.0, f64::min);
            return Scale::Ratio { least: lowest.min(0.5), most: most.max(2.0) };
        }
        Scale::Linear { least, most: if self.is_share() { most.max(MOST_SHARE) } else { most } }
    }
}

impl Scale {
    fn at(&self, value: f64) -> f64 {
        let share = match self {
            Self::Linear { least, most } => (value - least) / (most - least).max(f64::MIN_POSITIVE),
            Self::Ratio { least, most } => (value / least).log2() / (most / least).log2(),
        };
        NAMES + share * (NUMBERS - NAMES - 10.0)
    }

    /// Where bars begin, and what that place is called.
    fn origin(&self) -> f64 {
        match self {
            Self::Linear { .. } => 0.0,
            Self::Ratio { .. } => 1.0,
        }
    }

    fn marks(&self, is_share: bool) -> Vec<(f64, String)> {
        match self {
            Self::Linear { .. } if is_share => {
                [0.0, 0.25, 0.5, 0.75, 1.0, 1.25].map(|mark| (mark, format!("{mark:.2}"))).to_vec()
            }
            Self::Linear { least, most } => {
                let step = [1000.0, 500.0, 200.0, 100.0, 50.0, 20.0, 10.0, 5.0, 2.0, 1.0, 0.5, 0.2, 0.1]
                    .into_iter()
                    .rfind(|step| (most - least) / step < 7.0);
                let step = step.unwrap_or(1000.0);
                let (first, last) = ((least / step).ceil() as i64, (most / step).floor() as i64);
                let text = |mark: f64| if step < 1.0 { format!("{mark:.1}") } else { format!("{mark:.0}") };
                (first..=last).map(|at| at as f64 * step).map(|mark| (mark, text(mark))).collect()
            }
            Self::Ratio { least, most } => (-6..10)
                .map(|power| 2f64.powi(power))
                .filter(|mark| (*least..=*most).contains(mark))
                .map(|mark| (mark, if mark < 1.0 { format!("{mark}×") } else { format!("{mark:.0}×") }))
                .collect(),
        }
    }
}

const STYLE: &str = "\
text{font:12px system-ui,sans-serif;fill:#1b1f24}.title{font-weight:600;font-size:15px}.faint{fill:#57606a}.small{font-size:11px}\
.column{font-weight:600}.name{text-anchor:end}.mark{text-anchor:middle;font-size:11px;fill:#57606a}.oursname{font-weight:600;fill:#0b5cad}\
.Ours{fill:#2f6fb0}.Tls{fill:#9aa7b8}.Plain{fill:#d3dae3}.Direct{fill:none;stroke:#8a94a3}.grid{stroke:#e3e7ec}.one{stroke:#b3261e}\
.whisker{stroke:#1b1f24;stroke-width:1.3}.ground{fill:#fff}\
@media (prefers-color-scheme:dark){text{fill:#e8eaee}.faint,.mark{fill:#a3abb8}.oursname{fill:#7db8f5}.Ours{fill:#4a8fd6}.Tls{fill:#6b7686}\
.Plain{fill:#3d4553}.Direct{stroke:#8a94a3}.grid{stroke:#2b313c}.one{stroke:#ff8a80}.whisker{stroke:#e8eaee}.ground{fill:#13161b}}";

fn draw(table: &Table, question: &str, page: &Page) -> String {
    let one = page.reference;
    let (scale, is_share) = (table.scale(), table.is_share());
    let mut body = String::new();
    let mut y = MARGIN + 14.0;
    text(&mut body, (MARGIN, y), "title", question);
    y += 20.0;
    let (_, what) = table.title.rsplit_once(": ").unwrap_or(("", &table.title));
    let better = if table.more_is_better() { "more is better" } else { "less is better" };
    // The other numbers of a cell have their units beside them.
    let first = if table.more_is_better() { what.split(", ").next().unwrap_or(what) } else { what };
    text(&mut body, (MARGIN, y), "faint", &format!("{first}; {better}; the best first"));
    y += 10.0;
    for (column, name) in table.columns.iter().enumerate() {
        y = panel(&mut body, table, (column, name), &scale, y);
    }
    y = legend(&mut body, (table, page.others), y + 16.0);
    let reference = match scale {
        Scale::Ratio { .. } => format!("The red line is {one}: 1. The scale is logarithmic."),
        Scale::Linear { .. } if is_share => format!("The red line is {one}: 1.00."),
        Scale::Linear { .. } if table.is_difference() => format!("The red line is {one}."),
        Scale::Linear { .. } => String::new(),
    };
    if !reference.is_empty() {
        y += 18.0;
        text(&mut body, (MARGIN, y), "faint small", &reference);
    }
    let height = y + MARGIN;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" width=\"{WIDTH}\" height=\"{height:.0}\">\n\
         <style>{STYLE}</style>\n<rect class=\"ground\" width=\"100%\" height=\"100%\"/>\n{body}</svg>\n"
    )
}

fn panel(body: &mut String, table: &Table, (column, name): (usize, &str), scale: &Scale, top: f64) -> f64 {
    let rows = table.ranked(column);
    let mut y = top + 22.0;
    text(body, (MARGIN, y), "column", name);
    y += 8.0;
    let end = y + STEP * rows.len() as f64;
    for (mark, label) in scale.marks(table.is_share()) {
        let reference = if table.is_difference() { Some(0.0) } else { table.more_is_better().then_some(1.0) };
        let class = if reference == Some(mark) { "one" } else { "grid" };
        line(body, class, (scale.at(mark), y), (scale.at(mark), end));
        text(body, (scale.at(mark), y - 4.0), "mark", &label);
    }
    for (row, cell) in rows {
        let middle = y + STEP / 2.0;
        let class = if row.kind == Kind::Ours { "name oursname" } else { "name" };
        text(body, (NAMES - 10.0, middle + 4.0), class, &row.name);
        let (from, to) = (scale.at(scale.origin()), scale.at(cell.middle));
        let _ = writeln!(
            body,
            "<rect class=\"{}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{BAR}\"/>",
            row.kind.class(),
            from.min(to),
            middle - BAR / 2.0,
            (from - to).abs().max(1.0)
        );
        if let Some((least, most)) = cell.range {
            let (least, most) = (scale.at(least), scale.at(most));
            line(body, "whisker", (least, middle), (most, middle));
            for end in [least, most] {
                line(body, "whisker", (end, middle - 4.0), (end, middle + 4.0));
            }
        }
        text(
            body,
            (NUMBERS + 6.0, middle + 4.0),
            class.strip_prefix("name").unwrap_or_default().trim(),
            &cell.shown,
        );
        text(body, (NUMBERS + 56.0, middle + 4.0), "faint", &cell.beside);
        y += STEP;
    }
    y
}

/// What the colours are, of those that are in the picture.
fn legend(body: &mut String, (table, others): (&Table, &str), y: f64) -> f64 {
    let mut x = MARGIN;
    for (kind, what) in [
        (Kind::Ours, "pgentra"),
        (Kind::Tls, others),
        (Kind::Plain, "proxy without TLS"),
        (Kind::Direct, "no proxy"),
    ] {
        if !table.rows.iter().any(|row| row.kind == kind) {
            continue;
        }
        let _ = writeln!(
            body,
            "<rect class=\"{}\" x=\"{x:.1}\" y=\"{:.1}\" width=\"14\" height=\"{BAR}\"/>",
            kind.class(),
            y - 10.0
        );
        text(body, (x + 20.0, y), "faint small", what);
        x += 44.0 + 6.2 * what.len() as f64;
    }
    if table.rows.iter().flat_map(|row| row.cells.iter().flatten()).all(|cell| cell.range.is_none()) {
        return y;
    }
    let middle = y - 4.0;
    line(body, "whisker", (x, middle), (x + 18.0, middle));
    for end in [x, x + 18.0] {
        line(body, "whisker", (end, middle - 4.0), (end, middle + 4.0));
    }
    text(body, (x + 24.0, y), "faint small", "lowest to highest round; bar: median");
    y
}

impl Kind {
    fn class(self) -> &'static str {
        match self {
            Self::Ours => "Ours",
            Self::Tls => "Tls",
            Self::Plain => "Plain",
            Self::Direct => "Direct",
        }
    }
}

fn text(body: &mut String, (x, y): (f64, f64), class: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('`', "");
    let _ = writeln!(body, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>");
}

fn line(body: &mut String, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    let _ = writeln!(
        body,
        "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> (f64, Option<(f64, f64)>, String) {
        let cell = cell(text).unwrap().unwrap();
        (cell.middle, cell.range, cell.beside)
    }

    #[test]
    fn a_cell_is_read_as_the_benchmark_writes_it() {
        assert_eq!(
            one("**0.84** (0.77–0.88), 11,443 TPS, 29.7 µs"),
            (0.84, Some((0.77, 0.88)), "11,443 TPS, 29.7 µs".to_owned())
        );
        assert_eq!(one("1.00, 13,360 TPS"), (1.0, None, "13,360 TPS".to_owned()));
        assert_eq!(one("-5.00 (-12.0–-5.00), 59.0 µs in all").1, Some((-12.0, -5.0)));
        assert_eq!((one("**12.1**"), cell("").unwrap()), ((12.1, None, String::new()), None));
        assert_eq!(one("5,155").0, 5155.0);
        assert!(cell("soon").is_err());
    }

    #[test]
    fn a_table_of_the_gateway_becomes_a_picture() {
        let page = "### Logins over TLS: times as fast as PostgreSQL's own\n\n| way | with the client | four |\n|---|---|---|\n\
                    | PostgreSQL itself, SCRAM | TLS | 1.00, 300 a second |\n| **the gateway** | TLS | **1.50** (1.40–1.60), 450 a second |\n";
        let tables = tables(page).unwrap();
        let [table] = &tables[..] else { panic!("{} tables", tables.len()) };
        assert!(table.is_ratio() && table.rows[0].kind == Kind::Direct && table.rows[1].kind == Kind::Ours);
        assert_eq!(table.ranked(0)[0].0.name, "the gateway");
        assert!(draw(table, "How fast?", &PAGES[1]).contains("The red line is PostgreSQL itself: 1."));
    }

    /// 1.00 is at one place, and the best row is the first.
    #[test]
    fn the_pictures_can_be_compared() {
        let root = crate::tree::root().unwrap();
        let page = fs::read_to_string(root.join("docs/bench-proxy.md")).unwrap();
        let tables = tables(&page).unwrap();
        assert_eq!(tables.len(), PROXY.len());
        let shares: Vec<f64> =
            tables.iter().filter(|table| table.is_share()).map(|table| table.scale().at(1.0)).collect();
        assert!(
            shares.len() == 3 && shares.iter().all(|place| (place - shares[0]).abs() < 0.01),
            "{shares:?}"
        );
        for table in &tables {
            for column in 0..table.columns.len() {
                let middles: Vec<f64> = table.ranked(column).iter().map(|(_, cell)| cell.middle).collect();
                assert!(!middles.is_empty());
                assert!(
                    middles
                        .windows(2)
                        .all(|pair| (pair[0] >= pair[1]) == table.more_is_better() || pair[0] == pair[1])
                );
            }
            let scale = table.scale();
            for end in table.rows.iter().flat_map(|row| row.cells.iter().flatten()).flat_map(Cell::ends) {
                assert!((NAMES - 0.1..=NUMBERS).contains(&scale.at(end)), "{}: {end}", table.title);
            }
        }
    }

    #[test]
    fn the_pictures_are_those_of_the_tables_and_the_page_shows_each() {
        let root = crate::tree::root().unwrap();
        let page = |name: &str| fs::read_to_string(root.join(format!("docs/{name}.md"))).unwrap();
        let pages = PAGES.map(|it| page(it.name)).concat();
        for (name, picture) in drawn(&root).unwrap() {
            let there = fs::read_to_string(root.join("docs").join(&name)).unwrap_or_default();
            assert!(there == picture, "{name} is old: run `cargo xtask bench-pictures`");
            assert!(pages.contains(&format!("]({name})")), "no page shows {name}");
        }
    }
}

//! Results: rows of ways, columns of measurements, the median of the rounds in each cell.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::ways::Kind;

/// A table of one section.
pub struct Table {
    pub title: String,
    pub columns: Vec<String>,
    cells: BTreeMap<(Kind, usize), Vec<Sample>>,
}

/// Result of one round.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// The figure that is compared.
    pub value: f64,
    /// Other numbers, each with the text around it.
    pub beside: Vec<(f64, &'static str)>,
}

/// The middle of the rounds.
#[derive(Clone, Debug)]
pub struct Middle {
    pub value: f64,
    pub least: f64,
    pub most: f64,
    pub beside: Vec<(f64, &'static str)>,
}

impl Table {
    pub fn new(title: &str, columns: Vec<String>) -> Self {
        Self { title: title.to_owned(), columns, cells: BTreeMap::new() }
    }

    pub fn push(&mut self, kind: Kind, column: usize, sample: Sample) {
        self.cells.entry((kind, column)).or_default().push(sample);
    }

    /// The kinds of ways that have a result.
    pub fn kinds(&self) -> Vec<Kind> {
        let mut kinds: Vec<Kind> = self.cells.keys().map(|(kind, _)| *kind).collect();
        kinds.dedup();
        kinds
    }

    pub fn middle(&self, kind: Kind, column: usize) -> Option<Middle> {
        let samples = self.cells.get(&(kind, column))?;
        let values: Vec<f64> = samples.iter().map(|sample| sample.value).collect();
        let first = samples.first()?;
        let beside = first.beside.iter().enumerate().map(|(nth, (_, unit))| {
            let all = samples.iter().filter_map(|sample| sample.beside.get(nth));
            (median(all.map(|(value, _)| *value).collect()), *unit)
        });
        let fold = |pick: fn(f64, f64) -> f64| values.iter().copied().reduce(pick).unwrap_or_default();
        Some(Middle {
            least: fold(f64::min),
            most: fold(f64::max),
            beside: beside.collect(),
            value: median(values),
        })
    }

    pub fn markdown(&self) -> String {
        let mut out = format!("### {}\n\n| way | with the server |", self.title);
        self.columns.iter().for_each(|column| {
            let _ = write!(out, " {column} |");
        });
        out.push_str("\n|---|---|");
        out.push_str(&"---|".repeat(self.columns.len()));
        for kind in self.kinds() {
            let bold = if kind.is_ours() { "**" } else { "" };
            let _ = write!(out, "\n| {bold}{}{bold} | {} |", kind.name(), kind.shape());
            for column in 0..self.columns.len() {
                let Some(middle) = self.middle(kind, column) else {
                    out.push_str(" |");
                    continue;
                };
                let _ = write!(out, " {bold}{}{bold}", number(middle.value));
                if (middle.most - middle.least).abs() > f64::EPSILON {
                    let _ = write!(out, " ({}–{})", number(middle.least), number(middle.most));
                }
                for (value, unit) in middle.beside {
                    let _ = write!(out, ", {} {unit}", number(value));
                }
                out.push_str(" |");
            }
        }
        out.push('\n');
        out
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Formats with three significant digits.
pub fn number(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude >= 1000.0 {
        let digits = format!("{value:.0}");
        let (front, back) = digits.split_at(digits.len() - 3);
        format!("{front},{back}")
    } else if magnitude >= 100.0 {
        format!("{value:.0}")
    } else if magnitude >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

//! The results: one line per promise, one column per way of passing packets on, medians over the rounds.

use std::fmt::Write as _;

/// What passes packets on, in the order of the columns.
pub(crate) const COLUMNS: [&str; 4] = ["relay", "bare", "bare+GSO", "tokio"];

/// What the relay must reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
    /// For comparison only.
    None,
}

/// One line.
struct Line {
    what: String,
    target: Target,
    digits: usize,
    /// Each round's figures.
    cells: [Vec<f64>; COLUMNS.len()],
    /// A second figure of each round, shown in parentheses.
    beside: [Vec<f64>; COLUMNS.len()],
}

/// All lines, in the order in which they were first named.
#[derive(Default)]
pub(crate) struct Table(Vec<Line>);

impl Table {
    /// Notes one round's figure; `digits` are shown behind the point.
    pub(crate) fn add(&mut self, what: &str, target: Target, digits: usize, column: usize, figure: f64) {
        self.line(what, target, digits).cells[column].push(figure);
    }

    /// Notes one round's figure, and another to be shown in parentheses.
    pub(crate) fn add_pair(&mut self, what: &str, target: Target, digits: usize, column: usize, pair: (f64, f64)) {
        let line = self.line(what, target, digits);
        line.cells[column].push(pair.0);
        line.beside[column].push(pair.1);
    }

    /// The median of what was noted so far.
    pub(crate) fn median(&self, what: &str, column: usize) -> Option<f64> {
        median(&self.0.iter().find(|line| line.what == what)?.cells[column])
    }

    /// The median of what was noted beside it.
    pub(crate) fn median_beside(&self, what: &str, column: usize) -> Option<f64> {
        median(&self.0.iter().find(|line| line.what == what)?.beside[column])
    }

    /// How many targets there are, and how many of them are met.
    pub(crate) fn score(&self) -> (usize, usize) {
        let verdicts: Vec<bool> = self.0.iter().filter_map(Line::is_met).collect();
        (verdicts.len(), verdicts.iter().filter(|met| **met).count())
    }

    /// As Markdown, in columns of equal width.
    pub(crate) fn text(&self) -> String {
        let mut rows = vec![header()];
        rows.extend(self.0.iter().map(Line::cells));
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
        let mut text = String::new();
        for (nth, row) in rows.iter().enumerate() {
            for (cell, width) in row.iter().zip(&widths) {
                let _ = write!(text, "| {cell:width$} ");
            }
            text.push_str("|\n");
            if nth == 0 {
                text.push_str(&widths.iter().map(|width| format!("|{}", "-".repeat(width + 2))).collect::<String>());
                text.push_str("|\n");
            }
        }
        text
    }

    fn line(&mut self, what: &str, target: Target, digits: usize) -> &mut Line {
        let at = self.0.iter().position(|line| line.what == what).unwrap_or_else(|| {
            let (cells, beside) = Default::default();
            self.0.push(Line { what: what.to_owned(), target, digits, cells, beside });
            self.0.len() - 1
        });
        &mut self.0[at]
    }
}

impl Line {
    fn cells(&self) -> Vec<String> {
        let mut row = vec![self.what.clone()];
        row.extend((0..COLUMNS.len()).map(|column| self.cell(column)));
        row.extend((1..COLUMNS.len()).map(|column| self.ratio(column)));
        row.push(match self.target {
            Target::AtLeast(figure) => format!("≥ {figure}"),
            Target::AtMost(figure) => format!("≤ {figure}"),
            Target::None => String::new(),
        });
        row.push(self.is_met().map_or("", |met| if met { "met" } else { "MISSED" }).to_owned());
        row
    }

    fn cell(&self, column: usize) -> String {
        let Some(figure) = median(&self.cells[column]) else { return String::new() };
        let digits = self.digits;
        let beside = median(&self.beside[column]).map(|beside| format!(" ({beside:.digits$})")).unwrap_or_default();
        format!("{figure:.digits$}{beside}")
    }

    /// The median of the rounds' ratios: what slowed a round down slowed both sides of it.
    fn ratio(&self, column: usize) -> String {
        let pairs = self.cells[0].iter().zip(&self.cells[column]);
        let ratios: Vec<f64> = pairs.filter(|(_, other)| **other > 0.0).map(|(relay, other)| relay / other).collect();
        median(&ratios).map(|ratio| format!("{ratio:.2}")).unwrap_or_default()
    }

    fn is_met(&self) -> Option<bool> {
        let figure = median(&self.cells[0])?;
        match self.target {
            Target::AtLeast(wanted) => Some(figure >= wanted),
            Target::AtMost(wanted) => Some(figure <= wanted),
            Target::None => None,
        }
    }
}

fn header() -> Vec<String> {
    let mut row = vec![String::new()];
    row.extend(COLUMNS.iter().map(ToString::to_string));
    row.extend(COLUMNS[1..].iter().map(|name| format!("relay/{name}")));
    row.extend(["target".to_owned(), String::new()]);
    row
}

fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        len if len % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}
